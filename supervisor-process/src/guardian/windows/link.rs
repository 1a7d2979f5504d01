//! Windows: the connection to a guardian over a named pipe: requests out, answers and events in, and noticing that
//! nobody answers any more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::windows::named_pipe::NamedPipeClient;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::super::protocol::{Reply, Request, RequestId};
use super::super::wire::{FRAME_MAX, Incoming};
use super::asking::{Asked, Handle, Lost, locked};
use crate::capture::DropWatch;
use crate::os::guardian::Peer;

/// Silence after which the guardian is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(2);
/// How long it may take to say so before it counts as dead and is killed.
const ANSWER: Duration = Duration::from_secs(13);
/// Bytes that may wait to be sent; a request beyond it is refused, for the guardian reads nothing.
const OUTGOING_MAX: usize = 16 * 1024 * 1024;
/// Bytes read at a time.
const READ_MAX: usize = 64 * 1024;
/// How long what waits to be sent may take when the connection is let go.
const FLUSH: Duration = Duration::from_secs(1);

/// What its task takes over from a connection that was greeted.
type Ends = (NamedPipeClient, mpsc::UnboundedReceiver<Vec<u8>>);

/// The connection.
pub(super) struct Link {
    /// Bounded by `waiting`, which counts its bytes.
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    waiting: AtomicUsize,
    ends: Mutex<Option<Ends>>,
    pub(super) asked: Asked,
    pub(super) guardian: Peer,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("guardian", &self.guardian).finish_non_exhaustive()
    }
}

impl Link {
    /// Takes over a connection that was greeted.
    pub(super) fn new(stream: NamedPipeClient, guardian: Peer, drops: DropWatch) -> Arc<Self> {
        let (outgoing, frames) = mpsc::unbounded_channel();
        Arc::new(Self {
            outgoing,
            waiting: AtomicUsize::new(0),
            ends: Mutex::new(Some((stream, frames))),
            asked: Asked::new(drops),
            guardian,
        })
    }

    /// Tells whether something that was asked is not sent yet.
    pub(super) fn waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    pub(super) fn send(&self, frame: Vec<u8>) -> Result<(), Lost> {
        let length = frame.len();
        if self.asked.lost.is_cancelled() {
            return Err(Lost);
        }
        if self.waiting.fetch_add(length, Ordering::AcqRel) + length > OUTGOING_MAX {
            self.waiting.fetch_sub(length, Ordering::AcqRel);
            return Err(Lost);
        }
        self.outgoing.send(frame).map_err(|_| Lost)
    }

    /// Reads, sends and watches until the connection ends or `close` asks for its end.
    pub(super) async fn run(self: Arc<Self>, close: CancellationToken) {
        let Some((stream, frames)) = locked(&self.ends).take() else { return };
        let _hang_up = HangUp(Arc::clone(&self));
        let (reads, writes) = tokio::io::split(stream);
        tokio::select! {
            () = self.asked.lost.cancelled() => {}
            () = self.read(reads) => {}
            () = self.write(writes, frames, close) => {}
        }
    }

    /// Sends what there is until `close`, and then what is left.
    async fn write(
        &self,
        mut to: WriteHalf<NamedPipeClient>,
        mut frames: mpsc::UnboundedReceiver<Vec<u8>>,
        close: CancellationToken,
    ) {
        let mut until = None;
        loop {
            let frame = tokio::select! {
                biased;
                frame = frames.recv() => frame,
                () = close.cancelled() => None,
            };
            let Some(frame) = frame else { return };
            if close.is_cancelled() {
                until.get_or_insert_with(|| Instant::now() + FLUSH);
            }
            let sent = match until {
                Some(until) => timeout_at(until, to.write_all(&frame)).await.unwrap_or(Ok(())),
                None => to.write_all(&frame).await,
            };
            self.waiting.fetch_sub(frame.len(), Ordering::AcqRel);
            if sent.is_err() || until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
        }
    }

    /// Reads and deals with every frame until the end of the connection or of patience.
    async fn read(self: &Arc<Self>, mut from: ReadHalf<NamedPipeClient>) {
        let mut incoming = Incoming::default();
        let mut buffer = vec![0; READ_MAX];
        let mut with = Vec::new();
        let mut asked = false;
        loop {
            let patience = if asked { ANSWER } else { SILENCE };
            match timeout(patience, from.read(&mut buffer)).await {
                Ok(Ok(read)) if read > 0 => {
                    asked = false;
                    incoming.push(&buffer[..read]);
                    if !self.take_all(&mut incoming, &mut with) {
                        return;
                    }
                }
                Ok(_) => return,
                Err(_) if !asked => {
                    // Its answer is a sign of life, whatever it says.
                    _ = self.ask_with(&Request::Ping, Box::new(|_, _| {}));
                    asked = true;
                }
                Err(_) => {
                    self.give_up("does not answer");
                    return;
                }
            }
        }
    }

    fn give_up(&self, why: &str) {
        tracing::error!(pid = self.guardian.pid, "the guardian {why}; it is killed");
        if let Err(error) = self.guardian.kill() {
            tracing::error!(%error, "the guardian cannot be killed");
        }
    }

    /// Deals with every frame that is whole; tells whether the connection goes on.
    fn take_all(self: &Arc<Self>, incoming: &mut Incoming, with: &mut Vec<Handle>) -> bool {
        loop {
            let reply = match incoming.next(FRAME_MAX) {
                Ok(Some(body)) => Reply::decode(body),
                Ok(None) => return true,
                Err(malformed) => Err(malformed),
            };
            match reply {
                Ok((id, reply)) => self.take(id, reply, with),
                Err(malformed) => {
                    tracing::error!(%malformed, "the guardian is not understood");
                    self.give_up("is not understood");
                    return false;
                }
            }
        }
    }

    fn take(self: &Arc<Self>, id: RequestId, reply: Reply, with: &mut Vec<Handle>) {
        // Handles belong to the reply that follows.
        if let Reply::Handles(offered) = reply {
            with.clear();
            with.extend(offered.into_iter().map_while(|it| self.guardian.take(it).ok()));
        } else {
            self.heard(id, reply, |_| std::mem::take(with));
        }
    }

    /// Ends the connection; whoever waits for an answer learns that none comes.
    pub(super) fn hang_up(&self) {
        self.asked.end();
    }

    /// Waits until the guardian has ended, for at most `limit`; tells whether it has.
    pub(super) async fn ended(&self, limit: Duration) -> bool {
        let Ok(end) = self.guardian.end() else { return self.guardian.has_ended() };
        timeout(limit, end.wait()).await.is_ok()
    }
}

/// Ends the connection on whatever path its task ends, also when the runtime is dropped.
struct HangUp(Arc<Link>);

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}
