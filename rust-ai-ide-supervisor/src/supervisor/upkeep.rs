//! What storage needs from time to time: backups on schedule, a thorough look after a quick opening, and telling of its modes.

use std::sync::Weak;
use std::time::Duration;

use supervisor_core::error::{SupervisorError, chain};
use supervisor_core::event::EventKind;
use supervisor_core::ports::EventSink;
use supervisor_core::status::SupervisorPhase;
use supervisor_persist::{BackupRetention, StorageStatus, StructureCheck};

use super::storage::publish_backup;
use super::{Inner, Supervisor};

/// Longest time between two looks whether a backup is due; looking lists a directory.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// Takes backups when they are due, until the supervisor shuts down or is dropped.
pub(super) async fn back_up(supervisor: Weak<Inner>) {
    let Some(inner) = supervisor.upgrade() else { return };
    let (interval, wanted) = (inner.config.backup_interval, inner.config.enable_auto_backup);
    let mut phase = inner.phase.subscribe();
    drop(inner);
    if !wanted {
        return;
    }
    loop {
        let Some(inner) = supervisor.upgrade() else { return };
        let handle = Supervisor { inner };
        let over = phase.wait_for(|phase| *phase >= SupervisorPhase::ShuttingDown);
        tokio::select! {
            // A backup under way is given up for the shutdown; what was written of it is swept at the next start.
            _ = over => return,
            ended = round(&handle, interval) => if let Err(error) = ended {
                // Tried again at the next look.
                tracing::warn!(error = %chain(&error), "a backup on schedule failed");
            },
        }
        drop(handle);
        let over = phase.wait_for(|phase| *phase >= SupervisorPhase::ShuttingDown);
        if tokio::time::timeout(interval.min(LOOK_MAX), over).await.is_ok() {
            return;
        }
    }
}

async fn round(supervisor: &Supervisor, interval: Duration) -> Result<(), SupervisorError> {
    let parts = supervisor.parts().await?;
    match parts.store.run_backup_schedule(interval, BackupRetention::default()).await {
        Ok(round) => {
            for bad in round.verified.iter().filter(|backup| !backup.intact) {
                let reason = format!("{} does not verify any more: {}", bad.name, bad.detail);
                parts.sink.publish(EventKind::BackupFailed { reason });
            }
            if let Some(taken) = &round.created {
                publish_backup(parts, taken);
            }
            Ok(())
        }
        Err(error) => {
            parts.sink.publish(EventKind::BackupFailed { reason: chain(&error) });
            Err(error.into())
        }
    }
}

/// Reads the rest of a database that was opened after a quick look, once.
pub(super) async fn look_closely(supervisor: Weak<Inner>) {
    let Some(inner) = supervisor.upgrade() else { return };
    let handle = Supervisor { inner };
    let Ok(parts) = handle.parts().await else { return };
    match parts.store.recovery_report().await {
        Ok(report) if matches!(report.structure, StructureCheck::Partial) => {}
        _ => return,
    }
    let mut phase = handle.inner.phase.subscribe();
    let over = phase.wait_for(|phase| *phase >= SupervisorPhase::ShuttingDown);
    tokio::select! {
        _ = over => {}
        looked = parts.store.check_structure() => match looked {
            Ok(found) => tracing::info!(?found, "the whole database was read"),
            Err(error) => tracing::error!(error = %chain(&error), "the database"),
        },
    }
}

/// Shows what storage can do at the moment in the supervisor's mode, until it shuts down or is dropped.
pub(super) async fn watch_storage(supervisor: Weak<Inner>) {
    let Some(inner) = supervisor.upgrade() else { return };
    let mut phase = inner.phase.subscribe();
    let handle = Supervisor { inner };
    let Ok(parts) = handle.parts().await else { return };
    let mut status = parts.store.watch_storage();
    drop(handle);
    loop {
        let now = status.borrow_and_update().clone();
        let Some(inner) = supervisor.upgrade() else { return };
        show_mode(&Supervisor { inner }, &now).await;
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            _ = phase.wait_for(|phase| *phase >= SupervisorPhase::ShuttingDown) => return,
        }
    }
}

async fn show_mode(supervisor: &Supervisor, now: &StorageStatus) {
    let Ok(parts) = supervisor.parts().await else { return };
    let mode = now.mode.to_string();
    if supervisor.inner.set_mode(&mode) {
        parts.sink.publish(EventKind::ModeChanged { mode, reason: now.reason.clone() });
    }
}
