//! Messages that outlive the process, those that failed for good, and what was seen already.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension};
use supervisor_core::Sequence;
use supervisor_core::error::DatabaseError;
use supervisor_core::message::{DeadLetter, OutboxEntry};
use supervisor_core::ports::{DedupStore, Outbox};
use uuid::Uuid;

use crate::damaged;
use crate::digest::{self, Digest};
use crate::journal::collect_with;
use crate::writer::{Durability, Key};
use crate::{StatePersistence, errors, row};
use rows::Message;

pub(crate) mod rows;

/// Expired keys removed with each new one; more than one, so that the table shrinks.
const EXPIRE_STEP: i64 = 4;

#[async_trait]
impl Outbox for StatePersistence {
    async fn enqueue(&self, entry: OutboxEntry) -> Result<Sequence, DatabaseError> {
        let limits = self.inner.limits;
        let message = [Message::of(&entry)?];
        self.writer()
            .attempt(move |connection| {
                let answer = rows::enqueue(connection, limits, &message)?.pop();
                answer.unwrap_or(Ok(Sequence::ZERO)).map_err(refused)
            })
            .await
    }

    /// All in one commit. What one message says to the bounds keeps nobody from the others; any other error is found out
    /// about one by one.
    async fn enqueue_all(&self, entries: Vec<OutboxEntry>) -> Vec<Result<Sequence, DatabaseError>> {
        let limits = self.inner.limits;
        let written: Result<Vec<_>, DatabaseError> = entries.iter().map(Message::of).collect();
        if let Ok(written) = written
            && let Ok(answers) = self
                .writer()
                .attempt(move |connection| rows::enqueue(connection, limits, &written))
                .await
        {
            return answers.into_iter().map(|answer| answer.map_err(refused)).collect();
        }
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            answers.push(self.enqueue(entry).await);
        }
        answers
    }

    async fn pending(
        &self,
        channel: &str,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, DatabaseError> {
        let channel = channel.to_owned();
        self.read_sound(move |connection| {
            let rows = collect_with(
                connection,
                "SELECT sequence, id, expires_at, message, digest FROM outbox
                     WHERE channel = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
                (&channel, row::stored(after.get()), row::limit(limit)),
                |row| {
                    let (id, message) = (row::text(row, 1)?, row::text(row, 3)?);
                    let expires = row::maybe_int(row, 2)?;
                    let wanted = rows::digest(&id, &channel, expires, &message);
                    let wanted = wanted.numbered(row::int(row, 0)?);
                    Ok((row::number(row, 0)?, expires, message, row::maybe_int(row, 4)?, wanted))
                },
            )?;
            let rows = rows.into_iter().map(|(sequence, expires, message, stored, wanted)| {
                let read = digest::check(|| format!("message {sequence}"), stored, wanted)
                    .and_then(|()| row::from_json("a message", &message))
                    .map(|message| OutboxEntry {
                        sequence: Sequence(sequence),
                        channel: channel.clone(),
                        message,
                        expires_at: expires.map(row::time),
                    });
                (Value::Integer(row::stored(sequence)), stored, read)
            });
            damaged::sift(damaged::OUTBOX, rows)
        })
        .await
    }

    /// With the operating system when it returns, and synced with the next synced write: a power cut may bring a message
    /// back, which is then sent once more under the id its receiver knows.
    async fn acknowledge(&self, ids: &[Uuid]) -> Result<(), DatabaseError> {
        let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        self.inner
            .writer
            .with(Durability::Soon)
            .write("an acknowledgement", move |connection| rows::remove(connection, &ids))
            .await
    }

    async fn bury(&self, letter: DeadLetter) -> Result<(), DatabaseError> {
        let keep = self.inner.limits.dead_letters;
        let text = row::json("a dead letter", &letter)?;
        self.writer()
            .write("a dead letter", move |connection| {
                let id = letter.message.id.to_string();
                rows::remove(connection, std::slice::from_ref(&id))?;
                connection.execute(
                    "INSERT INTO dead_letter (id, channel, letter, digest) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (id) DO UPDATE SET channel = ?2, letter = ?3, digest = ?4",
                    (&id, &letter.channel, &text, letter_digest(&id, &letter.channel, &text)),
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
        self.read_sound(move |connection| {
            let letters = collect_with(
                connection,
                "SELECT id, channel, letter, digest FROM dead_letter
                 WHERE ?1 IS NULL OR channel = ?1 ORDER BY number DESC LIMIT ?2",
                (channel, row::limit(limit)),
                letter_row,
            )?;
            let letters = letters
                .into_iter()
                .map(|letter| (Value::Text(letter.0.clone()), letter.2, checked_letter(letter)));
            damaged::sift(damaged::DEAD_LETTERS, letters)
        })
        .await
    }

    async fn requeue(&self, ids: &[Uuid]) -> Result<u64, DatabaseError> {
        let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        self.writer()
            .attempt(move |connection| ids.iter().map(|id| requeue(connection, id)).sum())
            .await
    }

    async fn forget(&self, ids: &[Uuid]) -> Result<u64, DatabaseError> {
        let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        self.writer()
            .write("dead letters", move |connection| {
                let mut gone = 0;
                for id in &ids {
                    gone += connection.execute("DELETE FROM dead_letter WHERE id = ?1", [id])?;
                }
                Ok(gone as u64)
            })
            .await
    }

    async fn purge(&self, channel: Option<String>) -> Result<u64, DatabaseError> {
        self.writer()
            .write("dead letters", move |connection| {
                let query = "DELETE FROM dead_letter WHERE ?1 IS NULL OR channel = ?1";
                connection.execute(query, [&channel]).map(|n| n as u64)
            })
            .await
    }
}

/// What a message beyond the bounds is told.
fn refused(reason: String) -> DatabaseError {
    DatabaseError::Busy { subject: "a message".to_owned(), reason }
}

fn letter_digest(id: &str, channel: &str, letter: &str) -> i64 {
    Digest::of("dead_letter").text(id).text(channel).text(letter).finish()
}

/// Id, text, stored digest and the one that fits.
type LetterRow = (String, String, Option<i64>, i64);

fn letter_row(row: &rusqlite::Row<'_>) -> Result<LetterRow, rusqlite::Error> {
    let (id, channel, letter) = (row::text(row, 0)?, row::text(row, 1)?, row::text(row, 2)?);
    let wanted = letter_digest(&id, &channel, &letter);
    Ok((id, letter, row::maybe_int(row, 3)?, wanted))
}

fn checked_letter((id, letter, stored, wanted): LetterRow) -> Result<DeadLetter, DatabaseError> {
    digest::check(|| format!("dead letter {id}"), stored, wanted)?;
    row::from_json("a dead letter", &letter)
}

fn requeue(connection: &Connection, id: &str) -> Result<u64, DatabaseError> {
    let failed = |error| errors::sqlite("a dead letter", error);
    let letter = connection
        .query_row(
            "DELETE FROM dead_letter WHERE id = ?1 RETURNING id, channel, letter, digest",
            [id],
            letter_row,
        )
        .optional()
        .map_err(failed)?;
    let Some(letter) = letter else { return Ok(0) };
    let letter = checked_letter(letter)?;
    let message = row::json("a message", &letter.message)?;
    let message = Message::lasting(id, &letter.channel, message);
    rows::put_back(connection, &message).map_err(failed)?;
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
        let once = key_of(&key, &value);
        let stored = Digest::of("dedupe").text(&key).bytes(&value).int(until).finish();
        self.writer()
            .attempt_once(once, move |connection| {
                let failed = |error| errors::sqlite("a key that was seen", error);
                connection
                    .prepare_cached(
                        "DELETE FROM dedupe WHERE key IN (SELECT key FROM dedupe WHERE expires_at <= ?1 LIMIT ?2)",
                    )
                    .and_then(|mut delete| delete.execute((now, EXPIRE_STEP)))
                    .map_err(failed)?;
                let seen = seen(connection, &key, now)?;
                if seen.is_none() {
                    connection
                        .prepare_cached(
                            "INSERT OR REPLACE INTO dedupe (key, value, expires_at, digest) VALUES (?1, ?2, ?3, ?4)",
                        )
                        .and_then(|mut insert| insert.execute((&key, &value, until, stored)))
                        .map_err(failed)?;
                }
                Ok(seen)
            })
            .await
    }
}

/// The same key and value are the same sight, should a caller have to ask again.
fn key_of(key: &str, value: &[u8]) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"first sight").update(key.as_bytes()).update(&[0]).update(value);
    *hasher.finalize().as_bytes()
}

fn seen(connection: &Connection, key: &str, now: i64) -> Result<Option<Vec<u8>>, DatabaseError> {
    let found = connection
        .prepare_cached(
            "SELECT value, expires_at, digest FROM dedupe WHERE key = ?1 AND expires_at > ?2",
        )
        .and_then(|mut query| {
            let row = query.query_row((key, now), |row| {
                let (value, until): (Vec<u8>, i64) = (row.get(0)?, row.get(1)?);
                Ok((value, until, row.get::<_, Option<i64>>(2)?))
            });
            row.optional()
        })
        .map_err(|error| errors::sqlite("a key that was seen", error))?;
    let Some((value, until, stored)) = found else { return Ok(None) };
    let wanted = Digest::of("dedupe").text(key).bytes(&value).int(until).finish();
    digest::check(|| "a key that was seen".to_owned(), stored, wanted)?;
    Ok(Some(value))
}
