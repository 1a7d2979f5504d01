//! The only way out: one shutdown, however many ask for it and whatever fails meanwhile.

use std::sync::{PoisonError, Weak};
use std::time::Duration;

use supervisor_core::ServiceId;
use supervisor_core::error::{SupervisorError, chain};
use supervisor_core::event::EventKind;
use supervisor_core::journal::{Actor, AuditAction};
use supervisor_core::ports::EventSink;
use supervisor_core::state::OperationKind;
use supervisor_core::status::SupervisorPhase;

use super::open::Parts;
use super::{Inner, Supervisor};

/// Share of the shutdown's time that channels get for flushing what they accepted.
const FLUSH_SHARE: u32 = 10;

/// How a shutdown went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Whether everything ended in time and nothing is left.
    pub clean: bool,
    /// The critical service that caused it, if one did.
    pub culprit: Option<ServiceId>,
    /// Why it happened.
    pub reason: String,
    /// What went wrong on the way, for people.
    pub problems: Vec<String>,
}

/// Waits for a critical service to be given up, and shuts down then.
pub(super) async fn watch_critical(supervisor: Weak<Inner>) {
    let Some(mut culprits) = supervisor.upgrade().map(|inner| inner.culprits.subscribe()) else {
        return;
    };
    let Some(mut phase) = supervisor.upgrade().map(|inner| inner.phase.subscribe()) else {
        return;
    };
    let first = tokio::select! {
        found = culprits.wait_for(|culprits| !culprits.is_empty()) => found.ok().and_then(|all| all.first().cloned()),
        _ = phase.wait_for(|phase| *phase >= SupervisorPhase::ShuttingDown) => None,
    };
    let (Some(culprit), Some(inner)) = (first, supervisor.upgrade()) else {
        return;
    };
    let reason = format!("critical service {} was given up: {}", culprit.service, culprit.reason);
    let handle = Supervisor { inner };
    // The shutdown joins this task's siblings, so it runs in one nobody joins but its own report.
    drop(super::tasks::spawn(async move {
        handle.run_shutdown(Actor::Supervisor, reason, Some(culprit.service)).await;
    }));
}

impl Supervisor {
    pub(super) async fn run_shutdown(
        &self,
        actor: Actor,
        reason: String,
        culprit: Option<ServiceId>,
    ) -> ShutdownReport {
        if !self.inner.advance(SupervisorPhase::ShuttingDown) {
            return self.finished().await;
        }
        let _gate = self.inner.gate.lock().await;
        let report = match self.inner.parts.get() {
            Some(parts) => self.wind_down(parts, actor, reason, culprit).await,
            None => ShutdownReport { clean: true, culprit, reason, problems: Vec::new() },
        };
        self.inner.advance(SupervisorPhase::Stopped);
        self.inner.finished.send_replace(Some(report.clone()));
        report
    }

    async fn wind_down(
        &self,
        parts: &Parts,
        actor: Actor,
        reason: String,
        culprit: Option<ServiceId>,
    ) -> ShutdownReport {
        let began = self.inner.clock.monotonic();
        let deadline = self.inner.config.global_shutdown_timeout;
        let operation = self.inner.operations.begin(
            OperationKind::Shutdown,
            culprit.as_ref(),
            serde_json::Value::Null,
        );
        // Flushing and saving take their time, in which nothing may come up again.
        parts.engine.start_no_more();
        let mut problems = Vec::new();
        let mut note = |what: &str, result: Result<(), SupervisorError>| {
            if let Err(error) = result {
                problems.push(format!("{what}: {}", chain(&error)));
            }
        };
        parts.audit.note(
            actor,
            AuditAction::Shutdown,
            culprit.as_ref().map_or("supervisor", ServiceId::as_str),
            reason.as_str(),
        );
        parts.sink.publish(EventKind::ShutdownStarted {
            reason: reason.clone(),
            culprit: culprit.clone(),
        });
        join(&parts.tasks).await;
        parts.ipc.drain_all(deadline / FLUSH_SHARE).await;
        note("checkpoint", self.checkpoint(Actor::Supervisor).await.map(drop));
        note("stopping", parts.engine.shutdown(deadline).await);
        if let Some(spawner) = &parts.guarding.spawner {
            spawner.close().await;
        }
        parts.ipc.shutdown(Duration::from_secs(1)).await;
        drop(operation);
        note("checkpoint", self.checkpoint(Actor::Supervisor).await.map(drop));
        let others: Vec<_> = self
            .inner
            .culprits
            .borrow()
            .iter()
            .skip(1)
            .map(|other| other.service.to_string())
            .collect();
        if !others.is_empty() {
            let detail = format!("failed meanwhile: {}", others.join(", "));
            parts.audit.note(Actor::Supervisor, AuditAction::Shutdown, "supervisor", detail);
        }
        let took = self.inner.clock.monotonic().since(began);
        let clean = problems.is_empty();
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        parts.sink.publish(EventKind::ShutdownCompleted { clean, took_us });
        self.inner.bus.close();
        parts.audit.close();
        join(&parts.writers).await;
        if let Err(error) = parts.store.close().await {
            problems.push(format!("closing the store: {}", chain(&error)));
        }
        ShutdownReport { clean: problems.is_empty(), culprit, reason, problems }
    }
}

async fn join(tasks: &std::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>) {
    let tasks = std::mem::take(&mut *tasks.lock().unwrap_or_else(PoisonError::into_inner));
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(%error, "a background task ended abnormally");
        }
    }
}
