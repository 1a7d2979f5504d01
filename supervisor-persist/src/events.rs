//! Events, kept for those who ask later.

use async_trait::async_trait;
use supervisor_core::Sequence;
use supervisor_core::error::DatabaseError;
use supervisor_core::event::SupervisorEvent;
use supervisor_core::ports::EventStore;

use crate::journal::collect_with;
use crate::{StatePersistence, errors, row};

/// Events between two looks at how many there are.
const PRUNE_EVERY: i64 = 1000;

#[async_trait]
impl EventStore for StatePersistence {
    async fn append(&self, events: Vec<SupervisorEvent>) -> Result<(), DatabaseError> {
        let keep = row::stored(self.inner.limits.events);
        self.inner
            .writer
            .attempt(move |connection| {
                let failed = |error| errors::sqlite("an event", error);
                let mut insert = connection
                    .prepare_cached(
                        "INSERT OR IGNORE INTO event (sequence, at, body) VALUES (?1, ?2, ?3)",
                    )
                    .map_err(failed)?;
                for event in &events {
                    let sequence = row::stored(event.sequence.get());
                    let body = row::json("an event", event)?;
                    insert
                        .execute((sequence, event.at.timestamp_millis(), body))
                        .map_err(failed)?;
                    if sequence % PRUNE_EVERY == 0 {
                        let mut delete = connection
                            .prepare_cached("DELETE FROM event WHERE sequence <= ?1")
                            .map_err(failed)?;
                        delete.execute([sequence.saturating_sub(keep)]).map_err(failed)?;
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
        self.inner
            .readers
            .read(move |connection| {
                let bodies = collect_with(
                    connection,
                    "SELECT body FROM event WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
                    (row::stored(after.get()), row::limit(limit)),
                    |row| row.get::<_, String>(0),
                )?;
                bodies.iter().map(|body| row::from_json("an event", body)).collect()
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
