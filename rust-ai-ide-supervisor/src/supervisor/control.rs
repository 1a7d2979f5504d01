//! The face of the supervisor for windows, sockets and tests.

use async_trait::async_trait;
use supervisor_core::checkpoint::CheckpointSummary;
use supervisor_core::config::ServiceSpec;
use supervisor_core::error::DatabaseError;
use supervisor_core::error::SupervisorError;
use supervisor_core::event::SupervisorEvent;
use supervisor_core::journal::{Actor, AuditAction, AuditEntry, AuditVerification};
use supervisor_core::message::ChannelStatus;
use supervisor_core::ports::{
    AuditLog, CheckpointSelector, CheckpointStore, EventStore, EventSubscription, RestoreSummary,
    SupervisorControl,
};
use supervisor_core::state::OperationKind;
use supervisor_core::status::{
    LogLine, STATUS_VERSION, ServiceStatus, StatusReport, SupervisorStatus,
};
use supervisor_core::{CheckpointId, Sequence, ServiceId};

use super::Supervisor;
use super::open::Parts;

/// Most rows any list answers with.
const LIMIT_MAX: usize = 10_000;

impl Supervisor {
    async fn commanded(
        &self,
        kind: OperationKind,
        service: &ServiceId,
        actor: Actor,
    ) -> Result<(), SupervisorError> {
        let parts = self.parts().await?;
        let operation = self.inner.operations.begin(kind, Some(service), serde_json::Value::Null);
        let result = match kind {
            OperationKind::Start => parts.engine.start(service).await,
            OperationKind::Stop => parts.engine.stop(service).await,
            _ => parts.engine.restart(service).await,
        };
        drop(operation);
        if let Err(error) = &result {
            let detail = format!("{kind:?}: {error}");
            parts.audit.note(actor, AuditAction::Refusal, service.as_str(), detail);
        }
        result
    }

    async fn service_statuses(&self, parts: &Parts) -> Vec<ServiceStatus> {
        let mut services = Vec::new();
        let dropped = parts.engine.dropped_output().await;
        for state in parts.engine.states() {
            let spec = parts.engine.spec(&state.id);
            let name = spec.as_ref().map_or(state.id.as_str(), |spec| spec.display_name());
            let critical = spec.as_ref().is_some_and(|spec| spec.critical);
            let mut status = ServiceStatus::of(&state, name, critical);
            if state.phase.may_be_alive() {
                status.usage = parts.engine.usage(&state.id).await;
            }
            status.dropped = dropped.get(&state.id).copied();
            services.push(status);
        }
        services
    }
}

#[async_trait]
impl SupervisorControl for Supervisor {
    async fn status(&self) -> Result<StatusReport, SupervisorError> {
        let parts = self.parts().await?;
        let supervisor = SupervisorStatus {
            pid: std::process::id(),
            started_at: self.inner.started_at,
            state: *self.inner.phase.borrow(),
            mode: self.inner.mode(),
            database: self
                .inner
                .state_dir
                .join(&self.inner.config.database_path)
                .to_string_lossy()
                .into_owned(),
            last_checkpoint: *parts.last_checkpoint.borrow(),
            containment: parts.engine.containment(),
        };
        let services = self.service_statuses(parts).await;
        Ok(StatusReport {
            version: STATUS_VERSION,
            supervisor,
            services,
            channels: parts.ipc.channels(),
        })
    }

    async fn register(
        &self,
        spec: ServiceSpec,
        actor: Actor,
    ) -> Result<ServiceId, SupervisorError> {
        Self::register(self, spec, actor).await
    }

    async fn start_monitoring(&self) -> Result<(), SupervisorError> {
        self.begin_monitoring().await
    }

    async fn start(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError> {
        self.commanded(OperationKind::Start, service, actor).await
    }

    async fn stop(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError> {
        self.commanded(OperationKind::Stop, service, actor).await
    }

    async fn restart(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError> {
        self.commanded(OperationKind::Restart, service, actor).await
    }

    async fn create_checkpoint(&self, actor: Actor) -> Result<CheckpointId, SupervisorError> {
        self.checkpoint(actor).await
    }

    async fn load_checkpoint(
        &self,
        which: CheckpointSelector,
    ) -> Result<RestoreSummary, SupervisorError> {
        let store = &self.parts().await?.store;
        match which {
            CheckpointSelector::Id(id) => {
                let checkpoint = CheckpointStore::load(store, id).await?;
                Ok(RestoreSummary {
                    checkpoint,
                    source: format!("checkpoint {id}"),
                    rejected: Vec::new(),
                })
            }
            CheckpointSelector::Latest => {
                let restored = store.restore().await?;
                let none = || DatabaseError::NotFound { subject: "checkpoint".to_owned() };
                let checkpoint = restored.checkpoint.ok_or_else(none)?;
                Ok(RestoreSummary {
                    checkpoint,
                    source: restored.source,
                    rejected: restored.rejected,
                })
            }
        }
    }

    async fn checkpoints(&self, limit: usize) -> Result<Vec<CheckpointSummary>, SupervisorError> {
        Ok(CheckpointStore::list(&self.parts().await?.store, limit.min(LIMIT_MAX)).await?)
    }

    async fn verify_checkpoint(
        &self,
        id: CheckpointId,
    ) -> Result<CheckpointSummary, SupervisorError> {
        Ok(CheckpointStore::verify(&self.parts().await?.store, id).await?)
    }

    async fn logs(
        &self,
        service: &ServiceId,
        limit: usize,
    ) -> Result<Vec<LogLine>, SupervisorError> {
        self.parts().await?.engine.logs(service, limit.min(LIMIT_MAX)).await
    }

    async fn events(
        &self,
        after: Option<Sequence>,
        limit: usize,
    ) -> Result<Vec<SupervisorEvent>, SupervisorError> {
        let store = &self.parts().await?.store;
        let limit = limit.min(LIMIT_MAX);
        let after = match after {
            Some(after) => after,
            None => newest(EventStore::head(store).await?, limit),
        };
        Ok(EventStore::read(store, after, limit).await?)
    }

    async fn channels(&self) -> Result<Vec<ChannelStatus>, SupervisorError> {
        Ok(self.parts().await?.ipc.channels())
    }

    async fn audit(
        &self,
        after: Option<Sequence>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, SupervisorError> {
        let store = &self.parts().await?.store;
        let limit = limit.min(LIMIT_MAX);
        let after = match after {
            Some(after) => after,
            None => newest(AuditLog::head(store).await?, limit),
        };
        Ok(AuditLog::read(store, after, limit).await?)
    }

    async fn verify_audit(&self) -> Result<AuditVerification, SupervisorError> {
        Ok(AuditLog::verify(&self.parts().await?.store).await?)
    }

    async fn shutdown(&self, actor: Actor) -> Result<(), SupervisorError> {
        let report = self.run_shutdown(actor, "asked to".to_owned(), None).await;
        if report.clean {
            return Ok(());
        }
        Err(supervisor_core::error::ProcessError::Os {
            action: "shutting down".to_owned(),
            source: report.problems.join("; ").into(),
        }
        .into())
    }

    fn subscribe(&self) -> Box<dyn EventSubscription> {
        self.events()
    }
}

const fn newest(head: Sequence, limit: usize) -> Sequence {
    Sequence(head.get().saturating_sub(limit as u64))
}
