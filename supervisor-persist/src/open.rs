//! Opening connections, and refusing one whose settings did not take effect.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use supervisor_core::error::DatabaseError;

use crate::{errors, schema};

/// How long a connection waits for another one's lock; only our own readers and writer compete.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Size the write-ahead log is cut back to after it was checkpointed, in bytes.
const WAL_LIMIT: i64 = 16 << 20;
/// Prepared statements kept; more than there are different ones.
const STATEMENTS: usize = 64;
/// Longest search for structural damage while callers wait.
const CHECK_MAX: Duration = Duration::from_secs(1);

/// Opens the one connection that writes.
pub(crate) fn writer(path: &Path) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| open_error(path, error))?;
    set_up_writer(path, connection)
}

fn set_up_writer(path: &Path, connection: Connection) -> Result<Connection, DatabaseError> {
    configure(path, &connection)?;
    // A failed sync while switching leaves the old mode without an error, so every setting is read back.
    expect(path, &connection, "journal_mode", "WAL", "wal")?;
    expect(path, &connection, "synchronous", "FULL", "2")?;
    if cfg!(target_os = "macos") {
        // A plain fsync does not reach the platter there.
        expect(path, &connection, "fullfsync", "ON", "1")?;
        expect(path, &connection, "checkpoint_fullfsync", "ON", "1")?;
    }
    connection
        .pragma_update(None, "journal_size_limit", WAL_LIMIT)
        .map_err(|error| errors::sqlite("the log's size limit", error))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Opens the connection that writes once more; the file must still be ours, and none is made in its place.
pub(crate) fn writer_again(path: &Path) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| open_error(path, error))?;
    // Asked of SQLite and not of the file: closing a file handle of our own would drop the locks of our readers.
    let application: i32 = connection
        .query_row("PRAGMA application_id", [], |row| row.get(0))
        .map_err(|error| open_error(path, error))?;
    if application != schema::APPLICATION_ID {
        let reason = format!("its application id is {application:#x}");
        return Err(DatabaseError::Foreign { path: path.to_owned(), reason });
    }
    set_up_writer(path, connection)
}

/// Looks for structural damage, for at most a second.
pub(crate) fn quick_check(connection: &mut Connection) -> Result<(), DatabaseError> {
    let failed = |error| errors::sqlite("the database's structure", error);
    let began = Instant::now();
    let late = move || began.elapsed() > CHECK_MAX;
    connection.progress_handler(10_000, Some(late)).map_err(failed)?;
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    connection.progress_handler(0, None::<fn() -> bool>).map_err(failed)?;
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(reason) => Err(DatabaseError::Corrupt { subject: "the database".to_owned(), reason }),
        // Out of time without a finding.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Opens a connection that only reads.
pub(crate) fn reader(path: &Path) -> Result<Connection, DatabaseError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| open_error(path, error))?;
    configure(path, &connection)?;
    Ok(connection)
}

fn configure(path: &Path, connection: &Connection) -> Result<(), DatabaseError> {
    let failed = |error| open_error(path, error);
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).map_err(failed)?;
    expect(path, connection, "foreign_keys", "ON", "1")?;
    // An I/O error on a mapped page is a signal instead of an error.
    expect(path, connection, "mmap_size", "0", "0")?;
    expect(path, connection, "cell_size_check", "ON", "1")
}

/// Sets a pragma and refuses the file if it reads back otherwise.
fn expect(
    path: &Path,
    connection: &Connection,
    pragma: &'static str,
    value: &str,
    wanted: &str,
) -> Result<(), DatabaseError> {
    let failed = |error| open_error(path, error);
    connection.execute_batch(&format!("PRAGMA {pragma}={value};")).map_err(failed)?;
    let found: String = connection
        .query_row(&format!("PRAGMA {pragma}"), [], |row| {
            row.get::<_, rusqlite::types::Value>(0).map(|value| match value {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text.to_lowercase(),
                other => format!("{other:?}"),
            })
        })
        .map_err(failed)?;
    if found == wanted {
        return Ok(());
    }
    Err(DatabaseError::Pragma { path: path.to_owned(), pragma, wanted: wanted.to_owned(), found })
}

fn open_error(path: &Path, error: rusqlite::Error) -> DatabaseError {
    match errors::sqlite(&path.display().to_string(), error) {
        DatabaseError::Storage { source, .. } => {
            DatabaseError::Open { path: path.to_owned(), source }
        }
        other => other,
    }
}
