//! Taking a backup: copy, reopen, read, hash, sync, name, manifest. Only the last step makes it one.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use supervisor_core::error::DatabaseError;

use super::types::{BackupHealth, BackupProgress, BackupReason, BackupStage, BackupSummary};
use super::{folder, proof};
use crate::folders::with_suffix;
use crate::{errors, files, open};

/// Virtual machine steps between two reports of progress.
const STEPS: std::ffi::c_int = 50_000;
/// Space that is left over for everything else, in bytes.
const SPARE: u64 = 4 << 20;

/// Told how far it is; called on the thread that works.
pub(crate) type Progress = Arc<dyn Fn(BackupProgress) + Send + Sync>;

/// Takes one backup of the database into `dir`.
///
/// Writers are not held up: what is copied is what was committed when it began.
pub(crate) fn take(
    database: &Path,
    dir: &Path,
    reason: BackupReason,
    at: DateTime<Utc>,
    progress: &Progress,
) -> Result<BackupSummary, DatabaseError> {
    files::create_private_dir(dir).map_err(|error| errors::file("creating", dir, error))?;
    let mut source = open::reader(database)?;
    let total = size(&source)?;
    check_space(dir, total)?;
    let number = folder::next_number(dir);
    let name = folder::name(number, at);
    let path = folder::database(dir, &name);
    let unfinished = with_suffix(&path, folder::UNFINISHED);
    let taken = copy_and_prove(&mut source, total, &unfinished, progress).and_then(
        |(content, hash, bytes)| {
            progress(BackupProgress { stage: BackupStage::Publishing, done: 0, total: 1 });
            publish(&unfinished, &path)?;
            let summary = BackupSummary {
                name,
                number,
                created_at: at,
                reason,
                bytes,
                blake3: hash,
                content,
                health: BackupHealth::Verified { at },
            };
            folder::write(dir, &summary)?;
            progress(BackupProgress { stage: BackupStage::Publishing, done: 1, total: 1 });
            Ok(summary)
        },
    );
    if taken.is_err() {
        // A backup that was not proven is none; if it cannot be removed now, the next start does it.
        drop(fs::remove_file(&unfinished));
    }
    taken
}

fn copy_and_prove(
    source: &mut Connection,
    total: u64,
    target: &Path,
    progress: &Progress,
) -> Result<(super::types::BackupContent, String, u64), DatabaseError> {
    let damaged =
        |reason: String| DatabaseError::Corrupt { subject: "the new backup".into(), reason };
    progress(BackupProgress { stage: BackupStage::Copying, done: 0, total });
    let before = heads(source)?;
    copy(source, total, target, progress)?;
    let after = heads(source)?;
    progress(BackupProgress { stage: BackupStage::Proving, done: 0, total });
    let content = proof::read(target).map_err(damaged)?;
    let found = [content.sequence.get(), content.events.get(), content.audit.get()];
    let within =
        found.iter().zip(before).zip(after).all(|((is, low), high)| (low..=high).contains(is));
    if !within {
        return Err(damaged(format!(
            "it ends at journal, event and audit rows {found:?}, the database went from {before:?} to {after:?}"
        )));
    }
    progress(BackupProgress { stage: BackupStage::Proving, done: total, total });
    let length = fs::metadata(target).map_or(0, |found| found.len());
    let hashed = proof::hash(target, |done| {
        progress(BackupProgress { stage: BackupStage::Hashing, done, total: length });
    });
    let (hash, bytes) = hashed.map_err(|error| errors::file("reading", target, error))?;
    Ok((content, hash, bytes))
}

/// Copies what is committed into a new file for this user alone.
fn copy(
    source: &mut Connection,
    total: u64,
    target: &Path,
    progress: &Progress,
) -> Result<(), DatabaseError> {
    files::create_new_private(target).map_err(|error| errors::file("creating", target, error))?;
    let failed = |error| errors::sqlite("a backup", error);
    let text = target.to_str().ok_or_else(|| DatabaseError::Refused {
        subject: target.display().to_string(),
        reason: "SQLite takes only UTF-8 paths; move the state directory".to_owned(),
    })?;
    let (told, watched) = (Arc::clone(progress), target.to_owned());
    let tell = move || {
        let done = fs::metadata(&watched).map_or(0, |found| found.len());
        told(BackupProgress { stage: BackupStage::Copying, done, total });
        false
    };
    source.progress_handler(STEPS, Some(tell)).map_err(failed)?;
    // VACUUM INTO leaves free pages out and takes an empty file, which has the mode it was made with.
    let copied = source.execute("VACUUM INTO ?1", [text]);
    source.progress_handler(0, None::<fn() -> bool>).map_err(failed)?;
    copied.map(drop).map_err(failed)
}

fn publish(unfinished: &Path, path: &Path) -> Result<(), DatabaseError> {
    let failed = |error| errors::file("publishing", path, error);
    files::sync_file(unfinished).map_err(failed)?;
    fs::rename(unfinished, path).map_err(failed)?;
    files::sync_directory(path.parent().unwrap_or_else(|| Path::new("."))).map_err(failed)
}

/// Tells whether a backup holds the newest journal, event and audit rows there are.
pub(crate) fn is_current(database: &Path, backup: &BackupSummary) -> Result<bool, DatabaseError> {
    let content = &backup.content;
    let held = [content.sequence.get(), content.events.get(), content.audit.get()];
    Ok(heads(&open::reader(database)?)? == held)
}

/// Gives the newest rows of journal, events and audit; an older schema may not have them.
fn heads(connection: &Connection) -> Result<[u64; 3], DatabaseError> {
    let one = |table: &str| {
        if !has_table(connection, table) {
            return Ok(0);
        }
        let query = format!("SELECT coalesce(max(sequence), 0) FROM {table}");
        let newest = connection.query_row(&query, [], |row| crate::row::number(row, 0));
        newest.map_err(|error| errors::sqlite("the newest rows", error))
    };
    Ok([one("journal")?, one("event")?, one("audit")?])
}

fn has_table(connection: &Connection, table: &str) -> bool {
    let query = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    connection.query_row(query, [table], |row| row.get::<_, i64>(0)).is_ok_and(|found| found > 0)
}

fn size(connection: &Connection) -> Result<u64, DatabaseError> {
    let one = |query: &str| connection.query_row(query, [], |row| crate::row::number(row, 0));
    one("PRAGMA page_count")
        .and_then(|pages| Ok(pages * one("PRAGMA page_size")?))
        .map_err(|error| errors::sqlite("the database's size", error))
}

/// Refuses while there is room: a backup that fills the disk would stop the database too.
fn check_space(dir: &Path, wanted: u64) -> Result<(), DatabaseError> {
    match files::free_space(dir) {
        Some(free) if free < wanted.saturating_add(SPARE) => {
            Err(DatabaseError::DiskFull { subject: format!("a backup of {wanted} bytes") })
        }
        _ => Ok(()),
    }
}
