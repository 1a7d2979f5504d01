//! Savepoints: snapshots a user names, keeps, carries elsewhere and restores on request. Nothing here removes one by itself.

mod file;
mod name;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use supervisor_core::checkpoint::{Checkpoint, CheckpointContent};
use supervisor_core::error::{DatabaseError, SecurityError};
use supervisor_core::ports::Journal;
use supervisor_core::{CheckpointId, Sequence};

use crate::backup::RestoreOutcome;
use crate::diff::SnapshotDiff;
use crate::{StatePersistence, checkpoint, errors, files, secure};

/// Savepoints of one store. At the bound a new one is refused: only their owner may delete them.
const SAVEPOINTS_MAX: usize = 1000;
/// The ending of their files.
const ENDING: &str = ".savepoint";

/// What is known of a savepoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointSummary {
    /// Names it; two names that differ only in case are the same.
    pub name: String,
    /// What its owner wrote about it.
    pub note: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Version of the program that made it.
    pub producer: String,
    /// Version of its content.
    pub schema: u32,
    /// The id of the snapshot in it, the same wherever it is imported.
    pub checkpoint: CheckpointId,
    /// The journal row it stands at.
    pub sequence: Sequence,
    /// Services in it.
    pub services: u64,
    /// Pending operations in it.
    pub pending_operations: u64,
    /// Channels in it.
    pub channels: u64,
    /// Size of the snapshot in bytes.
    pub bytes: u64,
    /// Hash of the snapshot, in hexadecimal.
    pub blake3: String,
    /// Whether it can be relied on.
    pub health: SavepointHealth,
}

/// Whether a savepoint can be relied on. There is no third answer: it is read whole whenever it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SavepointHealth {
    /// Every byte is as it was written.
    Verified,
    /// It is damaged or not ours; it is never restored, and stays until its owner deletes it.
    Damaged {
        /// How that was noticed.
        reason: String,
    },
}

/// A savepoint with what is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Savepoint {
    /// What is known of it.
    pub summary: SavepointSummary,
    /// The snapshot.
    pub snapshot: Checkpoint,
}

impl StatePersistence {
    /// Makes a savepoint of `content` under a new name; on return it was written, synced and read back.
    ///
    /// `content` is what the running services have, or [`stored_content`](Self::stored_content) when nothing runs.
    ///
    /// # Errors
    /// [`DatabaseError::Refused`] for a name that is taken or not allowed (1-64 characters of `a-z A-Z 0-9 _ - .`,
    /// beginning with a letter or digit), a note above 4096 bytes, or at the bound of 1000; what the system said otherwise.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer; the savepoint may still be made.
    pub async fn create_savepoint(
        &self,
        name: &str,
        note: &str,
        content: CheckpointContent,
    ) -> Result<SavepointSummary, DatabaseError> {
        name::judge(name)?;
        judge_note(note)?;
        let at = self.inner.clock.wall();
        let id = self.new_checkpoint_id(at);
        let sequence = Journal::head(self).await?;
        let (name, note) = (name.to_owned(), note.to_owned());
        let made = self
            .maintain(move |inner| {
                let payload = checkpoint::encode(id, at, sequence, &content)?;
                store(&inner.folders.savepoints, &name, &note, &payload)
            })
            .await?;
        self.note(&format!("savepoint {}", made.name), "made and read back").await?;
        Ok(made)
    }

    /// Lists the savepoints by name, each read whole and judged.
    ///
    /// # Errors
    /// [`DatabaseError::Closed`] when the runtime is going down.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn savepoints(&self) -> Result<Vec<SavepointSummary>, DatabaseError> {
        self.blocking(|inner| Ok(summaries(&inner.folders.savepoints))).await
    }

    /// Gives a savepoint with what is in it.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`], [`DatabaseError::Corrupt`] when it is damaged.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn savepoint(&self, name: &str) -> Result<Savepoint, DatabaseError> {
        let wanted = name.to_owned();
        self.blocking(move |inner| load(&inner.folders.savepoints, &wanted)).await
    }

    /// Says what restoring a savepoint would change, and changes nothing.
    ///
    /// # Errors
    /// As for [`savepoint`](Self::savepoint).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn diff_savepoint(
        &self,
        name: &str,
        now: &CheckpointContent,
    ) -> Result<SnapshotDiff, DatabaseError> {
        let savepoint = self.savepoint(name).await?;
        Ok(SnapshotDiff::between(now, &content(savepoint.snapshot)))
    }

    /// Puts a savepoint in the place of what is stored now, after a backup of that. Never done but on request.
    ///
    /// What is replaced and what stays is as for [`restore_backup`](Self::restore_backup).
    ///
    /// # Errors
    /// As for [`savepoint`](Self::savepoint) and [`create_backup`](Self::create_backup); nothing was changed then.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer; either everything or nothing is restored.
    pub async fn restore_savepoint(&self, name: &str) -> Result<RestoreOutcome, DatabaseError> {
        let savepoint = self.savepoint(name).await?;
        let source = format!("savepoint {}", savepoint.summary.name);
        self.restore_content(source, content(savepoint.snapshot), Vec::new()).await
    }

    /// Writes a savepoint to a new file below one of `roots` and gives its real place.
    ///
    /// # Errors
    /// As for [`savepoint`](Self::savepoint); [`DatabaseError::Refused`] for a path that leaves the roots, follows a link out of them, names a device,
    /// or where something is already.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer; a file that was cut short is refused by [`import_savepoint`](Self::import_savepoint).
    pub async fn export_savepoint(
        &self,
        name: &str,
        path: &Path,
        roots: &[PathBuf],
    ) -> Result<PathBuf, DatabaseError> {
        let (wanted, path, roots) = (name.to_owned(), path.to_owned(), roots.to_owned());
        let real = self
            .blocking(move |inner| {
                let (_, text) = read(&inner.folders.savepoints, &wanted)?;
                let (file, real) =
                    secure::create_secure_file(&path, &roots).map_err(|error| refused(&error))?;
                let written = (&file).write_all(&text).and_then(|()| file.sync_all());
                written.map_err(|error| {
                    drop(fs::remove_file(&real));
                    errors::file("writing", &real, error)
                })?;
                Ok(real)
            })
            .await?;
        self.note(&format!("savepoint {name}"), &format!("exported to {}", real.display())).await?;
        Ok(real)
    }

    /// Takes in a file that [`export_savepoint`](Self::export_savepoint) wrote, here or elsewhere, under its own name or another.
    ///
    /// # Errors
    /// [`DatabaseError::Refused`] for the path or a name that is taken; [`DatabaseError::Corrupt`] when the file is damaged, was made by hand or comes
    /// from a newer program. The file is only read.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer; the savepoint may still be there.
    pub async fn import_savepoint(
        &self,
        path: &Path,
        name: Option<&str>,
        roots: &[PathBuf],
    ) -> Result<SavepointSummary, DatabaseError> {
        let (path, roots) = (path.to_owned(), roots.to_owned());
        let wanted = name.map(str::to_owned);
        let made = self
            .maintain(move |inner| {
                let (source, real) =
                    secure::open_secure_file(&path, &roots).map_err(|error| refused(&error))?;
                let damaged = |reason| DatabaseError::Corrupt {
                    subject: format!("savepoint file {}", real.display()),
                    reason,
                };
                let text = file::read_all(source).map_err(damaged)?;
                let (header, _, payload) = file::decode(&text).map_err(damaged)?;
                let name = wanted.unwrap_or(header.name);
                name::judge(&name)?;
                store(&inner.folders.savepoints, &name, &header.note, payload)
            })
            .await?;
        self.note(&format!("savepoint {}", made.name), "imported and read back").await?;
        Ok(made)
    }

    /// Deletes a savepoint, a damaged one too.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`] and what the system said.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the deletion.
    pub async fn delete_savepoint(&self, name: &str) -> Result<(), DatabaseError> {
        let wanted = name.to_owned();
        let deleted = self
            .maintain(move |inner| {
                let dir = &inner.folders.savepoints;
                let name = known(dir, &wanted)?;
                let path = path(dir, &name);
                fs::remove_file(&path)
                    .and_then(|()| files::sync_directory(dir))
                    .map_err(|error| errors::file("removing", &path, error))?;
                Ok(name)
            })
            .await?;
        self.note(&format!("savepoint {deleted}"), "deleted").await
    }
}

fn refused(error: &SecurityError) -> DatabaseError {
    let SecurityError::Path { path, reason } = error else {
        return DatabaseError::Refused { subject: "path".to_owned(), reason: error.to_string() };
    };
    DatabaseError::Refused { subject: format!("path {path:?}"), reason: reason.clone() }
}

fn judge_note(note: &str) -> Result<(), DatabaseError> {
    if note.len() <= file::NOTE_MAX {
        return Ok(());
    }
    Err(DatabaseError::Refused {
        subject: "savepoint note".to_owned(),
        reason: format!("it has {} bytes, at most {} are taken", note.len(), file::NOTE_MAX),
    })
}

fn content(snapshot: Checkpoint) -> CheckpointContent {
    CheckpointContent {
        services: snapshot.services,
        pending_operations: snapshot.pending_operations,
        channels: snapshot.channels,
    }
}

fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{ENDING}"))
}

fn names(dir: &Path) -> Vec<String> {
    let mut found: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|file| file.strip_suffix(ENDING).map(str::to_owned))
        .filter(|name| name::judge(name).is_ok())
        .collect();
    found.sort();
    found
}

/// Gives the name as it is written in the directory.
fn known(dir: &Path, name: &str) -> Result<String, DatabaseError> {
    name::judge(name)?;
    let all = names(dir);
    let exact = all.iter().find(|known| *known == name);
    exact
        .or_else(|| all.iter().find(|known| known.eq_ignore_ascii_case(name)))
        .cloned()
        .ok_or_else(|| DatabaseError::NotFound { subject: format!("savepoint {name}") })
}

fn read(dir: &Path, wanted: &str) -> Result<(Savepoint, Vec<u8>), DatabaseError> {
    let name = known(dir, wanted)?;
    let damaged =
        |reason: String| DatabaseError::Corrupt { subject: format!("savepoint {name}"), reason };
    let opened = secure::open_secure_file(format!("{name}{ENDING}"), &[dir.to_owned()]);
    let (opened, _) = opened.map_err(|error| damaged(error.to_string()))?;
    let text = file::read_all(opened).map_err(damaged)?;
    let (header, snapshot, _) = file::decode(&text).map_err(damaged)?;
    if header.name != name {
        return Err(damaged(format!("it is savepoint {} under another name", header.name)));
    }
    Ok((Savepoint { summary: describe(header), snapshot }, text))
}

fn load(dir: &Path, name: &str) -> Result<Savepoint, DatabaseError> {
    read(dir, name).map(|(savepoint, _)| savepoint)
}

/// Lists what is in a directory, each read whole.
pub(crate) fn summaries(dir: &Path) -> Vec<SavepointSummary> {
    names(dir).iter().map(|name| summary(dir, name)).collect()
}

fn summary(dir: &Path, name: &str) -> SavepointSummary {
    let reason = match load(dir, name) {
        Ok(savepoint) => return savepoint.summary,
        Err(DatabaseError::Corrupt { reason, .. }) => reason,
        Err(error) => error.to_string(),
    };
    SavepointSummary {
        name: name.to_owned(),
        note: String::new(),
        created_at: DateTime::UNIX_EPOCH,
        producer: String::new(),
        schema: 0,
        checkpoint: CheckpointId(uuid::Uuid::nil()),
        sequence: Sequence::ZERO,
        services: 0,
        pending_operations: 0,
        channels: 0,
        bytes: fs::symlink_metadata(path(dir, name)).map_or(0, |found| found.len()),
        blake3: String::new(),
        health: SavepointHealth::Damaged { reason },
    }
}

fn describe(header: file::Header) -> SavepointSummary {
    SavepointSummary {
        name: header.name,
        note: header.note,
        created_at: header.created_at,
        producer: header.producer,
        schema: header.schema,
        checkpoint: header.checkpoint,
        sequence: header.sequence,
        services: header.services,
        pending_operations: header.pending_operations,
        channels: header.channels,
        bytes: header.bytes,
        blake3: header.blake3,
        health: SavepointHealth::Verified,
    }
}

/// Writes a savepoint under a name that is free and reads it back.
fn store(
    dir: &Path,
    name: &str,
    note: &str,
    payload: &[u8],
) -> Result<SavepointSummary, DatabaseError> {
    files::create_private_dir(dir).map_err(|error| errors::file("creating", dir, error))?;
    let refused =
        |reason: String| DatabaseError::Refused { subject: format!("savepoint {name}"), reason };
    let all = names(dir);
    if let Some(taken) = all.iter().find(|known| known.eq_ignore_ascii_case(name)) {
        return Err(refused(format!("there is {taken} already; delete it or take another name")));
    }
    if all.len() >= SAVEPOINTS_MAX {
        return Err(refused(format!("there are {SAVEPOINTS_MAX} already; delete some")));
    }
    let hash = blake3::hash(payload);
    let snapshot = checkpoint::parse(payload, hash.as_bytes()).map_err(|reason| {
        DatabaseError::Corrupt { subject: format!("savepoint {name}"), reason }
    })?;
    let header = file::header(name, note, &snapshot, payload);
    let text = file::encode(&header, payload)?;
    let path = path(dir, name);
    files::write_atomically(&path, &text).map_err(|error| errors::file("writing", &path, error))?;
    load(dir, name).map(|savepoint| savepoint.summary)
}
