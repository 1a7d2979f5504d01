//! The rotating files a service's output is kept in, and reading their end.
//!
//! A line is `<milliseconds since 1970> <stream letter> <text>`; the text's bytes are kept as they came.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use chrono::DateTime;
use supervisor_core::status::{LogLine, OutputStream};

/// Bytes gathered before they are written, per service that is writing.
const WRITE_BUFFER: usize = 64 * 1024;
/// Bytes read at a time from the end of a file.
const READ_STEP: u64 = 64 * 1024;

/// The files of one service: `output.log` is written, `output.log.1` is the one before it.
#[derive(Debug)]
pub(super) struct LogFiles {
    directory: PathBuf,
    file_max: u64,
    files: u32,
    open: Option<BufWriter<File>>,
    written: u64,
    /// Lines that could not be written, since the last one that could.
    failed: u64,
}

impl LogFiles {
    pub(super) fn new(directory: PathBuf, max_bytes: u64, files: u32) -> Self {
        let file_max = (max_bytes / u64::from(files.max(1))).max(1);
        Self { directory, file_max, files, open: None, written: 0, failed: 0 }
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        (0..self.files).map(|n| numbered(&self.directory, n)).collect()
    }

    pub(super) fn write(&mut self, at_millis: i64, stream: OutputStream, text: &[u8]) {
        if self.failed > 0 {
            let note = format!("{} lines are missing here: they could not be written", self.failed);
            if self.try_write(at_millis, OutputStream::Supervisor, note.as_bytes()).is_ok() {
                self.failed = 0;
            }
        }
        if self.try_write(at_millis, stream, text).is_err() {
            // A full disk must not stop the service; the gap is counted and marked when there is room again.
            self.failed += 1;
            self.open = None;
        }
    }

    /// Hands what was gathered to the system; files of an idle service hold no buffer.
    pub(super) fn flush(&mut self) {
        if let Some(open) = &mut self.open
            && open.flush().is_err()
        {
            self.open = None;
            self.failed += 1;
        }
    }

    fn try_write(&mut self, at_millis: i64, stream: OutputStream, text: &[u8]) -> io::Result<()> {
        let head = format!("{at_millis} {} ", letter(stream));
        let length = (head.len() + text.len() + 1) as u64;
        if self.open.is_some() && self.written + length > self.file_max {
            self.flush();
            self.open = None;
            self.rotate()?;
        }
        if self.open.is_none() {
            self.open()?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.write_all(head.as_bytes())?;
        open.write_all(text)?;
        open.write_all(b"\n")?;
        self.written += length;
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let path = numbered(&self.directory, 0);
        if fs::metadata(&path).is_ok_and(|found| found.len() >= self.file_max) {
            self.rotate()?;
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        self.written = file.metadata()?.len();
        self.open = Some(BufWriter::with_capacity(WRITE_BUFFER, file));
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        for n in (0..self.files.saturating_sub(1)).rev() {
            match fs::rename(numbered(&self.directory, n), numbered(&self.directory, n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn numbered(directory: &Path, n: u32) -> PathBuf {
    if n == 0 { directory.join("output.log") } else { directory.join(format!("output.log.{n}")) }
}

const fn letter(stream: OutputStream) -> char {
    match stream {
        OutputStream::Stdout => 'O',
        OutputStream::Stderr => 'E',
        OutputStream::Supervisor => 'S',
    }
}

/// Reads the last `limit` lines over several files, newest file first; gives them oldest first.
pub(crate) fn read_tail(paths: &[PathBuf], limit: usize) -> io::Result<Vec<LogLine>> {
    let mut newest_first = Vec::new();
    for path in paths {
        if newest_first.len() >= limit {
            break;
        }
        match File::open(path) {
            Ok(file) => read_file_tail(file, limit - newest_first.len(), &mut newest_first)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    newest_first.reverse();
    Ok(newest_first)
}

/// Reads backwards in steps, so that the end of a large file costs no more than the lines wanted.
fn read_file_tail(
    mut file: File,
    wanted: usize,
    newest_first: &mut Vec<LogLine>,
) -> io::Result<()> {
    let mut start = file.metadata()?.len();
    let mut tail: Vec<u8> = Vec::new();
    while start > 0 && tail.iter().filter(|byte| **byte == b'\n').count() <= wanted {
        let step = start.min(READ_STEP);
        start -= step;
        file.seek(SeekFrom::Start(start))?;
        let mut piece = vec![0; usize::try_from(step).unwrap_or(0)];
        file.read_exact(&mut piece)?;
        piece.append(&mut tail);
        tail = piece;
    }
    let mut lines: Vec<&[u8]> = tail.split(|byte| *byte == b'\n').collect();
    lines.pop();
    if start > 0 && !lines.is_empty() {
        // The first one may be the rest of a line that began before what was read.
        lines.remove(0);
    }
    newest_first.extend(lines.iter().rev().take(wanted).filter_map(|line| parse(line)));
    Ok(())
}

fn parse(line: &[u8]) -> Option<LogLine> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let millis = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = match parts.next()? {
        b"O" => OutputStream::Stdout,
        b"E" => OutputStream::Stderr,
        _ => OutputStream::Supervisor,
    };
    let text = String::from_utf8_lossy(parts.next()?).into_owned();
    Some(LogLine { at: DateTime::from_timestamp_millis(millis)?, stream, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_together_never_exceed_their_cap_and_the_tail_spans_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = LogFiles::new(directory.path().join("svc"), 4000, 4);
        for n in 0..1000 {
            files.write(n, OutputStream::Stdout, format!("line {n}").as_bytes());
        }
        files.flush();
        let total: u64 = files
            .paths()
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .map(|found| found.len())
            .sum();
        assert!(total <= 4000, "{total}");
        let tail = read_tail(&files.paths(), 100).unwrap();
        assert_eq!(tail.len(), 100);
        assert_eq!(tail[99].text, "line 999");
        assert_eq!(tail[0].text, "line 900");
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_in_the_file_and_shown_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = LogFiles::new(directory.path().into(), 4000, 2);
        files.write(7, OutputStream::Stderr, b"a\xffb");
        files.flush();
        let kept = fs::read(&files.paths()[0]).unwrap();
        assert_eq!(kept, b"7 E a\xffb\n");
        assert_eq!(read_tail(&files.paths(), 5).unwrap()[0].text, "a\u{fffd}b");
    }
}
