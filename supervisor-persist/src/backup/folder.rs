//! The directory of backups: names, manifests, and what a crash left in it.
//!
//! A backup is two files: `backup-N-TIME.db`, then `backup-N-TIME.manifest`, written last. A database without a
//! manifest is one that was being taken when the process died.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use supervisor_core::error::DatabaseError;

use super::types::{BackupContent, BackupHealth, BackupReason, BackupSummary};
use crate::{errors, files, sealed};

/// Names the kind of file in its seal.
const KIND: &str = "ide-supervisor backup manifest v1";
/// Longest manifest that is read, in bytes.
const MANIFEST_MAX: u64 = 1 << 20;
/// What is being written has this ending until it is whole.
pub(crate) const UNFINISHED: &str = ".tmp";

pub(super) fn name(number: u64, at: DateTime<Utc>) -> String {
    format!("backup-{number:08}-{}", at.format("%Y%m%dT%H%M%SZ"))
}

pub(super) fn database(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.db"))
}

pub(super) fn manifest(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.manifest"))
}

/// Reads the number out of a name of ours.
fn number(name: &str) -> Option<u64> {
    let (number, time) = name.strip_prefix("backup-")?.split_once('-')?;
    let ours = time.bytes().all(|byte| byte.is_ascii_alphanumeric());
    number.parse().ok().filter(|_| ours)
}

fn names(dir: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
}

/// Gives the number after the highest that any file here has, finished or not.
pub(super) fn next_number(dir: &Path) -> u64 {
    let numbers = names(dir).filter_map(|name| number(name.split('.').next().unwrap_or_default()));
    numbers.max().unwrap_or(0) + 1
}

/// Lists backups, the newest first. One whose manifest is damaged is listed as damaged.
pub(crate) fn list(dir: &Path) -> Vec<BackupSummary> {
    let mut found: Vec<_> = names(dir)
        .filter_map(|file| file.strip_suffix(".manifest").map(str::to_owned))
        .filter_map(|name| number(&name).map(|number| (number, name)))
        .map(|(number, name)| {
            read(dir, &name).unwrap_or_else(|reason| damaged(dir, number, &name, reason))
        })
        .collect();
    found.sort_by(|a, b| b.number.cmp(&a.number).then_with(|| b.name.cmp(&a.name)));
    found
}

fn read(dir: &Path, name: &str) -> Result<BackupSummary, String> {
    let path = manifest(dir, name);
    let length = fs::symlink_metadata(&path)
        .and_then(|found| {
            if found.is_file() {
                Ok(found.len())
            } else {
                Err(std::io::ErrorKind::InvalidData.into())
            }
        })
        .map_err(|error| format!("its manifest: {error}"))?;
    if length > MANIFEST_MAX {
        return Err(format!("its manifest has {length} bytes"));
    }
    let text = fs::read(&path).map_err(|error| format!("its manifest: {error}"))?;
    let summary: BackupSummary =
        sealed::read(KIND, &text).map_err(|reason| format!("its manifest: {reason}"))?;
    if summary.name != name {
        return Err(format!("its manifest is that of {}", summary.name));
    }
    Ok(summary)
}

fn damaged(dir: &Path, number: u64, name: &str, reason: String) -> BackupSummary {
    let file = fs::metadata(database(dir, name)).ok();
    BackupSummary {
        name: name.to_owned(),
        number,
        created_at: file
            .as_ref()
            .and_then(|file| file.modified().ok())
            .map(DateTime::from)
            .unwrap_or_default(),
        reason: BackupReason::Requested,
        bytes: file.map_or(0, |file| file.len()),
        blake3: String::new(),
        content: BackupContent::default(),
        health: BackupHealth::Damaged { reason },
    }
}

/// Writes a manifest; once it is there the backup counts.
pub(super) fn write(dir: &Path, summary: &BackupSummary) -> Result<(), DatabaseError> {
    let path = manifest(dir, &summary.name);
    let text = sealed::write(KIND, summary)
        .map_err(|error| errors::unreadable("a backup's manifest", &error))?;
    files::write_atomically(&path, &text).map_err(|error| errors::file("writing", &path, error))
}

/// Removes a backup: the manifest first, so that what is left of a crash in between is swept.
pub(super) fn remove(dir: &Path, name: &str) -> Result<(), DatabaseError> {
    for path in [manifest(dir, name), database(dir, name)] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(errors::file("removing", &path, error));
            }
            _ => {}
        }
    }
    files::sync_directory(dir).map_err(|error| errors::file("syncing", dir, error))
}

/// Removes what a crash left half done. Called by the owner before anything is written here.
pub(crate) fn sweep(dir: &Path) -> Vec<String> {
    let all: Vec<_> = names(dir).collect();
    let unfinished = all.iter().filter(|file| {
        let orphan = file.strip_suffix(".db").is_some_and(|name| {
            number(name).is_some() && !all.contains(&format!("{name}.manifest"))
        });
        let ours = file.starts_with("backup-") || file.starts_with("restore");
        orphan || (ours && file.contains(UNFINISHED))
    });
    unfinished.filter(|file| fs::remove_file(dir.join(file)).is_ok()).cloned().collect()
}
