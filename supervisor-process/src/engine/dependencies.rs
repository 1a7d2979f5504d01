//! Waiting until what a service needs has reached its condition.

use std::sync::Arc;

use supervisor_core::config::{Dependency, DependencyCondition, ServiceSpec};
use supervisor_core::exit::ExitReason;
use supervisor_core::lifecycle::Event;
use supervisor_core::state::{Phase, ServiceState};
use tokio::sync::watch;

use super::shared::Shared;

/// Waits for every dependency, or for the first that failed for good.
pub(super) async fn reached(shared: Arc<Shared>, spec: Arc<ServiceSpec>) -> Event {
    for need in &spec.depends_on {
        let watched = shared.registry().get(&need.id).map(|handle| handle.state.clone());
        let Some(watched) = watched else {
            return Event::DependencyFailed { cause: format!("{} is not registered", need.id) };
        };
        if let Err(cause) = reached_one(need, watched).await {
            return Event::DependencyFailed { cause };
        }
    }
    if shared.is_closing() {
        // The stop ends this wait.
        std::future::pending::<()>().await;
    }
    Event::DependenciesMet
}

/// Tells whether everything a service needs is there and may yet reach its condition.
pub(super) fn none_failed(shared: &Shared, spec: &ServiceSpec) -> bool {
    let registry = shared.registry();
    spec.depends_on.iter().all(|need| {
        registry.get(&need.id).is_some_and(|handle| !has_failed(&handle.state.borrow()))
    })
}

async fn reached_one(
    need: &Dependency,
    mut watched: watch::Receiver<ServiceState>,
) -> Result<(), String> {
    let settled =
        watched.wait_for(|state| is_met(need.condition, state) || has_failed(state)).await;
    match settled {
        Ok(state) if is_met(need.condition, &state) => Ok(()),
        Ok(state) => Err(format!("{}: {}", need.id, state.reason)),
        Err(_) => Err(format!("{} was removed", need.id)),
    }
}

/// Tells whether a dependency has reached its condition.
pub(super) fn is_met(condition: DependencyCondition, state: &ServiceState) -> bool {
    match condition {
        DependencyCondition::Started => state.phase.may_be_alive() && state.identity.is_some(),
        DependencyCondition::Ready => state.ready,
        DependencyCondition::Completed => {
            let completed =
                state.last_exit.as_ref().is_some_and(|exit| exit.reason == ExitReason::Completed);
            state.phase == Phase::Stopped && completed
        }
    }
}

fn has_failed(state: &ServiceState) -> bool {
    state.phase == Phase::Failed
}
