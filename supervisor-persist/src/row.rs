//! Between rows and types; the only place that knows how things are written in the database.

use chrono::{DateTime, Utc};
use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde::Serialize;
use serde::de::DeserializeOwned;
use supervisor_core::error::DatabaseError;

use crate::errors;

/// Writes a value as JSON text.
pub(crate) fn json<T: Serialize>(subject: &str, value: &T) -> Result<String, DatabaseError> {
    serde_json::to_string(value).map_err(|error| DatabaseError::Refused {
        subject: subject.to_owned(),
        reason: error.to_string(),
    })
}

/// Reads JSON text back.
pub(crate) fn from_json<T: DeserializeOwned>(
    subject: &str,
    text: &str,
) -> Result<T, DatabaseError> {
    serde_json::from_str(text).map_err(|error| errors::unreadable(subject, &error))
}

/// Writes one of the vocabulary's words without quotes.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Reads one of the vocabulary's words.
pub(crate) fn from_word<T: DeserializeOwned>(
    subject: &str,
    text: String,
) -> Result<T, DatabaseError> {
    serde_json::from_value(serde_json::Value::String(text))
        .map_err(|error| errors::unreadable(subject, &error))
}

/// Reads a number that is never negative.
pub(crate) fn number(row: &Row<'_>, at: usize) -> Result<u64, rusqlite::Error> {
    row.get::<_, i64>(at).map(|value| u64::try_from(value).unwrap_or(0))
}

/// Writes a number; one beyond SQLite's range stays at its top, which nothing reaches by counting.
pub(crate) fn stored(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads text whatever became of it: bytes that are none any more become marks, which no digest fits.
pub(crate) fn text(row: &Row<'_>, at: usize) -> Result<String, rusqlite::Error> {
    Ok(match row.get_ref(at)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Null | ValueRef::Real(_) => String::new(),
    })
}

/// Reads a number whatever became of it: what is none any more is one that no digest fits.
pub(crate) fn int(row: &Row<'_>, at: usize) -> Result<i64, rusqlite::Error> {
    Ok(maybe_int(row, at)?.unwrap_or(i64::MIN))
}

/// As [`int`], of a column that may be empty.
pub(crate) fn maybe_int(row: &Row<'_>, at: usize) -> Result<Option<i64>, rusqlite::Error> {
    Ok(match row.get_ref(at)? {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number),
        _ => Some(i64::MIN),
    })
}

/// Reads a time.
pub(crate) fn time(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap_or_default()
}

/// Writes a limit, at most 10,000.
pub(crate) fn limit(wanted: usize) -> i64 {
    i64::try_from(wanted.min(10_000)).unwrap_or(10_000)
}
