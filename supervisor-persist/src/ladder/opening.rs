//! Opening a database whatever state it is in: refused untouched, used, or moved aside and rebuilt.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, ErrorCode, OptionalExtension};
use supervisor_core::error::{DatabaseError, MigrationError, chain};

use super::notes;
use super::rebuild::{self, Rebuilt};
use super::runs;
use super::types::{
    DatabaseOrigin, LostTail, MigrationDone, NoteKind, RecoveryNote, RecoveryReport, StructureCheck,
};
use crate::anchor::Anchor;
use crate::backup::{self, BackupReason};
use crate::folders::Folders;
use crate::{access, checkpoint, errors, files, open, row, schema, shape};

/// Longest look at the structure after a clean end.
const CLEAN_CHECK: Duration = Duration::from_millis(20);
/// Longest look at the structure after an unclean end: being up again at once is worth more than certainty, and
/// `check_structure` looks at all of it later.
const UNCLEAN_CHECK: Duration = Duration::from_millis(40);
/// Virtual machine steps between two looks at the clock.
const STEPS: std::ffi::c_int = 1000;

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) folders: &'a Folders,
    pub(crate) checkpoint_dir: &'a Path,
    pub(crate) at: DateTime<Utc>,
    /// A database that is refused may be moved aside.
    pub(crate) set_aside: bool,
    /// The database is to be replaced by this backup.
    pub(crate) from_backup: Option<String>,
}

/// An open database, and how it came to be.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) report: RecoveryReport,
    /// What no opening found before.
    pub(crate) fresh: Vec<RecoveryNote>,
}

/// Opens the database, with the lock held.
pub(crate) fn open(request: Request<'_>) -> Result<Opened, DatabaseError> {
    open_with(request, &schema::runner)
}

/// As [`open`], with given migrations.
pub(super) fn open_with(
    request: Request<'_>,
    runner: &dyn Fn() -> refinery::Runner,
) -> Result<Opened, DatabaseError> {
    let folders = request.folders;
    access::secure(&folders.database)?;
    let ours = [request.checkpoint_dir, &folders.backups, &folders.savepoints, &folders.quarantine];
    ours.into_iter().try_for_each(access::secure_folder)?;
    let swept = backup::sweep(&folders.backups);
    let mut rebuilt = rebuild::resume(folders)?;
    if let Some(wanted) = request.from_backup.clone() {
        let reason = format!("backup {wanted} was asked for");
        rebuilt = Some(rebuild::run(folders, request.at, reason, Some(wanted))?);
    } else if rebuilt.is_none() && is_gone(folders) {
        let reason = "nothing was there where a database had been".to_owned();
        rebuilt = Some(rebuild::run(folders, request.at, reason, None)?);
    }
    let (found, rebuilt) = match sound(&request, runner) {
        Ok(found) => (found, rebuilt),
        Err(error) if may_rebuild(&error, request.set_aside) => {
            tracing::error!(error = %chain(&error), "the database is moved aside and rebuilt");
            let again = rebuild::run(folders, request.at, chain(&error), None)?;
            (sound(&request, runner)?, Some(again))
        }
        Err(error) => return Err(name_the_way_back(error, folders)),
    };
    settle(&request, found, rebuilt, swept)
}

/// A database that opened and whose structure and schema are as they should be.
struct Sound {
    connection: Connection,
    version: u32,
    unclean_since: Option<i64>,
    structure: StructureCheck,
    mended: Vec<String>,
    migrated: Option<MigrationDone>,
}

fn sound(
    request: &Request<'_>,
    runner: &dyn Fn() -> refinery::Runner,
) -> Result<Sound, DatabaseError> {
    let path = &request.folders.database;
    let version = schema::inspect(path)?;
    prepare_file(path)?;
    if version == 0 {
        schema::mark(path)?;
    }
    let mut connection = open::writer(path)?;
    let unclean_since = unclean_since(&connection)?;
    let cap = if unclean_since.is_some() { UNCLEAN_CHECK } else { CLEAN_CHECK };
    let structure = check_structure(&mut connection, unclean_since.is_some(), Some(cap))?;
    // Before any of it is used: a view or trigger that somebody put in would run with our rights.
    schema::judge_history(&connection, &runner())?;
    // The history says it and not the file's header, which is written after the migrations were committed.
    let done = schema::history_version(&connection)?;
    let mended = shape::judge(path, &connection, done, &runner())?;
    if done != version {
        schema::write_version(&connection, done)?;
    }
    let (connection, migrated) = migrate(request, connection, done, runner)?;
    Ok(Sound { connection, version: done, unclean_since, structure, mended, migrated })
}

/// Tells whether a database was here and is not any more, with something to make one from.
fn is_gone(folders: &Folders) -> bool {
    let empty = fs::metadata(&folders.database).map_or(true, |found| found.len() == 0);
    empty && backup::list(&folders.backups).iter().any(|found| found.health.is_sound())
}

/// Damage is repaired without asking; what belongs to somebody else or to a newer program is not touched without consent.
fn may_rebuild(error: &DatabaseError, set_aside: bool) -> bool {
    match error {
        DatabaseError::Corrupt { .. } => true,
        DatabaseError::Foreign { path, .. } => set_aside && !path.is_symlink(),
        DatabaseError::TooNew { .. }
        | DatabaseError::Migration(
            MigrationError::Divergent { .. } | MigrationError::DamagedHistory { .. },
        ) => set_aside,
        _ => false,
    }
}

fn name_the_way_back(error: DatabaseError, folders: &Folders) -> DatabaseError {
    let DatabaseError::TooNew { path, found, .. } = error else { return error };
    let readable = backup::list(&folders.backups).into_iter().find(|backup| {
        backup.health.is_sound() && backup.content.schema_version <= schema::supported()
    });
    schema::too_new(&path, found, readable.map(|backup| backup.name))
}

/// Makes sure that the file exists with owner-only access before SQLite opens it: its log takes the same mode.
fn prepare_file(path: &Path) -> Result<(), DatabaseError> {
    let mut options = fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let opened = options.open(path);
    opened.map_err(|error| DatabaseError::Open { path: path.to_owned(), source: error.into() })?;
    files::make_private(path).map_err(|error| errors::file("securing", path, error))
}

/// Gives when the run before began, if it did not end by itself.
fn unclean_since(connection: &Connection) -> Result<Option<i64>, DatabaseError> {
    let failed = |error| errors::sqlite("the record of the run before", error);
    let known = "SELECT count(*) FROM sqlite_schema WHERE name = 'store_run'";
    let known: i64 = connection.query_row(known, [], |row| row.get(0)).map_err(failed)?;
    if known == 0 {
        return Ok(None);
    }
    connection
        .query_row("SELECT opened_at FROM store_run WHERE clean = 0", [], |row| row.get(0))
        .optional()
        .map_err(failed)
}

/// Looks for structural damage: thoroughly or quickly, and for no longer than `cap`.
pub(crate) fn check_structure(
    connection: &mut Connection,
    thorough: bool,
    cap: Option<Duration>,
) -> Result<StructureCheck, DatabaseError> {
    let failed = |error| errors::sqlite("the database's structure", error);
    if let Some(cap) = cap {
        let began = Instant::now();
        let late = move || began.elapsed() > cap;
        connection.progress_handler(STEPS, Some(late)).map_err(failed)?;
    }
    let query = if thorough { "PRAGMA integrity_check(1)" } else { "PRAGMA quick_check(1)" };
    let found = connection.query_row(query, [], |row| row.get::<_, String>(0));
    connection.progress_handler(0, None::<fn() -> bool>).map_err(failed)?;
    match found {
        Ok(found) if found == "ok" => Ok(StructureCheck::Complete),
        Ok(reason) => Err(DatabaseError::Corrupt { subject: "the database".to_owned(), reason }),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            Ok(StructureCheck::Partial)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Brings the schema up to date after a proven backup; on failure the file is as it was, from that backup if need be.
fn migrate(
    request: &Request<'_>,
    mut connection: Connection,
    from: u32,
    runner: &dyn Fn() -> refinery::Runner,
) -> Result<(Connection, Option<MigrationDone>), DatabaseError> {
    let to = schema::newest(&runner());
    schema::judge_history(&connection, &runner())?;
    if from == 0 || from >= to {
        schema::migrate_with(&mut connection, from, runner())?;
        return Ok((connection, None));
    }
    let backup = backup_before(request, from, to)
        .map_err(|error| MigrationError::Backup { source: error.into() })?;
    let Err(error) = schema::migrate_with(&mut connection, from, runner()) else {
        return Ok((connection, Some(MigrationDone { from, to, backup })));
    };
    drop(connection);
    if !is_as_before(&request.folders.database, from) {
        let reason = format!("migrating it failed: {}", chain(&error));
        rebuild::run(request.folders, request.at, reason, Some(backup))?;
    }
    Err(error)
}

/// Gives the backup taken before a migration: the newest, if nothing was stored since, or a new one.
fn backup_before(request: &Request<'_>, from: u32, to: u32) -> Result<String, DatabaseError> {
    let (database, dir) = (&request.folders.database, &request.folders.backups);
    let reason = BackupReason::BeforeMigration { from, to };
    let newest = backup::list(dir).into_iter().next();
    if let Some(newest) =
        newest.filter(|newest| newest.reason == reason && newest.health.is_sound())
        && backup::is_current(database, &newest)?
    {
        // A migration that fails at every start must not fill the disk with copies of the same.
        return Ok(newest.name);
    }
    backup::take(database, dir, reason, request.at, &(Arc::new(|_| {}) as backup::Progress))
        .map(|taken| taken.name)
}

fn is_as_before(path: &Path, version: u32) -> bool {
    let Ok(mut connection) = open::writer(path) else { return false };
    let found = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    found.is_ok_and(|found| found == i64::from(version))
        && check_structure(&mut connection, true, None).is_ok()
}

/// Writes down what was found, marks the run as begun, and only then forgets what a killed start had begun.
fn settle(
    request: &Request<'_>,
    found: Sound,
    rebuilt: Option<Rebuilt>,
    swept: Vec<String>,
) -> Result<Opened, DatabaseError> {
    let Sound { mut connection, version, unclean_since, structure, mended, migrated } = found;
    let lost_tail = lost_tail(request, &connection)?;
    let database = match rebuilt {
        Some(Rebuilt { reason, from, aside, rejected }) => {
            DatabaseOrigin::Rebuilt { reason, backup: from, quarantine: aside, rejected }
        }
        None if version == 0 => DatabaseOrigin::New,
        None => DatabaseOrigin::AsFound,
    };
    let mut report = RecoveryReport {
        unclean_stop: unclean_since.is_some(),
        structure,
        database,
        lost_tail,
        migrated,
        swept,
        notes: Vec::new(),
    };
    let found = findings(&report, unclean_since, &mended);
    let fresh = match write_down(&mut connection, &request.folders.database, request.at, found) {
        Ok(fresh) => {
            rebuild::done(request.folders)?;
            fresh
        }
        // A full disk must not keep anybody from what is on it; what a killed start began is gone on with next time.
        Err(error @ DatabaseError::DiskFull { .. }) => {
            tracing::error!(error = %chain(&error), "what opening found could not be written down");
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    report.notes = notes::read(&connection, notes::SHOWN)?;
    Ok(Opened { connection, report, fresh })
}

/// Stores findings and marks the run as begun, and gives the findings that are new.
fn write_down(
    connection: &mut Connection,
    database: &Path,
    at: DateTime<Utc>,
    found: Vec<Finding>,
) -> Result<Vec<RecoveryNote>, DatabaseError> {
    let failed = |error| errors::sqlite("what opening found", error);
    let millis = at.timestamp_millis();
    let transaction = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(failed)?;
    let mut fresh = Vec::new();
    for (kind, subject, reason, settled) in found {
        if notes::add(&transaction, millis, kind, &subject, &reason, settled).map_err(failed)? {
            fresh.push(RecoveryNote { number: 0, at, kind, subject, reason, settled });
        }
    }
    let run = "SELECT coalesce(max(run), 0) FROM store_run";
    let run = transaction.query_row(run, [], |row| row::number(row, 0)).map_err(failed)?;
    let run = run.max(runs::known(database)) + 1;
    let begun =
        "INSERT OR REPLACE INTO store_run (id, opened_at, clean, run) VALUES (1, ?1, 0, ?2)";
    transaction.execute(begun, (millis, row::stored(run))).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    runs::begun(database, run)?;
    Ok(fresh)
}

type Finding = (NoteKind, String, String, bool);

fn findings(
    report: &RecoveryReport,
    unclean_since: Option<i64>,
    mended: &[String],
) -> Vec<Finding> {
    let mut found = Vec::new();
    let subject = "database".to_owned();
    if let Some(began) = unclean_since {
        let reason = format!("the run that began {} did not end by itself", row::time(began));
        found.push((NoteKind::UncleanStop, subject.clone(), reason, true));
    }
    if !mended.is_empty() {
        let reason = format!("put back what was missing or different: {}", mended.join(", "));
        found.push((NoteKind::Damaged, subject.clone(), reason, false));
    }
    if let DatabaseOrigin::Rebuilt { reason, backup, quarantine, rejected } = &report.database {
        for rung in rejected {
            found.push((NoteKind::Rejected, rung.source.clone(), rung.reason.clone(), false));
        }
        let source = backup.as_ref().map_or_else(
            || "no backup; checkpoints come from their files".to_owned(),
            |name| format!("backup {name}"),
        );
        let kept = quarantine.as_ref().map_or_else(String::new, |place| {
            format!("; what was there is in {}", place.display())
        });
        let text = format!("{reason}; rebuilt from {source}{kept}");
        found.push((NoteKind::Rebuilt, subject.clone(), text, false));
    }
    if let Some(tail) = &report.lost_tail {
        found.push((NoteKind::LostTail, subject.clone(), tail_text(tail), false));
    }
    if let Some(done) = &report.migrated {
        let text = format!("from {} to {} after backup {}", done.from, done.to, done.backup);
        found.push((NoteKind::Migrated, subject, text, true));
    }
    found
}

/// Says in words what is lost.
pub(super) fn tail_text(tail: &LostTail) -> String {
    let mut text = String::new();
    if tail.trail_is_cut() {
        text = format!(
            "it ends at audit row {}, but row {} was stored once; ",
            tail.database, tail.anchored
        );
    }
    if tail.runs > 0 {
        text.push_str(&format!("it does not know the last {} runs; ", tail.runs));
    }
    let backups = if tail.backups.is_empty() { "none".to_owned() } else { tail.backups.join(", ") };
    text + &format!(
        "{} newer checkpoints are in files; backups that hold more: {backups}",
        tail.newer_checkpoints
    )
}

/// Compares the database with what was written down outside of it.
fn lost_tail(
    request: &Request<'_>,
    connection: &Connection,
) -> Result<Option<LostTail>, DatabaseError> {
    let anchored = match Anchor::beside(&request.folders.database).read() {
        Ok(anchored) => anchored.map(|head| head.sequence).unwrap_or_default(),
        // Verifying the trail says that it is damaged.
        Err(_) => supervisor_core::Sequence::ZERO,
    };
    let one = |query: &str| {
        connection
            .query_row(query, [], |row| row::number(row, 0))
            .map_err(|error| errors::sqlite("the newest rows", error))
    };
    let database = supervisor_core::Sequence(one("SELECT coalesce(max(sequence), 0) FROM audit")?);
    let journal = supervisor_core::Sequence(one("SELECT coalesce(max(sequence), 0) FROM journal")?);
    let newest = one("SELECT coalesce(max(number), 0) FROM checkpoint")?;
    let copies = checkpoint::copies(request.checkpoint_dir);
    let newer_checkpoints = copies.into_iter().filter(|number| *number > newest).count() as u64;
    let run = one("SELECT coalesce(max(run), 0) FROM store_run")?;
    let runs = runs::known(&request.folders.database).saturating_sub(run);
    if anchored <= database && runs == 0 {
        return Ok(None);
    }
    let backups = backup::list(&request.folders.backups)
        .into_iter()
        .filter(|found| found.health.is_sound())
        .filter(|found| found.content.audit > database || found.content.sequence > journal)
        .map(|found| found.name)
        .collect();
    Ok(Some(LostTail { database, anchored, runs, newer_checkpoints, backups }))
}

/// Keeps what the anchor says, for it will be overwritten once the trail has grown past it.
pub(super) fn keep_anchor(folders: &Folders, tail: &LostTail) -> Result<PathBuf, DatabaseError> {
    let from = crate::folders::with_suffix(&folders.database, ".audit-anchor");
    let to = folders.quarantine.join(format!("audit-anchor-{}", tail.anchored));
    files::create_private_dir(&folders.quarantine)
        .map_err(|error| errors::file("creating", &folders.quarantine, error))?;
    let text = fs::read(&from).map_err(|error| errors::file("reading", &from, error))?;
    files::write_atomically(&to, &text).map_err(|error| errors::file("writing", &to, error))?;
    Ok(to)
}
