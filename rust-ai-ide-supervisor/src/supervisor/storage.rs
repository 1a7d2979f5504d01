//! What is asked of stored state while the supervisor runs.

use async_trait::async_trait;
use supervisor_core::checkpoint::CheckpointContent;
use supervisor_core::error::{SecurityError, SupervisorError};
use supervisor_core::event::EventKind;
use supervisor_core::journal::{Actor, AuditAction};
use supervisor_core::ports::EventSink;
use supervisor_persist::BackupSummary;

use super::Supervisor;
use super::open::Parts;
use crate::daemon::StorageControl;
use crate::storage::{Progress, StorageAnswer, StorageCall, carry_out};

impl Supervisor {
    /// Gives what services, operations and channels are now, as a checkpoint holds it.
    pub(super) fn content(&self, parts: &Parts) -> CheckpointContent {
        let states = parts.engine.states().into_iter();
        CheckpointContent {
            services: states.map(|state| (state.id.clone(), state)).collect(),
            pending_operations: self.inner.operations.snapshot(),
            channels: parts.ipc.positions(),
        }
    }
}

/// Tells subscribers of a backup.
pub(super) fn publish_backup(parts: &Parts, backup: &BackupSummary) {
    let (backup, bytes) = (backup.name.clone(), backup.bytes);
    parts.sink.publish(EventKind::BackupCompleted { backup, bytes });
}

#[async_trait]
impl StorageControl for Supervisor {
    async fn storage(
        &self,
        call: StorageCall,
        actor: Actor,
        progress: Progress,
    ) -> Result<StorageAnswer, SupervisorError> {
        let parts = self.parts().await?;
        if call.restores() {
            let reason = "what runs would keep its state and store it again; stop everything first \
                          (`ide-supervisor down`), restore, and start again";
            parts.audit.note(actor, AuditAction::Refusal, "storage", "restore while running");
            return Err(SecurityError::NotPermitted {
                action: "restore".to_owned(),
                reason: reason.to_owned(),
            }
            .into());
        }
        let backs_up = call == StorageCall::BackupCreate;
        let requeues = matches!(call, StorageCall::DeadLetterRequeue { .. });
        let answer = carry_out(&parts.store, call, Some(self.content(parts)), progress).await;
        match &answer {
            Ok(StorageAnswer::Backup(backup)) => publish_backup(parts, backup),
            Err(error) if backs_up => {
                let reason = supervisor_core::error::chain(error);
                parts.sink.publish(EventKind::BackupFailed { reason });
            }
            _ => {}
        }
        if requeues {
            for status in parts.ipc.channels() {
                if let Some(channel) = parts.ipc.channel(&status.name) {
                    // One that is closing sends nothing more; the next start does.
                    drop(channel.reload().await);
                }
            }
        }
        answer
    }
}
