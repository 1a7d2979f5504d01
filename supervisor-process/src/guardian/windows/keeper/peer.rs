//! One connection: a task that reads frames, a task that writes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::windows::named_pipe::NamedPipeServer;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::protocol::{GREETING_MAX, Reply, RequestId};
use super::super::wire::{FRAME_MAX, Incoming};
use super::Event;
use crate::os::guardian as os;

/// Names one connection within one guardian.
pub(super) type PeerId = u64;

/// How long somebody who connected may take to greet.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// Bytes that may wait for a host that does not read; beyond it the host counts as gone.
const OUTGOING_MAX: usize = 16 * 1024 * 1024;
/// Bytes read at a time.
const READ_MAX: usize = 64 * 1024;

/// One connection. What was said to it is still sent when this is dropped.
#[derive(Debug)]
pub(super) struct Peer {
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    over: CancellationToken,
    reading: AbortHandle,
    /// Who it is, held so that its number stays its own.
    pub(super) process: os::Peer,
    pub(super) greeted: bool,
}

impl Peer {
    pub(super) fn new(
        id: PeerId,
        pipe: NamedPipeServer,
        process: os::Peer,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (reads, writes) = tokio::io::split(pipe);
        let (outgoing, frames) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        // Both end with the pipe; the writer also once nobody can say anything more.
        drop(tokio::spawn(write(writes, frames, Arc::clone(&waiting))));
        let over = CancellationToken::new();
        let given_up = over.clone();
        let reading = tokio::spawn(async move {
            let why = tokio::select! {
                read = read(id, reads, &events) => read.err(),
                () = given_up.cancelled() => Some("it does not read"),
            };
            // The guardian is over: nobody is left to tell.
            drop(events.send(Event::Gone(id, why.map(str::to_owned))).await);
        });
        let reading = reading.abort_handle();
        Self { outgoing, waiting, over, reading, process, greeted: false }
    }

    /// Says something; to a host that does not read nothing more is said, and it is disconnected.
    pub(super) fn say(&self, reply: &Reply, to: RequestId) {
        if let Some(frame) = reply.encode(to) {
            self.queue(frame);
        }
    }

    pub(super) fn queue(&self, frame: Vec<u8>) {
        let length = frame.len();
        if self.waiting.fetch_add(length, Ordering::AcqRel) + length > OUTGOING_MAX {
            return self.over.cancel();
        }
        // The writer is over: so is the pipe, which the reader tells.
        drop(self.outgoing.send(frame));
    }

    /// Tells whether the connection was given up.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled() || self.reading.is_finished() || self.process.has_ended()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn write(
    mut to: WriteHalf<NamedPipeServer>,
    mut frames: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
) {
    while let Some(frame) = frames.recv().await {
        if to.write_all(&frame).await.is_err() {
            return;
        }
        waiting.fetch_sub(frame.len(), Ordering::AcqRel);
    }
}

/// Passes frames on until the end of the pipe.
async fn read(
    id: PeerId,
    mut from: ReadHalf<NamedPipeServer>,
    events: &mpsc::Sender<Event>,
) -> Result<(), &'static str> {
    let mut incoming = Incoming::default();
    let mut buffer = vec![0; READ_MAX];
    let mut longest = GREETING_MAX;
    loop {
        while let Some(body) = incoming.next(longest).map_err(|malformed| malformed.0)? {
            let frame = Event::Frame(id, body.to_vec());
            longest = FRAME_MAX;
            if events.send(frame).await.is_err() {
                return Ok(());
            }
        }
        let read = if longest == GREETING_MAX {
            let read = timeout(GREETING_LIMIT, from.read(&mut buffer)).await;
            read.map_err(|_| "nobody greeted")?
        } else {
            from.read(&mut buffer).await
        };
        match read {
            Ok(read) if read > 0 => incoming.push(&buffer[..read]),
            // Its end, however it came.
            _ => return Ok(()),
        }
    }
}
