//! Checkpoints: in the database and as a file each, hashed, verified on the way back, put aside when damaged.
//!
//! A file copy is two files: `checkpoint-N.json` with the payload, then `checkpoint-N.manifest`, written last. A
//! payload without a manifest is one that was being written when the process died.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use supervisor_core::checkpoint::{
    CHECKPOINT_SCHEMA, Checkpoint, CheckpointContent, CheckpointHealth, CheckpointSummary, Restored,
};
use supervisor_core::error::DatabaseError;
use supervisor_core::ports::CheckpointStore;
use supervisor_core::state::{PendingOperation, ServiceState};
use supervisor_core::{CheckpointId, Sequence, ServiceId, time_ordered_id};

use crate::journal::collect_with;
use crate::{StatePersistence, errors, files, row};

/// Largest payload, in bytes. Ten thousand services take about ten million.
pub(crate) const PAYLOAD_MAX: u64 = 256 << 20;

/// What is written, services in order, so that the same state gives the same bytes.
#[derive(Serialize)]
struct Payload<'a> {
    id: CheckpointId,
    schema: u32,
    created_at: chrono::DateTime<chrono::Utc>,
    sequence: Sequence,
    services: BTreeMap<&'a ServiceId, &'a ServiceState>,
    pending_operations: &'a [PendingOperation],
    channels: &'a BTreeMap<String, supervisor_core::state::ChannelPosition>,
}

/// What vouches for a payload file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: String,
    id: CheckpointId,
    number: u64,
    bytes: u64,
    blake3: String,
}

/// What is stored of one checkpoint.
struct Stored {
    id: String,
    number: u64,
    created_at: i64,
    sequence: u64,
    services: u64,
    operations: u64,
    hash: Vec<u8>,
    payload: Vec<u8>,
    quarantine: Option<String>,
}

const COLUMNS: &str =
    "id, number, created_at, sequence, services, operations, hash, payload, quarantine";

fn stored(row: &rusqlite::Row<'_>) -> Result<Stored, rusqlite::Error> {
    Ok(Stored {
        id: row.get(0)?,
        number: row::number(row, 1)?,
        created_at: row.get(2)?,
        sequence: row::number(row, 3)?,
        services: row::number(row, 4)?,
        operations: row::number(row, 5)?,
        hash: row.get(6)?,
        payload: row.get(7)?,
        quarantine: row.get(8)?,
    })
}

pub(crate) fn payload_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("checkpoint-{number:08}.json"))
}

fn manifest_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("checkpoint-{number:08}.manifest"))
}

/// Writes a payload.
pub(crate) fn encode(
    id: CheckpointId,
    at: chrono::DateTime<chrono::Utc>,
    sequence: Sequence,
    content: &CheckpointContent,
) -> Result<Vec<u8>, DatabaseError> {
    let payload = serde_json::to_vec(&Payload {
        id,
        schema: CHECKPOINT_SCHEMA,
        created_at: at,
        sequence,
        services: content.services.iter().collect(),
        pending_operations: &content.pending_operations,
        channels: &content.channels,
    })
    .map_err(|error| DatabaseError::Refused {
        subject: "checkpoint".into(),
        reason: error.to_string(),
    })?;
    if payload.len() as u64 > PAYLOAD_MAX {
        let reason =
            format!("it would have {} bytes, at most {PAYLOAD_MAX} are taken", payload.len());
        return Err(DatabaseError::Refused { subject: "checkpoint".into(), reason });
    }
    Ok(payload)
}

/// Reads a payload whose hash is known.
pub(crate) fn parse(payload: &[u8], hash: &[u8]) -> Result<Checkpoint, String> {
    if blake3::hash(payload).as_bytes() != hash {
        return Err("its hash does not fit its content".to_owned());
    }
    let schema: SchemaOnly = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    if schema.schema > CHECKPOINT_SCHEMA {
        return Err(format!(
            "it has schema {}, this program knows {CHECKPOINT_SCHEMA}",
            schema.schema
        ));
    }
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
struct SchemaOnly {
    schema: u32,
}

/// Reads a file copy, verified against its manifest.
pub(crate) fn read_copy(dir: &Path, number: u64) -> Result<Checkpoint, String> {
    let text = std::fs::read(manifest_path(dir, number))
        .map_err(|error| format!("no manifest: {error}"))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| format!("damaged manifest: {error}"))?;
    let path = payload_path(dir, number);
    let length = std::fs::metadata(&path).map_err(|error| error.to_string())?.len();
    if length != manifest.bytes || length > PAYLOAD_MAX {
        return Err(format!("it has {length} bytes, its manifest says {}", manifest.bytes));
    }
    let payload = std::fs::read(&path).map_err(|error| error.to_string())?;
    let hash = blake3::Hash::from_hex(&manifest.blake3).map_err(|error| error.to_string())?;
    parse(&payload, hash.as_bytes())
}

fn write_copy(
    dir: &Path,
    number: u64,
    id: CheckpointId,
    payload: &[u8],
) -> Result<(), DatabaseError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| errors::file("writing", &path, error)
    };
    let path = payload_path(dir, number);
    files::write_atomically(&path, payload).map_err(failed(&path))?;
    let manifest = Manifest {
        format: "ide-supervisor checkpoint".to_owned(),
        id,
        number,
        bytes: payload.len() as u64,
        blake3: blake3::hash(payload).to_hex().to_string(),
    };
    let text = row::json("a checkpoint's manifest", &manifest)?;
    let path = manifest_path(dir, number);
    files::write_atomically(&path, text.as_bytes()).map_err(failed(&path))
}

/// Numbers of the file copies in the directory, newest first.
pub(crate) fn copies(dir: &Path) -> Vec<u64> {
    let names = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let mut numbers: Vec<u64> = names
        .filter_map(|name| {
            name.strip_prefix("checkpoint-")?.strip_suffix(".manifest")?.parse().ok()
        })
        .collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers
}

impl StatePersistence {
    /// Takes a checkpoint and does something else in the same transaction.
    pub(crate) async fn create_with(
        &self,
        content: CheckpointContent,
        mut also: impl FnMut(&Connection) -> Result<(), DatabaseError> + Send + 'static,
    ) -> Result<CheckpointId, DatabaseError> {
        let at = self.inner.clock.wall();
        let id = self.new_checkpoint_id(at);
        let keep = self.inner.limits.checkpoints;
        let dir = self.inner.checkpoint_dir.clone();
        // Numbers go on after those of the files too, so that a new database never overwrites an old copy.
        let newest_copy = copies(&dir).first().copied().unwrap_or(0);
        let (number, payload, dropped) = self
            .inner
            .writer
            .attempt(move |connection| {
                also(connection)?;
                insert(connection, &content, id, at, newest_copy, keep)
            })
            .await?;
        let written = tokio::task::spawn_blocking(move || {
            write_copy(&dir, number, id, &payload)?;
            for old in dropped {
                // Manifest first: a payload without one is no checkpoint. A file that stays is only a file too many.
                drop(std::fs::remove_file(manifest_path(&dir, old)));
                drop(std::fs::remove_file(payload_path(&dir, old)));
            }
            Ok::<(), DatabaseError>(())
        });
        written.await.map_err(|_| DatabaseError::Closed)??;
        self.anchor_or_warn().await;
        Ok(id)
    }

    pub(crate) fn new_checkpoint_id(&self, at: chrono::DateTime<chrono::Utc>) -> CheckpointId {
        let entropy = &self.inner.entropy;
        CheckpointId(time_ordered_id(at, [entropy.next_u64(), entropy.next_u64()]))
    }
}

#[async_trait]
impl CheckpointStore for StatePersistence {
    async fn create(&self, content: CheckpointContent) -> Result<CheckpointId, DatabaseError> {
        self.create_with(content, |_| Ok(())).await
    }

    async fn restore(&self) -> Result<Restored, DatabaseError> {
        self.climb_down().await
    }

    async fn load(&self, id: CheckpointId) -> Result<Checkpoint, DatabaseError> {
        let dir = self.inner.checkpoint_dir.clone();
        self.inner
            .readers
            .read(move |connection| {
                let found = find(connection, id)?;
                let reason = match parse(&found.payload, &found.hash) {
                    Ok(checkpoint) => return Ok(checkpoint),
                    Err(reason) => reason,
                };
                let damaged = |other: String| DatabaseError::Corrupt {
                    subject: format!("checkpoint {id}"),
                    reason: format!("{reason}; and its file copy: {other}"),
                };
                read_copy(&dir, found.number).map_err(damaged)
            })
            .await
    }

    async fn list(&self, limit: usize) -> Result<Vec<CheckpointSummary>, DatabaseError> {
        self.inner
            .readers
            .read(move |connection| {
                let query = "SELECT id, number, created_at, sequence, services, operations, length(payload), quarantine
                             FROM checkpoint ORDER BY number DESC LIMIT ?1";
                let rows = collect_with(connection, query, [row::limit(limit)], |row| {
                    let id: String = row.get(0)?;
                    let (created_at, bytes): (i64, u64) = (row.get(2)?, row::number(row, 6)?);
                    let counts = (row::number(row, 3)?, row::number(row, 4)?, row::number(row, 5)?);
                    Ok((id, created_at, counts, bytes, row.get::<_, Option<String>>(7)?))
                })?;
                rows.into_iter()
                    .map(|(id, created_at, (sequence, services, pending_operations), bytes, quarantine)| {
                        Ok(CheckpointSummary {
                            id: parse_id(&id)?,
                            created_at: row::time(created_at),
                            sequence: Sequence(sequence),
                            services,
                            pending_operations,
                            bytes,
                            health: quarantine
                                .map_or(CheckpointHealth::Unverified, |reason| CheckpointHealth::Quarantined { reason }),
                        })
                    })
                    .collect()
            })
            .await
    }

    async fn verify(&self, id: CheckpointId) -> Result<CheckpointSummary, DatabaseError> {
        let dir = self.inner.checkpoint_dir.clone();
        let (summary, bad) = self
            .inner
            .readers
            .read(move |connection| {
                let found = find(connection, id)?;
                let in_database = parse(&found.payload, &found.hash)
                    .err()
                    .map(|reason| format!("in the database: {reason}"));
                let in_file = read_copy(&dir, found.number)
                    .err()
                    .map(|reason| format!("in its file: {reason}"));
                let problems: Vec<String> = in_database.into_iter().chain(in_file).collect();
                let health = match (&found.quarantine, problems.is_empty()) {
                    (Some(reason), _) => CheckpointHealth::Quarantined { reason: reason.clone() },
                    (None, true) => CheckpointHealth::Verified,
                    (None, false) => CheckpointHealth::Quarantined { reason: problems.join("; ") },
                };
                // One good place is enough to restore from; only a checkpoint that is bad in both is put aside.
                let bad = if problems.len() == 2 {
                    vec![(found.number, problems.join("; "))]
                } else {
                    Vec::new()
                };
                let summary = CheckpointSummary {
                    id,
                    created_at: row::time(found.created_at),
                    sequence: Sequence(found.sequence),
                    services: found.services,
                    pending_operations: found.operations,
                    bytes: found.payload.len() as u64,
                    health,
                };
                Ok((summary, bad))
            })
            .await?;
        if !bad.is_empty() {
            self.inner
                .writer
                .write("a damaged checkpoint", move |connection| quarantine(connection, &bad))
                .await?;
        }
        Ok(summary)
    }
}

fn parse_id(text: &str) -> Result<CheckpointId, DatabaseError> {
    text.parse().map_err(|error: supervisor_core::error::ConfigError| {
        errors::unreadable("a checkpoint's id", &error)
    })
}

fn find(connection: &Connection, id: CheckpointId) -> Result<Stored, DatabaseError> {
    let query = format!("SELECT {COLUMNS} FROM checkpoint WHERE id = ?1");
    let found = connection.query_row(&query, [id.to_string()], stored).optional();
    found
        .map_err(|error| errors::sqlite("a checkpoint", error))?
        .ok_or_else(|| DatabaseError::NotFound { subject: format!("checkpoint {id}") })
}

type Inserted = (u64, Vec<u8>, Vec<u64>);

fn insert(
    connection: &Connection,
    content: &CheckpointContent,
    id: CheckpointId,
    at: chrono::DateTime<chrono::Utc>,
    newest_copy: u64,
    keep: u64,
) -> Result<Inserted, DatabaseError> {
    let failed = |error| errors::sqlite("a checkpoint", error);
    let one =
        |query: &str| connection.query_row(query, [], |row| row::number(row, 0)).map_err(failed);
    let sequence = Sequence(one("SELECT coalesce(max(sequence), 0) FROM journal")?);
    let number = one("SELECT coalesce(max(number), 0) FROM checkpoint")?.max(newest_copy) + 1;
    let payload = encode(id, at, sequence, content)?;
    connection
        .execute(
            "INSERT INTO checkpoint (id, number, created_at, sequence, services, operations, hash, payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            (
                id.to_string(),
                row::stored(number),
                at.timestamp_millis(),
                row::stored(sequence.get()),
                row::stored(content.services.len() as u64),
                row::stored(content.pending_operations.len() as u64),
                blake3::hash(&payload).as_bytes().as_slice(),
                &payload,
            ),
        )
        .map_err(failed)?;
    let dropped = collect_with(
        connection,
        "DELETE FROM checkpoint WHERE number <= (
             SELECT number FROM checkpoint WHERE quarantine IS NULL ORDER BY number DESC LIMIT 1 OFFSET ?1
         ) RETURNING number",
        [row::stored(keep)],
        |row| row::number(row, 0),
    )?;
    Ok((number, payload, dropped))
}

pub(crate) fn quarantine(
    connection: &Connection,
    bad: &[(u64, String)],
) -> Result<(), rusqlite::Error> {
    for (number, reason) in bad {
        connection
            .prepare_cached(
                "UPDATE checkpoint SET quarantine = ?2 WHERE number = ?1 AND quarantine IS NULL",
            )?
            .execute((row::stored(*number), reason))?;
    }
    Ok(())
}

/// Every number with whether it was put aside, answered by the index alone.
pub(crate) const NUMBERS: &str =
    "SELECT number, quarantine IS NOT NULL FROM checkpoint ORDER BY number";

/// Gives the id of a checkpoint and, if its payload verifies, the checkpoint.
pub(crate) fn read_row(
    connection: &Connection,
    number: u64,
) -> Result<(String, Result<Checkpoint, String>), DatabaseError> {
    let query = format!("SELECT {COLUMNS} FROM checkpoint WHERE number = ?1");
    let row = connection.query_row(&query, [row::stored(number)], stored);
    let row = row.map_err(|error| errors::sqlite("a checkpoint", error))?;
    let parsed = parse(&row.payload, &row.hash);
    Ok((row.id, parsed))
}

/// Takes a damaged file copy out of the ladder, and keeps it.
pub(crate) fn put_file_aside(dir: &Path, number: u64) -> Result<(), DatabaseError> {
    for path in [payload_path(dir, number), manifest_path(dir, number)] {
        let to = crate::folders::with_suffix(&path, ".damaged");
        match std::fs::rename(&path, to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(errors::file("moving aside", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_payload_written_is_the_checkpoint_read() {
        let content: HashMap<ServiceId, ServiceState> = HashMap::new();
        let id = CheckpointId(uuid::Uuid::nil());
        let payload = serde_json::to_vec(&Payload {
            id,
            schema: CHECKPOINT_SCHEMA,
            created_at: chrono::DateTime::UNIX_EPOCH,
            sequence: Sequence(7),
            services: content.iter().collect(),
            pending_operations: &[],
            channels: &BTreeMap::new(),
        })
        .unwrap();
        let hash = blake3::hash(&payload);
        let read = parse(&payload, hash.as_bytes()).unwrap();
        assert_eq!((read.id, read.sequence), (id, Sequence(7)));
        let mut flipped = payload;
        flipped[10] ^= 1;
        assert!(parse(&flipped, hash.as_bytes()).is_err());
    }
}
