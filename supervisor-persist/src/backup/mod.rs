//! Backups: proven by reopening before they count, listed by their manifests, verified again, pruned with care.

mod check;
mod folder;
mod proof;
mod retention;
mod take;
mod types;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use supervisor_core::error::{DatabaseError, chain};
use supervisor_core::journal::{Actor, AuditAction, AuditRecord};
use supervisor_core::ports::AuditLog;

pub(crate) use check::copy_verified;
pub(crate) use folder::{list, sweep};
pub use retention::{BackupRetention, backup_due};
pub(crate) use take::{Progress, is_current, take};
pub use types::{
    BackupContent, BackupHealth, BackupProgress, BackupReason, BackupRound, BackupStage,
    BackupSummary, BackupVerification, RestoreOutcome,
};

use crate::StatePersistence;
use crate::store::Inner;

/// Backups read again by one round of the schedule.
const SAMPLE: usize = 1;

impl StatePersistence {
    /// Takes a backup and gives what it holds; on return it was reopened, read, hashed and synced, and is listed.
    ///
    /// Writers and readers go on meanwhile. The audit trail gets a row about it, which the backup itself does not have.
    ///
    /// # Errors
    /// [`DatabaseError::DiskFull`] before anything is written when there is no room for it, [`DatabaseError::Corrupt`] when the copy did not prove
    /// itself, and others; a backup that was begun is removed.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer; the backup may still be made.
    pub async fn create_backup(
        &self,
        reason: BackupReason,
    ) -> Result<BackupSummary, DatabaseError> {
        self.create_backup_with_progress(reason, |_| {}).await
    }

    /// As [`create_backup`](Self::create_backup), telling how far it is.
    ///
    /// `progress` is called on a thread that may block, at least once for every stage, in the order of the stages.
    ///
    /// # Errors
    /// As for [`create_backup`](Self::create_backup).
    ///
    /// # Cancel safety
    /// As for [`create_backup`](Self::create_backup).
    pub async fn create_backup_with_progress(
        &self,
        reason: BackupReason,
        progress: impl Fn(BackupProgress) + Send + Sync + 'static,
    ) -> Result<BackupSummary, DatabaseError> {
        let at = self.inner.clock.wall();
        let progress: Progress = Arc::new(progress);
        let taken = self
            .maintain(move |inner| {
                take(&inner.folders.database, &inner.folders.backups, reason, at, &progress)
            })
            .await;
        let (subject, detail) = match &taken {
            Ok(backup) => (
                format!("backup {}", backup.name),
                format!(
                    "made and proven: {} bytes, journal {}, audit {}",
                    backup.bytes, backup.content.sequence, backup.content.audit
                ),
            ),
            Err(error) => ("backup".to_owned(), format!("failed: {}", chain(error))),
        };
        if let Err(error) = self.note(&subject, &detail).await {
            // The backup is as good without the row, and why it failed matters more than that the row did.
            tracing::warn!(error = %chain(&error), subject, detail, "not audited");
        }
        taken
    }

    /// Lists the backups, the newest first, as their manifests describe them.
    ///
    /// # Errors
    /// [`DatabaseError::Closed`] when the runtime is going down.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn backups(&self) -> Result<Vec<BackupSummary>, DatabaseError> {
        self.blocking(|inner| Ok(list(&inner.folders.backups))).await
    }

    /// Reads a backup whole and compares it with its manifest.
    ///
    /// One that is damaged is marked so, is never restored from again, and gets an audit row. Whether a new one should
    /// be taken in its place is in the answer; [`run_backup_schedule`](Self::run_backup_schedule) then takes it at its next round.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`] and others; damage is an answer, not an error.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the mark.
    pub async fn verify_backup(&self, name: &str) -> Result<BackupVerification, DatabaseError> {
        self.verify_backup_with_progress(name, |_| {}).await
    }

    /// As [`verify_backup`](Self::verify_backup), telling how far it is: hashing first, then proving.
    ///
    /// # Errors
    /// As for [`verify_backup`](Self::verify_backup).
    ///
    /// # Cancel safety
    /// As for [`verify_backup`](Self::verify_backup).
    pub async fn verify_backup_with_progress(
        &self,
        name: &str,
        progress: impl Fn(BackupProgress) + Send + Sync + 'static,
    ) -> Result<BackupVerification, DatabaseError> {
        let at = self.inner.clock.wall();
        let wanted = name.to_owned();
        let verified = self
            .maintain(move |inner| check::verify(&inner.folders.backups, &wanted, at, &progress))
            .await?;
        if !verified.intact {
            let detail = format!("damaged, excluded from recovery: {}", verified.detail);
            self.note(&format!("backup {name}"), &detail).await?;
        }
        Ok(verified)
    }

    /// Verifies the `at_most` sound backups that were not looked at for longest.
    ///
    /// # Errors
    /// As for [`verify_backup`](Self::verify_backup).
    ///
    /// # Cancel safety
    /// As for [`verify_backup`](Self::verify_backup).
    pub async fn verify_backups(
        &self,
        at_most: usize,
    ) -> Result<Vec<BackupVerification>, DatabaseError> {
        let mut sound: Vec<_> = self
            .backups()
            .await?
            .into_iter()
            .filter_map(|backup| match backup.health {
                BackupHealth::Verified { at } => Some((at, backup.number, backup.name)),
                BackupHealth::Damaged { .. } => None,
            })
            .collect();
        sound.sort();
        let mut found = Vec::new();
        for (_, _, name) in sound.into_iter().take(at_most) {
            found.push(self.verify_backup(&name).await?);
        }
        Ok(found)
    }

    /// Removes the backups that `retention` does not protect and gives their names.
    ///
    /// # Errors
    /// What the system said; a retry goes on where it stopped.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the removal.
    pub async fn prune_backups(
        &self,
        retention: BackupRetention,
    ) -> Result<Vec<String>, DatabaseError> {
        let now = self.inner.clock.wall();
        let pruned = self
            .maintain(move |inner| {
                let dir = &inner.folders.backups;
                let names = retention::superseded(&list(dir), retention, now);
                for name in &names {
                    folder::remove(dir, name)?;
                }
                Ok(names)
            })
            .await?;
        if !pruned.is_empty() {
            self.note("backups", &format!("removed by retention: {}", pruned.join(", "))).await?;
        }
        Ok(pruned)
    }

    /// Does what the schedule asks for now: takes a backup when one is due ([`backup_due`]), reads an older one again, then prunes.
    ///
    /// Call it on a timer, more often than `interval`; when nothing is due it only lists a directory.
    ///
    /// # Errors
    /// Those of the steps; what was taken stays.
    ///
    /// # Cancel safety
    /// Dropping it between steps leaves the others to the next round.
    pub async fn run_backup_schedule(
        &self,
        interval: Duration,
        retention: BackupRetention,
    ) -> Result<BackupRound, DatabaseError> {
        let newest = self.backups().await?.into_iter().next();
        if !backup_due(newest.as_ref(), self.inner.clock.wall(), interval) {
            return Ok(BackupRound::default());
        }
        let verified = self.verify_backups(SAMPLE).await?;
        let created = self.create_backup(BackupReason::Scheduled).await?;
        // Only now is there something that may take the place of what goes.
        let pruned = self.prune_backups(retention).await?;
        Ok(BackupRound { created: Some(created), verified, pruned })
    }

    /// Gives the directory backups are kept in.
    #[must_use]
    pub fn backup_dir(&self) -> PathBuf {
        self.inner.folders.backups.clone()
    }

    /// Runs blocking work on the files of the store, one such work at a time.
    pub(crate) async fn maintain<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        self.blocking(move |inner| {
            let _alone = inner.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
            work(inner)
        })
        .await
    }

    /// Runs blocking work on a thread that may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(|_| DatabaseError::Closed)?
    }

    /// Writes an audit row about a snapshot.
    pub(crate) async fn note(&self, subject: &str, detail: &str) -> Result<(), DatabaseError> {
        let record = AuditRecord {
            actor: Actor::Supervisor,
            action: AuditAction::Checkpoint,
            subject: subject.to_owned(),
            detail: detail.to_owned(),
        };
        AuditLog::append(self, record).await.map(drop)
    }
}
