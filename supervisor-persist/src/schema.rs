//! Whose file it is, which version it has, and bringing it up to date.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use supervisor_core::error::{DatabaseError, MigrationError};

use crate::errors;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Marks our files in SQLite's header: `IDES`.
pub(crate) const APPLICATION_ID: i32 = 0x4944_4553;
/// What every SQLite file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Oldest SQLite without the write-ahead log's reset bug (fixed in 3.51.3).
const SQLITE_MIN: i32 = 3_051_003;

/// Gives the newest schema version this program knows.
pub(crate) fn supported() -> u32 {
    newest(&runner())
}

/// Looks at a file before anything touches it.
///
/// An empty or missing file is a new database. Anything else must be SQLite's, carry our mark, and have a version
/// we know. The file is only read here, so a refused one is left exactly as it was.
pub(crate) fn inspect(path: &Path) -> Result<u32, DatabaseError> {
    let Some(found) = std::fs::metadata(path).ok() else {
        return Ok(0);
    };
    if found.is_dir() {
        return Err(foreign(path, "it is a directory"));
    }
    if !found.is_file() {
        return Err(foreign(path, "it is no regular file"));
    }
    if found.len() == 0 {
        return Ok(0);
    }
    let mut header = [0; 100];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.map_err(|_| foreign(path, "it is too short for a database"))?;
    if &header[..16] != MAGIC {
        return Err(foreign(path, "it is not an SQLite file"));
    }
    // The place of application_id in the header (SQLite file format, "The Database Header"). It is written to the
    // file itself before the first table is made and before the log is switched on, so it is there whatever was
    // killed when.
    let application = i32::from_be_bytes([header[68], header[69], header[70], header[71]]);
    match application {
        APPLICATION_ID => {}
        0 if is_blank(path) => return Ok(0),
        other => return Err(foreign(path, &format!("its application id is {other:#x}"))),
    }
    // The version is asked of SQLite: the newest one may still lie in the write-ahead log.
    let version: i64 = read_only(path)
        .and_then(|connection| connection.query_row("PRAGMA user_version", [], |row| row.get(0)))
        .map_err(|error| errors::sqlite(&path.display().to_string(), error))?;
    let found = u32::try_from(version).unwrap_or(u32::MAX);
    if found > supported() {
        return Err(too_new(path, found, None));
    }
    Ok(found)
}

fn read_only(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

/// Puts our mark into a new file, before its log is switched on.
pub(crate) fn mark(path: &Path) -> Result<(), DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
        .and_then(|connection| {
            connection.execute_batch(&format!("PRAGMA application_id={APPLICATION_ID};"))
        })
        .map_err(|error| errors::sqlite("the application id", error))
}

fn is_blank(path: &Path) -> bool {
    let tables = read_only(path).and_then(|connection| {
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
    });
    tables.is_ok_and(|tables| tables == 0)
}

fn foreign(path: &Path, reason: &str) -> DatabaseError {
    DatabaseError::Foreign { path: path.to_owned(), reason: reason.to_owned() }
}

/// Says that a newer program wrote the file.
pub(crate) fn too_new(path: &Path, found: u32, backup: Option<String>) -> DatabaseError {
    DatabaseError::TooNew { path: path.to_owned(), found, supported: supported(), backup }
}

/// Refuses a library that is known to lose commits.
pub(crate) fn check_library() -> Result<(), DatabaseError> {
    if rusqlite::version_number() >= SQLITE_MIN {
        return Ok(());
    }
    Err(DatabaseError::Refused {
        subject: format!("SQLite {}", rusqlite::version()),
        reason: "it may lose commits at a checkpoint of its log; build with the bundled one"
            .to_owned(),
    })
}

/// The migrations of this program.
pub(crate) fn runner() -> refinery::Runner {
    embedded::migrations::runner()
}

/// Brings the schema up to date: all pending migrations and their records in one transaction, or none.
pub(crate) fn migrate(connection: &mut Connection, from: u32) -> Result<(), DatabaseError> {
    migrate_with(connection, from, runner())
}

/// As [`migrate`], with given migrations.
pub(crate) fn migrate_with(
    connection: &mut Connection,
    from: u32,
    runner: refinery::Runner,
) -> Result<(), DatabaseError> {
    let to = newest(&runner);
    judge_history(connection, &runner)?;
    if from == to {
        return Ok(());
    }
    let runner = runner.set_grouped(true).set_abort_divergent(true).set_abort_missing(true);
    runner.run(connection).map_err(|error| migration_error(from, to, error))?;
    write_version(connection, to)
}

/// Writes the version into the file's header, where an opener sees it before it touches anything.
pub(crate) fn write_version(connection: &Connection, version: u32) -> Result<(), DatabaseError> {
    let versioned = connection.execute_batch(&format!("PRAGMA user_version={version};"));
    versioned.map_err(|error| errors::sqlite("the schema version", error))
}

/// Gives the version the migrations that were done lead to.
pub(crate) fn history_version(connection: &Connection) -> Result<u32, DatabaseError> {
    let newest = read_history(connection)?.into_iter().map(|(version, _, _)| version).max();
    Ok(newest.and_then(|version| u32::try_from(version).ok()).unwrap_or(0))
}

/// Gives the version the last of some migrations leads to.
pub(crate) fn newest(runner: &refinery::Runner) -> u32 {
    let newest = runner.get_migrations().iter().map(refinery::Migration::version).max();
    newest.and_then(|version| u32::try_from(version).ok()).unwrap_or(0)
}

/// Refuses a history that is damaged, or that differs from what this program would have done.
pub(crate) fn judge_history(
    connection: &Connection,
    runner: &refinery::Runner,
) -> Result<(), DatabaseError> {
    for (version, name, checksum) in read_history(connection)? {
        let known = runner.get_migrations().iter().any(|migration| {
            i64::from(migration.version()) == version
                && migration.name() == name
                && migration.checksum() == checksum
        });
        if !known {
            let version = u32::try_from(version).unwrap_or(u32::MAX);
            return Err(MigrationError::Divergent { version, name }.into());
        }
    }
    Ok(())
}

/// Reads the history before refinery does: it panics on a row it cannot parse.
fn read_history(connection: &Connection) -> Result<Vec<(i64, String, u64)>, DatabaseError> {
    let exists: bool = connection
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE name = 'refinery_schema_history'",
            [],
            |row| row.get::<_, i64>(0).map(|count| count > 0),
        )
        .map_err(|error| errors::sqlite("the migration history", error))?;
    if !exists {
        return Ok(Vec::new());
    }
    let damaged = |row: usize, reason: String| {
        DatabaseError::from(MigrationError::DamagedHistory { row, reason })
    };
    let mut statement = connection
        .prepare("SELECT version, name, applied_on, checksum FROM refinery_schema_history ORDER BY version")
        .map_err(|error| damaged(0, error.to_string()))?;
    let mut rows = statement.query([]).map_err(|error| damaged(0, error.to_string()))?;
    let mut history = Vec::new();
    loop {
        let number = history.len() + 1;
        let row = rows.next().map_err(|error| damaged(number, error.to_string()))?;
        let Some(row) = row else { return Ok(history) };
        let read = || -> Result<(i64, String, String, String), rusqlite::Error> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        };
        let (version, name, applied, checksum) =
            read().map_err(|error| damaged(number, error.to_string()))?;
        chrono::DateTime::parse_from_rfc3339(&applied)
            .map_err(|_| damaged(number, format!("time {applied:?}")))?;
        let checksum = checksum
            .parse::<u64>()
            .map_err(|_| damaged(number, format!("checksum {checksum:?}")))?;
        history.push((version, name, checksum));
    }
}

fn migration_error(from: u32, to: u32, error: refinery::Error) -> DatabaseError {
    let known = match error.kind() {
        refinery::error::Kind::DivergentVersion(applied, _)
        | refinery::error::Kind::MissingVersion(applied) => {
            Some((u32::try_from(applied.version()).unwrap_or(0), applied.name().to_owned()))
        }
        _ => None,
    };
    match known {
        Some((version, name)) => MigrationError::Divergent { version, name }.into(),
        None => MigrationError::Failed { from, to, source: error.into() }.into(),
    }
}
