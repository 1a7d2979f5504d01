//! The lines of an examination.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use supervisor_core::error::{DatabaseError, chain};

use super::{DoctorLine, DoctorVerdict};
use crate::anchor::Anchor;
use crate::backup::{self, BackupHealth};
use crate::filesystem::{self, Kind};
use crate::folders::{Folders, parent, with_suffix};
use crate::{access, checkpoint, files, ladder, open, row, schema};

/// Size of the write-ahead log that deserves a look, in bytes.
const WAL_WARN: u64 = 64 << 20;
/// Free space that deserves a look, and that is too little, in bytes.
const SPACE_WARN: u64 = 256 << 20;
const SPACE_FAIL: u64 = 16 << 20;
/// Age of the newest backup that deserves a look.
const BACKUP_WARN: Duration = Duration::from_secs(48 * 3600);
/// Longest look at the structure.
const STRUCTURE_CAP: Duration = Duration::from_secs(5);

/// What is examined.
pub(super) struct Patient {
    pub(super) folders: Folders,
    pub(super) checkpoint_dir: PathBuf,
    pub(super) now: DateTime<Utc>,
    /// The store is open in this process, so its file must not be opened but by SQLite.
    pub(super) live: bool,
}

fn line(name: &str, verdict: DoctorVerdict, found: impl Into<String>, advice: &str) -> DoctorLine {
    DoctorLine { name: name.to_owned(), verdict, found: found.into(), advice: advice.to_owned() }
}

pub(super) fn ok(name: &str, found: impl Into<String>) -> DoctorLine {
    line(name, DoctorVerdict::Ok, found, "")
}

fn warn(name: &str, found: impl Into<String>, advice: &str) -> DoctorLine {
    line(name, DoctorVerdict::Warn, found, advice)
}

pub(super) fn fail(name: &str, found: impl Into<String>, advice: &str) -> DoctorLine {
    line(name, DoctorVerdict::Fail, found, advice)
}

pub(super) fn all(patient: &Patient) -> Vec<DoctorLine> {
    let mut lines =
        vec![sqlite(), filesystem_line(patient), space(patient), modes(patient), owner(patient)];
    match connect(patient) {
        Ok(mut connection) => {
            lines.push(ok("database", "ours, and of a version this program knows"));
            lines.push(pragmas(&connection));
            lines.push(structure(&mut connection));
            lines.push(wal(patient));
            lines.push(checkpoints(patient, &connection));
            lines.push(audit(patient, &connection));
            lines.push(recovery(&connection));
        }
        Err(line) => lines.push(line),
    }
    lines.extend([backups(patient), savepoints(patient), quarantine(patient)]);
    lines
}

fn sqlite() -> DoctorLine {
    let version = rusqlite::version();
    match schema::check_library() {
        Ok(()) => ok("sqlite", version),
        Err(error) => fail("sqlite", error.to_string(), "build with the bundled SQLite"),
    }
}

fn filesystem_line(patient: &Patient) -> DoctorLine {
    let name = "filesystem";
    match filesystem::kind(parent(&patient.folders.database)) {
        Kind::Local(found) => ok(name, found),
        Kind::Unknown => ok(name, "of a kind the system does not tell"),
        Kind::Memory(found) => warn(
            name,
            format!("{found}: gone with the machine"),
            "use a state directory on a disk if it has to outlive a restart of the machine",
        ),
        Kind::Other(found) => warn(
            name,
            format!("{found}: another program decides whether syncs and locks hold"),
            "prefer a state directory on a local disk",
        ),
        Kind::Network(found) => fail(
            name,
            format!("{found}: what is acknowledged may be lost"),
            "move the state directory to a local disk",
        ),
    }
}

fn space(patient: &Patient) -> DoctorLine {
    let database = fs::metadata(&patient.folders.database).map_or(0, |found| found.len());
    let advice = "make room on the disk; backups can be pruned";
    let held = mib(database);
    match files::free_space(parent(&patient.folders.database)) {
        None => ok("space", format!("the database has {held}; free space is not told")),
        Some(free) if free < SPACE_FAIL => fail("space", format!("{} are free", mib(free)), advice),
        Some(free) if free < SPACE_WARN || free < database.saturating_mul(3) => {
            warn("space", format!("{} are free, the database has {held}", mib(free)), advice)
        }
        Some(free) => ok("space", format!("{} are free, the database has {held}", mib(free))),
    }
}

/// Gives a size with one digit behind the point.
fn mib(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn modes(patient: &Patient) -> DoctorLine {
    let folders = &patient.folders;
    let mut paths: Vec<PathBuf> =
        access::COMPANIONS.iter().map(|suffix| with_suffix(&folders.database, suffix)).collect();
    for directory in
        [&folders.backups, &folders.savepoints, &folders.quarantine, &patient.checkpoint_dir]
    {
        paths.push(directory.clone());
        paths.extend(
            fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()),
        );
    }
    let open: Vec<String> = paths.iter().filter_map(|path| access::open_to_others(path)).collect();
    if open.is_empty() {
        return ok("modes", "for their owner alone");
    }
    let shown = open.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    warn(
        "modes",
        format!("{} files or directories are open to others: {shown}", open.len()),
        "take that away with chmod go-rwx; the database's own files are repaired at the next start",
    )
}

fn owner(patient: &Patient) -> DoctorLine {
    let record = fs::read_to_string(with_suffix(&patient.folders.database, ".lock"));
    match record {
        Ok(text) if !text.trim().is_empty() => {
            ok("owner", format!("the last owner is process {}", text.trim()))
        }
        _ => ok("owner", "nobody has owned it yet"),
    }
}

/// Opens the database for reading, or says why that is not possible.
fn connect(patient: &Patient) -> Result<Connection, DoctorLine> {
    let path = &patient.folders.database;
    let name = "database";
    if !path.exists() {
        return Err(warn(name, "there is none", "start the supervisor, or restore a backup"));
    }
    if !patient.live {
        schema::inspect(path).map_err(|error| {
            let advice = match &error {
                DatabaseError::TooNew { .. } => {
                    "use the newer program, or go back to the backup taken before the upgrade"
                }
                DatabaseError::Corrupt { .. } => {
                    "start the supervisor: it moves the file aside and rebuilds it from a backup"
                }
                _ => "choose another state directory, or consent to moving the file aside",
            };
            fail(name, chain(&error), advice)
        })?;
    }
    open::reader(path).map_err(|error| {
        fail(name, chain(&error), "start the supervisor: it rebuilds what is damaged")
    })
}

fn pragmas(connection: &Connection) -> DoctorLine {
    let one = |pragma: &str| {
        let found: Result<rusqlite::types::Value, _> =
            connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0));
        match found {
            Ok(rusqlite::types::Value::Text(text)) => text,
            Ok(rusqlite::types::Value::Integer(number)) => number.to_string(),
            _ => "?".to_owned(),
        }
    };
    let mode = one("journal_mode");
    let text = ["page_size", "foreign_keys", "mmap_size", "cell_size_check", "user_version"]
        .iter()
        .fold(format!("journal_mode={mode}"), |text, pragma| {
            format!("{text} {pragma}={}", one(pragma))
        });
    if mode == "wal" {
        ok("pragmas", text)
    } else {
        warn("pragmas", text, "start the supervisor once: it switches the write-ahead log on")
    }
}

fn structure(connection: &mut Connection) -> DoctorLine {
    match ladder::check_structure(connection, true, Some(STRUCTURE_CAP)) {
        Ok(ladder::StructureCheck::Complete) => ok("structure", "sound"),
        Ok(ladder::StructureCheck::Partial) => {
            ok("structure", "no damage found in the time that was given")
        }
        Err(error) => fail(
            "structure",
            chain(&error),
            "restart the supervisor: it moves the file aside and rebuilds it from a backup",
        ),
    }
}

fn wal(patient: &Patient) -> DoctorLine {
    let size =
        fs::metadata(with_suffix(&patient.folders.database, "-wal")).map_or(0, |found| found.len());
    if size > WAL_WARN {
        let advice = "a reader keeps it from being cut; end long questions, or restart";
        return warn("wal", mib(size), advice);
    }
    ok("wal", mib(size))
}

fn checkpoints(patient: &Patient, connection: &Connection) -> DoctorLine {
    let name = "checkpoints";
    let newest = connection.query_row(
        "SELECT number, created_at, (SELECT count(*) FROM checkpoint WHERE quarantine IS NOT NULL)
         FROM checkpoint WHERE number = (SELECT max(number) FROM checkpoint)",
        [],
        |row| Ok((row::number(row, 0)?, row.get::<_, i64>(1)?, row::number(row, 2)?)),
    );
    let (number, at, aside) = match newest {
        Ok(newest) => newest,
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            return warn(name, "there is none yet", "take one");
        }
        Err(error) => return fail(name, error.to_string(), "start the supervisor"),
    };
    let age = age(row::time(at), patient.now);
    let in_database = checkpoint::read_row(connection, number).map(|(_, read)| read);
    let in_file = checkpoint::read_copy(&patient.checkpoint_dir, number);
    let advice = "take a new one; what is damaged is kept aside";
    match (in_database, in_file) {
        (Ok(Ok(_)), Ok(_)) if aside == 0 => {
            ok(name, format!("the newest is {age} old and verified in both places"))
        }
        (Ok(Ok(_)), Ok(_)) => warn(
            name,
            format!("the newest is {age} old and verified; {aside} are put aside"),
            advice,
        ),
        (Ok(Ok(_)), Err(reason)) => {
            warn(name, format!("the newest is {age} old; its file: {reason}"), advice)
        }
        (Ok(Err(reason)), Ok(_)) => {
            warn(name, format!("the newest is {age} old; in the database: {reason}"), advice)
        }
        (Ok(Err(reason)), Err(other)) => {
            fail(name, format!("the newest is damaged: {reason}; its file: {other}"), advice)
        }
        (Err(error), _) => fail(name, chain(&error), advice),
    }
}

fn audit(patient: &Patient, connection: &Connection) -> DoctorLine {
    let name = "audit";
    let head = "SELECT coalesce(max(sequence), 0) FROM audit";
    let head = match connection.query_row(head, [], |row| row::number(row, 0)) {
        Ok(head) => head,
        Err(error) => return fail(name, error.to_string(), "start the supervisor"),
    };
    match Anchor::beside(&patient.folders.database).read() {
        Err(error) => fail(name, chain(&error), "settle the recovery report to anchor it anew"),
        Ok(None) if head > 0 => warn(
            name,
            format!("{head} rows, and no anchor yet"),
            "it is written at the next checkpoint and when the supervisor ends",
        ),
        Ok(None) => ok(name, "empty"),
        Ok(Some(anchor)) if anchor.sequence.get() > head => fail(
            name,
            format!("ends at row {head}, but row {} was anchored: rows are lost", anchor.sequence),
            "go back to a backup that has them, or settle the recovery report",
        ),
        Ok(Some(anchor)) => {
            ok(name, format!("ends at row {head}, anchored at {}", anchor.sequence))
        }
    }
}

fn recovery(connection: &Connection) -> DoctorLine {
    let open = "SELECT count(*) FROM recovery WHERE settled = 0";
    match connection.query_row(open, [], |row| row::number(row, 0)) {
        Ok(0) => ok("recovery", "nothing to look at"),
        Ok(open) => warn(
            "recovery",
            format!("{open} findings nobody has looked at"),
            "read the recovery report and settle it",
        ),
        Err(error) => warn("recovery", error.to_string(), "start the supervisor once"),
    }
}

fn backups(patient: &Patient) -> DoctorLine {
    let name = "backups";
    let all = backup::list(&patient.folders.backups);
    let damaged = all.iter().filter(|found| !found.health.is_sound()).count();
    let advice = "take one";
    let Some(newest) = all.iter().find(|found| found.health.is_sound()) else {
        return match damaged {
            0 => warn(name, "there is none", advice),
            _ => fail(name, format!("{damaged}, and every one is damaged"), advice),
        };
    };
    let verified = all.iter().filter_map(|found| match found.health {
        BackupHealth::Verified { at } => Some(at),
        BackupHealth::Damaged { .. } => None,
    });
    let verified = verified.max().map_or_else(String::new, |at| age(at, patient.now));
    let text = format!(
        "{} of them; the newest sound one is {} old, the last check {verified} ago; {damaged} damaged",
        all.len(),
        age(newest.created_at, patient.now)
    );
    let old = patient.now.signed_duration_since(newest.created_at).to_std().unwrap_or_default();
    if old > BACKUP_WARN || damaged > 0 {
        return warn(name, text, advice);
    }
    ok(name, text)
}

fn savepoints(patient: &Patient) -> DoctorLine {
    let all = crate::savepoint::summaries(&patient.folders.savepoints);
    let sound =
        |found: &&crate::SavepointSummary| matches!(found.health, crate::SavepointHealth::Verified);
    let damaged = all.len() - all.iter().filter(sound).count();
    if damaged > 0 {
        let advice = "import them again from where they were exported to, or delete them";
        return warn("savepoints", format!("{} of {} are damaged", damaged, all.len()), advice);
    }
    ok("savepoints", format!("{}, all sound", all.len()))
}

fn quarantine(patient: &Patient) -> DoctorLine {
    let sets = fs::read_dir(&patient.folders.quarantine).map_or(0, Iterator::count);
    if sets == 0 {
        return ok("quarantine", "empty");
    }
    let bytes = bytes_below(&patient.folders.quarantine, 3);
    warn(
        "quarantine",
        format!("{sets} findings of {bytes} bytes"),
        "look at them, then delete what nobody needs",
    )
}

fn bytes_below(directory: &Path, depth: u8) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => bytes_below(&entry.path(), depth - 1),
            Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |found| found.len()),
            _ => 0,
        })
        .sum()
}

/// Says how long ago something was, in the largest unit that fits.
fn age(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = now.signed_duration_since(then).num_seconds();
    match seconds {
        ..0 => "less than nothing (the clock went back)".to_owned(),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
