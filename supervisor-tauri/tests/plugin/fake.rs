//! A supervisor that does nothing but remember what it was asked.

use std::sync::Mutex;

use async_trait::async_trait;
use chrono::DateTime;
use supervisor_core::checkpoint::{Checkpoint, CheckpointSummary};
use supervisor_core::config::ServiceSpec;
use supervisor_core::error::SupervisorError;
use supervisor_core::event::{EVENT_VERSION, EventKind, SupervisorEvent};
use supervisor_core::journal::{Actor, AuditEntry, AuditVerification};
use supervisor_core::message::ChannelStatus;
use supervisor_core::ports::{
    CheckpointSelector, Delivery, EventSubscription, RestoreSummary, SupervisorControl,
};
use supervisor_core::state::{Phase, ServiceState};
use supervisor_core::status::{
    LogLine, STATUS_VERSION, ServiceStatus, StatusReport, SupervisorPhase, SupervisorStatus,
};
use supervisor_core::{CheckpointId, Sequence, ServiceId};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Hands deliveries to the one subscriber of a [`Fake`].
pub(crate) type Deliveries = mpsc::Sender<Option<Delivery>>;

#[derive(Debug)]
pub(crate) struct Fake {
    calls: Mutex<Vec<String>>,
    services: Mutex<Vec<ServiceId>>,
    subscription: Mutex<Option<mpsc::Receiver<Option<Delivery>>>>,
    pub(crate) hangs_in_shutdown: bool,
}

impl Fake {
    pub(crate) fn new() -> (Self, Deliveries) {
        let (sender, receiver) = mpsc::channel(4096);
        let fake = Self {
            calls: Mutex::default(),
            services: Mutex::default(),
            subscription: Mutex::new(Some(receiver)),
            hangs_in_shutdown: false,
        };
        (fake, sender)
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }

    fn known(&self, service: &ServiceId) -> Result<(), SupervisorError> {
        if self.services.lock().unwrap().contains(service) {
            return Ok(());
        }
        Err(SupervisorError::UnknownService { service: service.clone() })
    }
}

pub(crate) fn event(sequence: u64) -> SupervisorEvent {
    SupervisorEvent {
        version: EVENT_VERSION,
        id: Uuid::nil(),
        sequence: Sequence(sequence),
        at: DateTime::UNIX_EPOCH,
        kind: EventKind::ModeChanged { mode: "normal".to_owned(), reason: "test".to_owned() },
    }
}

#[derive(Debug)]
struct Subscription(mpsc::Receiver<Option<Delivery>>);

#[async_trait]
impl EventSubscription for Subscription {
    async fn next(&mut self) -> Option<Delivery> {
        match self.0.recv().await {
            Some(delivery) => delivery,
            // The test dropped its end without closing: a quiet supervisor.
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl SupervisorControl for Fake {
    async fn status(&self) -> Result<StatusReport, SupervisorError> {
        let services = self.services.lock().unwrap();
        Ok(StatusReport {
            version: STATUS_VERSION,
            supervisor: SupervisorStatus {
                pid: 1,
                started_at: DateTime::UNIX_EPOCH,
                state: SupervisorPhase::Running,
                mode: "normal".to_owned(),
                database: "supervisor.db".to_owned(),
                last_checkpoint: None,
                containment: Vec::new(),
            },
            services: services
                .iter()
                .map(|id| {
                    let mut state = ServiceState::registered(id.clone(), DateTime::UNIX_EPOCH);
                    state.phase = Phase::Running;
                    state.ready = true;
                    ServiceStatus::of(&state, id.as_str(), false)
                })
                .collect(),
            channels: Vec::new(),
        })
    }

    async fn register(
        &self,
        spec: ServiceSpec,
        actor: Actor,
    ) -> Result<ServiceId, SupervisorError> {
        self.note(format!("register {} {actor:?}", spec.id));
        let id = spec.service_id()?;
        self.services.lock().unwrap().push(id.clone());
        Ok(id)
    }

    async fn start_monitoring(&self) -> Result<(), SupervisorError> {
        self.note("start_monitoring");
        Ok(())
    }

    async fn start(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError> {
        self.note(format!("start {service} {actor:?}"));
        self.known(service)
    }

    async fn stop(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError> {
        self.note(format!("stop {service} {actor:?}"));
        self.known(service)
    }

    async fn restart(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError> {
        self.note(format!("restart {service} {actor:?}"));
        self.known(service)
    }

    async fn create_checkpoint(&self, actor: Actor) -> Result<CheckpointId, SupervisorError> {
        self.note(format!("create_checkpoint {actor:?}"));
        Ok(CheckpointId(Uuid::nil()))
    }

    async fn load_checkpoint(
        &self,
        which: CheckpointSelector,
    ) -> Result<RestoreSummary, SupervisorError> {
        self.note(format!("load_checkpoint {which:?}"));
        Ok(RestoreSummary {
            checkpoint: Checkpoint {
                id: CheckpointId(Uuid::nil()),
                schema: 1,
                created_at: DateTime::UNIX_EPOCH,
                sequence: Sequence(1),
                services: [].into(),
                pending_operations: Vec::new(),
                channels: [].into(),
            },
            source: "checkpoint".to_owned(),
            rejected: Vec::new(),
        })
    }

    async fn checkpoints(&self, limit: usize) -> Result<Vec<CheckpointSummary>, SupervisorError> {
        self.note(format!("checkpoints {limit}"));
        Ok(Vec::new())
    }

    async fn verify_checkpoint(
        &self,
        _: CheckpointId,
    ) -> Result<CheckpointSummary, SupervisorError> {
        Err(SupervisorError::ShuttingDown)
    }

    async fn logs(
        &self,
        service: &ServiceId,
        limit: usize,
    ) -> Result<Vec<LogLine>, SupervisorError> {
        self.note(format!("logs {service} {limit}"));
        self.known(service).map(|()| Vec::new())
    }

    async fn events(
        &self,
        after: Option<Sequence>,
        limit: usize,
    ) -> Result<Vec<SupervisorEvent>, SupervisorError> {
        self.note(format!("events {:?} {limit}", after.map(Sequence::get)));
        Ok(vec![event(7)])
    }

    async fn channels(&self) -> Result<Vec<ChannelStatus>, SupervisorError> {
        Ok(Vec::new())
    }

    async fn audit(
        &self,
        after: Option<Sequence>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, SupervisorError> {
        self.note(format!("audit {:?} {limit}", after.map(Sequence::get)));
        Ok(Vec::new())
    }

    async fn verify_audit(&self) -> Result<AuditVerification, SupervisorError> {
        Err(SupervisorError::ShuttingDown)
    }

    async fn shutdown(&self, actor: Actor) -> Result<(), SupervisorError> {
        self.note(format!("shutdown {actor:?}"));
        if self.hangs_in_shutdown {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn subscribe(&self) -> Box<dyn EventSubscription> {
        let receiver = self.subscription.lock().unwrap().take();
        Box::new(Subscription(receiver.unwrap()))
    }
}
