//! States and the journal that explains them, stored together.

use async_trait::async_trait;
use rusqlite::Connection;
use rusqlite::types::Value;
use supervisor_core::error::DatabaseError;
use supervisor_core::journal::{JournalEntry, Transition};
use supervisor_core::ports::{Journal, StateStore};
use supervisor_core::state::ServiceState;
use supervisor_core::{Incarnation, Sequence, ServiceId};

use crate::damaged::{self, Sifted};
use crate::digest::{self, Digest};
use crate::writer::Key;
use crate::{StatePersistence, errors, row};

/// Rows between two looks at how long the journal has become.
const PRUNE_EVERY: i64 = 1000;

#[async_trait]
impl StateStore for StatePersistence {
    async fn record(&self, transitions: Vec<Transition>) -> Result<Sequence, DatabaseError> {
        let at = self.inner.clock.wall().timestamp_millis();
        let keep = self.inner.limits.journal_rows;
        // Everything but the row's number is made ready here, beside the thread that writes.
        let rows: Result<Vec<_>, _> =
            transitions.into_iter().map(|transition| Ready::new(transition, at)).collect();
        let rows = rows?;
        let key = key(&rows);
        self.writer()
            .attempt_once(key, move |connection| {
                // Numbered here and not by SQLite, because the digests cover the numbers.
                let mut last = head(connection)?;
                for row in &rows {
                    last += 1;
                    store_one(connection, row, at, last)?;
                    prune(connection, last, keep)?;
                }
                Ok(Sequence(u64::try_from(last).unwrap_or(0)))
            })
            .await
    }

    async fn load(&self) -> Result<Vec<ServiceState>, DatabaseError> {
        self.read_sound(states).await
    }

    async fn remove(&self, service: &ServiceId) -> Result<(), DatabaseError> {
        let service = service.to_string();
        self.writer()
            .write("a service's state", move |connection| {
                connection
                    .prepare_cached("DELETE FROM service_state WHERE service = ?1")?
                    .execute([&service])?;
                Ok(())
            })
            .await
    }
}

/// The newest number ever given; rows that were pruned count.
fn head(connection: &Connection) -> Result<i64, DatabaseError> {
    connection
        .prepare_cached("SELECT coalesce(max(sequence), 0) FROM journal")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(|error| errors::sqlite("the journal", error))
}

/// Reads the state of every service, each compared with its digest.
pub(crate) fn states(connection: &Connection) -> Result<Sifted<ServiceState>, DatabaseError> {
    let rows = collect(
        connection,
        "SELECT service, incarnation, sequence, state, digest FROM service_state ORDER BY service",
        |row| {
            let (service, text) = (row::text(row, 0)?, row::text(row, 3)?);
            let wanted = state_digest(&service, row::int(row, 1)?, &text);
            let wanted = digest::with_number(wanted, row::int(row, 2)?);
            Ok((service, text, row::maybe_int(row, 4)?, wanted))
        },
    )?;
    let rows = rows.into_iter().map(|(service, text, stored, wanted)| {
        let read = digest::check(|| format!("the state of {service}"), stored, wanted)
            .and_then(|()| row::from_json("a service's state", &text));
        (Value::Text(service), stored, read)
    });
    damaged::sift(damaged::STATES, rows)
}

/// Stores a state without a journal row of its own, as of journal row `sequence`.
pub(crate) fn put_state(
    connection: &Connection,
    state: &ServiceState,
    sequence: i64,
) -> Result<(), DatabaseError> {
    let text = row::json("a service's state", state)?;
    let incarnation = row::stored(state.incarnation.get());
    let digest = state_digest(state.id.as_str(), incarnation, &text);
    connection
        .prepare_cached(
            "INSERT INTO service_state (service, incarnation, sequence, state, digest) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .and_then(|mut insert| {
            let digest = digest::with_number(digest, sequence);
            insert.execute((state.id.as_str(), incarnation, sequence, text, digest))
        })
        .map(drop)
        .map_err(|error| errors::sqlite("a service's state", error))
}

/// A transition as it goes into the tables.
struct Ready {
    transition: Transition,
    text: String,
    journal: i64,
    state: i64,
}

impl Ready {
    fn new(transition: Transition, at: i64) -> Result<Self, DatabaseError> {
        let state = &transition.state;
        let text = row::json("a service's state", state)?;
        let incarnation = row::stored(state.incarnation.get());
        let journal = journal_digest(
            at,
            state.id.as_str(),
            incarnation,
            [transition.from.as_str(), state.phase.as_str(), &transition.cause, &state.reason],
        );
        let state = state_digest(state.id.as_str(), incarnation, &text);
        Ok(Self { transition, text, journal, state })
    }
}

/// The same transitions stored at the same time are the same write.
fn key(rows: &[Ready]) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"record");
    for row in rows {
        // Without the time of storing, which differs in a repetition.
        hasher.update(&row.state.to_be_bytes());
        hasher.update(row.transition.from.as_str().as_bytes());
        hasher.update(row.transition.cause.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn state_digest(service: &str, incarnation: i64, text: &str) -> i64 {
    Digest::of("service_state").text(service).int(incarnation).text(text).finish()
}

fn journal_digest(at: i64, service: &str, incarnation: i64, texts: [&str; 4]) -> i64 {
    let digest = Digest::of("journal").int(at).text(service).int(incarnation);
    texts.into_iter().fold(digest, Digest::text).finish()
}

fn store_one(
    connection: &Connection,
    row: &Ready,
    at: i64,
    sequence: i64,
) -> Result<(), DatabaseError> {
    let state = &row.transition.state;
    let failed = |error| errors::sqlite("a transition", error);
    let mut insert = connection
        .prepare_cached(
            "INSERT INTO journal (sequence, at, service, incarnation, from_phase, to_phase, cause, reason, digest)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )
        .map_err(failed)?;
    let incarnation = row::stored(state.incarnation.get());
    insert
        .execute((
            sequence,
            at,
            state.id.as_str(),
            incarnation,
            row.transition.from.as_str(),
            state.phase.as_str(),
            &row.transition.cause,
            &state.reason,
            digest::with_number(row.journal, sequence),
        ))
        .map_err(failed)?;
    // Incarnations only grow: a late write of an older run must not undo a newer one.
    let mut upsert = connection
        .prepare_cached(
            "INSERT INTO service_state (service, incarnation, sequence, state, digest) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (service) DO UPDATE SET incarnation = ?2, sequence = ?3, state = ?4, digest = ?5
             WHERE incarnation <= ?2",
        )
        .map_err(failed)?;
    let digest = digest::with_number(row.state, sequence);
    upsert
        .execute((state.id.as_str(), incarnation, sequence, &row.text, digest))
        .map(drop)
        .map_err(failed)
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
        self.read_sound(move |connection| {
                let rows = collect_with(
                    connection,
                    "SELECT sequence, at, service, incarnation, from_phase, to_phase, cause, reason, digest
                     FROM journal WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
                    (row::stored(after.get()), row::limit(limit)),
                    |row| {
                        let phases = (row::text(row, 4)?, row::text(row, 5)?);
                        let texts = (row::text(row, 6)?, row::text(row, 7)?);
                        let numbers =
                            (row::number(row, 0)?, row::int(row, 1)?, u64::try_from(row::int(row, 3)?).unwrap_or(u64::MAX));
                        Ok((numbers, row::text(row, 2)?, phases, texts, row::maybe_int(row, 8)?))
                    },
                )?;
                let rows = rows.into_iter().map(|raw| {
                    (Value::Integer(row::stored(raw.0.0)), raw.4, entry(raw))
                });
                damaged::sift(damaged::JOURNAL, rows)
            })
            .await
    }

    async fn head(&self) -> Result<Sequence, DatabaseError> {
        let head = self.inner.readers.read(head).await?;
        Ok(Sequence(u64::try_from(head).unwrap_or(0)))
    }
}

type Raw = ((u64, i64, u64), String, (String, String), (String, String), Option<i64>);

fn entry(
    ((sequence, at, incarnation), service, (from, to), (cause, reason), stored): Raw,
) -> Result<JournalEntry, DatabaseError> {
    let texts = [&*from, &*to, &*cause, &*reason];
    let wanted = journal_digest(at, &service, row::stored(incarnation), texts);
    let wanted = digest::with_number(wanted, row::stored(sequence));
    digest::check(|| format!("journal row {sequence}"), stored, wanted)?;
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
