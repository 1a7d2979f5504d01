//! One connection: frames cut out of what comes, and bytes on their way out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;
use supervisor_core::config::{FramingKind, RecoveryConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::FramedRead;

use crate::framing::Framing;
use crate::transport::Connection;

/// Bytes asked of the system at a time.
const READ_SIZE: usize = 64 * 1024;
/// Bytes on their way out from which on messages wait in their lanes instead. Beyond it there is at most one frame more.
const CROWDED: usize = 64 * 1024;
/// Bytes of answers and signs of life that a peer may leave untaken; at the bound the connection ends.
const UNTAKEN_MAX: usize = 1024 * 1024;

/// An open connection. Dropping it closes it, half-written frames included.
pub(crate) struct Wire {
    reader: FramedRead<Box<dyn AsyncRead + Send + Unpin>, Framing>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    framing: Framing,
    out: BytesMut,
    /// Bytes written since the last look.
    pub(crate) progress: bool,
    /// Why nothing more can be written. What the peer said before is read first.
    pub(crate) broken: Option<String>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("out", &self.out.len()).finish_non_exhaustive()
    }
}

impl Wire {
    pub(crate) fn open(connection: Connection, kind: FramingKind, config: &RecoveryConfig) -> Self {
        let framing = || Framing::of(kind, config);
        Self {
            reader: FramedRead::with_capacity(connection.reader, framing(), READ_SIZE),
            writer: connection.writer,
            framing: framing(),
            out: BytesMut::new(),
            progress: false,
            broken: None,
        }
    }

    pub(crate) fn pending(&self) -> bool {
        !self.out.is_empty()
    }

    pub(crate) fn crowded(&self) -> bool {
        self.out.len() >= CROWDED
    }

    /// Whether the peer leaves more untaken than it may.
    pub(crate) fn untaken(&self, own: usize) -> bool {
        self.out.len() > own.saturating_add(UNTAKEN_MAX)
    }

    /// Puts one frame on its way.
    pub(crate) fn append(
        &mut self,
        body: impl FnOnce(&mut bytes::buf::Writer<&mut BytesMut>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.framing.append(&mut self.out, body)
    }

    pub(crate) fn append_bytes(&mut self, frame: &[u8]) -> io::Result<()> {
        self.append(|body| io::Write::write_all(body, frame))
    }

    /// Gives the next frame, or why there is none any more.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, String>> {
        Poll::Ready(match ready!(Pin::new(&mut self.reader).poll_next(cx)) {
            Some(Ok(frame)) => Ok(frame),
            Some(Err(error)) => {
                let start = dump(self.reader.read_buffer());
                Err(format!("reading failed: {error}{start}"))
            }
            None => Err("the peer closed the connection".to_owned()),
        })
    }

    /// Writes as much as the peer takes now. Ready when nothing is left, or nothing can be written any more.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.broken.is_none() && !self.out.is_empty() {
            match ready!(Pin::new(&mut self.writer).poll_write(cx, &self.out)) {
                Ok(0) => self.broken = Some("the peer takes nothing any more".to_owned()),
                Ok(written) => {
                    self.out.advance(written);
                    self.progress = true;
                }
                Err(error) => self.broken = Some(format!("writing failed: {error}")),
            }
        }
        if self.broken.is_none()
            && let Err(error) = ready!(Pin::new(&mut self.writer).poll_flush(cx))
        {
            self.broken = Some(format!("writing failed: {error}"));
        }
        Poll::Ready(())
    }
}

/// Shows the first bytes of what could not be cut.
fn dump(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in bytes.iter().take(32) {
        // Writing to a string does not fail.
        write!(text, " {byte:02x}").unwrap_or_default();
    }
    if text.is_empty() { text } else { format!("; it begins with{text}") }
}
