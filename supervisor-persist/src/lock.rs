//! One owner: a lock beside the database, held by the system for as long as the process lives.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use supervisor_core::error::DatabaseError;

use crate::errors;

/// Longest owner record that is read back.
const OWNER_MAX: u64 = 256;

/// The lock; the system releases it when the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct OwnerLock {
    _file: File,
}

/// Gives the lock file's place.
pub(crate) fn path_for(database: &Path) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    database.with_file_name(name)
}

impl OwnerLock {
    /// Takes the lock and records who has it; the loser is told the record of the owner.
    ///
    /// The file is never removed: a path that is unlinked while another process waits on the old file would let two win.
    pub(crate) fn take(database: &Path, started_at: DateTime<Utc>) -> Result<Self, DatabaseError> {
        let path = path_for(database);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file =
            options.open(&path).map_err(|error| errors::file("opening", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DatabaseError::Owned { owner: owner(&mut file), path });
            }
            Err(TryLockError::Error(error)) => return Err(errors::file("locking", &path, error)),
        }
        let record =
            format!("{} started {}\n", std::process::id(), started_at.format("%Y-%m-%dT%H:%M:%SZ"));
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(record.as_bytes()));
        written.map_err(|error| errors::file("writing", &path, error))?;
        Ok(Self { _file: file })
    }
}

fn owner(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(OWNER_MAX).read_to_string(&mut text));
    match read {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}
