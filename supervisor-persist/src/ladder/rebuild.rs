//! Moving a database aside that cannot be used, and putting the newest sound backup in its place.
//!
//! A marker beside the database says what was begun, so that a second start goes on where a killed one stopped: while
//! it says `aside`, whatever lies in the database's place is moved; once it says `install`, what lies there is ours.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use supervisor_core::checkpoint::RejectedRung;
use supervisor_core::error::{DatabaseError, chain};

use crate::backup::{self, BackupSummary};
use crate::folders::{Folders, with_suffix};
use crate::{errors, files, restore, schema, sealed};

/// Names the kind of file in its seal.
const KIND: &str = "ide-supervisor rebuild marker v1";
/// The parts of a database, the file itself first.
const PARTS: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// What was begun.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Marker {
    stage: Stage,
    reason: String,
    aside: PathBuf,
    /// The backup that was asked for by name.
    wanted: Option<String>,
    /// The backup whose copy is being put in place.
    from: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    Aside,
    Install,
}

/// What was done.
#[derive(Debug)]
pub(super) struct Rebuilt {
    pub(super) reason: String,
    pub(super) from: Option<String>,
    pub(super) aside: Option<PathBuf>,
    pub(super) rejected: Vec<RejectedRung>,
}

fn marker_path(folders: &Folders) -> PathBuf {
    with_suffix(&folders.database, ".rebuilding")
}

/// Goes on with what a killed start began, if there is something.
pub(super) fn resume(folders: &Folders) -> Result<Option<Rebuilt>, DatabaseError> {
    let path = marker_path(folders);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(errors::file("reading", &path, error)),
    };
    match sealed::read::<Marker>(KIND, &text) {
        Ok(marker) => finish(folders, marker).map(Some),
        Err(reason) => {
            // Whatever it said, what lies in the database's place is judged from the beginning.
            tracing::warn!(path = %path.display(), reason, "a damaged marker is put aside");
            let away = with_suffix(&path, ".damaged");
            fs::rename(&path, &away).map_err(|error| errors::file("moving", &path, error))?;
            Ok(None)
        }
    }
}

/// Moves what is there aside and rebuilds from `wanted`, or from the newest backup that verifies.
pub(super) fn run(
    folders: &Folders,
    at: DateTime<Utc>,
    reason: String,
    wanted: Option<String>,
) -> Result<Rebuilt, DatabaseError> {
    if let Some(name) = &wanted {
        // Before anything is moved: a name that is not there must not cost the database.
        let found = backup::list(&folders.backups).into_iter().find(|known| known.name == *name);
        let found =
            found.ok_or_else(|| DatabaseError::NotFound { subject: format!("backup {name}") })?;
        let trial = trial_path(folders);
        restore::remove_database(&trial);
        backup::copy_verified(&folders.backups, &found, &trial)?;
        restore::remove_database(&trial);
    }
    let marker =
        Marker { stage: Stage::Aside, reason, aside: free_place(folders, at), wanted, from: None };
    write(folders, &marker)?;
    finish(folders, marker)
}

/// The database is open and everything about it is stored: nothing is left to go on with.
pub(super) fn done(folders: &Folders) -> Result<(), DatabaseError> {
    let path = marker_path(folders);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(errors::file("removing", &path, error))
        }
        _ => Ok(()),
    }
}

/// Gives a directory in the quarantine that is not there yet.
fn free_place(folders: &Folders, at: DateTime<Utc>) -> PathBuf {
    let stamp = at.format("%Y%m%dT%H%M%SZ");
    let places = (1..).map(|n| folders.quarantine.join(format!("{stamp}-{n}")));
    let mut free = places.filter(|place| !place.exists());
    free.next().unwrap_or_else(|| folders.quarantine.clone())
}

fn write(folders: &Folders, marker: &Marker) -> Result<(), DatabaseError> {
    let path = marker_path(folders);
    let text = sealed::write(KIND, marker)
        .map_err(|error| errors::unreadable("the rebuild marker", &error))?;
    files::write_atomically(&path, &text).map_err(|error| errors::file("writing", &path, error))
}

fn trial_path(folders: &Folders) -> PathBuf {
    with_suffix(&folders.database, ".rebuild")
}

fn finish(folders: &Folders, mut marker: Marker) -> Result<Rebuilt, DatabaseError> {
    if marker.stage == Stage::Aside {
        move_aside(folders, &marker.aside)?;
        marker.stage = Stage::Install;
        write(folders, &marker)?;
    }
    let mut rejected = Vec::new();
    if !folders.database.exists() {
        rejected = install(folders, &mut marker)?;
    }
    Ok(Rebuilt {
        reason: marker.reason,
        from: marker.from,
        aside: marker.aside.exists().then_some(marker.aside),
        rejected,
    })
}

fn move_aside(folders: &Folders, aside: &Path) -> Result<(), DatabaseError> {
    for suffix in PARTS {
        let from = with_suffix(&folders.database, suffix);
        if fs::symlink_metadata(&from).is_err() {
            continue;
        }
        files::create_private_dir(aside).map_err(|error| errors::file("creating", aside, error))?;
        let to = aside.join(from.file_name().unwrap_or_default());
        fs::rename(&from, &to).map_err(|error| errors::file("moving aside", &from, error))?;
    }
    let parent = crate::folders::parent(&folders.database);
    for directory in [aside, &folders.quarantine, parent] {
        if directory.exists() {
            files::sync_directory(directory)
                .map_err(|error| errors::file("syncing", directory, error))?;
        }
    }
    Ok(())
}

/// Puts the first backup that verifies in place; with none the place stays empty.
fn install(folders: &Folders, marker: &mut Marker) -> Result<Vec<RejectedRung>, DatabaseError> {
    let trial = trial_path(folders);
    let mut rejected = Vec::new();
    let all = backup::list(&folders.backups);
    let wanted =
        all.iter().filter(|found| marker.wanted.as_ref().is_none_or(|name| *name == found.name));
    marker.from = None;
    for found in wanted {
        restore::remove_database(&trial);
        match try_one(folders, found, &trial) {
            Ok(()) => {
                marker.from = Some(found.name.clone());
                write(folders, marker)?;
                let named = fs::rename(&trial, &folders.database);
                named.map_err(|error| errors::file("renaming", &trial, error))?;
                let parent = crate::folders::parent(&folders.database);
                files::sync_directory(parent)
                    .map_err(|error| errors::file("syncing", parent, error))?;
                return Ok(rejected);
            }
            Err(error @ (DatabaseError::Corrupt { .. } | DatabaseError::TooNew { .. })) => {
                let source = format!("backup {}", found.name);
                rejected.push(RejectedRung { source, reason: chain(&error) });
            }
            // A full disk or a file that cannot be read now says nothing about the backup: better no start than
            // one from an older state than there is.
            Err(error) => return Err(error),
        }
    }
    Ok(rejected)
}

fn try_one(folders: &Folders, found: &BackupSummary, trial: &Path) -> Result<(), DatabaseError> {
    if found.content.schema_version > schema::supported() {
        return Err(schema::too_new(trial, found.content.schema_version, None));
    }
    backup::copy_verified(&folders.backups, found, trial)
}
