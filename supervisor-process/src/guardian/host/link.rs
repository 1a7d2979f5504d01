//! The connection to a guardian: requests out, answers and events in, and noticing that nobody answers any more.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use supervisor_core::{ProcessIdentity, Signal};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::protocol::{Reply, Request, RequestId};
use super::super::wire::{FRAME_MAX, Incoming};
use super::asking::{Asked, Handle, Lost, locked};
use crate::capture::DropWatch;
use crate::os::guardian as os;
use crate::os::{self as system, Pinned};

/// Silence after which the guardian is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(2);
/// How long it may take to say so before it is told to go on, should somebody have stopped it.
const ANSWER: Duration = Duration::from_secs(3);
/// How long it may take then before it counts as dead and is killed.
const LAST_CHANCE: Duration = Duration::from_secs(10);
/// Bytes that may wait to be sent; a request beyond it is refused, for the guardian reads nothing.
const OUTGOING_MAX: usize = 16 * 1024 * 1024;
/// How long what was asked last may take to be sent when the connection is let go.
const FLUSH: Duration = Duration::from_secs(1);
/// Bytes read at a time.
const READ_MAX: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Outgoing {
    frames: VecDeque<Vec<u8>>,
    sent: usize,
    bytes: usize,
}

/// The connection.
pub(super) struct Link {
    stream: UnixStream,
    outgoing: Mutex<Outgoing>,
    waits_to_send: Notify,
    pub(super) asked: Asked,
    pub(super) guardian: Guardian,
}

/// Who is at the other end.
#[derive(Debug)]
pub(super) struct Guardian {
    pub(super) pid: u32,
    pub(super) start_time: u64,
    process: Pinned,
}

impl Guardian {
    /// Pins the process at the other end.
    pub(super) fn pin(pid: u32, start_time: u64) -> io::Result<Self> {
        let boot_id = system::boot_id().to_owned();
        let process = Pinned::new(&ProcessIdentity { boot_id, pid, start_time });
        let process = process.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid, start_time, process })
    }

    fn signal(&self, signal: Signal) {
        // Gone is what a kill wants, and what makes waking pointless.
        drop(self.process.signal(signal));
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("guardian", &self.guardian).finish_non_exhaustive()
    }
}

impl Link {
    /// Takes over a connection that was greeted.
    pub(super) fn new(stream: UnixStream, guardian: Guardian, drops: DropWatch) -> Arc<Self> {
        Arc::new(Self {
            stream,
            outgoing: Mutex::default(),
            waits_to_send: Notify::new(),
            asked: Asked::new(drops),
            guardian,
        })
    }

    /// Sends at once what there is room for; the rest follows when there is room again.
    pub(super) fn send(&self, frame: Vec<u8>) -> Result<(), Lost> {
        if self.asked.lost.is_cancelled() {
            return Err(Lost);
        }
        let mut outgoing = locked(&self.outgoing);
        if outgoing.bytes + frame.len() > OUTGOING_MAX {
            return Err(Lost);
        }
        outgoing.bytes += frame.len();
        outgoing.frames.push_back(frame);
        if !self.flush(&mut outgoing) {
            self.waits_to_send.notify_one();
        }
        Ok(())
    }

    /// Sends what there is room for; tells whether that was everything.
    fn flush(&self, outgoing: &mut Outgoing) -> bool {
        while let Some(frame) = outgoing.frames.front() {
            let rest = &frame[outgoing.sent..];
            match self.stream.try_io(Interest::WRITABLE, || os::send(&self.stream, rest, &[])) {
                Ok(sent) => {
                    outgoing.sent += sent;
                    outgoing.bytes -= sent;
                    if outgoing.sent == frame.len() {
                        outgoing.frames.pop_front();
                        outgoing.sent = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody will read it. What was said before is still read, and then its end is noticed.
                Err(_) => {
                    *outgoing = Outgoing::default();
                    return true;
                }
            }
        }
        true
    }

    /// Reads, sends and watches until the connection ends or `close` asks for its end.
    pub(super) async fn run(self: Arc<Self>, close: CancellationToken) {
        let _hang_up = HangUp(Arc::clone(&self));
        let mut incoming = Incoming::default();
        let mut with = Vec::new();
        let mut patience = Patience::new();
        loop {
            tokio::select! {
                biased;
                () = close.cancelled() => {
                    // Beyond it the guardian reads nothing, and its own rule for a lost host has to do.
                    drop(tokio::time::timeout(FLUSH, self.sent()).await);
                    return;
                }
                ready = self.stream.readable() => {
                    if ready.is_err() || !self.read(&mut incoming, &mut with) {
                        return;
                    }
                    patience = Patience::new();
                }
                () = self.room_to_send() => {}
                () = tokio::time::sleep_until(patience.until) => patience.over(&self),
            }
        }
    }

    /// Waits until everything that was asked is sent.
    async fn sent(&self) {
        while self.waits() && self.stream.writable().await.is_ok() {
            self.flush(&mut locked(&self.outgoing));
        }
    }

    /// Tells whether something that was asked is not sent yet.
    pub(super) fn waits(&self) -> bool {
        !locked(&self.outgoing).frames.is_empty()
    }

    async fn room_to_send(&self) {
        if !self.waits() {
            self.waits_to_send.notified().await;
        }
        if self.stream.writable().await.is_ok() {
            self.flush(&mut locked(&self.outgoing));
        }
    }

    /// Reads once and deals with every frame that is whole; tells whether the connection goes on.
    fn read(self: &Arc<Self>, incoming: &mut Incoming, with: &mut Vec<Handle>) -> bool {
        let mut buffer = vec![0; READ_MAX];
        let read =
            self.stream.try_io(Interest::READABLE, || os::receive(&self.stream, &mut buffer, with));
        match read {
            Ok(0) => return false,
            Ok(read) => incoming.push(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => return false,
        }
        loop {
            let reply = match incoming.next(FRAME_MAX) {
                Ok(Some(body)) => Reply::decode(body),
                Ok(None) => return true,
                Err(malformed) => Err(malformed),
            };
            match reply {
                Ok((id, reply)) => self.take(id, reply, with),
                Err(malformed) => {
                    tracing::error!(%malformed, "the guardian is not understood; it is given up");
                    self.guardian.signal(Signal::Kill);
                    return false;
                }
            }
        }
    }

    fn take(self: &Arc<Self>, id: RequestId, reply: Reply, with: &mut Vec<Handle>) {
        self.heard(id, reply, |reply| match reply {
            Reply::Started { channel: true, .. } => with.drain(..with.len().min(2)).collect(),
            _ => Vec::new(),
        });
    }

    /// Ends the connection; whoever waits for an answer learns that none comes.
    pub(super) fn hang_up(&self) {
        // Closed already is what is wanted.
        _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Both);
        self.asked.end();
    }

    /// Waits until the guardian has ended and reaps it, for at most `limit`; tells whether it has.
    pub(super) async fn ended(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_micros(500);
        loop {
            if self.guardian.process.reap() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            // poll: only for the moment between the end of the connection and that of the process.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// Ends the connection on whatever path its task ends, also when the runtime is dropped.
struct HangUp(Arc<Link>);

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

/// How long silence lasts, and what is done about it.
struct Patience {
    until: Instant,
    step: u8,
}

impl Patience {
    fn new() -> Self {
        Self { until: Instant::now() + SILENCE, step: 0 }
    }

    fn over(&mut self, link: &Arc<Link>) {
        let wait = match self.step {
            0 => {
                // Its answer is a sign of life, whatever it says.
                _ = link.ask_with(&Request::Ping, Box::new(|_, _| {}));
                ANSWER
            }
            1 => {
                tracing::warn!(
                    pid = link.guardian.pid,
                    "the guardian does not answer; it is told to go on"
                );
                link.guardian.signal(Signal::Cont);
                LAST_CHANCE
            }
            _ => {
                tracing::error!(
                    pid = link.guardian.pid,
                    "the guardian does not answer; it is killed"
                );
                link.guardian.signal(Signal::Kill);
                LAST_CHANCE
            }
        };
        self.step = self.step.saturating_add(1);
        self.until = Instant::now() + wait;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn linked() -> (Arc<Link>, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let own = system::identity_of(std::process::id()).unwrap();
        let guardian = Guardian::pin(own.pid, own.start_time).unwrap();
        let watch = DropWatch::default();
        (Link::new(UnixStream::from_std(ours).unwrap(), guardian, watch), theirs)
    }

    /// Asks for more than the socket takes, and gives how often.
    fn ask_too_much(link: &Link) -> u32 {
        let mut asked: u32 = 0;
        while !link.waits() || !asked.is_multiple_of(1000) {
            link.tell(&Request::Forget { set: asked });
            asked += 1;
        }
        asked
    }

    #[tokio::test]
    async fn what_was_asked_last_is_sent_before_the_connection_is_let_go() {
        let (link, mut theirs) = linked();
        let asked = ask_too_much(&link);
        let close = CancellationToken::new();
        close.cancel();
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            theirs.read_to_end(&mut bytes).unwrap();
            bytes
        });
        Arc::clone(&link).run(close).await;
        assert!(link.asked.lost.is_cancelled());
        let mut incoming = Incoming::default();
        incoming.push(&reading.await.unwrap());
        let mut heard = Vec::new();
        while let Some(body) = incoming.next(FRAME_MAX).unwrap() {
            heard.push(Request::decode(body).unwrap().1);
        }
        assert_eq!(heard.len(), asked as usize);
        assert_eq!(heard.last(), Some(&Request::Forget { set: asked - 1 }));
    }

    #[tokio::test]
    async fn a_guardian_that_reads_nothing_is_let_go_all_the_same() {
        let (link, theirs) = linked();
        ask_too_much(&link);
        let close = CancellationToken::new();
        close.cancel();
        let began = Instant::now();
        Arc::clone(&link).run(close).await;
        assert!(link.asked.lost.is_cancelled() && began.elapsed() >= FLUSH);
        drop(theirs);
    }
}
