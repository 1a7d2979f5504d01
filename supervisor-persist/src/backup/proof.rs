//! Reopening a copy of the database and reading what it holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use supervisor_core::Sequence;

use super::types::BackupContent;
use crate::{row, schema};

/// Bytes read at a time while hashing.
const HASH_STEP: usize = 1 << 20;

/// Opens a file that nothing else writes, without locks and without looking at any log beside it: what is read is
/// the file and nothing but the file.
pub(crate) fn open_alone(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(immutable_uri(path), flags)?;
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.execute_batch("PRAGMA mmap_size=0; PRAGMA cell_size_check=ON;")?;
    Ok(connection)
}

fn immutable_uri(path: &Path) -> String {
    use std::fmt::Write;
    let mut uri = "file:".to_owned();
    if cfg!(windows) {
        uri.push_str("///");
    }
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                uri.push(char::from(*byte));
            }
            b'\\' if cfg!(windows) => uri.push('/'),
            b':' if cfg!(windows) => uri.push(':'),
            // Writing to a string cannot fail.
            other => _ = write!(uri, "%{other:02X}"),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// Hashes a whole file and gives the hash with the length.
pub(crate) fn hash(path: &Path, mut progress: impl FnMut(u64)) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut step = vec![0; HASH_STEP];
    let mut done = 0;
    loop {
        let read = file.read(&mut step)?;
        if read == 0 {
            return Ok((hasher.finalize().to_hex().to_string(), done));
        }
        hasher.update(&step[..read]);
        done += read as u64;
        progress(done);
    }
}

/// Reads everything in a copy and says what it holds, or why it is none of ours or damaged.
pub(super) fn read(path: &Path) -> Result<BackupContent, String> {
    let connection = open_alone(path).map_err(|error| error.to_string())?;
    contents(&connection).map_err(|error| error.to_string())?
}

fn contents(connection: &Connection) -> Result<Result<BackupContent, String>, rusqlite::Error> {
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Ok(Err(format!("its structure is damaged: {verdict}")));
    }
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application != schema::APPLICATION_ID {
        return Ok(Err(format!("its application id is {application:#x}")));
    }
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let rows = table_counts(connection)?;
    let (checkpoints, damaged_checkpoints) = checkpoints(connection, &rows)?;
    let (audit, audit_hash) = audit_head(connection, &rows)?;
    Ok(Ok(BackupContent {
        schema_version: u32::try_from(version).unwrap_or(u32::MAX),
        sequence: head(connection, &rows, "journal")?,
        events: head(connection, &rows, "event")?,
        audit,
        audit_hash,
        checkpoints,
        damaged_checkpoints,
        rows,
    }))
}

type Counts = BTreeMap<String, u64>;

fn table_counts(connection: &Connection) -> Result<Counts, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let names: Result<Vec<String>, _> = statement.query_map([], |row| row.get(0))?.collect();
    let count = |name: String| {
        // The name comes out of a file: quoted, it can only ever be a name.
        let query = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        connection.query_row(&query, [], |row| row::number(row, 0)).map(|rows| (name, rows))
    };
    names?.into_iter().map(count).collect()
}

/// Gives the newest sequence of a table; an older schema may not have it.
fn head(
    connection: &Connection,
    tables: &Counts,
    table: &'static str,
) -> Result<Sequence, rusqlite::Error> {
    if !tables.contains_key(table) {
        return Ok(Sequence::ZERO);
    }
    let query = format!("SELECT coalesce(max(sequence), 0) FROM {table}");
    connection.query_row(&query, [], |row| row::number(row, 0)).map(Sequence)
}

fn audit_head(
    connection: &Connection,
    tables: &Counts,
) -> Result<(Sequence, String), rusqlite::Error> {
    if !tables.contains_key("audit") {
        return Ok((Sequence::ZERO, String::new()));
    }
    let found = connection
        .query_row("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1", [], |row| {
            Ok((Sequence(row::number(row, 0)?), row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    Ok(found.map_or((Sequence::ZERO, String::new()), |(sequence, hash)| {
        (sequence, hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }))
}

/// Counts the checkpoints whose payload fits its hash, and the others.
fn checkpoints(connection: &Connection, tables: &Counts) -> Result<(u64, u64), rusqlite::Error> {
    if !tables.contains_key("checkpoint") {
        return Ok((0, 0));
    }
    let mut statement = connection.prepare("SELECT hash, payload FROM checkpoint")?;
    let mut rows = statement.query([])?;
    let (mut sound, mut damaged) = (0, 0);
    while let Some(row) = rows.next()? {
        let (hash, payload): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        if blake3::hash(&payload).as_bytes() == hash.as_slice() {
            sound += 1;
        } else {
            damaged += 1;
        }
    }
    Ok((sound, damaged))
}
