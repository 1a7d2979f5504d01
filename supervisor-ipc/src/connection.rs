//! One connection's two tasks: one owns reading, one owns writing, so that no half-written frame is ever dropped.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use supervisor_core::config::{FramingKind, RecoveryConfig};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::codec::{FramedRead, FramedWrite};
use tokio_util::task::AbortOnDropHandle;

use crate::framing::Framing;
use crate::transport::Connection;

/// Frames read and not handled yet. At the bound reading waits, and the peer's pipe fills.
const INBOX_MAX: usize = 256;
/// Frames to be written. Larger than `max_in_flight`'s default, so that the owner never waits for the writer.
const OUTBOX_MAX: usize = 1024;
/// Frames written with one flush.
const BATCH_MAX: usize = 128;

/// An open connection. Dropping it ends both tasks and closes it.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) inbox: mpsc::Receiver<Result<Bytes, String>>,
    pub(crate) outbox: mpsc::Sender<Bytes>,
    _reader: AbortOnDropHandle<()>,
    _writer: AbortOnDropHandle<()>,
}

impl Wire {
    pub(crate) fn open(connection: Connection, kind: FramingKind, config: &RecoveryConfig) -> Self {
        let frame_max = usize::try_from(config.max_frame.bytes()).unwrap_or(usize::MAX);
        let junk_max = usize::try_from(config.max_junk.bytes()).unwrap_or(usize::MAX);
        let framing = || Framing::new(kind, frame_max, junk_max);
        let (frames, inbox) = mpsc::channel(INBOX_MAX);
        let (outbox, queue) = mpsc::channel(OUTBOX_MAX);
        let source = FramedRead::new(connection.reader, framing());
        let target = FramedWrite::new(connection.writer, framing());
        let reader: JoinHandle<()> = tokio::spawn(read(source, frames.clone()));
        let writer: JoinHandle<()> =
            tokio::spawn(write(target, queue, frames, config.write_deadline));
        Self {
            inbox,
            outbox,
            _reader: AbortOnDropHandle::new(reader),
            _writer: AbortOnDropHandle::new(writer),
        }
    }
}

type Reader = FramedRead<Box<dyn tokio::io::AsyncRead + Send + Unpin>, Framing>;
type Writer = FramedWrite<Box<dyn tokio::io::AsyncWrite + Send + Unpin>, Framing>;

/// Reads until the end; the last thing handed on is why it ended.
async fn read(mut source: Reader, frames: mpsc::Sender<Result<Bytes, String>>) {
    loop {
        let frame = match source.next().await {
            Some(Ok(frame)) => Ok(frame),
            Some(Err(error)) => Err(format!("reading failed: {error}")),
            None => Err("the peer closed the connection".to_owned()),
        };
        let over = frame.is_err();
        if frames.send(frame).await.is_err() || over {
            return;
        }
    }
}

/// Writes whole batches; a write that takes longer than the deadline is the sign of a peer that hangs.
async fn write(
    mut target: Writer,
    mut queue: mpsc::Receiver<Bytes>,
    frames: mpsc::Sender<Result<Bytes, String>>,
    deadline: Duration,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let written = tokio::time::timeout(deadline, write_batch(&mut target, &mut batch)).await;
        let reason = match written {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => format!("writing failed: {error}"),
            Err(_) => format!("the peer took nothing for {deadline:?}"),
        };
        // The owner may be gone already; then nobody needs to know.
        drop(frames.send(Err(reason)).await);
        return;
    }
}

async fn write_batch(target: &mut Writer, batch: &mut Vec<Bytes>) -> io::Result<()> {
    for frame in batch.drain(..) {
        target.feed(frame).await?;
    }
    target.flush().await
}
