//! The rotating files a service's output is kept in, and reading their end.
//!
//! A line is `<milliseconds since 1970> <stream letter> <text>`; the text's bytes are kept as they came.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::DateTime;
use supervisor_core::status::{LogLine, OutputStream};

/// Bytes gathered before they are written.
const GATHERED_MAX: usize = 64 * 1024;
/// Bytes read at a time from the end of a file.
const READ_STEP: u64 = 64 * 1024;
/// Room a line's time and stream take, and a marker about it.
const HEAD_MAX: u64 = 128;

/// The files of one service: `output.log` is written, `output.log.1` is the one before it.
#[derive(Debug)]
pub(super) struct LogFiles {
    directory: PathBuf,
    /// Nothing is written at all.
    nowhere: bool,
    file_max: u64,
    files: u32,
    open: Option<Open>,
    written: u64,
    /// Lines that could not be written, since the last one that could.
    failed: u64,
    /// Lines that could not be written at all.
    unwritten: u64,
    /// Bytes that went with the oldest file.
    aged: u64,
    /// The file may end within a line.
    torn: bool,
}

/// An open file, counted.
#[derive(Debug)]
struct Open(File);

/// Files open over all services.
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// Files that stay open between two writes; what is written to others is opened and closed each time, so that a
/// thousand services that write now and then do not cost a thousand descriptors.
const OPEN_MAX: usize = 64;

impl Open {
    fn new(file: File) -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self(file)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lines on their way into the files of one service.
///
/// Gathered so that a flood costs one call for many lines; nothing is kept back once it is finished.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    files: &'a mut LogFiles,
    gathered: &'a mut Vec<u8>,
    lines: u64,
    millis: String,
}

impl LogFiles {
    /// Makes the files in this directory; none and nothing without one.
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        let (file_max, files, nowhere) = (HEAD_MAX * 2, 1, directory.is_none());
        Self {
            directory: directory.unwrap_or_default(),
            nowhere,
            file_max,
            files,
            open: None,
            written: 0,
            failed: 0,
            unwritten: 0,
            aged: 0,
            torn: false,
        }
    }

    /// Sets the bytes kept and the files they are spread over; what an earlier, larger setting left is removed.
    pub(super) fn limit(&mut self, max_bytes: u64, files: u32) {
        let file_max = (max_bytes / u64::from(files.max(1))).max(HEAD_MAX * 2);
        if (self.file_max, self.files) == (file_max, files) {
            return;
        }
        (self.file_max, self.files, self.open) = (file_max, files, None);
        // A service that never wrote has no directory, and so no files that could be too many.
        if self.nowhere || fs::metadata(&self.directory).is_err() {
            return;
        }
        for n in 0.. {
            let path = numbered(&self.directory, n);
            match fs::metadata(&path) {
                Ok(found) if n >= files || found.len() > file_max => drop(fs::remove_file(path)),
                Ok(_) => {}
                Err(_) if n < files => {}
                Err(_) => break,
            }
        }
    }

    /// The longest line that fits into a file.
    pub(super) fn line_max(&self) -> usize {
        usize::try_from(self.file_max - HEAD_MAX).unwrap_or(usize::MAX)
    }

    /// Gives the lines that could not be written, and the bytes that went with the oldest file.
    pub(super) const fn lost(&self) -> (u64, u64) {
        (self.unwritten, self.aged)
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let files = if self.nowhere { 0 } else { self.files };
        (0..files).map(|n| numbered(&self.directory, n)).collect()
    }

    /// Begins to write lines of one moment; `gathered` is room that is left empty again.
    pub(super) fn batch<'a>(&'a mut self, at_millis: i64, gathered: &'a mut Vec<u8>) -> Batch<'a> {
        gathered.clear();
        let mut batch = Batch { files: self, gathered, lines: 0, millis: format!("{at_millis} ") };
        if batch.files.failed > 0 {
            let note =
                format!("{} lines are missing here: they could not be written", batch.files.failed);
            batch.line(OutputStream::Supervisor, note.as_bytes());
            // Written before anything else, so that it stands where the gap is.
            batch.flush();
        }
        batch
    }

    /// Writes whole lines to the newest file.
    fn write(&mut self, bytes: &[u8], lines: u64) {
        if self.nowhere {
            return;
        }
        match self.try_write(bytes) {
            Ok(()) => self.failed = 0,
            Err(_) => {
                // A full disk must not stop the service; the gap is counted and marked when there is room again.
                self.failed += lines;
                self.unwritten += lines;
                self.torn = true;
                self.open = None;
            }
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.open.is_none() {
            self.open()?;
        }
        if self.written > 0 && self.written + bytes.len() as u64 > self.file_max {
            self.open = None;
            self.rotate()?;
            self.open()?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.0.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Room left in the newest file.
    fn room(&mut self) -> u64 {
        if self.nowhere || self.open.is_none() && self.open().is_err() {
            // It will be told when it is written.
            return self.file_max;
        }
        self.file_max - self.written.min(self.file_max)
    }

    fn open(&mut self) -> io::Result<()> {
        let path = numbered(&self.directory, 0);
        if fs::metadata(&path).is_ok_and(|found| found.len() >= self.file_max) {
            self.rotate()?;
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.directory)?;
                options.open(&path)?
            }
            opened => opened?,
        };
        if std::mem::take(&mut self.torn) && file.metadata()?.len() > 0 {
            file.write_all(b"\n")?;
        }
        self.written = file.metadata()?.len();
        self.open = Some(Open::new(file));
        Ok(())
    }

    /// Makes room for a new file. The oldest is removed first: renaming onto a file makes some file systems write
    /// the one that takes its place to the disk at once.
    fn rotate(&mut self) -> io::Result<()> {
        let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let oldest = numbered(&self.directory, self.files.saturating_sub(1));
        let size = fs::metadata(&oldest).map_or(0, |found| found.len());
        match fs::remove_file(oldest) {
            Err(error) if !absent(&error) => return Err(error),
            Err(_) => {}
            Ok(()) => self.aged += size,
        }
        for n in (0..self.files.saturating_sub(1)).rev() {
            match fs::rename(numbered(&self.directory, n), numbered(&self.directory, n + 1)) {
                Err(error) if !absent(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Batch<'_> {
    pub(super) fn line(&mut self, stream: OutputStream, text: &[u8]) {
        let length = self.millis.len() + 2 + text.len() + 1;
        // What is gathered goes into one file; a line that does not fit begins the next one.
        if !self.gathered.is_empty() && (self.gathered.len() + length) as u64 > self.files.room() {
            self.flush();
        }
        self.gathered.extend_from_slice(self.millis.as_bytes());
        self.gathered.extend_from_slice(&[letter(stream), b' ']);
        self.gathered.extend_from_slice(text);
        self.gathered.push(b'\n');
        // A note is nothing that could be missing.
        self.lines += u64::from(stream != OutputStream::Supervisor);
        if self.gathered.len() >= GATHERED_MAX {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            self.files.write(self.gathered, self.lines);
            self.gathered.clear();
            self.lines = 0;
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.flush();
        if OPEN.load(Ordering::Relaxed) > OPEN_MAX {
            self.files.open = None;
        }
        // One very long line does not cost its length for ever.
        self.gathered.shrink_to(2 * GATHERED_MAX);
    }
}

fn numbered(directory: &Path, n: u32) -> PathBuf {
    if n == 0 { directory.join("output.log") } else { directory.join(format!("output.log.{n}")) }
}

const fn letter(stream: OutputStream) -> u8 {
    match stream {
        OutputStream::Stdout => b'O',
        OutputStream::Stderr => b'E',
        OutputStream::Supervisor => b'S',
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

    fn limited(directory: PathBuf, max_bytes: u64, count: u32) -> LogFiles {
        let mut files = LogFiles::new(Some(directory));
        files.limit(max_bytes, count);
        files
    }

    fn write(files: &mut LogFiles, at_millis: i64, stream: OutputStream, text: &[u8]) {
        files.batch(at_millis, &mut Vec::new()).line(stream, text);
    }

    fn kept(files: &LogFiles) -> u64 {
        let found = files.paths().into_iter().filter_map(|path| fs::metadata(path).ok());
        found.map(|found| found.len()).sum()
    }

    #[test]
    fn the_files_together_never_exceed_their_cap_and_the_tail_spans_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = limited(directory.path().join("svc"), 4000, 4);
        for n in 0..1000 {
            write(&mut files, n, OutputStream::Stdout, format!("line {n}").as_bytes());
        }
        assert!(kept(&files) <= 4000, "{}", kept(&files));
        let tail = read_tail(&files.paths(), 100).unwrap();
        assert_eq!(tail.len(), 100);
        assert_eq!(tail[99].text, "line 999");
        assert_eq!(tail[0].text, "line 900");
    }

    #[test]
    fn lines_gathered_for_one_write_keep_the_cap_too() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = limited(directory.path().into(), 6000, 3);
        for round in 0..20 {
            let mut gathered = Vec::new();
            let mut batch = files.batch(7, &mut gathered);
            for n in 0..200 {
                batch.line(OutputStream::Stdout, format!("line {round} {n}").as_bytes());
            }
            drop(batch);
            assert!(kept(&files) <= 6000, "{}", kept(&files));
        }
        let tail = read_tail(&files.paths(), 250).unwrap();
        assert_eq!(tail.len(), 250);
        assert_eq!(tail[249].text, "line 19 199");
        assert_eq!(tail[0].text, "line 18 150");
        let longest = vec![b'x'; files.line_max()];
        write(&mut files, 7, OutputStream::Stdout, &longest);
        assert!(kept(&files) <= 6000, "{}", kept(&files));
    }

    #[test]
    fn a_smaller_cap_removes_what_a_larger_one_left() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = limited(directory.path().into(), 8000, 4);
        for n in 0..1000 {
            write(&mut files, n, OutputStream::Stdout, b"a line of some length");
        }
        files.limit(3000, 3);
        for n in 0..3 {
            write(&mut files, n, OutputStream::Stdout, b"more");
        }
        let all = fs::read_dir(directory.path()).unwrap().flatten();
        let total: u64 = all.map(|file| file.metadata().unwrap().len()).sum();
        assert!(total <= 3000, "{total}");
    }

    #[test]
    fn what_could_not_be_written_is_counted_where_it_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("svc");
        // A file stands where the directory should be.
        fs::write(&place, "").unwrap();
        let mut files = limited(place.clone(), 4000, 2);
        for n in 0..3 {
            write(&mut files, n, OutputStream::Stdout, b"lost");
        }
        fs::remove_file(&place).unwrap();
        write(&mut files, 4, OutputStream::Stdout, b"kept");
        let texts: Vec<_> =
            read_tail(&files.paths(), 9).unwrap().into_iter().map(|line| line.text).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].starts_with("3 lines are missing"), "{texts:?}");
        assert_eq!(texts[1], "kept");
    }

    #[test]
    fn files_of_many_services_are_not_all_kept_open_and_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut all: Vec<_> = (0..OPEN_MAX * 2)
            .map(|n| limited(directory.path().join(n.to_string()), 4000, 2))
            .collect();
        for round in 0..3 {
            for files in &mut all {
                write(files, round, OutputStream::Stdout, b"a line");
            }
        }
        assert!(all.iter().filter(|files| files.open.is_some()).count() <= OPEN_MAX);
        assert!(all.iter().all(|files| read_tail(&files.paths(), 9).unwrap().len() == 3));
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_in_the_file_and_shown_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = limited(directory.path().into(), 4000, 2);
        write(&mut files, 7, OutputStream::Stderr, b"a\xffb");
        let kept = fs::read(&files.paths()[0]).unwrap();
        assert_eq!(kept, b"7 E a\xffb\n");
        assert_eq!(read_tail(&files.paths(), 5).unwrap()[0].text, "a\u{fffd}b");
    }
}
