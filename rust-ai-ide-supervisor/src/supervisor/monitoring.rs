//! Registering services, and starting what stored state says they deserve.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use supervisor_core::config::{ServiceSpec, start_layers};
use supervisor_core::error::{ServiceFailure, SupervisorError};
use supervisor_core::journal::{Actor, AuditAction};
use supervisor_core::ports::EventSink;
use supervisor_core::state::PendingOperation;
use supervisor_core::status::SupervisorPhase;
use supervisor_core::{Incarnation, ServiceId};

use super::open::Parts;
use super::recovery::{Resumption, resumption};
use super::{Supervisor, checkpoints, guarding, shutdown, tasks, upkeep};

impl Supervisor {
    /// Gives what the supervisor before this one had begun and not finished, for a host to resume.
    ///
    /// Commands given to services need nothing more: what was asked for is part of their state.
    ///
    /// # Errors
    /// What opening the state directory may give.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn recovered_operations(&self) -> Result<&[PendingOperation], SupervisorError> {
        Ok(&self.parts().await?.recovered.operations)
    }

    pub(super) async fn register(
        &self,
        spec: ServiceSpec,
        actor: Actor,
    ) -> Result<ServiceId, SupervisorError> {
        let parts = self.parts().await?;
        let result = self.register_in(parts, spec.clone()).await;
        match &result {
            Ok(id) => parts.audit.note(
                actor,
                AuditAction::Registration,
                id.as_str(),
                format!("runs {:?}", spec.command),
            ),
            Err(error) => {
                let subject: String =
                    spec.id.chars().filter(|c| !c.is_control()).take(64).collect();
                parts.audit.note(
                    actor,
                    AuditAction::Refusal,
                    subject,
                    format!("registration: {error}"),
                );
            }
        }
        result
    }

    async fn register_in(
        &self,
        parts: &Parts,
        spec: ServiceSpec,
    ) -> Result<ServiceId, SupervisorError> {
        if *self.inner.phase.borrow() >= SupervisorPhase::ShuttingDown {
            return Err(SupervisorError::ShuttingDown);
        }
        spec.validate()?;
        let id = spec.service_id()?;
        self.check_places(parts, &spec, &id)?;
        let restored = parts.recovered.states.get(&id).cloned();
        let id = parts.engine.register(spec.clone(), restored).await?;
        if let Some(binding) = &spec.channel
            && let Err(error) = parts.hub.bind(&parts.ipc, &id, binding).await
        {
            // Half a service is worse than none.
            if let Err(undo) = parts.engine.remove(&id).await {
                tracing::error!(%undo, service = %id, "a refused registration could not be taken back");
            }
            return Err(error);
        }
        if *self.inner.phase.borrow() == SupervisorPhase::Running && spec.autostart {
            parts.engine.start(&id).await?;
        }
        Ok(id)
    }

    /// Services that start by themselves need a place each; one more than there are is refused before it is known.
    fn check_places(
        &self,
        parts: &Parts,
        spec: &ServiceSpec,
        id: &ServiceId,
    ) -> Result<(), SupervisorError> {
        let limit = self.inner.config.max_concurrent_services;
        let others = parts.engine.states().into_iter().filter(|state| state.id != *id);
        let taken = others
            .filter(|state| parts.engine.spec(&state.id).is_some_and(|spec| spec.autostart))
            .count();
        if spec.autostart && taken >= limit {
            return Err(SupervisorError::TooManyServices { service: id.clone(), limit });
        }
        Ok(())
    }

    pub(super) async fn remove(&self, id: &ServiceId, actor: Actor) -> Result<(), SupervisorError> {
        let parts = self.parts().await?;
        parts.engine.remove(id).await?;
        parts.hub.unbind(&parts.ipc, id).await;
        supervisor_core::ports::StateStore::remove(&parts.store, id).await?;
        parts.audit.note(actor, AuditAction::Registration, id.as_str(), "removed");
        Ok(())
    }

    pub(super) async fn begin_monitoring(&self) -> Result<(), SupervisorError> {
        let parts = self.parts().await?;
        let gate = self.inner.gate.lock().await;
        match *self.inner.phase.borrow() {
            SupervisorPhase::Idle | SupervisorPhase::Recovering => {}
            SupervisorPhase::Running => return Ok(()),
            SupervisorPhase::ShuttingDown | SupervisorPhase::Stopped => {
                return Err(SupervisorError::ShuttingDown);
            }
        }
        self.inner.advance(SupervisorPhase::Recovering);
        if let Some(event) = parts.recovered.event() {
            parts.sink.publish(event);
        }
        let layers = start_layers(&dependencies(parts))?;
        let (mut starting, ended) = self.start_layers(parts, layers);
        // Every command is given here. The answer of one that waits for a slow dependency is waited for below, where
        // it keeps neither a shutdown nor anything else from happening.
        let answered = starting.as_mut().now_or_never();
        parts.guarding.end_the_rest(&parts.audit).await;
        self.inner.advance(SupervisorPhase::Running);
        let started = [
            tasks::spawn(checkpoints::run(self.downgrade())),
            tasks::spawn(shutdown::watch_critical(self.downgrade())),
            tasks::spawn(upkeep::back_up(self.downgrade())),
            tasks::spawn(upkeep::look_closely(self.downgrade())),
            tasks::spawn(upkeep::watch_storage(self.downgrade())),
            tasks::spawn(guarding::watch(self.downgrade())),
        ];
        parts.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(started);
        drop(gate);
        let mut phase = self.inner.phase.subscribe();
        let result = match answered {
            Some(result) => result,
            None => tokio::select! {
                result = starting => result,
                _ = phase.wait_for(|phase| *phase >= SupervisorPhase::ShuttingDown) => {
                    return Err(SupervisorError::ShuttingDown);
                }
            },
        };
        self.checkpoint(Actor::Supervisor).await?;
        guarding::forget_judged(parts, ended).await;
        result
    }

    /// Starts every layer's services together, once what is returned is polled. A service that waits for its dependency
    /// does so in its own machine. What outlived the supervisor before is taken over instead; gives the runs of those
    /// that had ended.
    fn start_layers<'a>(&self, parts: &'a Parts, layers: Vec<Vec<ServiceId>>) -> Starting<'a> {
        let recovered = &parts.recovered;
        let (mut starts, mut ended) = (Vec::new(), Vec::new());
        for id in layers.into_iter().flatten() {
            let Some(spec) = parts.engine.spec(&id) else {
                continue;
            };
            let restored = recovered.states.get(&id);
            // What may be alive after a clean end is of a supervisor that was killed before it stored an event.
            let clean = recovered.clean && !restored.is_some_and(|it| it.phase.may_be_alive());
            let decision = resumption(clean, spec.autostart, restored);
            let outlived = parts.guarding.take(&id);
            if !clean || outlived.is_some() {
                let said = outlived.as_ref().map_or_else(|| said(decision), guarding::decision);
                parts.audit.note(Actor::Supervisor, AuditAction::Recovery, id.as_str(), said);
            }
            if let Some(outlived) = outlived.as_ref().filter(|one| one.status.is_some()) {
                ended.push((id.clone(), outlived.incarnation));
            }
            starts.push(async move {
                let result = match (outlived, decision) {
                    (Some(outlived), _) => parts.engine.adopt(&id, outlived.into_child()).await,
                    (None, Resumption::Start) => parts.engine.start(&id).await,
                    (None, Resumption::Resume) => parts.engine.resume(&id).await,
                    (None, Resumption::Leave) => Ok(()),
                };
                result.err().map(|error| ServiceFailure { service: id, error })
            });
        }
        let attempted = starts.len();
        let starting = async move {
            let failures: Vec<_> = join_all(starts).await.into_iter().flatten().collect();
            if failures.is_empty() {
                return Ok(());
            }
            let operation = "starting".into();
            Err(SupervisorError::Partial { operation, attempted, failures })
        };
        (Box::pin(starting), ended)
    }
}

/// The starts under way and their answers, and the runs that had ended while no supervisor was there.
type Starting<'a> = (BoxFuture<'a, Result<(), SupervisorError>>, Vec<(ServiceId, Incarnation)>);

/// Says what is done about a service that was under a supervisor that is gone, and whose run is gone with it.
fn said(decision: Resumption) -> String {
    match decision {
        Resumption::Start => "nothing of it ran when the supervisor was lost: started",
        Resumption::Resume => "its run ended with the supervisor: started again if it was to be up",
        Resumption::Leave => "left as it was when the supervisor was lost",
    }
    .to_owned()
}

pub(super) fn dependencies(parts: &Parts) -> BTreeMap<ServiceId, Vec<ServiceId>> {
    let states = parts.engine.states();
    let needs = |id: &ServiceId| {
        let spec = parts.engine.spec(id);
        spec.map(|spec| spec.depends_on.iter().map(|need| need.id.clone()).collect())
            .unwrap_or_default()
    };
    states.iter().map(|state| (state.id.clone(), needs(&state.id))).collect()
}
