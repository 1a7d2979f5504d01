//! What everything that commands a supervisor promises. The function panics with what was expected.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a contract suite fails by panicking")]

use crate::ServiceId;
use crate::checkpoint::CheckpointHealth;
use crate::config::ServiceSpec;
use crate::error::Classified as _;
use crate::journal::Actor;
use crate::ports::{CheckpointSelector, SupervisorControl};
use crate::state::Phase;
use crate::status::ServiceStatus;

async fn service(control: &dyn SupervisorControl, id: &ServiceId) -> ServiceStatus {
    let status = control.status().await.unwrap();
    let found = status.services.into_iter().find(|service| service.id == *id);
    found.unwrap_or_else(|| panic!("{id} was registered and is not in the status"))
}

/// Runs the promises of [`SupervisorControl`] on a fresh supervisor, and shuts it down. `lasting` is a service that runs
/// until it is stopped and does not start by itself.
///
/// # Panics
/// When a promise is not kept.
pub async fn control(control: &dyn SupervisorControl, lasting: ServiceSpec) {
    control.start_monitoring().await.unwrap();
    control.start_monitoring().await.unwrap();
    let id = control.register(lasting.clone(), Actor::Host).await.unwrap();
    let before = control.status().await.unwrap();
    assert!(control.register(lasting, Actor::Host).await.is_err(), "an id is taken once");
    assert_eq!(
        control.status().await.unwrap().services,
        before.services,
        "a refusal changes nothing"
    );
    let nobody = ServiceId::new("nobody-has-this-id").unwrap();
    for refused in [
        control.start(&nobody, Actor::Host).await,
        control.stop(&nobody, Actor::Host).await,
        control.restart(&nobody, Actor::Host).await,
        control.logs(&nobody, 1).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code(), "unknown_service");
    }

    control.start(&id, Actor::Host).await.unwrap();
    let first = service(control, &id).await;
    assert!(first.pid.is_some(), "started means that its process runs");
    control.start(&id, Actor::Host).await.unwrap();
    let again = service(control, &id).await;
    assert_eq!(
        (again.pid, again.incarnation),
        (first.pid, first.incarnation),
        "one that is up is left alone"
    );
    control.restart(&id, Actor::Host).await.unwrap();
    assert!(
        service(control, &id).await.incarnation > first.incarnation,
        "a restart is a run of its own"
    );
    control.stop(&id, Actor::Host).await.unwrap();
    let stopped = service(control, &id).await;
    assert_eq!((stopped.phase, stopped.pid), (Phase::Stopped, None), "stopped means gone");

    let older = control.create_checkpoint(Actor::Host).await.unwrap();
    let newer = control.create_checkpoint(Actor::Host).await.unwrap();
    let listed = control.checkpoints(2).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|checkpoint| checkpoint.id).collect();
    assert_eq!(ids, [newer, older], "the newest first, and no more than asked for");
    let latest = control.load_checkpoint(CheckpointSelector::Latest).await.unwrap();
    assert_eq!(latest.checkpoint.id, newer);
    assert!(latest.checkpoint.services.contains_key(&id));
    assert_eq!(control.verify_checkpoint(older).await.unwrap().health, CheckpointHealth::Verified);
    assert!(control.events(None, 1).await.unwrap().len() <= 1);
    assert!(control.verify_audit().await.unwrap().intact);

    control.shutdown(Actor::Host).await.unwrap();
    assert!(control.start(&id, Actor::Host).await.is_err(), "nothing starts after the end");
}
