//! A wrapped server in a state directory: `status` and `channels` show it, events and the audit trail tell of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::checkpoint::CheckpointSummary;
use supervisor_core::config::ServiceSpec;
use supervisor_core::error::{ProcessError, SecurityError, SupervisorError};
use supervisor_core::event::{EventKind, SupervisorEvent};
use supervisor_core::journal::{Actor, AuditEntry, AuditVerification};
use supervisor_core::message::{ChannelState, ChannelStatus};
use supervisor_core::ports::{
    CheckpointSelector, EventSink, EventSubscription, ProcessSpawner as _, RestoreSummary,
    SupervisorControl,
};
use supervisor_core::state::Phase;
use supervisor_core::status::{LogLine, ServiceStatus, StatusReport};
use supervisor_core::{CheckpointId, Generation, Incarnation, Sequence, ServiceId};
use supervisor_ipc::relay::{Ending, RecoveryReport};
use supervisor_process::SystemSpawner;
use tokio::sync::Notify;

use super::{Observed, Observer};
use crate::daemon::{ControlServer, Faces};
use crate::state_dir::StateDir;
use crate::{GuardianChoice, Supervisor};

/// Directory in a state directory that has one directory for each wrapped server, a state directory of its own.
pub const RECORDS_DIR: &str = "wrap";

/// How long somebody who asked for a restart waits for the new server.
const RESTARTED: Duration = Duration::from_secs(30);
/// Most lines of output given at once.
const LINES_MAX: usize = 10_000;

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
    restart: Arc<Notify>,
    /// Its waiters are told of every change of the server's phase.
    changed: Notify,
    output: OnceLock<Arc<SystemSpawner>>,
}

#[derive(Debug)]
struct Seen {
    service: ServiceStatus,
    channel: ChannelStatus,
}

impl Recorder {
    /// Opens the place of a server of this name in a state directory and answers on a control socket there.
    ///
    /// The place is [`RECORDS_DIR`]`/NAME`, so that servers of different names share a state directory, with each other
    /// and with a supervisor. Whoever notifies `restart` is the operator; the session listens.
    ///
    /// # Errors
    /// What opening a state directory may give: a session of this name owns the place, or its database is refused.
    ///
    /// # Cancel safety
    /// Safe; the directory is given up again.
    pub async fn open(
        state_dir: &Path,
        service: &ServiceId,
        restart: Arc<Notify>,
    ) -> Result<Self, SupervisorError> {
        let records = StateDir::open(StateDir::open(state_dir)?.join(RECORDS_DIR))?;
        let builder = Supervisor::builder().state_dir(records.join(service.as_str()));
        // It starts nothing: a guardian would own nothing, and `status` would say that it guards the server.
        let builder = builder.guardian(GuardianChoice::Refused).cgroups(false);
        let supervisor = builder.build()?;
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
                dropped: None,
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
            restart,
            changed: Notify::new(),
            output: OnceLock::new(),
        });
        let storage = Some(Arc::new(supervisor.clone()) as Arc<_>);
        let faces = Faces { control: Arc::clone(&face) as Arc<_>, reloader: None, storage };
        let server = ControlServer::start(supervisor.state_dir(), faces).map_err(|source| {
            ProcessError::Os { action: "listening for commands".to_owned(), source: source.into() }
        })?;
        Ok(Self { face, sink, server })
    }

    /// Gives the directory below which the server's standard error belongs.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.face.supervisor.state_dir().join("logs")
    }

    /// Shows from now on what this spawner captured of the server.
    pub fn show_output_of(&self, spawner: Arc<SystemSpawner>) {
        // Said twice, the first one stays.
        drop(self.face.output.set(spawner));
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
        self.face.changed.notify_waiters();
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
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
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

    fn is_mine(&self, service: &ServiceId) -> bool {
        self.seen().service.id == *service
    }
}

#[async_trait]
impl SupervisorControl for Face {
    async fn status(&self) -> Result<StatusReport, SupervisorError> {
        let mut report = self.supervisor.status().await?;
        let seen = self.seen();
        report.services.push(seen.service.clone());
        report.channels.push(seen.channel.clone());
        if let Some(spawner) = self.output.get() {
            report.supervisor.containment = spawner.containment();
        }
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
        if !self.is_mine(service) {
            return self.supervisor.start(service, actor).await;
        }
        if self.seen().service.phase != Phase::Running {
            self.restart.notify_one();
        }
        Ok(())
    }

    async fn stop(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError> {
        if !self.is_mine(service) {
            return self.supervisor.stop(service, actor).await;
        }
        let reason = "its client decides how long a wrapped server runs; close it there, restart it with \
                      `ide-supervisor restart`, or end its session with `ide-supervisor down`";
        let (action, reason) = (format!("stop {service}"), reason.to_owned());
        Err(SecurityError::NotPermitted { action, reason }.into())
    }

    async fn restart(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError> {
        if !self.is_mine(service) {
            return self.supervisor.restart(service, actor).await;
        }
        let before = self.seen().service.incarnation;
        self.restart.notify_one();
        let started = async {
            loop {
                let changed = self.changed.notified();
                let seen = self.seen().service.clone();
                if seen.incarnation > before && seen.phase == Phase::Running {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(RESTARTED, started).await.map_err(|_| {
            let action = format!("waiting until {service} runs again; its reason is in `status`");
            ProcessError::Os {
                action,
                source: std::io::Error::from(std::io::ErrorKind::TimedOut).into(),
            }
            .into()
        })
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
        match self.output.get().filter(|_| self.is_mine(service)) {
            Some(spawner) => spawner.logs(service, limit.min(LINES_MAX)).map_err(|source| {
                let action = format!("reading the captured output of {service}");
                ProcessError::Os { action, source: source.into() }.into()
            }),
            None => self.supervisor.logs(service, limit).await,
        }
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
