//! One direction's bytes that wait to be written, and one side's bytes that wait to be cut.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf as _, Bytes, BytesMut};
use supervisor_core::config::FramingKind;
use supervisor_ipc::relay::Frames;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes asked for in one read; a large message asks for its rest at once.
const READ_MIN: usize = 64 * 1024;
const READ_MAX: usize = 1 << 20;
/// Pieces given to one write.
const SLICES: usize = 16;
/// Bytes shown of what is no message.
const SAID_MAX: usize = 80;
/// Bytes that wait for one side before the other side is read no further (NATS Go's buffer).
pub(super) const WAITING_MAX: usize = 8 << 20;

/// Bytes that a pipe to the server holds: a large message is handed over in few pieces. What an unprivileged process
/// may ask for (Linux, `/proc/sys/fs/pipe-max-size`); the usual 64 KiB make both sides wait for each other 16 times in
/// each megabyte.
#[cfg(target_os = "linux")]
const PIPE_SIZE: usize = 1 << 20;

/// Lets a pipe hold a large message; one that may not stays as it is, and other systems size theirs by themselves.
#[cfg(target_os = "linux")]
pub(super) fn widen(pipe: impl std::os::fd::AsFd) {
    _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_SIZE);
}

#[cfg(not(target_os = "linux"))]
pub(super) const fn widen<T>(_pipe: &T) {}

/// What waits to be written to one side.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes that were here and are no longer.
    gone: u64,
}

impl Outbox {
    pub(super) fn push(&mut self, frames: &mut Frames, message: Bytes) -> io::Result<()> {
        let before = self.pieces.len();
        frames.queue(message, &mut self.pieces)?;
        self.bytes += self.pieces.range(before..).map(Bytes::len).sum::<usize>();
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= WAITING_MAX
    }

    pub(super) fn clear(&mut self) {
        *self = Self { gone: self.end(), ..Self::default() };
    }

    /// Names the place behind everything that waits now.
    pub(super) const fn end(&self) -> u64 {
        self.gone + self.bytes as u64
    }

    /// Tells whether nothing from before a place waits any more.
    pub(super) const fn is_past(&self, place: u64) -> bool {
        self.gone >= place
    }

    /// Writes some of it.
    ///
    /// # Cancel safety
    /// Safe: what was written is taken out in the same poll.
    pub(super) async fn write(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin + ?Sized),
    ) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        let mut written = to.write_vectored(&slices[..used]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes -= written;
        self.gone += written as u64;
        while written > 0 {
            let Some(piece) = self.pieces.front_mut() else {
                break;
            };
            let step = written.min(piece.len());
            piece.advance(step);
            written -= step;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        Ok(())
    }
}

/// What was read from one side and is no whole message yet.
#[derive(Debug)]
pub(super) struct Inbox {
    kind: FramingKind,
    frames: Frames,
    bytes: BytesMut,
    /// Length of the last message: the next long one is likely to be as long.
    last: usize,
    /// Whether the first bytes were looked at, which tell the protocol.
    looked: bool,
}

impl Inbox {
    pub(super) fn new(kind: FramingKind, frames: Frames) -> Self {
        Self { kind, frames, bytes: BytesMut::new(), last: 0, looked: false }
    }

    /// Reads some bytes; zero is the end.
    ///
    /// # Cancel safety
    /// Safe: nothing is read when it is dropped.
    pub(super) async fn read(
        &mut self,
        from: &mut (impl AsyncRead + Unpin + ?Sized),
    ) -> io::Result<usize> {
        let (open, room) = (self.bytes.len(), self.bytes.capacity() - self.bytes.len());
        let long = open >= READ_MIN;
        // Where a message says how long it is, a long one has its room already, to the byte.
        let enough = if long && self.kind == FramingKind::Lsp { 1 } else { READ_MIN / 4 };
        if room < enough {
            let likely = if long { self.last.min(WAITING_MAX).saturating_sub(open) } else { 0 };
            // One of unknown length that is long already is likely to go on.
            self.bytes.reserve(open.clamp(READ_MIN, READ_MAX).max(likely + READ_MIN / 16));
        }
        from.read_buf(&mut self.bytes).await
    }

    /// Takes the next whole message.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        let message = self.frames.cut(&mut self.bytes)?;
        self.last = message.as_ref().map_or(self.last, Bytes::len);
        Ok(message)
    }

    /// Says, once, that the first bytes are those of the other protocol.
    pub(super) fn other_protocol(&mut self) -> Option<&'static str> {
        if self.looked {
            return None;
        }
        let text = self.bytes.trim_ascii_start();
        let first = *text.first()?;
        const HEADER: &[u8] = b"content-length:";
        match self.kind {
            FramingKind::Lsp => {
                self.looked = true;
                (first == b'{').then_some("mcp")
            }
            _ => {
                self.looked = text.len() >= HEADER.len() || !first.eq_ignore_ascii_case(&b'c');
                let starts =
                    text.get(..HEADER.len()).is_some_and(|head| head.eq_ignore_ascii_case(HEADER));
                starts.then_some("lsp")
            }
        }
    }

    /// Shows the first line that was skipped because it is no message.
    pub(super) fn skipped(&self) -> Option<String> {
        self.frames.skipped()
    }

    /// Shows the first line of a side that ended and wrote no message, or something before one; one with a colon could
    /// have been the begin of a header until then.
    pub(super) fn said(&self) -> Option<String> {
        let left = || {
            let line = self.bytes.trim_ascii().split(|byte| *byte == b'\n').next()?;
            let shown = String::from_utf8_lossy(&line[..line.len().min(SAID_MAX)]).into_owned();
            let header = shown.to_ascii_lowercase().starts_with("content-");
            (!shown.is_empty() && !header && self.kind == FramingKind::Lsp).then_some(shown)
        };
        self.skipped().or_else(left)
    }

    /// Tells whether what was read ends in the middle of a message.
    pub(super) fn is_cut_off(&self) -> bool {
        !self.bytes.trim_ascii().is_empty()
    }

    /// Shows the bytes that cannot be read, at most 48 of them.
    pub(super) fn dump(&self) -> String {
        let shown = &self.bytes[..self.bytes.len().min(48)];
        shown.escape_ascii().to_string()
    }
}
