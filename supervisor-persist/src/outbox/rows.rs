//! The rows of the outbox, many with one statement, and how much they are.

use rusqlite::types::ToSql;
use rusqlite::{CachedStatement, Connection, OptionalExtension};
use supervisor_core::Sequence;
use supervisor_core::error::DatabaseError;
use supervisor_core::message::OutboxEntry;

use crate::digest::Digest;
use crate::store::Limits;
use crate::{errors, row};

/// Rows put by one statement, largest first; each size is a statement that is kept.
const PUT: [usize; 3] = [16, 4, 1];
/// Rows taken by one statement.
const TAKEN: [usize; 3] = [64, 8, 1];
const COLUMNS: usize = 7;

/// A message as it is stored.
#[derive(Debug)]
pub(super) struct Message {
    id: String,
    channel: String,
    expires: Option<i64>,
    text: String,
}

impl Message {
    pub(super) fn of(entry: &OutboxEntry) -> Result<Self, DatabaseError> {
        Ok(Self {
            id: entry.message.id.to_string(),
            channel: entry.channel.clone(),
            expires: entry.expires_at.map(|at| at.timestamp_millis()),
            text: row::json("a message", &entry.message)?,
        })
    }

    /// One without end.
    pub(super) fn lasting(id: &str, channel: &str, text: String) -> Self {
        Self { id: id.to_owned(), channel: channel.to_owned(), expires: None, text }
    }

    const fn bytes(&self) -> u64 {
        self.text.len() as u64
    }
}

/// What the outbox holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    rows: u64,
    bytes: u64,
}

/// Puts a group at the end, in its order; one beyond the bounds gets the reason instead of a number. An id that is there
/// already keeps its place.
pub(super) fn enqueue(
    connection: &Connection,
    limits: Limits,
    messages: &[Message],
) -> Result<Vec<Result<Sequence, String>>, DatabaseError> {
    let failed = |error| errors::sqlite("a message", error);
    let before = held(connection).map_err(failed)?;
    let mut group =
        Group { connection, limits, held: before, next: next_number(connection).map_err(failed)? };
    let mut answers = Vec::with_capacity(messages.len());
    for piece in pieces(messages, PUT) {
        group.put(piece, &mut answers).map_err(failed)?;
    }
    let after = group.held;
    count(connection, difference(after.rows, before.rows), difference(after.bytes, before.bytes))
        .map_err(failed)?;
    Ok(answers)
}

/// Puts one that was there before, whatever the bounds say, unless it is there now.
pub(super) fn put_back(connection: &Connection, message: &Message) -> Result<(), rusqlite::Error> {
    let first = next_number(connection)?;
    match insert(connection, std::slice::from_ref(message), first)? {
        0 => Ok(()),
        _ => count(connection, 1, row::stored(message.bytes())),
    }
}

/// Takes messages out; unknown ids are no error.
pub(super) fn remove(connection: &Connection, ids: &[String]) -> Result<(), rusqlite::Error> {
    let (mut rows, mut bytes) = (0, 0);
    for piece in pieces(ids, TAKEN) {
        let places = vec!["?"; piece.len()].join(",");
        let mut found = connection.prepare_cached(&format!(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM outbox WHERE id IN ({places})"
        ))?;
        let held: (i64, i64) = found
            .query_row(rusqlite::params_from_iter(piece), |row| Ok((row.get(0)?, row.get(1)?)))?;
        if held.0 == 0 {
            continue;
        }
        (rows, bytes) = (rows + held.0, bytes + held.1);
        connection
            .prepare_cached(&format!("DELETE FROM outbox WHERE id IN ({places})"))?
            .execute(rusqlite::params_from_iter(piece))?;
    }
    count(connection, -rows, -bytes)
}

/// Notes that one row of so many bytes went by another way.
pub(crate) fn gone(connection: &Connection, bytes: i64) -> Result<(), rusqlite::Error> {
    count(connection, -1, bytes.saturating_neg())
}

pub(super) fn digest(id: &str, channel: &str, expires: Option<i64>, message: &str) -> Digest {
    Digest::of("outbox").text(id).text(channel).maybe(expires).text(message)
}

/// A group on its way in.
struct Group<'c> {
    connection: &'c Connection,
    limits: Limits,
    held: Held,
    next: u64,
}

impl Group<'_> {
    fn put(
        &mut self,
        messages: &[Message],
        answers: &mut Vec<Result<Sequence, String>>,
    ) -> Result<(), rusqlite::Error> {
        let bytes: u64 = messages.iter().map(Message::bytes).sum();
        let rows = messages.len() as u64;
        if self.fits(rows, bytes) {
            let first = self.next;
            self.next += rows;
            if insert(self.connection, messages, first)? == messages.len() {
                self.held = Held { rows: self.held.rows + rows, bytes: self.held.bytes + bytes };
                answers.extend((first..self.next).map(|number| Ok(Sequence(number))));
                return Ok(());
            }
            // Some were there before; those that were not have the numbers meant for them.
            for (number, message) in (first..).zip(messages) {
                let known = known(self.connection, &message.id)?.unwrap_or(number);
                if known == number {
                    self.add(message);
                }
                answers.push(Ok(Sequence(known)));
            }
            return Ok(());
        }
        for message in messages {
            let answer = self.put_one(message)?;
            answers.push(answer);
        }
        Ok(())
    }

    /// At the bounds each is looked at by itself.
    fn put_one(&mut self, message: &Message) -> Result<Result<Sequence, String>, rusqlite::Error> {
        if let Some(number) = known(self.connection, &message.id)? {
            return Ok(Ok(Sequence(number)));
        }
        if !self.fits(1, message.bytes()) {
            let Held { rows, bytes } = self.held;
            return Ok(Err(format!(
                "the outbox holds {rows} messages of {bytes} bytes, which is its bound"
            )));
        }
        let number = self.next;
        self.next += 1;
        insert(self.connection, std::slice::from_ref(message), number)?;
        self.add(message);
        Ok(Ok(Sequence(number)))
    }

    fn add(&mut self, message: &Message) {
        self.held.rows += 1;
        self.held.bytes += message.bytes();
    }

    const fn fits(&self, rows: u64, bytes: u64) -> bool {
        self.held.rows.saturating_add(rows) <= self.limits.outbox_rows
            && self.held.bytes.saturating_add(bytes) <= self.limits.outbox_bytes
    }
}

/// Inserts rows numbered from `first` on, and gives how many were not there before.
fn insert(
    connection: &Connection,
    messages: &[Message],
    first: u64,
) -> Result<usize, rusqlite::Error> {
    let places = vec!["(?,?,?,?,?,?,?)"; messages.len()].join(",");
    let mut insert = connection.prepare_cached(&format!(
        "INSERT INTO outbox (sequence, id, channel, bytes, expires_at, message, digest)
         VALUES {places} ON CONFLICT (id) DO NOTHING"
    ))?;
    for (place, message) in messages.iter().enumerate() {
        bind(&mut insert, place, row::stored(first + place as u64), message)?;
    }
    insert.raw_execute()
}

fn bind(
    insert: &mut CachedStatement<'_>,
    place: usize,
    number: i64,
    message: &Message,
) -> Result<(), rusqlite::Error> {
    let Message { id, channel, expires, text } = message;
    let digest = digest(id, channel, *expires, text).numbered(number);
    let bytes = row::stored(message.bytes());
    let values: [&dyn ToSql; COLUMNS] = [&number, id, channel, &bytes, expires, text, &digest];
    for (column, value) in values.into_iter().enumerate() {
        insert.raw_bind_parameter(place * COLUMNS + column + 1, value)?;
    }
    Ok(())
}

fn known(connection: &Connection, id: &str) -> Result<Option<u64>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT sequence FROM outbox WHERE id = ?1")?
        .query_row([id], |row| row::number(row, 0))
        .optional()
}

fn held(connection: &Connection) -> Result<Held, rusqlite::Error> {
    connection
        .prepare_cached("SELECT rows, bytes FROM outbox_size")?
        .query_row([], |row| Ok(Held { rows: row::number(row, 0)?, bytes: row::number(row, 1)? }))
}

/// The number of the next message is above every number ever given: a reader goes on after the last it saw.
fn next_number(connection: &Connection) -> Result<u64, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'outbox'",
        )?
        .query_row([], |row| row::number(row, 0))
}

/// Notes that so many rows and bytes came, or went.
fn count(connection: &Connection, rows: i64, bytes: i64) -> Result<(), rusqlite::Error> {
    if rows == 0 && bytes == 0 {
        return Ok(());
    }
    connection
        .prepare_cached("UPDATE outbox_size SET rows = rows + ?1, bytes = bytes + ?2")?
        .execute((rows, bytes))
        .map(drop)
}

fn difference(after: u64, before: u64) -> i64 {
    row::stored(after) - row::stored(before)
}

/// Cuts a list into pieces of the sizes there are statements for; the last size is one.
fn pieces<T, const N: usize>(all: &[T], sizes: [usize; N]) -> impl Iterator<Item = &[T]> {
    let mut rest = all;
    std::iter::from_fn(move || {
        let size = sizes.into_iter().find(|size| *size <= rest.len())?;
        let (piece, left) = rest.split_at(size);
        rest = left;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_of_the_known_sizes_and_lose_nothing() {
        let all: Vec<usize> = (0..39).collect();
        let cut: Vec<&[usize]> = pieces(&all, PUT).collect();
        assert_eq!(cut.iter().map(|piece| piece.len()).collect::<Vec<_>>(), [16, 16, 4, 1, 1, 1]);
        assert_eq!(cut.concat(), all);
        assert_eq!(pieces(&all[..0], TAKEN).count(), 0);
    }
}
