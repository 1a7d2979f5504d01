//! A file of no use but its size: given up when the disk is full, so that there is room to get out of it again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::faults;

/// The file beside the database.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    pub(crate) fn beside(database: &Path, bytes: u64) -> Self {
        let mut name = database.file_name().unwrap_or_default().to_owned();
        name.push(".reserve");
        Self { path: database.with_file_name(name), bytes }
    }

    /// Makes it, with its blocks taken on the disk; leaves nothing when there is no room for it.
    pub(crate) fn take(&self) -> io::Result<()> {
        if self.bytes == 0 || fs::metadata(&self.path).is_ok_and(|found| found.len() == self.bytes)
        {
            return Ok(());
        }
        let taken = self.fill();
        if taken.is_err() {
            drop(fs::remove_file(&self.path));
        }
        taken
    }

    fn fill(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        faults::open(&self.path)?;
        let mut file = options.open(&self.path)?;
        faults::write(&self.path)?;
        if !allocate(&file, self.bytes) {
            // Bytes that are written take blocks everywhere, a length alone takes none.
            let zeros = vec![0; 64 << 10];
            let mut left = self.bytes;
            while left > 0 {
                let part = left.min(zeros.len() as u64);
                file.write_all(zeros.get(..usize::try_from(part).unwrap_or(0)).unwrap_or(&zeros))?;
                left -= part;
            }
        }
        faults::sync(&self.path)?;
        file.sync_all()
    }

    /// Gives its space back; tells whether there was any.
    pub(crate) fn give_up(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64) -> bool {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &File, _bytes: u64) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_takes_its_size_once_and_gives_it_back_once() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::beside(&dir.path().join("s.db"), 100_000);
        reserve.take().unwrap();
        reserve.take().unwrap();
        let found = fs::metadata(dir.path().join("s.db.reserve")).unwrap();
        assert_eq!(found.len(), 100_000);
        #[cfg(unix)]
        assert!(
            std::os::unix::fs::MetadataExt::blocks(&found) * 512 >= 100_000,
            "blocks, not a hole"
        );
        assert!(reserve.give_up());
        assert!(!reserve.give_up());
    }
}
