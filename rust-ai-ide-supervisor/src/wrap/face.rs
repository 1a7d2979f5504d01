//! What a wrapped server looks like to those who ask on the control socket of its place.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::checkpoint::CheckpointSummary;
use supervisor_core::config::ServiceSpec;
use supervisor_core::error::{ProcessError, SecurityError, SupervisorError};
use supervisor_core::event::SupervisorEvent;
use supervisor_core::journal::{Actor, AuditEntry, AuditVerification};
use supervisor_core::message::ChannelStatus;
use supervisor_core::ports::{
    CheckpointSelector, EventSubscription, ProcessSpawner as _, RestoreSummary, SupervisorControl,
};
use supervisor_core::state::Phase;
use supervisor_core::status::{LogLine, ServiceStatus, StatusReport};
use supervisor_core::{CheckpointId, Sequence, ServiceId};
use supervisor_process::SystemSpawner;
use tokio::sync::Notify;

use super::letters::Letters;
use crate::Supervisor;
use crate::daemon::StorageControl;
use crate::storage::{Progress, StorageAnswer, StorageCall};

/// How long somebody who asked for a restart waits for the new server.
const RESTARTED: Duration = Duration::from_secs(30);
/// Most lines of output given at once.
const LINES_MAX: usize = 10_000;

/// A supervisor that supervises nothing itself, and shows the wrapped server beside that.
#[derive(Debug)]
pub(super) struct Face {
    pub(super) supervisor: Supervisor,
    pub(super) seen: Mutex<Seen>,
    pub(super) asked_to_end: Notify,
    pub(super) restart: Arc<Notify>,
    pub(super) letters: Arc<Letters>,
    /// Its waiters are told of every change of the server's phase.
    pub(super) changed: Notify,
    pub(super) output: OnceLock<Arc<SystemSpawner>>,
}

#[derive(Debug)]
pub(super) struct Seen {
    pub(super) service: ServiceStatus,
    pub(super) channel: ChannelStatus,
}

impl Face {
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        // Every statement under the lock leaves it valid.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self) -> ChannelStatus {
        let channel = self.seen().channel.clone();
        ChannelStatus { dead_letters: self.letters.count(), ..channel }
    }

    fn is_mine(&self, service: &ServiceId) -> bool {
        self.seen().service.id == *service
    }
}

#[async_trait]
impl StorageControl for Face {
    async fn storage(
        &self,
        call: StorageCall,
        actor: Actor,
        progress: Progress,
    ) -> Result<StorageAnswer, SupervisorError> {
        let answer = match call {
            StorageCall::DeadLetterRequeue { ids } => {
                let (mine, ids) = self.letters.of_session(ids);
                let others = StorageCall::DeadLetterRequeue { ids };
                match self.supervisor.storage(others, actor, progress).await? {
                    StorageAnswer::Count(others) => {
                        let back = self.letters.requeue(mine).await;
                        back.map(|back| StorageAnswer::Count(back + others))
                    }
                    other => Ok(other),
                }
            }
            call => self.supervisor.storage(call, actor, progress).await,
        };
        let answer = match answer {
            Ok(StorageAnswer::DeadLetters(mut letters)) => {
                self.letters.show(&mut letters);
                Ok(StorageAnswer::DeadLetters(letters))
            }
            answer => answer,
        };
        self.letters.recount().await;
        answer
    }
}

#[async_trait]
impl SupervisorControl for Face {
    async fn status(&self) -> Result<StatusReport, SupervisorError> {
        let mut report = self.supervisor.status().await?;
        report.services.push(self.seen().service.clone());
        report.channels.push(self.channel());
        if let Some(spawner) = self.output.get() {
            report.supervisor.containment = spawner.containment();
        }
        Ok(report)
    }

    async fn channels(&self) -> Result<Vec<ChannelStatus>, SupervisorError> {
        let mut channels = self.supervisor.channels().await?;
        channels.push(self.channel());
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
