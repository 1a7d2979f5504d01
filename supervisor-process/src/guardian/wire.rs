//! Bytes of the guardian's protocol: length-prefixed frames, and numbers and texts inside them.
//!
//! A frame is a length of four bytes and so many bytes of body; all numbers are little-endian. A length is checked
//! before anything is kept for it, and a body is read to its end or refused.

use std::fmt;

/// Longest body of a frame: what `execve` would take of arguments and environment is less (2 MiB on Linux).
pub(super) const FRAME_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a frame before its body.
const HEAD: usize = 4;

/// Bytes that are no frame of the protocol; the connection they came over is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Builds the body of a frame.
#[derive(Debug)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Begins a frame.
    pub(super) fn new() -> Self {
        Self(vec![0; HEAD])
    }

    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn i32(&mut self, value: i32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.count(value.len());
        self.0.extend_from_slice(value);
        self
    }

    /// Writes how many of something follow.
    pub(super) fn count(&mut self, count: usize) -> &mut Self {
        // What does not fit is far beyond a frame, which is refused as a whole when it is finished.
        self.u32(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Writes a list, each of its values by `each`.
    pub(super) fn list<T>(&mut self, values: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.count(values.len());
        for value in values {
            each(self, value);
        }
    }

    /// Ends the frame; nothing if it became longer than a frame may be.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        let length = self.0.len() - HEAD;
        if length > FRAME_MAX {
            return None;
        }
        let length = u32::try_from(length).ok()?;
        self.0[..HEAD].copy_from_slice(&length.to_le_bytes());
        Some(self.0)
    }
}

/// Takes the body of a frame apart.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) =
            self.0.split_at_checked(length).ok_or(Malformed("a frame ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Malformed> {
        let length = self.u32()? as usize;
        self.take(length).map(<[u8]>::to_vec)
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    /// Reads a list. Room is made as its values come, never on the word of its length.
    pub(super) fn list<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.u32()?;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(each(self)?);
        }
        Ok(values)
    }

    /// Says that nothing may be left.
    pub(super) const fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed("a frame is longer than what it says"))
        }
    }
}

/// Bytes that came in, cut into frames.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    taken: usize,
}

impl Incoming {
    /// Adds what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Gives the next whole frame's body; nothing if it has not come yet.
    ///
    /// # Errors
    /// [`Malformed`] when its length is beyond `longest`, before anything of it is kept.
    pub(super) fn next(&mut self, longest: usize) -> Result<Option<&[u8]>, Malformed> {
        let left = &self.bytes[self.taken..];
        let Some(head) = left.first_chunk::<HEAD>() else {
            self.compact();
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > longest {
            return Err(Malformed("a frame is longer than allowed"));
        }
        if left.len() < HEAD + length {
            self.compact();
            return Ok(None);
        }
        let start = self.taken + HEAD;
        self.taken = start + length;
        Ok(Some(&self.bytes[start..start + length]))
    }

    /// Forgets what was taken; a connection that once carried a large frame does not hold its room for ever.
    fn compact(&mut self) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(text);
        writer.finish().unwrap()
    }

    #[test]
    fn frames_are_the_same_however_their_bytes_arrive() {
        let sent = [frame(b"one"), frame(b""), frame(b"three")].concat();
        for step in 1..sent.len() {
            let mut incoming = Incoming::default();
            let mut got = Vec::new();
            for piece in sent.chunks(step) {
                incoming.push(piece);
                while let Some(body) = incoming.next(100).unwrap() {
                    got.push(Reader::new(body).bytes().unwrap());
                }
            }
            assert_eq!(got, [b"one".to_vec(), b"".to_vec(), b"three".to_vec()], "{step}");
        }
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused_by_its_head_alone() {
        let mut incoming = Incoming::default();
        incoming.push(&u32::MAX.to_le_bytes());
        assert_eq!(incoming.next(100), Err(Malformed("a frame is longer than allowed")));
        let mut writer = Writer::new();
        writer.bytes(&vec![0; FRAME_MAX]);
        assert_eq!(writer.finish(), None);
    }

    #[test]
    fn a_body_that_lies_about_its_lengths_is_refused() {
        let long = [255, 255, 255, 255, 1];
        assert!(Reader::new(&long).bytes().is_err());
        assert!(Reader::new(&long).list(Reader::u64).is_err());
        assert!(Reader::new(&[1]).end().is_err());
        assert!(Reader::new(&[1, 0, 0, 0, 0xff]).text().is_err());
    }
}
