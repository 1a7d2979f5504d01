//! Rows that no longer fit their digest: moved out of the way of the others, kept, noted and audited.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension};
use supervisor_core::checkpoint::RejectedRung;
use supervisor_core::error::DatabaseError;

use crate::StatePersistence;
use crate::ladder::NoteKind;
use crate::outbox::rows;

/// Damaged rows kept; at the bound the oldest go.
const KEPT: i64 = 1000;

/// A table whose rows have digests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// The column that names a row.
    pub(crate) key: &'static str,
}

pub(crate) const STATES: Table = Table { name: "service_state", key: "service" };
pub(crate) const JOURNAL: Table = Table { name: "journal", key: "sequence" };
pub(crate) const EVENTS: Table = Table { name: "event", key: "sequence" };
pub(crate) const OUTBOX: Table = Table { name: "outbox", key: "sequence" };
pub(crate) const DEAD_LETTERS: Table = Table { name: "dead_letter", key: "id" };

/// One row that does not fit.
#[derive(Debug, Clone)]
pub(crate) struct Damaged {
    table: Table,
    key: Value,
    digest: Option<i64>,
    reason: String,
}

/// What was read, and what does not fit.
#[derive(Debug)]
pub(crate) struct Sifted<T> {
    pub(crate) sound: Vec<T>,
    pub(crate) damaged: Vec<Damaged>,
}

/// Sorts rows by whether they could be read. Each comes with its key and its stored digest.
pub(crate) fn sift<T>(
    table: Table,
    rows: impl IntoIterator<Item = (Value, Option<i64>, Result<T, DatabaseError>)>,
) -> Result<Sifted<T>, DatabaseError> {
    let mut sifted = Sifted { sound: Vec::new(), damaged: Vec::new() };
    for (key, digest, read) in rows {
        match read {
            Ok(row) => sifted.sound.push(row),
            Err(DatabaseError::Corrupt { reason, .. }) => {
                sifted.damaged.push(Damaged { table, key, digest, reason });
            }
            Err(other) => return Err(other),
        }
    }
    Ok(sifted)
}

impl StatePersistence {
    /// Answers a question from the rows that fit; the others are moved out of the way.
    pub(crate) async fn read_sound<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<Sifted<T>, DatabaseError> + Send + 'static,
    ) -> Result<Vec<T>, DatabaseError> {
        let Sifted { sound, damaged } = self.inner.readers.read(question).await?;
        if damaged.is_empty() {
            return Ok(sound);
        }
        let found = damaged.iter().map(rung).collect();
        let at = self.inner.clock.wall().timestamp_millis();
        let moved = self
            .inner
            .writer
            .write("a damaged row", move |connection| {
                damaged.iter().try_for_each(|one| move_away(connection, one, at))
            })
            .await;
        // What is sound is given in any case; a row that could not be moved is found again.
        let noted = match moved {
            Ok(()) => self.remember(NoteKind::Damaged, found).await,
            error => error,
        };
        crate::ladder::unless_stored(noted);
        Ok(sound)
    }
}

fn rung(one: &Damaged) -> RejectedRung {
    let key = match &one.key {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        _ => "?".to_owned(),
    };
    let reason = format!("{}; it is kept in damaged_row", one.reason);
    RejectedRung { source: format!("{} {key}", one.table.name), reason }
}

/// Keeps a row as it is and takes it out of its table, unless it was written anew since it was read.
fn move_away(connection: &Connection, one: &Damaged, at: i64) -> Result<(), rusqlite::Error> {
    let Table { name, key } = one.table;
    let columns = connection.prepare(&format!("SELECT * FROM {name} LIMIT 0"))?;
    let columns: Vec<String> = columns.column_names().map(str::to_owned).collect();
    let take = format!("DELETE FROM {name} WHERE {key} = ?1 AND digest IS ?2 RETURNING *");
    let taken = connection
        .query_row(&take, (&one.key, one.digest), |row| {
            let fields = columns.iter().enumerate().map(|(at, column)| {
                let value = match row.get_ref(at)? {
                    ValueRef::Null => serde_json::Value::Null,
                    ValueRef::Integer(number) => number.into(),
                    ValueRef::Real(number) => number.into(),
                    ValueRef::Text(text) | ValueRef::Blob(text) => {
                        String::from_utf8_lossy(text).into_owned().into()
                    }
                };
                Ok((column.clone(), value))
            });
            fields.collect::<Result<serde_json::Map<_, _>, rusqlite::Error>>()
        })
        .optional()?;
    let Some(fields) = taken else { return Ok(()) };
    if name == OUTBOX.name {
        let bytes = fields.get("bytes").and_then(serde_json::Value::as_i64);
        rows::gone(connection, bytes.unwrap_or_default())?;
    }
    let content = serde_json::Value::Object(fields).to_string();
    connection.execute(
        "INSERT INTO damaged_row (at, source, content) VALUES (?1, ?2, ?3)",
        (at, name, content),
    )?;
    connection.execute(
        "DELETE FROM damaged_row WHERE number <= (SELECT max(number) FROM damaged_row) - ?1",
        [KEPT],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use supervisor_core::ServiceId;
    use supervisor_core::journal::Transition;
    use supervisor_core::ports::StateStore;
    use supervisor_core::state::{Phase, ServiceState};

    use super::*;

    #[tokio::test]
    async fn a_row_that_was_written_anew_since_it_was_read_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = StatePersistence::new(dir.path().join("s.db"), dir.path().join("c")).await;
        let store = store.unwrap();
        let id = ServiceId::new("a").unwrap();
        let state = ServiceState::registered(id, chrono::DateTime::UNIX_EPOCH);
        let transition = Transition { state, from: Phase::Registered, cause: "x".into() };
        store.record(vec![transition]).await.unwrap();
        // What a reader saw before: the same row with another digest.
        let seen = |digest| {
            move |_: &Connection| {
                let reason = "its digest does not fit".to_owned();
                let key = Value::Text("a".into());
                let damaged = vec![Damaged { table: STATES, key, digest, reason }];
                Ok(Sifted::<()> { sound: Vec::new(), damaged })
            }
        };
        store.read_sound(seen(Some(1))).await.unwrap();
        store.read_sound(seen(None)).await.unwrap();
        assert_eq!(StateStore::load(&store).await.unwrap().len(), 1);
    }
}
