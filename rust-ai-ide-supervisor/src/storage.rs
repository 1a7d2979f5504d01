//! Savepoints, backups and dead letters: one set of questions, asked of a running supervisor or of its stored state.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use supervisor_core::CheckpointId;
use supervisor_core::checkpoint::CheckpointContent;
use supervisor_core::error::{DatabaseError, SecurityError, SupervisorError};
use supervisor_core::journal::Actor;
use supervisor_core::message::DeadLetter;
use supervisor_core::ports::{CheckpointStore, Outbox};
use supervisor_persist::{
    BackupProgress, BackupReason, BackupRetention, BackupSummary, BackupVerification, DoctorReport,
    RecoveryReport, RestoreOutcome, Savepoint, SavepointSummary, SnapshotDiff, StatePersistence,
};
use uuid::Uuid;

/// Most dead letters one answer holds.
pub const DEAD_LETTERS_MAX: usize = 10_000;

/// Is told how far a long call is.
pub type Progress = Arc<dyn Fn(BackupProgress) + Send + Sync>;

/// What can be asked of stored state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum StorageCall {
    /// Make a savepoint of what is now.
    SavepointCreate {
        /// Its name, 1 to 64 characters of `a-z A-Z 0-9 _ - .`, beginning with a letter or digit.
        name: String,
        /// What to remember about it, at most 4096 bytes.
        note: String,
    },
    /// Every savepoint.
    SavepointList,
    /// One savepoint with what it holds.
    SavepointShow {
        /// Which.
        name: String,
    },
    /// What restoring a savepoint would change.
    SavepointDiff {
        /// Which.
        name: String,
    },
    /// Delete a savepoint.
    SavepointDelete {
        /// Which.
        name: String,
    },
    /// Write a savepoint to a new file.
    SavepointExport {
        /// Which.
        name: String,
        /// The file, absolute; nothing may be there yet.
        path: PathBuf,
    },
    /// Take in a file that was exported, here or elsewhere.
    SavepointImport {
        /// The file, absolute.
        path: PathBuf,
        /// The name it gets; its own if absent.
        name: Option<String>,
    },
    /// Put a savepoint in the place of what is stored.
    SavepointRestore {
        /// Which.
        name: String,
    },
    /// What restoring a checkpoint would change.
    CheckpointDiff {
        /// Which.
        checkpoint: CheckpointId,
    },
    /// Put a checkpoint in the place of what is stored.
    CheckpointRestore {
        /// Which.
        checkpoint: CheckpointId,
    },
    /// Take a backup.
    BackupCreate,
    /// Every backup.
    BackupList,
    /// Read backups again and prove what they hold.
    BackupVerify {
        /// Which; all if absent.
        name: Option<String>,
    },
    /// Remove what retention does not keep.
    BackupPrune {
        /// So many of the newest stay.
        keep: u64,
    },
    /// Put the states of a backup in the place of what is stored.
    BackupRestore {
        /// Which.
        name: String,
    },
    /// Messages that failed for good, newest first.
    DeadLetterList {
        /// Of one channel only.
        channel: Option<String>,
        /// How many, at most 10,000.
        limit: usize,
    },
    /// Put dead letters back into their queues.
    DeadLetterRequeue {
        /// Which messages.
        ids: Vec<Uuid>,
    },
    /// Delete dead letters.
    DeadLetterPurge {
        /// Of one channel only; all if absent.
        channel: Option<String>,
    },
    /// What the last opening of the store had to do.
    Recovery,
    /// Say that all of that was seen; a lost end of the database is accepted.
    RecoverySettle,
    /// Examine the store.
    Doctor,
}

impl StorageCall {
    /// Tells whether it replaces what is stored, which only counts from the next start on.
    #[must_use]
    pub const fn restores(&self) -> bool {
        matches!(
            self,
            Self::SavepointRestore { .. }
                | Self::CheckpointRestore { .. }
                | Self::BackupRestore { .. }
        )
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", content = "value", rename_all = "snake_case")]
pub enum StorageAnswer {
    /// It was done.
    Done,
    /// So many were affected.
    Count(u64),
    /// One savepoint was made or taken in.
    Savepoint(SavepointSummary),
    /// Savepoints.
    Savepoints(Vec<SavepointSummary>),
    /// A savepoint and what it holds.
    SavepointContent(Box<Savepoint>),
    /// What would change.
    Diff(SnapshotDiff),
    /// The file that was written.
    Written(PathBuf),
    /// What a restoration did.
    Restored(Box<RestoreOutcome>),
    /// A backup was taken.
    Backup(Box<BackupSummary>),
    /// Backups.
    Backups(Vec<BackupSummary>),
    /// What reading backups again found.
    Verified(Vec<BackupVerification>),
    /// Names of backups that were removed.
    Pruned(Vec<String>),
    /// Dead letters.
    DeadLetters(Vec<DeadLetter>),
    /// What the last opening had to do.
    Recovery(Box<RecoveryReport>),
    /// What an examination found.
    Examined(DoctorReport),
}

/// Carries a call out on a store. `now` is what running services have; what is stored when absent.
///
/// # Errors
/// Those of the store's calls, whose classes say whether a retry may help, and [`SecurityError::NotPermitted`] for a
/// dead letter that is only kept; nothing was changed then.
///
/// # Cancel safety
/// Dropping it loses the answer, not the effect.
pub async fn carry_out(
    store: &StatePersistence,
    call: StorageCall,
    now: Option<CheckpointContent>,
    progress: Progress,
) -> Result<StorageAnswer, SupervisorError> {
    let now = async || match now {
        Some(now) => Ok::<_, DatabaseError>(now),
        None => store.stored_content().await,
    };
    Ok(match call {
        StorageCall::SavepointCreate { name, note } => {
            StorageAnswer::Savepoint(store.create_savepoint(&name, &note, now().await?).await?)
        }
        StorageCall::SavepointList => StorageAnswer::Savepoints(store.savepoints().await?),
        StorageCall::SavepointShow { name } => {
            StorageAnswer::SavepointContent(Box::new(store.savepoint(&name).await?))
        }
        StorageCall::SavepointDiff { name } => {
            StorageAnswer::Diff(store.diff_savepoint(&name, &now().await?).await?)
        }
        StorageCall::SavepointDelete { name } => {
            store.delete_savepoint(&name).await.map(|()| StorageAnswer::Done)?
        }
        StorageCall::SavepointExport { name, path } => {
            let written = store.export_savepoint(&name, &path, &beside(&path)).await?;
            StorageAnswer::Written(written)
        }
        StorageCall::SavepointImport { path, name } => {
            let roots = beside(&path);
            let taken = store.import_savepoint(&path, name.as_deref(), &roots).await?;
            StorageAnswer::Savepoint(taken)
        }
        StorageCall::CheckpointDiff { checkpoint } => {
            let then = CheckpointStore::load(store, checkpoint).await?;
            let then = CheckpointContent {
                services: then.services,
                pending_operations: then.pending_operations,
                channels: then.channels,
            };
            StorageAnswer::Diff(SnapshotDiff::between(&now().await?, &then))
        }
        StorageCall::SavepointRestore { name } => restored(store.restore_savepoint(&name).await?),
        StorageCall::CheckpointRestore { checkpoint } => {
            restored(store.restore_checkpoint(checkpoint).await?)
        }
        StorageCall::BackupRestore { name } => restored(store.restore_backup(&name).await?),
        StorageCall::BackupCreate => {
            let taken = store
                .create_backup_with_progress(BackupReason::Requested, move |far| progress(far))
                .await?;
            StorageAnswer::Backup(Box::new(taken))
        }
        StorageCall::BackupList => StorageAnswer::Backups(store.backups().await?),
        StorageCall::BackupVerify { name: Some(name) } => {
            let found = store.verify_backup_with_progress(&name, move |far| progress(far)).await?;
            StorageAnswer::Verified(vec![found])
        }
        StorageCall::BackupVerify { name: None } => {
            let mut found = Vec::new();
            for backup in store.backups().await? {
                let progress = Arc::clone(&progress);
                let name = &backup.name;
                found
                    .push(store.verify_backup_with_progress(name, move |far| progress(far)).await?);
            }
            StorageAnswer::Verified(found)
        }
        StorageCall::BackupPrune { keep } => {
            let retention =
                BackupRetention { keep, keep_for: std::time::Duration::ZERO, at_most: keep };
            StorageAnswer::Pruned(store.prune_backups(retention).await?)
        }
        StorageCall::DeadLetterList { channel, limit } => {
            let limit = limit.min(DEAD_LETTERS_MAX);
            StorageAnswer::DeadLetters(store.dead_letters(channel, limit).await?)
        }
        StorageCall::DeadLetterRequeue { ids } => {
            refuse_kept(store, &ids).await?;
            StorageAnswer::Count(store.requeue(&ids).await?)
        }
        StorageCall::DeadLetterPurge { channel } => {
            StorageAnswer::Count(store.purge(channel).await?)
        }
        StorageCall::Recovery => StorageAnswer::Recovery(Box::new(store.recovery_report().await?)),
        StorageCall::RecoverySettle => {
            StorageAnswer::Count(store.settle_recovery(Actor::Operator).await?)
        }
        StorageCall::Doctor => StorageAnswer::Examined(store.doctor().await?),
    })
}

/// Refuses to send anything again if one of the letters says that it is only kept.
async fn refuse_kept(store: &StatePersistence, ids: &[Uuid]) -> Result<(), SupervisorError> {
    let letters = store.dead_letters(None, DEAD_LETTERS_MAX).await?;
    let named = letters.iter().filter(|letter| ids.contains(&letter.message.id));
    let kept: Vec<_> = named
        .filter_map(|letter| {
            Some(format!("{}: {}", letter.message.id, letter.kept_because.as_ref()?))
        })
        .collect();
    if kept.is_empty() {
        return Ok(());
    }
    let action = "sending a dead letter again".to_owned();
    Err(SecurityError::NotPermitted { action, reason: kept.join("; ") }.into())
}

fn restored(outcome: RestoreOutcome) -> StorageAnswer {
    StorageAnswer::Restored(Box::new(outcome))
}

/// The folder a file is named in: who names it says with that where it may be, and a link may not lead out of there.
fn beside(path: &Path) -> Vec<PathBuf> {
    path.parent().map(Path::to_owned).into_iter().collect()
}
