//! The framing of a relay's two sides.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use supervisor_core::config::FramingKind;
use tokio_util::codec::{Decoder as _, Encoder as _};

use crate::framing::Framing;

/// Longest message that is copied behind its header, which saves a second write.
const COPIED_MAX: usize = 16 * 1024;

/// Cuts messages out of the bytes of one connection, and joins them.
///
/// Lengths are checked before anything is allocated; junk between frames is skipped up to a limit where the framing
/// can find its way back.
#[derive(Debug)]
pub struct Frames(Framing);

impl Frames {
    /// Begins a connection with frames of at most `frame_max` bytes and at most `junk_max` bytes of junk before one.
    #[must_use]
    pub fn new(kind: FramingKind, frame_max: usize, junk_max: usize) -> Self {
        Self(Framing::new(kind, frame_max, junk_max))
    }

    /// Takes the next message out of what was read; nothing if it is not whole yet.
    ///
    /// # Errors
    /// What is wrong with the bytes; the connection cannot be read any further.
    pub fn cut(&mut self, source: &mut BytesMut) -> io::Result<Option<Bytes>> {
        self.0.decode(source)
    }

    /// Gives the first line that was skipped because it is no message, in printable characters, at most 80 bytes of it.
    #[must_use]
    pub fn skipped(&self) -> Option<String> {
        let skipped = self.0.skipped();
        let shown = || String::from_utf8_lossy(skipped).escape_debug().to_string();
        (!skipped.is_empty()).then(shown)
    }

    /// Appends a message to what is to be written; a large one is not copied.
    ///
    /// # Errors
    /// A message that is too large, or that the framing cannot hold; nothing was appended.
    pub fn queue(&mut self, message: Bytes, target: &mut VecDeque<Bytes>) -> io::Result<()> {
        let large = message.len() > COPIED_MAX && self.0.kind() != FramingKind::Length;
        if !large {
            let mut joined = BytesMut::with_capacity(message.len() + 64);
            self.0.encode(message, &mut joined)?;
            target.push_back(joined.freeze());
            return Ok(());
        }
        let (head, tail) = self.0.around(&message)?;
        target.extend([head, message, tail].into_iter().filter(|piece| !piece.is_empty()));
        Ok(())
    }
}
