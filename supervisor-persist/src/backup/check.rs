//! Comparing a backup with its manifest, and copying one that fits.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use chrono::{DateTime, Utc};
use supervisor_core::error::DatabaseError;

use super::types::{BackupHealth, BackupProgress, BackupStage, BackupSummary, BackupVerification};
use super::{folder, proof};
use crate::{errors, files};

/// Reads a backup whole; one that is damaged is marked so in its manifest.
pub(super) fn verify(
    dir: &Path,
    name: &str,
    at: DateTime<Utc>,
    progress: &dyn Fn(BackupProgress),
) -> Result<BackupVerification, DatabaseError> {
    let backups = folder::list(dir);
    let found = backups
        .iter()
        .find(|backup| backup.name == name)
        .ok_or_else(|| DatabaseError::NotFound { subject: format!("backup {name}") })?;
    let judged = match &found.health {
        BackupHealth::Damaged { reason } => Err(reason.clone()),
        BackupHealth::Verified { .. } => compare(dir, found, progress)?,
    };
    let newer_sound =
        backups.iter().any(|other| other.number > found.number && other.health.is_sound());
    let health = match &judged {
        Ok(()) => BackupHealth::Verified { at },
        Err(reason) => BackupHealth::Damaged { reason: reason.clone() },
    };
    // A manifest that cannot be read stays as it is, for somebody to look at.
    if found.health != health && !found.blake3.is_empty() {
        folder::write(dir, &BackupSummary { health, ..found.clone() })?;
    }
    Ok(BackupVerification {
        name: name.to_owned(),
        intact: judged.is_ok(),
        replacement_wanted: judged.is_err() && !newer_sound,
        detail: judged.err().unwrap_or_else(|| {
            format!("{} bytes and everything in them are as when it was taken", found.bytes)
        }),
    })
}

/// The inner error is about the backup; the outer one says that it could not be looked at, which is no damage.
fn compare(
    dir: &Path,
    backup: &BackupSummary,
    progress: &dyn Fn(BackupProgress),
) -> Result<Result<(), String>, DatabaseError> {
    let tell = |stage, done| progress(BackupProgress { stage, done, total: backup.bytes });
    let path = folder::database(dir, &backup.name);
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err(format!("its file: {error}")));
        }
        Err(error) => return Err(errors::file("looking at", &path, error)),
    };
    if !found.is_file() {
        return Ok(Err("its file is no regular file".to_owned()));
    }
    if found.len() != backup.bytes {
        let reason = format!("it has {} bytes, its manifest says {}", found.len(), backup.bytes);
        return Ok(Err(reason));
    }
    tell(BackupStage::Hashing, 0);
    let hashed = proof::hash(&path, |done| tell(BackupStage::Hashing, done));
    let (hash, _) = hashed.map_err(|error| errors::file("reading", &path, error))?;
    if hash != backup.blake3 {
        return Ok(Err("its hash does not fit its content".to_owned()));
    }
    tell(BackupStage::Proving, 0);
    // Every byte is as it was when it was read for the manifest, so what fails now is not the backup.
    let content = proof::read(&path).map_err(|reason| DatabaseError::Storage {
        action: format!("reading backup {}", backup.name),
        source: reason.into(),
    })?;
    tell(BackupStage::Proving, backup.bytes);
    if content != backup.content {
        return Ok(Err("it holds something else than its manifest says".to_owned()));
    }
    Ok(Ok(()))
}

/// Copies a sound backup to a new file, durably; what arrives is what the manifest vouches for, whatever happens to
/// the backup meanwhile.
pub(crate) fn copy_verified(
    dir: &Path,
    backup: &BackupSummary,
    target: &Path,
) -> Result<(), DatabaseError> {
    if let BackupHealth::Damaged { reason } = &backup.health {
        return Err(damaged(backup, reason.clone()));
    }
    let path = folder::database(dir, &backup.name);
    let hash = copy_hashing(&path, target)?
        .map_err(|error| damaged(backup, format!("its file cannot be read: {error}")))?;
    let judged = if hash == backup.blake3 {
        proof::read(target).and_then(|content| {
            let same = content == backup.content;
            same.then_some(())
                .ok_or_else(|| "it holds something else than its manifest says".to_owned())
        })
    } else {
        Err("its hash does not fit its content".to_owned())
    };
    judged.map_err(|reason| {
        drop(fs::remove_file(target));
        damaged(backup, reason)
    })
}

fn damaged(backup: &BackupSummary, reason: String) -> DatabaseError {
    DatabaseError::Corrupt { subject: format!("backup {}", backup.name), reason }
}

/// Copies and hashes; the inner error is about reading, the outer about writing.
fn copy_hashing(from: &Path, to: &Path) -> Result<std::io::Result<String>, DatabaseError> {
    let writing = |error| errors::file("writing", to, error);
    let mut source = match File::open(from) {
        Ok(source) => source,
        Err(error) => return Ok(Err(error)),
    };
    let mut target = files::create_new_private(to).map_err(writing)?;
    let mut hasher = blake3::Hasher::new();
    let mut step = vec![0; 1 << 20];
    loop {
        let read = match source.read(&mut step) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => {
                drop(fs::remove_file(to));
                return Ok(Err(error));
            }
        };
        hasher.update(&step[..read]);
        target.write_all(&step[..read]).map_err(writing)?;
    }
    target.sync_all().map_err(writing)?;
    Ok(Ok(hasher.finalize().to_hex().to_string()))
}
