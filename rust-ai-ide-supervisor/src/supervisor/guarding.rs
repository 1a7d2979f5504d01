//! Who owns the services' processes, and what is made of those that outlived a supervisor.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use supervisor_core::error::{SupervisorError, chain};
use supervisor_core::event::EventKind;
use supervisor_core::exit::ExitStatus;
use supervisor_core::journal::{Actor, AuditAction};
use supervisor_core::ports::EventSink;
use supervisor_core::state::ServiceState;
use supervisor_core::status::SupervisorPhase;
use supervisor_core::{Incarnation, ServiceId};
use supervisor_process::guardian::{
    self, GuardianNews, GuardianProgram, GuardianSpawner, Outlived,
};

use super::Inner;
use super::open::{Parts, Recovered};
use super::recovery::{Claim, claim};
use super::sink::AuditQueue;
use crate::state_dir::StateDir;

/// How long a set that nobody wants any more may take to end.
const UNWANTED: Duration = Duration::from_secs(5);
/// How long the judgement of ends that were seen by the guardian alone may take before their records are kept for longer.
const JUDGED: Duration = Duration::from_secs(5);

/// Who owns the services' processes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GuardianChoice {
    /// A guardian, this program run again, if its `main` begins with
    /// [`run_if_asked`](supervisor_process::guardian::run_if_asked); this process otherwise, and its status and log say so.
    #[default]
    IfPossible,
    /// A guardian, another program whose `main` does.
    Named(PathBuf),
    /// This process: what it leaves behind when it is killed is ended by the next start only, nothing outlives it, and
    /// spawning is in its own size.
    Refused,
}

/// The guardian, or why there is none.
#[derive(Debug, Default)]
pub(super) struct Guarding {
    pub(super) spawner: Option<Arc<GuardianSpawner>>,
    /// Sets that wait for their service to be registered.
    outlived: Mutex<HashMap<ServiceId, Outlived>>,
    /// Ends that the supervisor before had no time to store, to be told when there is an audit trail.
    untold: Mutex<Vec<(ServiceId, String)>>,
}

/// Finds or starts the guardian that was chosen.
///
/// # Errors
/// When one that cannot be used holds services: a second copy of them must not be started.
pub(super) async fn open(
    choice: &GuardianChoice,
    dir: &StateDir,
) -> Result<Guarding, SupervisorError> {
    let program = match choice {
        GuardianChoice::IfPossible => GuardianProgram::Itself,
        GuardianChoice::Named(program) => GuardianProgram::Named(program.clone()),
        // One that guards what an earlier supervisor left is used to end or to keep that, whatever was chosen.
        GuardianChoice::Refused if guardian::running(dir.path()).is_none() => {
            return Ok(Guarding::default());
        }
        GuardianChoice::Refused => GuardianProgram::Itself,
    };
    if let Err(reason) = guardian::available(dir.path(), &program) {
        tracing::warn!(reason, "services are children of this process");
        return Ok(Guarding::default());
    }
    match GuardianSpawner::open(dir.path(), dir.mark(), dir.join("logs"), program).await {
        Ok(spawner) => Ok(Guarding { spawner: Some(Arc::new(spawner)), ..Guarding::default() }),
        Err(error) if guardian::running(dir.path()).is_some() => Err(error.into()),
        Err(error) if matches!(choice, GuardianChoice::Named(_)) => Err(error.into()),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "services are children of this process");
            Ok(Guarding::default())
        }
    }
}

impl Guarding {
    /// Decides about every set that outlived the supervisor before, and lays what the guardian knows over what was stored.
    pub(super) async fn claim_all(
        &self,
        recovered: &mut Recovered,
        now: chrono::DateTime<chrono::Utc>,
    ) -> Result<(), SupervisorError> {
        let Some(spawner) = &self.spawner else { return Ok(()) };
        for outlived in spawner.outlived().await? {
            let state = recovered.states.get(&outlived.service);
            let alive = outlived.status.is_none();
            let clean = recovered.clean && !recovered.interrupted;
            if !clean {
                self.untold
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(unjudged(&outlived, state));
            }
            let service = outlived.service.clone();
            match claim(clean, &service, state, outlived.incarnation, alive, now) {
                Claim::Adopt(state) => {
                    recovered.states.insert(service.clone(), *state);
                    self.lock().insert(service, outlived);
                }
                // Taken and let go, so that the guardian forgets it.
                Claim::Known => drop(outlived.into_child()),
                Claim::Unwanted => {
                    recovered.swept += 1;
                    end(outlived).await;
                }
            }
        }
        Ok(())
    }

    /// Tells of ends that the supervisor before saw, or did not see, and had no time to store.
    pub(super) fn tell_untold(&self, audit: &AuditQueue) {
        for (service, detail) in
            self.untold.lock().unwrap_or_else(PoisonError::into_inner).drain(..)
        {
            audit.note(Actor::Supervisor, AuditAction::Recovery, service.as_str(), detail);
        }
    }

    /// Lets go of the end of a run after which a newer one was started, as one more end to be told of.
    pub(super) fn outdate(&self, service: &ServiceId, newest: Incarnation) {
        let Some(outlived) = self.take(service) else { return };
        if let Some(status) = outlived.status.filter(|_| outlived.incarnation < newest) {
            let told = unstored(&outlived.service, outlived.incarnation, status, newest);
            self.untold.lock().unwrap_or_else(PoisonError::into_inner).push(told);
            drop(outlived.into_child());
        } else {
            self.lock().insert(service.clone(), outlived);
        }
    }

    /// Names the runs that are to be taken over alive, so that no sweep ends them.
    pub(super) fn kept(&self) -> Vec<(ServiceId, Incarnation)> {
        let outlived = self.lock();
        let kept = outlived.values().filter(|one| one.status.is_none());
        kept.map(|one| (one.service.clone(), one.incarnation)).collect()
    }

    /// Gives the set of a service that is to be taken over, once.
    pub(super) fn take(&self, service: &ServiceId) -> Option<Outlived> {
        self.lock().remove(service)
    }

    /// Ends what no service was registered for.
    pub(super) async fn end_the_rest(&self, audit: &AuditQueue) {
        let rest: Vec<Outlived> = self.lock().drain().map(|(_, outlived)| outlived).collect();
        for outlived in &rest {
            let detail = format!(
                "run #{} (pid {}) outlived its supervisor and its service is not registered any more: ended",
                outlived.incarnation, outlived.identity.pid
            );
            audit.note(Actor::Supervisor, AuditAction::Recovery, outlived.service.as_str(), detail);
        }
        join_all(rest.into_iter().map(end)).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ServiceId, Outlived>> {
        // Every statement under the lock leaves the map valid.
        self.outlived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn end(outlived: Outlived) {
    let service = outlived.service.clone();
    let report = outlived.into_child().kill_set(UNWANTED).await;
    if !report.survivors.is_empty() {
        let survivors: Vec<_> = report.survivors.iter().map(ToString::to_string).collect();
        tracing::error!(%service, ?survivors, "a set that outlived its supervisor survived a kill");
    }
}

/// Says what is done about a run that outlived its supervisor.
pub(super) fn decision(outlived: &Outlived) -> String {
    let (run, pid) = (outlived.incarnation, outlived.identity.pid);
    match outlived.status {
        None => format!("run #{run} (pid {pid}) outlived the supervisor: adopted"),
        Some(status) => format!(
            "run #{run} (pid {pid}) outlived the supervisor and ended meanwhile ({}): judged by that",
            how(status)
        ),
    }
}

fn how(status: ExitStatus) -> String {
    match status {
        ExitStatus::Unknown => "nobody knows how".to_owned(),
        status => status.to_string(),
    }
}

/// Ends of runs before this one that are part of nothing that was stored.
fn unjudged(outlived: &Outlived, stored: Option<&ServiceState>) -> Vec<(ServiceId, String)> {
    let newest = outlived.incarnation;
    let unknown = |run: Incarnation| {
        stored.is_none_or(|state| {
            run > state.incarnation || (run == state.incarnation && state.phase.may_be_alive())
        })
    };
    let ends = outlived.earlier.iter().filter(|(run, _)| unknown(*run));
    ends.map(|(run, status)| unstored(&outlived.service, *run, *status, newest)).collect()
}

fn unstored(
    service: &ServiceId,
    run: Incarnation,
    status: ExitStatus,
    newest: Incarnation,
) -> (ServiceId, String) {
    let detail = format!(
        "run #{run} ended ({}) shortly before the supervisor did; run #{newest} was started since",
        how(status)
    );
    (service.clone(), detail)
}

/// Waits until the ends in `ended` are judged and stored, and lets the guardian forget their records.
pub(super) async fn forget_judged(parts: &Parts, ended: Vec<(ServiceId, Incarnation)>) {
    let Some(spawner) = &parts.guarding.spawner else { return };
    let judged = ended.into_iter().filter_map(|(id, run)| {
        let mut watched = parts.engine.watch(&id)?;
        Some(async move {
            let past =
                |state: &ServiceState| state.incarnation > run || !state.phase.may_be_alive();
            tokio::time::timeout(JUDGED, watched.wait_for(past)).await.is_ok_and(|it| it.is_ok())
        })
    });
    if join_all(judged).await.into_iter().all(|judged| judged) {
        spawner.forget_recorded();
    }
}

/// Tells what becomes of the guardian, until the supervisor shuts down or is dropped.
pub(super) async fn watch(supervisor: Weak<Inner>) {
    let Some(inner) = supervisor.upgrade() else { return };
    let mut phase = inner.phase.subscribe();
    let Some(parts) = inner.parts.get() else { return };
    let Some(mut news) = parts.guarding.spawner.as_ref().map(|spawner| spawner.news()) else {
        return;
    };
    news.mark_unchanged();
    drop(inner);
    loop {
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return },
            _ = phase.wait_for(|phase| *phase >= SupervisorPhase::ShuttingDown) => return,
        }
        let Some(inner) = supervisor.upgrade() else { return };
        let Some(parts) = inner.parts.get() else { return };
        let now = news.borrow_and_update().clone();
        let (mode, reason) = match now {
            GuardianNews::Lost => (
                UNGUARDED.to_owned(),
                "the guardian died: every set of it is killed and its service started again under a new one; \
                 if this process is killed before that, the next start ends what is left"
                    .to_owned(),
            ),
            GuardianNews::Guarding { identity, .. } => (
                inner.mode(),
                format!("a new guardian (pid {}) owns the services; no second copy was left", identity.pid),
            ),
        };
        parts.audit.note(Actor::Supervisor, AuditAction::Recovery, "guardian", reason.as_str());
        parts.sink.publish(EventKind::ModeChanged { mode, reason });
    }
}

/// The mode while a guardian was lost and none has taken its place.
const UNGUARDED: &str = "unguarded";
