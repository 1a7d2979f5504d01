//! What was found on the way, stored until somebody has seen it.

use rusqlite::Connection;
use supervisor_core::error::DatabaseError;

use super::types::{NoteKind, RecoveryNote};
use crate::journal::collect_with;
use crate::row;

/// Notes kept; at the bound the oldest go.
const KEPT: i64 = 1000;
/// Notes shown in a report.
pub(super) const SHOWN: usize = 100;

/// Adds a note and tells whether it is new.
pub(super) fn add(
    connection: &Connection,
    at: i64,
    kind: NoteKind,
    subject: &str,
    reason: &str,
    settled: bool,
) -> Result<bool, rusqlite::Error> {
    let added = connection
        .prepare_cached(
            "INSERT OR IGNORE INTO recovery (at, kind, subject, reason, settled) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((at, row::word(&kind), subject, reason, settled))?;
    connection.execute(
        "DELETE FROM recovery WHERE number <= (SELECT max(number) FROM recovery) - ?1",
        [KEPT],
    )?;
    Ok(added > 0)
}

/// Reads the newest notes.
pub(super) fn read(
    connection: &Connection,
    limit: usize,
) -> Result<Vec<RecoveryNote>, DatabaseError> {
    let rows = collect_with(
        connection,
        "SELECT number, at, kind, subject, reason, settled FROM recovery ORDER BY number DESC LIMIT ?1",
        [row::limit(limit)],
        |row| {
            let texts = (row.get::<_, String>(2)?, row.get(3)?, row.get(4)?);
            Ok((row::number(row, 0)?, row.get(1)?, texts, row.get(5)?))
        },
    )?;
    rows.into_iter()
        .map(|(number, at, (kind, subject, reason), settled)| {
            Ok(RecoveryNote {
                number,
                at: row::time(at),
                kind: row::from_word("a recovery note", kind)?,
                subject,
                reason,
                settled,
            })
        })
        .collect()
}

/// Marks every note as seen and gives how many there were.
pub(super) fn settle(connection: &Connection) -> Result<u64, rusqlite::Error> {
    connection.execute("UPDATE recovery SET settled = 1 WHERE settled = 0", []).map(|n| n as u64)
}
