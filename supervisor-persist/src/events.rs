//! Events, kept for those who ask later.

use async_trait::async_trait;
use rusqlite::types::Value;
use supervisor_core::Sequence;
use supervisor_core::error::DatabaseError;
use supervisor_core::event::SupervisorEvent;
use supervisor_core::ports::EventStore;

use crate::damaged;
use crate::digest::{self, Digest};
use crate::journal::collect_with;
use crate::{StatePersistence, errors, row};

/// Events between two looks at how many there are.
const PRUNE_EVERY: i64 = 1000;

#[async_trait]
impl EventStore for StatePersistence {
    async fn append(&self, events: Vec<SupervisorEvent>) -> Result<(), DatabaseError> {
        let keep = row::stored(self.inner.limits.events);
        let rows: Result<Vec<_>, DatabaseError> = events
            .iter()
            .map(|event| {
                let (sequence, at) =
                    (row::stored(event.sequence.get()), event.at.timestamp_millis());
                let body = row::json("an event", event)?;
                let digest = event_digest(sequence, at, &body);
                Ok((sequence, at, body, digest))
            })
            .collect();
        let rows = rows?;
        // The first of two with one sequence wins, so a repetition changes nothing.
        self.writer()
            .write("an event", move |connection| {
                let mut insert = connection.prepare_cached(
                    "INSERT OR IGNORE INTO event (sequence, at, body, digest) VALUES (?1, ?2, ?3, ?4)",
                )?;
                for (sequence, at, body, digest) in &rows {
                    insert.execute((sequence, at, body, digest))?;
                    if sequence % PRUNE_EVERY == 0 {
                        connection
                            .prepare_cached("DELETE FROM event WHERE sequence <= ?1")?
                            .execute([sequence.saturating_sub(keep)])?;
                    }
                }
                Ok(())
            })
            .await
    }

    async fn read(
        &self,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<SupervisorEvent>, DatabaseError> {
        self.read_sound(move |connection| {
                let rows = collect_with(
                    connection,
                    "SELECT sequence, at, body, digest FROM event WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
                    (row::stored(after.get()), row::limit(limit)),
                    |row| {
                        let (sequence, body) = (row::int(row, 0)?, row::text(row, 2)?);
                        let wanted = event_digest(sequence, row::int(row, 1)?, &body);
                        Ok((sequence, body, row::maybe_int(row, 3)?, wanted))
                    },
                )?;
                let rows = rows.into_iter().map(|(sequence, body, stored, wanted)| {
                    let read = digest::check(|| format!("event {sequence}"), stored, wanted)
                        .and_then(|()| row::from_json("an event", &body));
                    (Value::Integer(sequence), stored, read)
                });
                damaged::sift(damaged::EVENTS, rows)
            })
            .await
    }

    async fn head(&self) -> Result<Sequence, DatabaseError> {
        self.inner
            .readers
            .read(|connection| {
                connection
                    .query_row("SELECT coalesce(max(sequence), 0) FROM event", [], |row| {
                        row::number(row, 0)
                    })
                    .map(Sequence)
                    .map_err(|error| errors::sqlite("events", error))
            })
            .await
    }
}

fn event_digest(sequence: i64, at: i64, body: &str) -> i64 {
    Digest::of("event").int(sequence).int(at).text(body).finish()
}
