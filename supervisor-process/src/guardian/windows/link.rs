//! Windows: the connection to a guardian over a named pipe: requests out, answers and events in, and noticing that
//! nobody answers any more.

use std::collections::HashMap;
use std::os::windows::io::OwnedHandle;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::windows::named_pipe::NamedPipeClient;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::super::protocol::{Reply, Request, RequestId, SetId};
use super::super::wire::{FRAME_MAX, Incoming};
use super::child::Run;
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

/// The guardian is gone, or reads nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

/// An answer, and the handles that came with it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) with: Vec<OwnedHandle>,
}

/// What is done with an answer before the requester sees it, in the order in which things happened.
type Take = Box<dyn FnOnce(&Arc<Link>, Answer) + Send>;
/// What its task takes over from a connection that was greeted.
type Ends = (NamedPipeClient, mpsc::UnboundedReceiver<Vec<u8>>);

/// The connection.
pub(super) struct Link {
    /// Bounded by `waiting`, which counts its bytes.
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    waiting: AtomicUsize,
    ends: Mutex<Option<Ends>>,
    pending: Mutex<HashMap<RequestId, Take>>,
    runs: Mutex<HashMap<SetId, Weak<Run>>>,
    next: AtomicU32,
    pub(super) guardian: Peer,
    drops: DropWatch,
    /// The connection has ended.
    pub(super) lost: CancellationToken,
    /// What the loss of it left behind was ended too.
    pub(super) cleaned: CancellationToken,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("guardian", &self.guardian).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every statement under these locks leaves the value valid; a panic of another holder changes nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Takes over a connection that was greeted.
    pub(super) fn new(stream: NamedPipeClient, guardian: Peer, drops: DropWatch) -> Arc<Self> {
        let (outgoing, frames) = mpsc::unbounded_channel();
        Arc::new(Self {
            outgoing,
            waiting: AtomicUsize::new(0),
            ends: Mutex::new(Some((stream, frames))),
            pending: Mutex::default(),
            runs: Mutex::default(),
            next: AtomicU32::new(1),
            guardian,
            drops,
            lost: CancellationToken::new(),
            cleaned: CancellationToken::new(),
        })
    }

    pub(super) fn runs(&self) -> MutexGuard<'_, HashMap<SetId, Weak<Run>>> {
        locked(&self.runs)
    }

    /// Gives every run somebody still holds.
    pub(super) fn living_runs(&self) -> Vec<Arc<Run>> {
        self.runs().values().filter_map(Weak::upgrade).collect()
    }

    /// Tells whether something that was asked is not sent yet.
    pub(super) fn waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Sends a request nobody waits for.
    pub(super) fn tell(&self, request: &Request) {
        // Lost: then the guardian's own rule for a lost host, or the end of its jobs with it, does it.
        if let Some(frame) = request.encode(0) {
            _ = self.send(frame);
        }
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn ask(&self, request: &Request) -> Result<Answer, Lost> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may have gone; then nobody needs the answer.
        self.ask_with(request, Box::new(move |_, given| drop(answer.send(given))))?;
        tokio::select! {
            answer = answered => answer.map_err(|_| Lost),
            () = self.lost.cancelled() => Err(Lost),
        }
    }

    /// Sends a request whose answer is taken by `take`, before anything that came after it is looked at.
    pub(super) fn ask_with(&self, request: &Request, take: Take) -> Result<(), Lost> {
        let id = self.next_id();
        let frame = request.encode(id).ok_or(Lost)?;
        locked(&self.pending).insert(id, take);
        let sent = self.send(frame);
        if sent.is_err() || self.lost.is_cancelled() {
            locked(&self.pending).remove(&id);
            return Err(Lost);
        }
        Ok(())
    }

    fn next_id(&self) -> RequestId {
        loop {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            // 0 asks for no answer.
            if id != 0 {
                return id;
            }
        }
    }

    fn send(&self, frame: Vec<u8>) -> Result<(), Lost> {
        let length = frame.len();
        if self.lost.is_cancelled() {
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
            () = self.lost.cancelled() => {}
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
    fn take_all(self: &Arc<Self>, incoming: &mut Incoming, with: &mut Vec<OwnedHandle>) -> bool {
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

    fn take(self: &Arc<Self>, id: RequestId, reply: Reply, with: &mut Vec<OwnedHandle>) {
        match reply {
            Reply::Exited { set, exit } => self.on_run(set, |run| run.exited(exit)),
            Reply::Emptied { set } => self.on_run(set, Run::emptied),
            Reply::Dropping { set, cause } => self.on_run(set, |run| {
                self.drops.tell(&run.key.service, run.key.incarnation, cause);
            }),
            // Belong to the reply that follows.
            Reply::Handles(offered) => {
                with.clear();
                with.extend(offered.into_iter().map_while(|it| self.guardian.take(it).ok()));
            }
            reply => {
                let with = std::mem::take(with);
                let take = locked(&self.pending).remove(&id);
                if let Some(take) = take {
                    take(self, Answer { reply, with });
                }
            }
        }
    }

    fn on_run(&self, set: SetId, then: impl FnOnce(&Run)) {
        let run = self.runs().get(&set).and_then(Weak::upgrade);
        if let Some(run) = run {
            then(&run);
        }
    }

    /// Ends the connection; whoever waits for an answer learns that none comes.
    pub(super) fn hang_up(&self) {
        self.lost.cancel();
        locked(&self.pending).clear();
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
