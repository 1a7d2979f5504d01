//! Messages that outlive the process, those that failed for good, and what was seen already.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use supervisor_core::Sequence;
use supervisor_core::error::DatabaseError;
use supervisor_core::message::{DeadLetter, OutboxEntry};
use supervisor_core::ports::{DedupStore, Outbox};
use uuid::Uuid;

use crate::journal::collect_with;
use crate::{StatePersistence, errors, row};

/// Expired keys removed with each new one; more than one, so that the table shrinks.
const EXPIRE_STEP: i64 = 4;

#[async_trait]
impl Outbox for StatePersistence {
    async fn enqueue(&self, entry: OutboxEntry) -> Result<Sequence, DatabaseError> {
        let limits = self.inner.limits;
        let message = row::json("a message", &entry.message)?;
        self.inner
            .writer
            .attempt(move |connection| {
                let failed = |error| errors::sqlite("a message", error);
                let id = entry.message.id.to_string();
                let known = connection.prepare_cached("SELECT sequence FROM outbox WHERE id = ?1").map_err(failed)?;
                let known = { known }.query_row([&id], |row| row::number(row, 0)).optional().map_err(failed)?;
                if let Some(sequence) = known {
                    return Ok(Sequence(sequence));
                }
                let (rows, bytes) = connection
                    .query_row("SELECT count(*), coalesce(sum(bytes), 0) FROM outbox", [], |row| {
                        Ok((row::number(row, 0)?, row::number(row, 1)?))
                    })
                    .map_err(failed)?;
                let length = message.len() as u64;
                if rows >= limits.outbox_rows || bytes + length > limits.outbox_bytes {
                    let reason = format!("the outbox holds {rows} messages of {bytes} bytes, which is its bound");
                    return Err(DatabaseError::Busy { subject: "a message".to_owned(), reason });
                }
                connection
                    .prepare_cached(
                        "INSERT INTO outbox (id, channel, bytes, expires_at, message) VALUES (?1, ?2, ?3, ?4, ?5)",
                    )
                    .and_then(|mut insert| {
                        let expires = entry.expires_at.map(|at| at.timestamp_millis());
                        insert.insert((id, &entry.channel, row::stored(length), expires, message))
                    })
                    .map(|sequence| Sequence(u64::try_from(sequence).unwrap_or(0)))
                    .map_err(failed)
            })
            .await
    }

    async fn pending(
        &self,
        channel: &str,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, DatabaseError> {
        let channel = channel.to_owned();
        self.inner
            .readers
            .read(move |connection| {
                let rows = collect_with(
                    connection,
                    "SELECT sequence, expires_at, message FROM outbox
                     WHERE channel = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
                    (&channel, row::stored(after.get()), row::limit(limit)),
                    |row| {
                        Ok((
                            row::number(row, 0)?,
                            row.get::<_, Option<i64>>(1)?,
                            row.get::<_, String>(2)?,
                        ))
                    },
                )?;
                rows.into_iter()
                    .map(|(sequence, expires, message)| {
                        Ok(OutboxEntry {
                            sequence: Sequence(sequence),
                            channel: channel.clone(),
                            message: row::from_json("a message", &message)?,
                            expires_at: expires.map(row::time),
                        })
                    })
                    .collect()
            })
            .await
    }

    async fn acknowledge(&self, ids: &[Uuid]) -> Result<(), DatabaseError> {
        let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        self.inner
            .writer
            .write("an acknowledgement", move |connection| {
                let mut delete = connection.prepare_cached("DELETE FROM outbox WHERE id = ?1")?;
                for id in ids {
                    delete.execute([id])?;
                }
                Ok(())
            })
            .await
    }

    async fn bury(&self, letter: DeadLetter) -> Result<(), DatabaseError> {
        let keep = self.inner.limits.dead_letters;
        let text = row::json("a dead letter", &letter)?;
        self.inner
            .writer
            .write("a dead letter", move |connection| {
                let id = letter.message.id.to_string();
                connection.execute("DELETE FROM outbox WHERE id = ?1", [&id])?;
                connection.execute(
                    "INSERT INTO dead_letter (id, channel, letter) VALUES (?1, ?2, ?3)
                     ON CONFLICT (id) DO UPDATE SET letter = ?3",
                    (&id, &letter.channel, text),
                )?;
                // At the bound the oldest go: the newest say what is wrong now.
                let old = "DELETE FROM dead_letter WHERE number <=
                           (SELECT number FROM dead_letter ORDER BY number DESC LIMIT 1 OFFSET ?1)";
                connection.execute(old, [row::stored(keep)])?;
                Ok(())
            })
            .await
    }

    async fn dead_letters(
        &self,
        channel: Option<String>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DatabaseError> {
        self.inner
            .readers
            .read(move |connection| {
                let letters = collect_with(
                    connection,
                    "SELECT letter FROM dead_letter WHERE ?1 IS NULL OR channel = ?1 ORDER BY number DESC LIMIT ?2",
                    (channel, row::limit(limit)),
                    |row| row.get::<_, String>(0),
                )?;
                letters.iter().map(|letter| row::from_json("a dead letter", letter)).collect()
            })
            .await
    }

    async fn requeue(&self, ids: &[Uuid]) -> Result<u64, DatabaseError> {
        let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        self.inner
            .writer
            .attempt(move |connection| ids.iter().map(|id| requeue(connection, id)).sum())
            .await
    }

    async fn purge(&self, channel: Option<String>) -> Result<u64, DatabaseError> {
        self.inner
            .writer
            .write("dead letters", move |connection| {
                let query = "DELETE FROM dead_letter WHERE ?1 IS NULL OR channel = ?1";
                connection.execute(query, [channel]).map(|n| n as u64)
            })
            .await
    }
}

fn requeue(connection: &Connection, id: &str) -> Result<u64, DatabaseError> {
    let failed = |error| errors::sqlite("a dead letter", error);
    let letter: Option<String> = connection
        .query_row("DELETE FROM dead_letter WHERE id = ?1 RETURNING letter", [id], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    let Some(letter) = letter else { return Ok(0) };
    let letter: DeadLetter = row::from_json("a dead letter", &letter)?;
    let message = row::json("a message", &letter.message)?;
    connection
        .execute(
            "INSERT OR IGNORE INTO outbox (id, channel, bytes, expires_at, message) VALUES (?1, ?2, ?3, NULL, ?4)",
            (id, &letter.channel, row::stored(message.len() as u64), &message),
        )
        .map_err(failed)?;
    Ok(1)
}

#[async_trait]
impl DedupStore for StatePersistence {
    async fn first_sight(
        &self,
        key: &str,
        value: &[u8],
        keep: Duration,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        let now = self.inner.clock.wall().timestamp_millis();
        let until = now.saturating_add(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
        let (key, value) = (key.to_owned(), value.to_owned());
        self.inner
            .writer
            .write("a key that was seen", move |connection| {
                connection.execute(
                    "DELETE FROM dedupe WHERE key IN (SELECT key FROM dedupe WHERE expires_at <= ?1 LIMIT ?2)",
                    (now, EXPIRE_STEP),
                )?;
                let seen = "SELECT value FROM dedupe WHERE key = ?1 AND expires_at > ?2";
                let seen: Option<Vec<u8>> = connection.query_row(seen, (&key, now), |row| row.get(0)).optional()?;
                if seen.is_none() {
                    let insert = "INSERT OR REPLACE INTO dedupe (key, value, expires_at) VALUES (?1, ?2, ?3)";
                    connection.execute(insert, (key, value, until))?;
                }
                Ok(seen)
            })
            .await
    }
}
