//! The tamper-evident trail: each row's hash covers the row and the hash before it, under a key of this installation.
//!
//! The key lies beside the database, so the trail shows accidents and casual edits, not what somebody with the same
//! account and the key does on purpose. A shorter trail is a valid trail; what shows a cut is the anchor, a copy of
//! the head outside of the database, written every 64 rows, at every checkpoint and at the end.

use std::path::Path;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use rusqlite::{Connection, OptionalExtension};
use sha2::Sha256;
use supervisor_core::Sequence;
use supervisor_core::error::{DatabaseError, chain};
use supervisor_core::journal::{AuditEntry, AuditRecord, AuditVerification};
use supervisor_core::ports::AuditLog;

use crate::anchor::Head;
use crate::trail::{self, Raw};
use crate::writer::Key;
use crate::{StatePersistence, errors, files, row};

/// Separates this use of the key from any other.
const DOMAIN: &[u8] = b"ide-supervisor audit row v1";
/// The same for seals.
const SEAL_DOMAIN: &[u8] = b"ide-supervisor audit seal v1";
/// Rows between two anchors.
const ANCHOR_EVERY: u64 = 64;
/// Rows between two looks at how long the trail has become.
const PRUNE_EVERY: u64 = 1024;
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

    /// The hash of a seal: its columns and the seal before it.
    pub(crate) fn seal(&self, numbers: &[i64; 5], hash: &[u8], before: &[u8]) -> [u8; 32] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return [0; 32];
        };
        mac.update(SEAL_DOMAIN);
        for number in numbers {
            mac.update(&number.to_be_bytes());
        }
        mac.update(hash);
        mac.update(before);
        mac.finalize().into_bytes().into()
    }

    pub(crate) fn hash(
        &self,
        sequence: i64,
        at: i64,
        before: &[u8],
        fields: &[&str; 4],
    ) -> [u8; 32] {
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

/// The newest row, or the one the newest seal stands for, or the beginning.
pub(crate) fn last(connection: &Connection) -> Result<(i64, Vec<u8>), rusqlite::Error> {
    let queries = [
        "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1",
        "SELECT last, hash FROM audit_seal ORDER BY number DESC LIMIT 1",
    ];
    for query in queries {
        let mut statement = connection.prepare_cached(query)?;
        let found = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Ok((0, vec![0; 32]))
}

/// Appends a row and gives its number.
pub(crate) fn insert(
    connection: &Connection,
    key: &AuditKey,
    at: i64,
    fields: &[&str; 4],
) -> Result<u64, rusqlite::Error> {
    // Read in the same transaction: there is no copy of the head that a rolled-back group could leave wrong.
    let (before, hash) = last(connection)?;
    let sequence = before + 1;
    let hash = key.hash(sequence, at, &hash, fields);
    let [actor, action, subject, detail] = fields;
    connection
        .prepare_cached(
            "INSERT INTO audit (sequence, at, actor, action, subject, detail, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((sequence, at, actor, action, subject, detail, hash.as_slice()))?;
    Ok(u64::try_from(sequence).unwrap_or(0))
}

/// The same content is the same row, should a caller have to append again.
fn once(fields: &[&str; 4]) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"audit");
    for field in fields {
        hasher.update(&(field.len() as u64).to_be_bytes());
        hasher.update(field.as_bytes());
    }
    *hasher.finalize().as_bytes()
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
        let once = once(&[&actor, &action, &subject, &detail]);
        let sequence = self
            .inner
            .writer
            .attempt_once(once, move |connection| {
                insert(connection, &key, at, &[&actor, &action, &subject, &detail])
                    .map_err(|error| errors::sqlite("an audit row", error))
            })
            .await?;
        if sequence.is_multiple_of(ANCHOR_EVERY) {
            self.anchor_or_warn().await;
        }
        if sequence.is_multiple_of(PRUNE_EVERY) && sequence > self.inner.limits.audit_rows {
            self.prune_or_warn().await;
        }
        Ok(Sequence(sequence))
    }

    async fn read(&self, after: Sequence, limit: usize) -> Result<Vec<AuditEntry>, DatabaseError> {
        self.inner
            .readers
            .read(move |connection| {
                let found = trail::rows(connection, row::stored(after.get()), limit)?;
                found.into_iter().map(entry).collect()
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
        self.inner.readers.read(move |connection| trail::verify(connection, &key, anchor)).await
    }
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

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}

impl StatePersistence {
    /// Writes the trail's head beside the database; failing that, an older head stays there, and the row is stored all
    /// the same.
    pub(crate) async fn anchor_or_warn(&self) {
        if let Err(error) = self.write_anchor().await {
            tracing::warn!(error = %chain(&error), "the audit trail was not anchored");
        }
    }

    /// Keeps the trail within its bound; a trail that does not verify stays whole, because a seal must not hide that.
    async fn prune_or_warn(&self) {
        if let Err(error) = self.prune_audit(self.inner.limits.audit_rows).await {
            tracing::warn!(error = %chain(&error), "the audit trail was not pruned");
        }
    }

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
