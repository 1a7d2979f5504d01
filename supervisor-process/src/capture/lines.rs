//! Cutting a stream of bytes into lines of bounded length.

use supervisor_core::status::OutputStream;

/// One line, without its line feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) stream: OutputStream,
    pub(super) text: &'a [u8],
}

/// Cuts one stream into lines.
///
/// A line longer than the limit is kept up to it; the rest is dropped, counted and marked.
#[derive(Debug)]
pub(crate) struct Cutter {
    stream: OutputStream,
    line_max: usize,
    partial: Vec<u8>,
    dropped: u64,
    /// Lines that were cut and the bytes they lost, since it was asked for last.
    cut: (u64, u64),
}

impl Cutter {
    pub(crate) fn new(stream: OutputStream, line_max: usize) -> Self {
        Self { stream, line_max, partial: Vec::new(), dropped: 0, cut: (0, 0) }
    }

    /// Takes what was read and hands every finished line to `each`.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.partial.is_empty() && self.dropped == 0 && line.len() <= self.line_max {
                each(Line { stream: self.stream, text: trim(line) });
                continue;
            }
            self.append(line);
            self.finish(&mut each);
        }
        self.append(bytes);
    }

    /// Hands over what is left when the stream ended without a line feed.
    pub(super) fn end(&mut self, mut each: impl FnMut(Line<'_>)) {
        if !self.partial.is_empty() || self.dropped > 0 {
            self.finish(&mut each);
        }
    }

    /// Gives how many lines were cut since the last call, and by how many bytes.
    pub(super) fn take_cut(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.cut)
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = self.line_max - self.partial.len();
        let taken = bytes.len().min(room);
        self.partial.extend_from_slice(&bytes[..taken]);
        self.dropped += (bytes.len() - taken) as u64;
    }

    fn finish(&mut self, each: &mut impl FnMut(Line<'_>)) {
        each(Line { stream: self.stream, text: trim(&self.partial) });
        if self.dropped > 0 {
            self.cut = (self.cut.0 + 1, self.cut.1 + self.dropped);
            let note = format!(
                "{} bytes of the line above were dropped: it was longer than {}",
                self.dropped, self.line_max
            );
            each(Line { stream: OutputStream::Supervisor, text: note.as_bytes() });
        }
        self.dropped = 0;
        // A service that once wrote a long line does not cost its length for ever.
        self.partial = Vec::new();
    }
}

fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(line_max: usize, pieces: &[&[u8]]) -> Vec<(OutputStream, String)> {
        let mut cutter = Cutter::new(OutputStream::Stdout, line_max);
        let mut lines = Vec::new();
        let mut keep = |line: Line<'_>| {
            lines.push((line.stream, String::from_utf8_lossy(line.text).into_owned()));
        };
        for piece in pieces {
            cutter.push(piece, &mut keep);
        }
        cutter.end(&mut keep);
        lines
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let whole = cut(100, &[b"one\r\ntwo\n\nthree"]);
        let single: Vec<&[u8]> = b"one\r\ntwo\n\nthree".chunks(1).collect();
        assert_eq!(whole, cut(100, &single));
        let texts: Vec<_> = whole.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["one", "two", "", "three"]);
    }

    #[test]
    fn a_line_without_end_is_cut_marked_and_costs_no_more_than_its_limit() {
        let lines = cut(4, &[b"abcdefgh", b"ijkl\nnext\n"]);
        assert_eq!(lines[0].1, "abcd");
        assert_eq!(lines[1].0, OutputStream::Supervisor);
        assert!(lines[1].1.starts_with("8 bytes"), "{}", lines[1].1);
        assert_eq!(lines[2].1, "next");
    }
}
