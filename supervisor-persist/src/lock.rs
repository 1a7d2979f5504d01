//! One owner: a lock beside the database, held by the system for as long as the process lives.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use supervisor_core::error::DatabaseError;

use crate::errors;

/// Longest owner record that is read back.
const OWNER_MAX: u64 = 256;
/// Longest wait for an owner that has the lock to be recorded.
const RECORDED_AFTER: Duration = Duration::from_millis(500);

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
                return Err(DatabaseError::Owned { owner: present_owner(&mut file), path });
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

/// Gives who has the lock. It is recorded a moment after it was taken; until then the file holds nothing, or the name of
/// an owner before, who may be gone.
fn present_owner(file: &mut File) -> String {
    let began = Instant::now();
    loop {
        let owner = owner(file);
        match &owner {
            Some(owner) if may_live(owner) => return owner.clone(),
            _ if began.elapsed() >= RECORDED_AFTER => {
                return owner.unwrap_or_else(|| "unknown".into());
            }
            _ => std::thread::park_timeout(Duration::from_millis(5)),
        }
    }
}

fn owner(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.take(OWNER_MAX).read_to_string(&mut text)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Tells whether the process that a record names may be there.
#[cfg(unix)]
fn may_live(owner: &str) -> bool {
    let pid = owner.split(' ').next().and_then(|pid| pid.parse().ok());
    let pid = pid.and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
fn may_live(_: &str) -> bool {
    true
}
