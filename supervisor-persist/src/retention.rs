//! What can go when there is no room: the older half of what only explains the past, but for the newest thousand rows.

use rusqlite::Connection;

/// Removes the older half of the events and of the journal, their newest thousand rows excepted. States, checkpoints,
/// audit and messages stay.
pub(crate) fn make_room(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(
        "BEGIN IMMEDIATE;
         DELETE FROM event WHERE sequence <= (SELECT min((min(sequence) + max(sequence)) / 2, max(sequence) - 1000) FROM event);
         DELETE FROM journal WHERE sequence <= (SELECT min((min(sequence) + max(sequence)) / 2, max(sequence) - 1000) FROM journal);
         COMMIT;",
    ).inspect_err(|_| {
        // Half a transaction must not stay open under the next group.
        if !connection.is_autocommit() {
            drop(connection.execute_batch("ROLLBACK"));
        }
    })
}
