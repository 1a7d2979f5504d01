//! Putting an older snapshot in the place of what is stored now, without losing what is.
//!
//! What is replaced are the services' states, the pending operations and the channels' positions. Journal, events and
//! audit trail are records of what happened and never go back; messages that were accepted stay accepted.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};
use supervisor_core::CheckpointId;
use supervisor_core::checkpoint::{Checkpoint, CheckpointContent, RejectedRung};
use supervisor_core::error::DatabaseError;
use supervisor_core::ports::{CheckpointStore, StateStore};
use supervisor_core::state::ServiceState;

use crate::backup::{self, BackupReason, BackupSummary, RestoreOutcome};
use crate::diff::SnapshotDiff;
use crate::folders::with_suffix;
use crate::journal::{self, collect};
use crate::{StatePersistence, checkpoint, errors, open, row, schema};

/// Where a backup is unpacked to be read.
const UNPACKED: &str = "restore.tmp";

/// What was read out of a backup.
pub(crate) struct Unpacked {
    pub(crate) content: CheckpointContent,
    pub(crate) rejected: Vec<RejectedRung>,
}

impl StatePersistence {
    /// Puts the services' states, pending operations and channel positions of a backup in the place of the stored ones.
    ///
    /// The backup is verified, copied, and brought to this program's schema as a copy; a backup of what is there now is taken first. Journal, events,
    /// audit trail, messages and dead letters stay as they are, and incarnations never go back. It counts from the next start on: a running
    /// supervisor keeps what it has in memory.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`], [`DatabaseError::Corrupt`] when the backup does not verify, [`DatabaseError::TooNew`], and others; nothing was
    /// changed then.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer; either everything or nothing is restored.
    pub async fn restore_backup(&self, name: &str) -> Result<RestoreOutcome, DatabaseError> {
        let wanted = name.to_owned();
        let unpacked = self
            .maintain(move |inner| {
                let dir = &inner.folders.backups;
                let found = backup::list(dir).into_iter().find(|backup| backup.name == wanted);
                let found = found.ok_or_else(|| DatabaseError::NotFound {
                    subject: format!("backup {wanted}"),
                })?;
                unpack(dir, &found)
            })
            .await;
        let unpacked = match unpacked {
            Err(error @ DatabaseError::Corrupt { .. }) => {
                // Marks it and writes the audit row.
                self.verify_backup(name).await?;
                return Err(error);
            }
            other => other?,
        };
        self.restore_content(format!("backup {name}"), unpacked.content, unpacked.rejected).await
    }

    /// Puts a checkpoint in the place of what is stored now, after a backup of that. Never done but on request.
    ///
    /// What is replaced and what stays is as for [`restore_backup`](Self::restore_backup).
    ///
    /// # Errors
    /// As for [`load`](CheckpointStore::load) and [`create_backup`](Self::create_backup); nothing was changed then.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer; either everything or nothing is restored.
    pub async fn restore_checkpoint(
        &self,
        id: CheckpointId,
    ) -> Result<RestoreOutcome, DatabaseError> {
        let Checkpoint { services, pending_operations, channels, .. } =
            CheckpointStore::load(self, id).await?;
        let content = CheckpointContent { services, pending_operations, channels };
        self.restore_content(format!("checkpoint {id}"), content, Vec::new()).await
    }

    /// Gives what is stored now: the newest checkpoint with every later state laid over it.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn stored_content(&self) -> Result<CheckpointContent, DatabaseError> {
        let restored = CheckpointStore::restore(self).await?;
        let stored = StateStore::load(self).await?;
        Ok(lay_over(restored.checkpoint, stored))
    }

    /// Makes `content` what is stored, after a backup of what was.
    pub(crate) async fn restore_content(
        &self,
        source: String,
        mut content: CheckpointContent,
        rejected: Vec<RejectedRung>,
    ) -> Result<RestoreOutcome, DatabaseError> {
        let now = self.stored_content().await?;
        // A run that comes after must not have the number of one that was: marks in processes carry it.
        for (id, state) in &mut content.services {
            if let Some(known) = now.services.get(id) {
                state.incarnation = state.incarnation.max(known.incarnation);
            }
        }
        let changes = SnapshotDiff::between(&now, &content);
        let safety = self.create_backup(BackupReason::BeforeRestore).await?;
        let states: Vec<ServiceState> = content.services.values().cloned().collect();
        let checkpoint = self
            .create_with(content, move |connection| replace_states(connection, &states))
            .await?;
        let detail = format!(
            "restored as checkpoint {checkpoint}: {} changes; what was there is in backup {}",
            changes.len(),
            safety.name
        );
        self.note(&source, &detail).await?;
        Ok(RestoreOutcome { source, checkpoint, changes, safety_backup: safety.name, rejected })
    }
}

/// Reads what a backup holds out of a copy that was brought to this program's schema.
pub(crate) fn unpack(dir: &Path, found: &BackupSummary) -> Result<Unpacked, DatabaseError> {
    if found.content.schema_version > schema::supported() {
        return Err(schema::too_new(&dir.join(&found.name), found.content.schema_version, None));
    }
    let copy = dir.join(UNPACKED);
    remove_database(&copy);
    backup::copy_verified(dir, found, &copy)?;
    let read = open::writer(&copy).and_then(|mut connection| {
        schema::migrate(&mut connection, found.content.schema_version)?;
        content(&connection)
    });
    remove_database(&copy);
    read
}

/// Removes a database of our own making with its log.
pub(crate) fn remove_database(path: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        // What stays is swept at the next start.
        drop(fs::remove_file(with_suffix(path, suffix)));
    }
}

/// Reads the newest checkpoint that verifies and lays the states over it.
fn content(connection: &Connection) -> Result<Unpacked, DatabaseError> {
    let mut rejected = Vec::new();
    let numbers = collect(
        connection,
        "SELECT number FROM checkpoint WHERE quarantine IS NULL ORDER BY number DESC",
        |row| row::number(row, 0),
    )?;
    let mut newest = None;
    for number in numbers {
        let found = connection
            .query_row(
                "SELECT id, hash, payload FROM checkpoint WHERE number = ?1",
                [row::stored(number)],
                |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, Vec<u8>>(1)?,
                        row.get::<_, Vec<u8>>(2)?,
                    ))
                },
            )
            .optional()
            .map_err(|error| errors::sqlite("a checkpoint", error))?;
        let Some((id, hash, payload)) = found else { continue };
        match checkpoint::parse(&payload, &hash) {
            Ok(checkpoint) => {
                newest = Some(checkpoint);
                break;
            }
            Err(reason) => {
                rejected.push(RejectedRung { source: format!("checkpoint {id}"), reason });
            }
        }
    }
    // A row that was damaged when the backup was taken is left out: the checkpoint has the service too.
    let states = journal::states(connection)?.sound;
    Ok(Unpacked { content: lay_over(newest, states), rejected })
}

/// Takes the newer record of each service: the checkpoint is the base, every state stored after it wins.
fn lay_over(checkpoint: Option<Checkpoint>, stored: Vec<ServiceState>) -> CheckpointContent {
    let mut content =
        checkpoint.map_or_else(CheckpointContent::default, |checkpoint| CheckpointContent {
            services: checkpoint.services,
            pending_operations: checkpoint.pending_operations,
            channels: checkpoint.channels,
        });
    for state in stored {
        let newer = content
            .services
            .get(&state.id)
            .is_none_or(|known| state.incarnation >= known.incarnation);
        if newer {
            content.services.insert(state.id.clone(), state);
        }
    }
    content
}

fn replace_states(connection: &Connection, states: &[ServiceState]) -> Result<(), DatabaseError> {
    let failed = |error| errors::sqlite("the services' states", error);
    let sequence: i64 = connection
        .query_row("SELECT coalesce(max(sequence), 0) FROM journal", [], |row| row.get(0))
        .map_err(failed)?;
    connection.execute("DELETE FROM service_state", []).map_err(failed)?;
    states.iter().try_for_each(|state| journal::put_state(connection, state, sequence))
}
