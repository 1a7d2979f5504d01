//! Stopping everything: dependents first, layers in parallel, one deadline, then the kill.

use std::sync::atomic::Ordering;
use std::time::Duration;

use supervisor_core::ServiceId;
use supervisor_core::config::start_layers;
use supervisor_core::error::{ServiceFailure, SupervisorError};
use supervisor_core::lifecycle::KILL_CONFIRM;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::Engine;
use super::shared::joined;

pub(super) async fn run(engine: &Engine, deadline: Duration) -> Result<(), SupervisorError> {
    let shared = &engine.inner.shared;
    if shared.stopping.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    engine.start_no_more();
    let until = Instant::now() + deadline;
    let dependencies = shared.registry().dependencies();
    let attempted = dependencies.len();
    // A circle cannot have been started; if one is registered all the same, everything stops at once.
    let mut layers =
        start_layers(&dependencies).unwrap_or_else(|_| vec![dependencies.into_keys().collect()]);
    layers.reverse();
    let mut failures = Vec::new();
    for layer in layers {
        failures.extend(stop_layer(engine, layer, until).await);
    }
    shared.over.cancel();
    let tasks = shared.registry().take_tasks();
    for task in tasks {
        joined(task).await;
    }
    shared.store.close().await;
    if failures.is_empty() {
        return Ok(());
    }
    Err(SupervisorError::Partial { operation: "stopping".to_owned(), attempted, failures })
}

async fn stop_layer(engine: &Engine, layer: Vec<ServiceId>, until: Instant) -> Vec<ServiceFailure> {
    let mut stops = JoinSet::new();
    for id in layer {
        let engine = engine.clone();
        stops.spawn(async move {
            let stopped = timeout_at(until, engine.stop(&id)).await;
            let result = match stopped {
                Ok(result) => result,
                // The second stop forces; it answers within the time a kill takes to be confirmed.
                Err(_) => timeout_at(Instant::now() + KILL_CONFIRM * 2, engine.stop(&id))
                    .await
                    .unwrap_or_else(|_| {
                        let (service, operation) = (id.clone(), "the kill".to_owned());
                        let limit = KILL_CONFIRM * 2;
                        Err(supervisor_core::error::ProcessError::TimedOut {
                            service,
                            operation,
                            limit,
                        }
                        .into())
                    }),
            };
            result.err().map(|error| ServiceFailure { service: id, error })
        });
    }
    stops.join_all().await.into_iter().flatten().collect()
}
