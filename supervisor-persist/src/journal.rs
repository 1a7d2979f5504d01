//! States and the journal that explains them, stored together.

use async_trait::async_trait;
use rusqlite::Connection;
use supervisor_core::error::DatabaseError;
use supervisor_core::journal::{JournalEntry, Transition};
use supervisor_core::ports::{Journal, StateStore};
use supervisor_core::state::ServiceState;
use supervisor_core::{Incarnation, Sequence, ServiceId};

use crate::{StatePersistence, errors, row};

/// Rows between two looks at how long the journal has become.
const PRUNE_EVERY: i64 = 1000;

#[async_trait]
impl StateStore for StatePersistence {
    async fn record(&self, transitions: Vec<Transition>) -> Result<Sequence, DatabaseError> {
        let at = self.inner.clock.wall().timestamp_millis();
        let keep = self.inner.limits.journal_rows;
        self.inner
            .writer
            .attempt(move |connection| {
                let mut last = head(connection)?;
                for transition in &transitions {
                    last = store_one(connection, transition, at)?;
                }
                prune(connection, last, keep)?;
                Ok(Sequence(u64::try_from(last).unwrap_or(0)))
            })
            .await
    }

    async fn load(&self) -> Result<Vec<ServiceState>, DatabaseError> {
        self.inner
            .readers
            .read(|connection| {
                let texts = collect(
                    connection,
                    "SELECT state FROM service_state ORDER BY service",
                    |row| row.get::<_, String>(0),
                )?;
                texts.iter().map(|text| row::from_json("a service's state", text)).collect()
            })
            .await
    }

    async fn remove(&self, service: &ServiceId) -> Result<(), DatabaseError> {
        let service = service.to_string();
        self.inner
            .writer
            .write("a service's state", move |connection| {
                connection
                    .prepare_cached("DELETE FROM service_state WHERE service = ?1")?
                    .execute([service])?;
                Ok(())
            })
            .await
    }
}

fn head(connection: &Connection) -> Result<i64, DatabaseError> {
    connection
        .prepare_cached("SELECT coalesce(max(sequence), 0) FROM journal")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(|error| errors::sqlite("the journal", error))
}

fn store_one(
    connection: &Connection,
    transition: &Transition,
    at: i64,
) -> Result<i64, DatabaseError> {
    let state = &transition.state;
    let text = row::json("a service's state", state)?;
    let failed = |error| errors::sqlite("a transition", error);
    let mut insert = connection
        .prepare_cached(
            "INSERT INTO journal (at, service, incarnation, from_phase, to_phase, cause, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .map_err(failed)?;
    let incarnation = row::stored(state.incarnation.get());
    let sequence = insert
        .insert((
            at,
            state.id.as_str(),
            incarnation,
            transition.from.as_str(),
            state.phase.as_str(),
            &transition.cause,
            &state.reason,
        ))
        .map_err(failed)?;
    // Incarnations only grow: a late write of an older run must not undo a newer one.
    let mut upsert = connection
        .prepare_cached(
            "INSERT INTO service_state (service, incarnation, sequence, state) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (service) DO UPDATE SET incarnation = ?2, sequence = ?3, state = ?4
             WHERE incarnation <= ?2",
        )
        .map_err(failed)?;
    upsert.execute((state.id.as_str(), incarnation, sequence, text)).map_err(failed)?;
    Ok(sequence)
}

fn prune(connection: &Connection, last: i64, keep: u64) -> Result<(), DatabaseError> {
    if last % PRUNE_EVERY != 0 {
        return Ok(());
    }
    let oldest = last.saturating_sub(row::stored(keep));
    connection
        .prepare_cached("DELETE FROM journal WHERE sequence <= ?1")
        .and_then(|mut statement| statement.execute([oldest]))
        .map(drop)
        .map_err(|error| errors::sqlite("the journal", error))
}

/// Reads every row of a query.
pub(crate) fn collect<T>(
    connection: &Connection,
    query: &str,
    each: impl FnMut(&rusqlite::Row<'_>) -> Result<T, rusqlite::Error>,
) -> Result<Vec<T>, DatabaseError> {
    collect_with(connection, query, [], each)
}

/// Reads every row of a query with parameters.
pub(crate) fn collect_with<T, P: rusqlite::Params>(
    connection: &Connection,
    query: &str,
    parameters: P,
    each: impl FnMut(&rusqlite::Row<'_>) -> Result<T, rusqlite::Error>,
) -> Result<Vec<T>, DatabaseError> {
    let read = || connection.prepare_cached(query)?.query_map(parameters, each)?.collect();
    let rows: Result<Vec<T>, rusqlite::Error> = read();
    rows.map_err(|error| errors::sqlite("stored rows", error))
}

#[async_trait]
impl Journal for StatePersistence {
    async fn read(
        &self,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, DatabaseError> {
        self.inner
            .readers
            .read(move |connection| {
                let rows = collect_with(
                    connection,
                    "SELECT sequence, at, service, incarnation, from_phase, to_phase, cause, reason
                     FROM journal WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
                    (row::stored(after.get()), row::limit(limit)),
                    |row| {
                        let phases = (row.get::<_, String>(4)?, row.get::<_, String>(5)?);
                        let texts = (row.get::<_, String>(6)?, row.get::<_, String>(7)?);
                        let numbers =
                            (row::number(row, 0)?, row.get::<_, i64>(1)?, row::number(row, 3)?);
                        Ok((numbers, row.get::<_, String>(2)?, phases, texts))
                    },
                )?;
                rows.into_iter().map(entry).collect()
            })
            .await
    }

    async fn head(&self) -> Result<Sequence, DatabaseError> {
        let head = self.inner.readers.read(head).await?;
        Ok(Sequence(u64::try_from(head).unwrap_or(0)))
    }
}

type Raw = ((u64, i64, u64), String, (String, String), (String, String));

fn entry(
    ((sequence, at, incarnation), service, (from, to), (cause, reason)): Raw,
) -> Result<JournalEntry, DatabaseError> {
    Ok(JournalEntry {
        sequence: Sequence(sequence),
        at: row::time(at),
        service: ServiceId::new(service)
            .map_err(|error| errors::unreadable("the journal", &error))?,
        incarnation: Incarnation(incarnation),
        from: row::from_word("the journal", from)?,
        to: row::from_word("the journal", to)?,
        cause,
        reason,
    })
}
