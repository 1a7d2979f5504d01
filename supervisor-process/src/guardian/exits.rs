//! The record of runs that ended while nobody may have heard of it: a small file that only grows until it is read.
//!
//! One line a run, with a checksum, so that a line torn by a crash is passed over and not guessed at. The guardian
//! writes it before it tells anybody; a write is in the hands of the system at once and so survives the guardian. It is
//! forced to the disk while no host is connected.

#[cfg(any(test, not(windows)))]
use std::fs;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use supervisor_core::exit::ExitStatus;
use supervisor_core::{Incarnation, ServiceId};

/// Name of the file in the state directory.
const FILE: &str = "guardian.exits";
/// Size at which the file is cut down to its newest records.
const BYTES_MAX: u64 = 256 * 1024;
/// Bytes of it that are looked at: more than it can become, so that a file somebody put there costs no memory.
const READ_MAX: u64 = 2 * BYTES_MAX;
/// Records kept then.
const KEPT: usize = 1000;

/// How one run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExitRecord {
    pub(super) service: ServiceId,
    pub(super) incarnation: Incarnation,
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) status: ExitStatus,
    /// Milliseconds since 1970.
    pub(super) at_millis: u64,
}

impl ExitRecord {
    fn line(&self) -> String {
        let (letter, number) = match self.status {
            ExitStatus::Code(code) => ('C', code),
            ExitStatus::Signal(signal) => ('S', signal),
            ExitStatus::Unknown => ('U', 0),
        };
        let text = format!(
            "1 {} {} {} {} {letter} {number} {}",
            self.service,
            self.incarnation.get(),
            self.pid,
            self.start_time,
            self.at_millis
        );
        format!("{text} {:08x}\n", checksum(text.as_bytes()))
    }

    fn parse(line: &str) -> Option<Self> {
        let (text, sum) = line.rsplit_once(' ')?;
        if u32::from_str_radix(sum, 16).ok()? != checksum(text.as_bytes()) {
            return None;
        }
        let mut words = text.split(' ');
        if words.next()? != "1" {
            return None;
        }
        let service = ServiceId::new(words.next()?).ok()?;
        let incarnation = Incarnation(words.next()?.parse().ok()?);
        let (pid, start_time) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let (letter, number) = (words.next()?, words.next()?.parse().ok()?);
        let status = match letter {
            "C" => ExitStatus::Code(number),
            "S" => ExitStatus::Signal(number),
            "U" => ExitStatus::Unknown,
            _ => return None,
        };
        let at_millis = words.next()?.parse().ok()?;
        Some(Self { service, incarnation, pid, start_time, status, at_millis })
    }
}

/// FNV-1a: it guards against a torn line, not against somebody who may write here anyway.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Reads the records of a state directory, oldest first, and how many bytes they took; none if there is no file.
///
/// A file that somebody made larger than it can become is read from its end.
///
/// # Errors
/// What the system said.
pub(super) fn read(state_dir: &Path) -> io::Result<(Vec<ExitRecord>, u64)> {
    let mut file = match File::open(state_dir.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let (start, bytes) = newest(&mut file, 0)?;
    // A last line without its end is still being written, or was torn; either way it is not counted as read.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let text = String::from_utf8_lossy(&bytes[..whole]);
    Ok((text.lines().filter_map(ExitRecord::parse).collect(), start + whole as u64))
}

/// Gives what a file holds from `from` on, or its last bytes if that is more than is read at once, and where it begins.
fn newest(file: &mut File, from: u64) -> io::Result<(u64, Vec<u8>)> {
    let start = from.max(file.metadata()?.len().saturating_sub(READ_MAX));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    // What is added meanwhile is left for the next time.
    file.take(READ_MAX).read_to_end(&mut bytes)?;
    Ok((start, bytes))
}

/// The file as its one writer has it.
#[derive(Debug)]
pub(super) struct ExitFile {
    path: PathBuf,
    file: File,
    /// Bytes cut off its beginning since something was forgotten at a reader's word, who may count from before that.
    cut: u64,
}

impl ExitFile {
    /// Opens the file and ends a torn line, so that the next record stands alone.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let mut file = options().open(&path)?;
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        Ok(Self { path, file, cut: 0 })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// What the system said; a part that was written is passed over by every reader.
    pub(super) fn add(&mut self, record: &ExitRecord) -> io::Result<()> {
        if self.file.metadata()?.len() > BYTES_MAX {
            self.keep_newest()?;
        }
        self.file.write_all(record.line().as_bytes())
    }

    /// Forces what was added to the disk.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Forgets the first `upto` bytes, as a reader counted them.
    ///
    /// # Errors
    /// What the system said; nothing is forgotten then.
    pub(super) fn forget(&mut self, upto: u64) -> io::Result<()> {
        // What was cut before it was read is kept for once more, rather than what was not read forgotten.
        let (_, rest) = newest(&mut self.file, upto.saturating_sub(self.cut))?;
        self.replace(&rest)?;
        self.cut = 0;
        Ok(())
    }

    fn keep_newest(&mut self) -> io::Result<()> {
        let (start, bytes) = newest(&mut self.file, 0)?;
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let rest = lines[lines.len().saturating_sub(KEPT)..].concat();
        self.replace(&rest)?;
        self.cut = self.cut.saturating_add(start + (bytes.len() - rest.len()) as u64);
        Ok(())
    }

    /// In place: a file that is open is not replaced on every Windows, nor cut through a handle that adds to it.
    #[cfg(windows)]
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        File::options().write(true).open(&self.path)?.set_len(0)?;
        self.file.write_all(bytes)
    }

    /// By a new file in its place, so that no record is lost whenever this process is killed.
    #[cfg(not(windows))]
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let part = self.path.with_extension("exits.part");
        match fs::remove_file(&part) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut file = options().open(&part)?;
        file.write_all(bytes)?;
        fs::rename(&part, &self.path)?;
        self.file = file;
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).read(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u64, status: ExitStatus) -> ExitRecord {
        ExitRecord {
            service: ServiceId::new("svc").unwrap(),
            incarnation: Incarnation(n),
            pid: 42,
            start_time: 99,
            status,
            at_millis: 1000 + n,
        }
    }

    #[test]
    fn what_was_recorded_is_read_back_by_somebody_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), (Vec::new(), 0));
        let all =
            [ExitStatus::Code(3), ExitStatus::Signal(9), ExitStatus::Unknown].map(|s| record(1, s));
        let mut file = ExitFile::open(dir.path()).unwrap();
        for one in &all {
            file.add(one).unwrap();
        }
        drop(file);
        assert_eq!(read(dir.path()).unwrap().0, all);
    }

    #[test]
    fn a_torn_or_damaged_line_is_passed_over_and_harms_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = ExitFile::open(dir.path()).unwrap();
        file.add(&record(1, ExitStatus::Code(0))).unwrap();
        let torn = record(2, ExitStatus::Code(0)).line();
        file.file.write_all(&torn.as_bytes()[..torn.len() / 2]).unwrap();
        assert_eq!(
            read(dir.path()).unwrap().0.len(),
            1,
            "a line that is being written is not read"
        );
        let mut file = ExitFile::open(dir.path()).unwrap();
        let mut bad = record(3, ExitStatus::Code(0)).line();
        bad = bad.replace(" C 0 ", " C 1 ");
        file.file.write_all(bad.as_bytes()).unwrap();
        file.add(&record(4, ExitStatus::Code(0))).unwrap();
        let read: Vec<_> =
            read(dir.path()).unwrap().0.iter().map(|record| record.incarnation.get()).collect();
        assert_eq!(read, [1, 4]);
    }

    #[test]
    fn only_what_was_read_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = ExitFile::open(dir.path()).unwrap();
        file.add(&record(1, ExitStatus::Code(0))).unwrap();
        let upto = read(dir.path()).unwrap().1;
        file.add(&record(2, ExitStatus::Code(0))).unwrap();
        file.forget(upto).unwrap();
        assert_eq!(read(dir.path()).unwrap().0, [record(2, ExitStatus::Code(0))]);
    }

    #[test]
    fn the_file_stays_small_and_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = ExitFile::open(dir.path()).unwrap();
        for n in 0..8000 {
            file.add(&record(n, ExitStatus::Signal(9))).unwrap();
        }
        let (records, bytes) = read(dir.path()).unwrap();
        assert!(bytes < BYTES_MAX + 200, "{bytes}");
        assert_eq!(records.last().unwrap().incarnation, Incarnation(7999));
    }

    #[cfg(unix)]
    #[test]
    fn a_huge_file_costs_no_memory_and_its_newest_records_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let huge = File::create(dir.path().join(FILE)).unwrap();
        huge.set_len(1 << 40).unwrap();
        let mut file = ExitFile::open(dir.path()).unwrap();
        file.file.write_all(record(1, ExitStatus::Code(4)).line().as_bytes()).unwrap();
        let (records, upto) = read(dir.path()).unwrap();
        assert_eq!(records, [record(1, ExitStatus::Code(4))]);
        file.add(&record(2, ExitStatus::Code(5))).unwrap();
        assert!(fs::metadata(dir.path().join(FILE)).unwrap().len() < READ_MAX + 200, "cut down");
        file.forget(upto).unwrap();
        let left = read(dir.path()).unwrap().0;
        assert!(left.contains(&record(2, ExitStatus::Code(5))), "it was not read: {left:?}");
    }

    #[test]
    fn what_was_not_read_is_not_forgotten_although_the_file_was_cut_since() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = ExitFile::open(dir.path()).unwrap();
        let mut n = 0;
        while file.file.metadata().unwrap().len() <= BYTES_MAX {
            n += 1;
            file.add(&record(n, ExitStatus::Code(0))).unwrap();
        }
        let upto = read(dir.path()).unwrap().1;
        file.add(&record(n + 1, ExitStatus::Code(0))).unwrap();
        assert!(file.cut > 0, "it was cut");
        file.forget(upto).unwrap();
        assert_eq!(read(dir.path()).unwrap().0, [record(n + 1, ExitStatus::Code(0))]);
    }

    #[cfg(unix)]
    #[test]
    fn a_replacement_that_fails_forgets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = ExitFile::open(dir.path()).unwrap();
        file.add(&record(1, ExitStatus::Code(0))).unwrap();
        fs::create_dir(dir.path().join("guardian.exits.part")).unwrap();
        assert!(file.forget(10_000).is_err());
        assert_eq!(read(dir.path()).unwrap().0, [record(1, ExitStatus::Code(0))]);
    }
}
