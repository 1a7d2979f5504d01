//! The tamper-evident trail: each row's hash covers the row and the hash before it, under a key of this installation.
//!
//! The key lies beside the database, so the trail shows accidents and casual edits, not what somebody with the same
//! account and the key does on purpose. A shorter trail is a valid trail; what shows a cut is the anchor, a copy of
//! the head outside of the database, written every 64 rows, at every checkpoint and at the end.

use std::path::Path;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use rusqlite::Connection;
use sha2::Sha256;
use supervisor_core::Sequence;
use supervisor_core::error::DatabaseError;
use supervisor_core::journal::{AuditEntry, AuditRecord, AuditVerification};
use supervisor_core::ports::AuditLog;

use crate::anchor::Head;
use crate::journal::collect_with;
use crate::{StatePersistence, errors, files, row};

/// Separates this use of the key from any other.
const DOMAIN: &[u8] = b"ide-supervisor audit row v1";
/// Rows between two anchors.
const ANCHOR_EVERY: u64 = 64;
/// Rows verified at a time.
const VERIFY_STEP: usize = 1000;
/// What stands where a secret stood.
const REDACTED: &str = "[redacted]";

/// The key of this installation's trail.
#[derive(Clone)]
pub(crate) struct AuditKey([u8; 32]);

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuditKey(…)")
    }
}

impl AuditKey {
    pub(crate) fn load_or_create(database: &Path) -> Result<Self, DatabaseError> {
        let mut name = database.file_name().unwrap_or_default().to_owned();
        name.push(".audit-key");
        let path = database.with_file_name(name);
        match std::fs::read(&path) {
            Ok(bytes) => {
                files::make_private(&path)
                    .map_err(|error| errors::file("securing", &path, error))?;
                let key = <[u8; 32]>::try_from(bytes.as_slice());
                key.map(Self).map_err(|_| DatabaseError::Corrupt {
                    subject: path.display().to_string(),
                    reason: "it does not hold 32 bytes; restore it from a backup, or move it away to begin a new trail".into(),
                })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                getrandom::fill(&mut key).map_err(|error| DatabaseError::Storage {
                    action: "making the audit key".to_owned(),
                    source: error.to_string().into(),
                })?;
                files::write_atomically(&path, &key)
                    .map_err(|error| errors::file("writing", &path, error))?;
                Ok(Self(key))
            }
            Err(error) => Err(errors::file("reading", &path, error)),
        }
    }

    fn hash(&self, sequence: i64, at: i64, before: &[u8], fields: &[&str; 4]) -> [u8; 32] {
        // A key of 32 bytes always fits; the empty hash of the impossible branch would fail every verification.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return [0; 32];
        };
        mac.update(DOMAIN);
        mac.update(&sequence.to_be_bytes());
        mac.update(&at.to_be_bytes());
        mac.update(before);
        for field in fields {
            // Lengths first, or moving a byte from one field to the next would give the same hash.
            mac.update(&(field.len() as u64).to_be_bytes());
            mac.update(field.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

fn last(connection: &Connection) -> Result<(i64, Vec<u8>), rusqlite::Error> {
    use rusqlite::OptionalExtension;
    let mut statement = connection
        .prepare_cached("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1")?;
    let found = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(found.unwrap_or((0, vec![0; 32])))
}

fn redact(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), REDACTED))
}

#[async_trait]
impl AuditLog for StatePersistence {
    async fn append(&self, record: AuditRecord) -> Result<Sequence, DatabaseError> {
        let at = self.inner.clock.wall().timestamp_millis();
        let key = self.inner.key.clone();
        let subject = redact(&record.subject, &self.inner.secrets);
        let detail = redact(&record.detail, &self.inner.secrets);
        let (actor, action) = (row::word(&record.actor), row::word(&record.action));
        let sequence = self
            .inner
            .writer
            .write("an audit row", move |connection| {
                // Read in the same transaction: there is no copy of the head that a rolled-back group could leave wrong.
                let (before, hash) = last(connection)?;
                let sequence = before + 1;
                let hash = key.hash(sequence, at, &hash, &[&actor, &action, &subject, &detail]);
                connection
                    .prepare_cached(
                        "INSERT INTO audit (sequence, at, actor, action, subject, detail, hash)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    )?
                    .execute((sequence, at, actor, action, subject, detail, hash.as_slice()))?;
                Ok(u64::try_from(sequence).unwrap_or(0))
            })
            .await?;
        if sequence.is_multiple_of(ANCHOR_EVERY) {
            self.write_anchor().await?;
        }
        Ok(Sequence(sequence))
    }

    async fn read(&self, after: Sequence, limit: usize) -> Result<Vec<AuditEntry>, DatabaseError> {
        self.inner
            .readers
            .read(move |connection| {
                rows(connection, after, limit)?.into_iter().map(entry).collect()
            })
            .await
    }

    async fn head(&self) -> Result<Sequence, DatabaseError> {
        let head = self.inner.readers.read(|connection| {
            last(connection).map_err(|error| errors::sqlite("audit rows", error))
        });
        Ok(Sequence(u64::try_from(head.await?.0).unwrap_or(0)))
    }

    async fn verify(&self) -> Result<AuditVerification, DatabaseError> {
        let anchor = self.inner.anchor.read();
        let key = self.inner.key.clone();
        self.inner
            .readers
            .read(move |connection| {
                let verification = verify(connection, &key, anchor)?;
                Ok(verification)
            })
            .await
    }
}

struct Raw {
    sequence: i64,
    at: i64,
    fields: [String; 4],
    hash: Vec<u8>,
}

fn rows(connection: &Connection, after: Sequence, limit: usize) -> Result<Vec<Raw>, DatabaseError> {
    collect_with(
        connection,
        "SELECT sequence, at, actor, action, subject, detail, hash FROM audit
         WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
        (row::stored(after.get()), row::limit(limit)),
        |row| {
            let fields = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
            Ok(Raw { sequence: row.get(0)?, at: row.get(1)?, fields, hash: row.get(6)? })
        },
    )
}

fn entry(raw: Raw) -> Result<AuditEntry, DatabaseError> {
    let [actor, action, subject, detail] = raw.fields;
    let (actor, action) =
        (row::from_word("an audit row", actor)?, row::from_word("an audit row", action)?);
    Ok(AuditEntry {
        sequence: Sequence(u64::try_from(raw.sequence).unwrap_or(0)),
        at: row::time(raw.at),
        record: AuditRecord { actor, action, subject, detail },
        hash: hex(&raw.hash),
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}

fn verify(
    connection: &Connection,
    key: &AuditKey,
    anchor: Result<Option<Head>, DatabaseError>,
) -> Result<AuditVerification, DatabaseError> {
    let mut before = vec![0; 32];
    let (mut head, mut count) = (0_i64, 0_u64);
    let mut anchored: Option<String> = None;
    let (anchor, anchor_damage) = match anchor {
        Ok(anchor) => (anchor, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let bad = |sequence: i64, rows: u64, detail: String| AuditVerification {
        intact: false,
        rows,
        head: Sequence(u64::try_from(sequence).unwrap_or(0)),
        first_bad: Some(Sequence(u64::try_from(sequence).unwrap_or(0))),
        detail,
    };
    loop {
        let step = rows(connection, Sequence(u64::try_from(head).unwrap_or(0)), VERIFY_STEP)?;
        if step.is_empty() {
            break;
        }
        for raw in step {
            if raw.sequence != head + 1 {
                return Ok(bad(head + 1, count, format!("row {} is missing", head + 1)));
            }
            let fields = raw.fields.each_ref().map(String::as_str);
            let wanted = key.hash(raw.sequence, raw.at, &before, &fields);
            if wanted.as_slice() != raw.hash {
                let detail =
                    format!("row {} does not fit the row before it or was changed", raw.sequence);
                return Ok(bad(raw.sequence, count, detail));
            }
            if anchor
                .as_ref()
                .is_some_and(|anchor| row::stored(anchor.sequence.get()) == raw.sequence)
            {
                anchored = Some(hex(&raw.hash));
            }
            head = raw.sequence;
            before = raw.hash;
            count += 1;
        }
    }
    if let Some(damage) = anchor_damage {
        return Ok(bad(head, count, damage));
    }
    if let Some(anchor) = anchor
        && anchored.as_ref() != Some(&anchor.hash)
    {
        let detail = format!(
            "the trail ends at row {head}, but row {} was anchored: rows were cut off or replaced",
            anchor.sequence
        );
        return Ok(bad(head + 1, count, detail));
    }
    let head = Sequence(u64::try_from(head).unwrap_or(0));
    Ok(AuditVerification {
        intact: true,
        rows: count,
        head,
        first_bad: None,
        detail: format!("{count} rows, chain and anchor intact"),
    })
}

impl StatePersistence {
    /// Writes the trail's head beside the database.
    pub(crate) async fn write_anchor(&self) -> Result<(), DatabaseError> {
        let (sequence, hash) = self.inner.writer.write("the audit head", last).await?;
        if sequence == 0 {
            return Ok(());
        }
        let head =
            Head { sequence: Sequence(u64::try_from(sequence).unwrap_or(0)), hash: hex(&hash) };
        let inner = std::sync::Arc::clone(&self.inner);
        let written = tokio::task::spawn_blocking(move || inner.anchor.write(&head)).await;
        written.map_err(|_| DatabaseError::Closed)?
    }
}
