//! Cutting messages out of bytes; every length is checked before anything is allocated for it.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use supervisor_core::config::{FramingKind, RecoveryConfig};
use supervisor_core::text::ByteSize;
use tokio_util::codec::{Decoder, Encoder};

/// Longest header block of `Content-Length` framing, in bytes.
const HEADER_MAX: usize = 8 * 1024;
/// Bytes of a length before its frame.
pub(crate) const LENGTH_HEAD: usize = size_of::<u32>();

/// Bytes of skipped junk that are kept to be shown.
const JUNK_SHOWN: usize = 80;

/// Cuts and joins messages for one connection.
#[derive(Debug)]
pub(crate) struct Framing {
    kind: FramingKind,
    frame_max: usize,
    junk_max: usize,
    junk: usize,
    /// Bytes of an unfinished line that were looked at; a long line that comes in pieces is read once.
    looked: usize,
    /// The beginning of what was skipped first.
    skipped: Vec<u8>,
}

impl Framing {
    /// Makes the framing of a channel, with its limits.
    pub(crate) fn of(kind: FramingKind, config: &RecoveryConfig) -> Self {
        let most = |limit: ByteSize| usize::try_from(limit.bytes()).unwrap_or(usize::MAX);
        Self::new(kind, most(config.max_frame), most(config.max_junk))
    }

    pub(crate) const fn new(kind: FramingKind, frame_max: usize, junk_max: usize) -> Self {
        Self { kind, frame_max, junk_max, junk: 0, looked: 0, skipped: Vec::new() }
    }

    /// Gives the first line that was skipped because it is no frame, at most 80 bytes of it; nothing if there was none.
    pub(crate) fn skipped(&self) -> &[u8] {
        &self.skipped
    }

    /// Writes one frame whose content `body` writes; on an error nothing of it stays.
    pub(crate) fn append(
        &self,
        target: &mut BytesMut,
        body: impl FnOnce(&mut bytes::buf::Writer<&mut BytesMut>) -> io::Result<()>,
    ) -> io::Result<()> {
        let start = target.len();
        let written = self.append_at(start, target, body);
        if written.is_err() {
            target.truncate(start);
        }
        written
    }

    fn append_at(
        &self,
        start: usize,
        target: &mut BytesMut,
        body: impl FnOnce(&mut bytes::buf::Writer<&mut BytesMut>) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.kind == FramingKind::Lsp {
            // The length stands before the content, in digits.
            let mut content = BytesMut::new();
            body(&mut (&mut content).writer())?;
            self.check(content.len())?;
            target.put_slice(format!("Content-Length: {}\r\n\r\n", content.len()).as_bytes());
            target.put_slice(&content);
            return Ok(());
        }
        let head = if self.kind == FramingKind::Length { LENGTH_HEAD } else { 0 };
        target.put_bytes(0, head);
        body(&mut (&mut *target).writer())?;
        let length = target.len() - start - head;
        self.check(length)?;
        if self.kind == FramingKind::Length {
            let length = u32::try_from(length).map_err(|_| self.too_large(u64::MAX))?;
            target[start..start + head].copy_from_slice(&length.to_be_bytes());
        } else if memchr::memchr(b'\n', &target[start..]).is_some() {
            return Err(broken("a line feed inside of a message".to_owned()));
        } else {
            target.put_u8(b'\n');
        }
        Ok(())
    }

    fn check(&self, length: usize) -> io::Result<()> {
        if length > self.frame_max { Err(self.too_large(length as u64)) } else { Ok(()) }
    }

    pub(crate) const fn kind(&self) -> FramingKind {
        self.kind
    }

    /// Gives what stands before and after a message, so that a large one need not be copied; not for
    /// [`FramingKind::Length`].
    pub(crate) fn around(&self, frame: &Bytes) -> io::Result<(Bytes, Bytes)> {
        if frame.len() > self.frame_max {
            return Err(self.too_large(frame.len() as u64));
        }
        if self.kind == FramingKind::Lsp {
            let head = format!("Content-Length: {}\r\n\r\n", frame.len());
            return Ok((head.into(), Bytes::new()));
        }
        if memchr::memchr(b'\n', frame).is_some() {
            return Err(broken("a line feed inside of a message".to_owned()));
        }
        Ok((Bytes::new(), Bytes::from_static(b"\n")))
    }

    fn too_large(&self, length: u64) -> io::Error {
        broken(format!("a frame of {length} bytes exceeds {}", self.frame_max))
    }

    /// Gives the length that a frame of [`FramingKind::Length`] says it has, once that is there.
    pub(crate) fn promised(&self, source: &[u8]) -> io::Result<Option<usize>> {
        let Some(head) = source.first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head) as usize;
        if length > self.frame_max { Err(self.too_large(length as u64)) } else { Ok(Some(length)) }
    }

    /// Gives the length of the frame of [`FramingKind::Length`] that stands behind [`LENGTH_HEAD`], once all of it is there.
    pub(crate) fn whole(&self, source: &[u8]) -> io::Result<Option<usize>> {
        Ok(self.promised(source)?.filter(|length| source.len() - LENGTH_HEAD >= *length))
    }

    fn decode_length(&self, source: &mut BytesMut) -> io::Result<Option<Bytes>> {
        let Some(length) = self.promised(source)? else {
            return Ok(None);
        };
        if source.len() < LENGTH_HEAD + length {
            source.reserve(LENGTH_HEAD + length - source.len());
            return Ok(None);
        }
        source.advance(LENGTH_HEAD);
        Ok(Some(source.split_to(length).freeze()))
    }

    fn decode_line(&mut self, source: &mut BytesMut) -> io::Result<Option<Bytes>> {
        loop {
            let from = self.looked.min(source.len());
            let Some(end) = memchr::memchr(b'\n', &source[from..]).map(|end| from + end) else {
                self.looked = source.len();
                return if source.len() > self.frame_max {
                    Err(self.too_large(source.len() as u64))
                } else {
                    Ok(None)
                };
            };
            if end > self.frame_max {
                return Err(self.too_large(end as u64));
            }
            self.looked = 0;
            let mut line = source.split_to(end + 1).freeze();
            // A carriage return is white space of the message: whoever passes it on passes on what came.
            line.truncate(end);
            if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                return Ok(Some(line));
            }
        }
    }

    /// Reads any header order and letter case, and skips lines that are no header: servers print to the wrong stream.
    fn decode_headers(&mut self, source: &mut BytesMut) -> io::Result<Option<Bytes>> {
        let mut at = 0;
        let mut length: Option<usize> = None;
        loop {
            let Some(end) = source[at..].iter().position(|byte| *byte == b'\n').map(|end| at + end)
            else {
                let open = source.len() - at;
                return if open > HEADER_MAX {
                    Err(broken("a header line without end".to_owned()))
                } else {
                    Ok(None)
                };
            };
            let line = source[at..end].strip_suffix(b"\r").unwrap_or(&source[at..end]);
            let next = end + 1;
            match (header(line)?, length) {
                (Header::Empty, Some(length)) => return self.take_body(source, next, length),
                (Header::Length(found), _) if found > self.frame_max => {
                    return Err(self.too_large(found as u64));
                }
                (Header::Length(found), Some(known)) if found != known => {
                    return Err(broken("two different lengths in one header".to_owned()));
                }
                (Header::Length(found), _) => {
                    length = Some(found);
                    at = next;
                }
                (Header::Other, _) => at = next,
                (Header::Junk, Some(_)) => {
                    return Err(broken("a header block with a line that is no header".to_owned()));
                }
                (Header::Junk | Header::Empty, None) => {
                    self.skip(source, next)?;
                    at = 0;
                }
            }
            if at > HEADER_MAX {
                return Err(broken("a header block without end".to_owned()));
            }
        }
    }

    fn take_body(
        &mut self,
        source: &mut BytesMut,
        start: usize,
        length: usize,
    ) -> io::Result<Option<Bytes>> {
        if source.len() < start + length {
            source.reserve(start + length - source.len());
            return Ok(None);
        }
        source.advance(start);
        self.junk = 0;
        Ok(Some(source.split_to(length).freeze()))
    }

    fn skip(&mut self, source: &mut BytesMut, bytes: usize) -> io::Result<()> {
        self.junk += bytes;
        if self.junk > self.junk_max {
            return Err(broken(format!(
                "more than {} bytes between frames are no frame",
                self.junk_max
            )));
        }
        if self.skipped.is_empty() {
            // A line with a colon looks like a header until the next one does not.
            let line = source[..bytes].trim_ascii();
            let line = line.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
            self.skipped.extend_from_slice(&line[..line.len().min(JUNK_SHOWN)]);
        }
        source.advance(bytes);
        Ok(())
    }
}

enum Header {
    Empty,
    Length(usize),
    Other,
    Junk,
}

fn header(line: &[u8]) -> io::Result<Header> {
    if line.is_empty() {
        return Ok(Header::Empty);
    }
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return Ok(Header::Junk);
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.eq_ignore_ascii_case(b"content-length") {
        let text = std::str::from_utf8(value).unwrap_or_default().trim();
        let length = text.parse().map_err(|_| {
            broken(format!("a length of {:?}", text.chars().take(20).collect::<String>()))
        })?;
        return Ok(Header::Length(length));
    }
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    Ok(if !name.is_empty() && name.iter().all(token) { Header::Other } else { Header::Junk })
}

fn broken(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl Decoder for Framing {
    type Item = Bytes;
    type Error = io::Error;

    fn decode(&mut self, source: &mut BytesMut) -> io::Result<Option<Bytes>> {
        match self.kind {
            FramingKind::Length => self.decode_length(source),
            FramingKind::Mcp => self.decode_line(source),
            FramingKind::Lsp => self.decode_headers(source),
        }
    }
}

impl Encoder<Bytes> for Framing {
    type Error = io::Error;

    fn encode(&mut self, frame: Bytes, target: &mut BytesMut) -> io::Result<()> {
        self.append(target, |body| io::Write::write_all(body, &frame))
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(kind: FramingKind, bytes: &[u8], step: usize) -> Result<Vec<String>, String> {
        let mut framing = Framing::new(kind, 1000, 100);
        let mut source = BytesMut::new();
        let mut frames = Vec::new();
        for piece in bytes.chunks(step) {
            source.extend_from_slice(piece);
            while let Some(frame) =
                framing.decode(&mut source).map_err(|error| error.to_string())?
            {
                frames.push(String::from_utf8_lossy(&frame).into_owned());
            }
        }
        Ok(frames)
    }

    #[test]
    fn what_is_written_is_read_however_it_is_split() {
        for kind in [FramingKind::Length, FramingKind::Lsp, FramingKind::Mcp] {
            let mut framing = Framing::new(kind, 1000, 100);
            let mut bytes = BytesMut::new();
            for text in ["{}", "{\"a\":\"ü\"}", "[1,2,3]"] {
                framing.encode(Bytes::from_static(text.as_bytes()), &mut bytes).unwrap();
            }
            for step in 1..bytes.len() {
                assert_eq!(
                    cut(kind, &bytes, step).unwrap(),
                    ["{}", "{\"a\":\"ü\"}", "[1,2,3]"],
                    "{kind:?} by {step}"
                );
            }
        }
    }

    #[test]
    fn a_hostile_length_is_refused_before_anything_is_allocated() {
        assert!(cut(FramingKind::Length, &[0xff, 0xff, 0xff, 0xff], 1).is_err());
        for length in ["9999999999", "-1", "1e3", "99999999999999999999999", ""] {
            let bytes = format!("Content-Length: {length}\r\n\r\n");
            assert!(cut(FramingKind::Lsp, bytes.as_bytes(), 1).is_err(), "{length}");
        }
        assert!(
            cut(FramingKind::Lsp, b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 4).is_err()
        );
        assert!(cut(FramingKind::Mcp, &[b'x'; 2000], 64).is_err());
    }

    #[test]
    fn a_line_is_passed_on_with_the_carriage_returns_it_came_with() {
        let lines = b"{\"a\":1}\n\r\n{\"a\":2}\r\n{\"a\":3}\r\r\n \n";
        let mut framing = Framing::new(FramingKind::Mcp, 1000, 100);
        let (mut source, mut written) = (BytesMut::from(&lines[..]), BytesMut::new());
        while let Some(frame) = framing.decode(&mut source).unwrap() {
            assert!(serde_json::from_slice::<serde_json::Value>(&frame).is_ok());
            framing.encode(frame, &mut written).unwrap();
        }
        assert_eq!(written, b"{\"a\":1}\n{\"a\":2}\r\n{\"a\":3}\r\r\n"[..]);
    }

    #[test]
    fn junk_between_frames_is_skipped_up_to_its_limit() {
        let noisy = b"hello from the server\n\ncontent-length: 2\r\nContent-Type: x\r\n\r\n{}";
        assert_eq!(cut(FramingKind::Lsp, noisy, 3).unwrap(), ["{}"]);
        let much = [b"junk line\n".repeat(50), b"Content-Length: 2\r\n\r\n{}".to_vec()].concat();
        assert!(cut(FramingKind::Lsp, &much, 7).is_err());
    }

    #[test]
    fn the_first_line_of_skipped_junk_is_kept_to_be_shown_and_no_more() {
        let mut framing = Framing::new(FramingKind::Lsp, 1000, 1000);
        let mut source = BytesMut::from("Content-Length: 2\r\n\r\n{}".as_bytes());
        assert!(framing.decode(&mut source).unwrap().is_some());
        assert_eq!(framing.skipped(), b"");
        source.extend_from_slice(b"\r\n  usage: server\r\nmore\nyet more\n");
        assert!(framing.decode(&mut source).unwrap().is_none());
        assert_eq!(framing.skipped(), b"usage: server");
        let mut framing = Framing::new(FramingKind::Lsp, 1000, 1000);
        source.extend_from_slice(&[b'x'; 200]);
        source.extend_from_slice(b"\n");
        assert!(framing.decode(&mut source).unwrap().is_none());
        assert_eq!(framing.skipped(), [b'x'; JUNK_SHOWN]);
    }
}
