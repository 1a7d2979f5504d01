//! Taking checkpoints: on request, and by themselves when something changed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use supervisor_core::error::{SupervisorError, chain};
use supervisor_core::event::EventKind;
use supervisor_core::journal::{Actor, AuditAction};
use supervisor_core::ports::{CheckpointStore, EventSink, Journal};
use supervisor_core::status::SupervisorPhase;
use supervisor_core::{CheckpointId, Sequence};

use super::{Inner, Supervisor};

/// Time between two looks whether anything changed since the last checkpoint.
///
/// Transitions are stored one by one as they happen; a checkpoint only bounds how much of the journal recovery
/// leans on, so half a minute is often enough, and an idle system takes none.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);

impl Supervisor {
    pub(super) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    pub(super) async fn checkpoint(&self, actor: Actor) -> Result<CheckpointId, SupervisorError> {
        let parts = self.parts().await?;
        let content = self.content(parts);
        let (services, pending_operations) =
            (content.services.len() as u64, content.pending_operations.len() as u64);
        let id = CheckpointStore::create(&parts.store, content).await?;
        parts.last_checkpoint.send_replace(Some(id));
        parts.audit.note(
            actor,
            AuditAction::Checkpoint,
            id.to_string(),
            format!("created, {services} services"),
        );
        parts.sink.publish(EventKind::CheckpointCreated {
            checkpoint: id,
            services,
            pending_operations,
        });
        Ok(id)
    }
}

/// Takes a checkpoint whenever the journal has grown, until the supervisor shuts down or is dropped.
pub(super) async fn run(supervisor: Weak<Inner>) {
    let mut seen = Sequence::ZERO;
    let Some(mut phase) = supervisor.upgrade().map(|inner| inner.phase.subscribe()) else {
        return;
    };
    loop {
        let over = phase.wait_for(|phase| *phase >= SupervisorPhase::ShuttingDown);
        if tokio::time::timeout(CHECKPOINT_INTERVAL, over).await.is_ok() {
            return;
        }
        let Some(inner) = supervisor.upgrade() else {
            return;
        };
        let handle = Supervisor { inner };
        match take_if_changed(&handle, seen).await {
            Ok(now) => seen = now,
            // Tried again at the next interval; the store says by itself when it is degraded.
            Err(error) => tracing::warn!(error = %chain(&error), "an automatic checkpoint failed"),
        }
    }
}

async fn take_if_changed(
    supervisor: &Supervisor,
    seen: Sequence,
) -> Result<Sequence, SupervisorError> {
    let parts = supervisor.parts().await?;
    let head = Journal::head(&parts.store).await?;
    if head != seen {
        supervisor.checkpoint(Actor::Supervisor).await?;
    }
    Ok(head)
}
