//! A wrapped server in a state directory: `status` and `channels` show it, events and the audit trail tell of it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use supervisor_core::checkpoint::CheckpointSummary;
use supervisor_core::config::ServiceSpec;
use supervisor_core::error::{ProcessError, SupervisorError};
use supervisor_core::event::{EventKind, SupervisorEvent};
use supervisor_core::journal::{Actor, AuditEntry, AuditVerification};
use supervisor_core::message::{ChannelState, ChannelStatus};
use supervisor_core::ports::{
    CheckpointSelector, EventSink, EventSubscription, RestoreSummary, SupervisorControl,
};
use supervisor_core::state::Phase;
use supervisor_core::status::{LogLine, ServiceStatus, StatusReport};
use supervisor_core::{CheckpointId, Generation, Incarnation, Sequence, ServiceId};
use supervisor_ipc::relay::{Ending, RecoveryReport};
use tokio::sync::Notify;

use super::{Observed, Observer};
use crate::Supervisor;
use crate::daemon::{ControlServer, Faces};

/// Writes what happens to one wrapped server into a state directory, and answers there for it.
#[derive(Debug)]
pub struct Recorder {
    face: Arc<Face>,
    sink: Arc<dyn EventSink>,
    server: ControlServer,
}

/// A supervisor that supervises nothing itself, and shows the wrapped server beside that.
#[derive(Debug)]
struct Face {
    supervisor: Supervisor,
    seen: Mutex<Seen>,
    asked_to_end: Notify,
}

#[derive(Debug)]
struct Seen {
    service: ServiceStatus,
    channel: ChannelStatus,
}

impl Recorder {
    /// Opens a state directory for a server of this name and answers on its control socket.
    ///
    /// # Errors
    /// What opening a state directory may give: another supervisor owns it, or its database is refused.
    ///
    /// # Cancel safety
    /// Safe; the directory is given up again.
    pub async fn open(state_dir: &Path, service: &ServiceId) -> Result<Self, SupervisorError> {
        let supervisor = Supervisor::builder().state_dir(state_dir).build()?;
        let sink = supervisor.sink().await?;
        supervisor.start_monitoring().await?;
        let since = supervisor.status().await?.supervisor.started_at;
        let seen = Seen {
            service: ServiceStatus {
                id: service.clone(),
                name: service.to_string(),
                phase: Phase::Registered,
                ready: false,
                pid: None,
                incarnation: Incarnation::ZERO,
                restarts: 0,
                critical: false,
                since,
                last_exit: None,
                next_restart_at: None,
                reason: "wrapped: its client decides how long it runs".to_owned(),
                usage: None,
            },
            channel: ChannelStatus {
                name: service.to_string(),
                state: ChannelState::Connecting,
                generation: Generation::ZERO,
                buffered: 0,
                buffered_bytes: 0,
                in_flight: 0,
                dead_letters: 0,
                reason: String::new(),
                outcomes: std::collections::BTreeMap::new(),
                last_recovery: None,
            },
        };
        let face = Arc::new(Face {
            supervisor: supervisor.clone(),
            seen: Mutex::new(seen),
            asked_to_end: Notify::new(),
        });
        let faces = Faces { control: Arc::clone(&face) as Arc<_>, reloader: None, storage: None };
        let server = ControlServer::start(supervisor.state_dir(), faces).map_err(|source| {
            ProcessError::Os { action: "listening for commands".to_owned(), source: source.into() }
        })?;
        Ok(Self { face, sink, server })
    }

    /// Waits until somebody asks on the control socket for the end (`down`).
    ///
    /// # Cancel safety
    /// Safe.
    pub fn asked_to_end(&self) -> impl Future<Output = ()> + Send + use<> {
        let face = Arc::clone(&self.face);
        async move { face.asked_to_end.notified().await }
    }

    /// Stores what is not stored yet and gives the directory up.
    ///
    /// # Cancel safety
    /// Not safe: what was not stored yet is lost.
    pub async fn close(self) {
        self.server.stop().await;
        if let Err(error) = self.face.supervisor.shutdown(Actor::Host).await {
            tracing::warn!(%error, "the state directory was not closed cleanly");
        }
    }

    fn enter(&self, to: Phase, pid: Option<u32>, generation: Generation, reason: &str) {
        let mut seen = self.face.seen();
        let from = std::mem::replace(&mut seen.service.phase, to);
        let service = seen.service.id.clone();
        seen.service.incarnation = Incarnation(generation.get());
        (seen.service.pid, seen.service.ready) = (pid, to == Phase::Running);
        reason.clone_into(&mut seen.service.reason);
        drop(seen);
        self.sink.publish(EventKind::ServiceStateChanged {
            service,
            incarnation: Incarnation(generation.get()),
            from,
            to,
            ready: to == Phase::Running,
            pid,
            reason: reason.to_owned(),
            exit: None,
        });
    }

    fn reported(&self, report: &RecoveryReport) {
        let channel = self.face.seen().channel.name.clone();
        let micros =
            |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (Ending::Recovered, Some(generation)) = (&report.ending, report.recovered) else {
            return;
        };
        self.sink.publish(EventKind::ChannelRecovered {
            channel,
            generation,
            took_us: micros(report.phases.total()),
            cause: report.to_string(),
            redelivered: u64::from(report.messages.asked_again),
            lost: u64::from(report.messages.failed_maybe_done)
                + u64::from(report.messages.failed_unsent),
            waited_us: micros(report.phases.down),
            connecting_us: micros(report.phases.handshake),
            syncing_us: micros(report.phases.restore),
            attempts: report.attempts,
            outcomes: std::collections::BTreeMap::new(),
        });
    }
}

impl Observer for Recorder {
    fn observe(&mut self, what: &Observed<'_>) {
        match *what {
            Observed::Report(report) => self.reported(report),
            Observed::Notice(_) => {}
            Observed::Started { pid, generation } => {
                self.face.seen().service.restarts = generation.get().saturating_sub(1);
                self.enter(Phase::Running, Some(pid), generation, "wrapped: started");
            }
            Observed::Lost { generation, reason } => {
                self.enter(Phase::Backoff, None, generation, reason);
            }
            Observed::State { from, to, generation, held } => {
                let mut seen = self.face.seen();
                (seen.channel.state, seen.channel.generation) = (to, generation);
                seen.channel.buffered = held as u64;
                let channel = seen.channel.name.clone();
                drop(seen);
                let reason = "as its relay sees it".to_owned();
                self.sink.publish(EventKind::IpcChannelStateChanged {
                    channel,
                    from,
                    to,
                    generation,
                    reason,
                });
            }
        }
    }
}

impl Face {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Every statement under the lock leaves it valid.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SupervisorControl for Face {
    async fn status(&self) -> Result<StatusReport, SupervisorError> {
        let mut report = self.supervisor.status().await?;
        let seen = self.seen();
        report.services.push(seen.service.clone());
        report.channels.push(seen.channel.clone());
        Ok(report)
    }

    async fn channels(&self) -> Result<Vec<ChannelStatus>, SupervisorError> {
        let mut channels = self.supervisor.channels().await?;
        channels.push(self.seen().channel.clone());
        Ok(channels)
    }

    async fn shutdown(&self, _: Actor) -> Result<(), SupervisorError> {
        // The session ends first, and what was stored of it is closed behind it.
        self.asked_to_end.notify_one();
        Ok(())
    }

    async fn register(
        &self,
        spec: ServiceSpec,
        actor: Actor,
    ) -> Result<ServiceId, SupervisorError> {
        self.supervisor.register(spec, actor).await
    }

    async fn start_monitoring(&self) -> Result<(), SupervisorError> {
        SupervisorControl::start_monitoring(&self.supervisor).await
    }

    async fn start(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError> {
        self.supervisor.start(service, actor).await
    }

    async fn stop(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError> {
        self.supervisor.stop(service, actor).await
    }

    async fn restart(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError> {
        self.supervisor.restart(service, actor).await
    }

    async fn create_checkpoint(&self, actor: Actor) -> Result<CheckpointId, SupervisorError> {
        self.supervisor.create_checkpoint(actor).await
    }

    async fn load_checkpoint(
        &self,
        which: CheckpointSelector,
    ) -> Result<RestoreSummary, SupervisorError> {
        self.supervisor.load_checkpoint(which).await
    }

    async fn checkpoints(&self, limit: usize) -> Result<Vec<CheckpointSummary>, SupervisorError> {
        self.supervisor.checkpoints(limit).await
    }

    async fn verify_checkpoint(
        &self,
        id: CheckpointId,
    ) -> Result<CheckpointSummary, SupervisorError> {
        self.supervisor.verify_checkpoint(id).await
    }

    async fn logs(
        &self,
        service: &ServiceId,
        limit: usize,
    ) -> Result<Vec<LogLine>, SupervisorError> {
        self.supervisor.logs(service, limit).await
    }

    async fn events(
        &self,
        after: Option<Sequence>,
        limit: usize,
    ) -> Result<Vec<SupervisorEvent>, SupervisorError> {
        SupervisorControl::events(&self.supervisor, after, limit).await
    }

    async fn audit(
        &self,
        after: Option<Sequence>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, SupervisorError> {
        self.supervisor.audit(after, limit).await
    }

    async fn verify_audit(&self) -> Result<AuditVerification, SupervisorError> {
        self.supervisor.verify_audit().await
    }

    fn subscribe(&self) -> Box<dyn EventSubscription> {
        self.supervisor.subscribe()
    }
}
