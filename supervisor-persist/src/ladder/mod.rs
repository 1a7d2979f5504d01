//! The way back from damage: what opening does about it, and where a start takes its snapshot from.

mod climb;
mod notes;
mod opening;
mod rebuild;
mod runs;
#[cfg(test)]
mod tests;
mod types;

use supervisor_core::checkpoint::{Checkpoint, RejectedRung, Restored};
use supervisor_core::error::{DatabaseError, chain};
use supervisor_core::journal::{Actor, AuditAction, AuditRecord};
use supervisor_core::ports::AuditLog;

pub(crate) use opening::{Opened, Request, check_structure, open};
pub use types::{
    DatabaseOrigin, LostTail, MigrationDone, NoteKind, RecoveryNote, RecoveryReport, StructureCheck,
};

use crate::folders::with_suffix;
use crate::{StatePersistence, checkpoint, errors, open as connections, restore};

impl StatePersistence {
    /// Gives what opening this store found and did, and what earlier openings left to be looked at.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn recovery_report(&self) -> Result<RecoveryReport, DatabaseError> {
        let notes =
            self.inner.readers.read(|connection| notes::read(connection, notes::SHOWN)).await?;
        let known = self.inner.opening.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(RecoveryReport { notes, ..known.clone() })
    }

    /// Says that everything in the [`recovery_report`](Self::recovery_report) was seen, and gives how many notes that settled.
    ///
    /// A lost tail is accepted by this: the trail goes on from where the database ends, with a row that says so, and
    /// what was anchored stays in the quarantine.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Dropping it loses the answer; call it again to finish.
    pub async fn settle_recovery(&self, actor: Actor) -> Result<u64, DatabaseError> {
        let lost = {
            let known = self.inner.opening.lock();
            known.unwrap_or_else(std::sync::PoisonError::into_inner).lost_tail.clone()
        };
        if let Some(tail) = lost.as_ref().filter(|tail| tail.trail_is_cut()) {
            self.forget_anchor(tail).await?;
        }
        let settled = self.inner.writer.write("recovery notes", notes::settle).await?;
        let detail = match &lost {
            Some(tail) if tail.trail_is_cut() => format!(
                "{settled} findings seen; the trail goes on from row {}, rows up to {} are lost",
                tail.database, tail.anchored
            ),
            Some(tail) => {
                format!("{settled} findings seen; what {} runs stored last is lost", tail.runs)
            }
            None => format!("{settled} findings seen"),
        };
        self.note_recovery(actor, "recovery", &detail).await?;
        self.write_anchor().await?;
        let mut known =
            self.inner.opening.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.lost_tail = None;
        Ok(settled)
    }

    /// Looks at the whole structure of the database, which takes seconds for gigabytes; readers and writers go on.
    ///
    /// # Errors
    /// [`DatabaseError::Corrupt`] when it is damaged: that is noted and audited. Closing and opening the store
    /// again rebuilds it from the newest sound backup.
    ///
    /// # Cancel safety
    /// Safe; the check goes on without anybody to tell.
    pub async fn check_structure(&self) -> Result<StructureCheck, DatabaseError> {
        let checked = self
            .blocking(|inner| {
                let mut connection = connections::reader(&inner.folders.database)?;
                check_structure(&mut connection, true, None)
            })
            .await;
        if let Err(error @ DatabaseError::Corrupt { .. }) = &checked {
            let found = RejectedRung { source: "database".to_owned(), reason: chain(error) };
            self.remember(NoteKind::Damaged, vec![found]).await?;
        }
        checked
    }

    /// Writes the audit rows about what opening found, and keeps the anchor of a lost tail.
    pub(crate) async fn tell_of_opening(
        &self,
        fresh: Vec<RecoveryNote>,
    ) -> Result<(), DatabaseError> {
        let (tail, rebuilt) = {
            let known =
                self.inner.opening.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let rebuilt = matches!(known.database, DatabaseOrigin::Rebuilt { .. });
            (known.lost_tail.clone(), rebuilt)
        };
        let cut = tail.filter(LostTail::trail_is_cut);
        match &cut {
            // The tail went with the database that was moved aside; the rows about it begin the new one.
            Some(tail) if rebuilt => self.forget_anchor(tail).await?,
            Some(tail) => {
                let tail = tail.clone();
                self.blocking(move |inner| opening::keep_anchor(&inner.folders, &tail).map(drop))
                    .await?;
            }
            None => {}
        }
        if cut.is_some() && !rebuilt {
            // Rows now would stand where the trail was cut and hide it; one is written when the loss is accepted.
            return Ok(());
        }
        for note in fresh {
            let detail = format!("{}: {}", crate::row::word(&note.kind), note.reason);
            self.note_recovery(Actor::Supervisor, &note.subject, &detail).await?;
        }
        if rebuilt {
            self.write_anchor().await?;
        }
        Ok(())
    }

    /// Climbs down the ladder and remembers what was passed over.
    pub(crate) async fn climb_down(&self) -> Result<Restored, DatabaseError> {
        let dir = self.inner.checkpoint_dir.clone();
        let climbed =
            self.inner.readers.read(move |connection| climb::climb(connection, &dir)).await?;
        let climb::Climbed { mut restored, damaged, damaged_files, put_aside } = climbed;
        // A store that cannot write now still gives what it found; the next start puts the rest aside.
        unless_stored(self.put_aside(damaged, damaged_files).await);
        if restored.checkpoint.is_none() && (put_aside || !restored.rejected.is_empty()) {
            self.climb_backups(&mut restored).await?;
        }
        unless_stored(self.remember(NoteKind::Rejected, restored.rejected.clone()).await);
        Ok(restored)
    }

    /// Marks what is damaged and keeps it: somebody may want to look at it.
    async fn put_aside(
        &self,
        damaged: Vec<(u64, String)>,
        files: Vec<u64>,
    ) -> Result<(), DatabaseError> {
        if !damaged.is_empty() {
            self.inner
                .writer
                .write("a damaged checkpoint", move |connection| {
                    checkpoint::quarantine(connection, &damaged)
                })
                .await?;
        }
        if files.is_empty() {
            return Ok(());
        }
        let dir = self.inner.checkpoint_dir.clone();
        self.blocking(move |_| {
            files.iter().try_for_each(|number| checkpoint::put_file_aside(&dir, *number))
        })
        .await
    }

    /// Tries what is in the backups, the newest first, and names the savepoints, which nobody asked for.
    async fn climb_backups(&self, restored: &mut Restored) -> Result<(), DatabaseError> {
        for found in self.backups().await?.into_iter().filter(|found| found.health.is_sound()) {
            let source = format!("backup {}", found.name);
            let backup = found.clone();
            let unpacked =
                self.maintain(move |inner| restore::unpack(&inner.folders.backups, &backup)).await;
            match unpacked {
                Ok(unpacked) if unpacked.content.services.is_empty() => {
                    let reason = "it holds no state".to_owned();
                    restored.rejected.push(RejectedRung { source, reason });
                }
                Ok(unpacked) => {
                    restored.checkpoint = Some(Checkpoint {
                        id: self.new_checkpoint_id(found.created_at),
                        schema: supervisor_core::checkpoint::CHECKPOINT_SCHEMA,
                        created_at: found.created_at,
                        sequence: found.content.sequence,
                        services: unpacked.content.services,
                        pending_operations: unpacked.content.pending_operations,
                        channels: unpacked.content.channels,
                    });
                    restored.source = source;
                    return Ok(());
                }
                Err(error) => {
                    unless_stored(self.verify_backup(&found.name).await.map(drop));
                    restored.rejected.push(RejectedRung { source, reason: chain(&error) });
                }
            }
        }
        for savepoint in self.savepoints().await? {
            restored.rejected.push(RejectedRung {
                source: format!("savepoint {}", savepoint.name),
                reason: "a savepoint is restored only on request".to_owned(),
            });
        }
        Ok(())
    }

    /// Stores findings; those that are new get an audit row.
    pub(crate) async fn remember(
        &self,
        kind: NoteKind,
        found: Vec<RejectedRung>,
    ) -> Result<(), DatabaseError> {
        if found.is_empty() {
            return Ok(());
        }
        let at = self.inner.clock.wall().timestamp_millis();
        let new = self
            .inner
            .writer
            .write("recovery notes", move |connection| {
                let mut new = Vec::new();
                for rung in &found {
                    if notes::add(connection, at, kind, &rung.source, &rung.reason, false)? {
                        new.push(rung.clone());
                    }
                }
                Ok(new)
            })
            .await?;
        for rung in new {
            let detail = format!("{}: {}", crate::row::word(&kind), rung.reason);
            self.note_recovery(Actor::Supervisor, &rung.source, &detail).await?;
        }
        Ok(())
    }

    async fn note_recovery(
        &self,
        actor: Actor,
        subject: &str,
        detail: &str,
    ) -> Result<(), DatabaseError> {
        let record = AuditRecord {
            actor,
            action: AuditAction::Recovery,
            subject: subject.to_owned(),
            detail: detail.to_owned(),
        };
        AuditLog::append(self, record).await.map(drop)
    }

    /// Moves the anchor of a lost tail away, after it was kept, so that the trail is anchored anew.
    async fn forget_anchor(&self, tail: &LostTail) -> Result<(), DatabaseError> {
        let tail = tail.clone();
        self.blocking(move |inner| {
            opening::keep_anchor(&inner.folders, &tail)?;
            let anchor = with_suffix(&inner.folders.database, ".audit-anchor");
            std::fs::remove_file(&anchor).map_err(|error| errors::file("removing", &anchor, error))
        })
        .await
    }
}

/// Says in the log what could not be stored about a recovery that went on all the same.
pub(crate) fn unless_stored(done: Result<(), DatabaseError>) {
    if let Err(error) = done {
        tracing::warn!(error = %chain(&error), "a finding of the recovery could not be stored");
    }
}

/// Marks in the database that its owner ends by itself.
pub(crate) fn mark_clean(connection: &rusqlite::Connection) -> Result<(), rusqlite::Error> {
    connection.execute("UPDATE store_run SET clean = 1", []).map(drop)
}
