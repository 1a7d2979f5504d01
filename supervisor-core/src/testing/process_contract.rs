//! What every spawner and every child promise. Each function panics with what was expected.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a contract suite fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use crate::config::ServiceSpec;
use crate::error::SpawnErrorKind;
use crate::exit::ExitStatus;
use crate::ports::{ProcessSpawner, SpawnRequest};
use crate::{Incarnation, Signal};

/// Long enough for any machine; a kept promise takes milliseconds.
const CONFIRM: Duration = Duration::from_secs(10);

fn request(spec: &Arc<ServiceSpec>, incarnation: u64) -> SpawnRequest {
    SpawnRequest {
        service: spec.service_id().unwrap(),
        incarnation: Incarnation(incarnation),
        spec: Arc::clone(spec),
        extra_environment: Vec::new(),
    }
}

/// Runs the promises of [`ProcessSpawner`] and [`ChildHandle`](crate::ports::ChildHandle).
///
/// `lasting` runs until it is signalled and obeys SIGTERM; the program of `missing` does not exist.
///
/// # Panics
/// When a promise is not kept.
pub async fn spawner(spawner: &dyn ProcessSpawner, lasting: ServiceSpec, missing: ServiceSpec) {
    let (lasting, missing) = (Arc::new(lasting), Arc::new(missing));
    assert!(!spawner.containment().is_empty(), "what contains sets is named");

    let child = spawner.spawn(request(&lasting, 1)).await.expect("a program that exists starts");
    assert_ne!(child.identity().pid, 0);
    assert!(!child.set_is_empty(), "a running set is not empty");
    assert!(child.members().contains(&child.identity()), "the leader is a member of its set");
    let report = child.kill_set(CONFIRM).await;
    assert!(report.survivors.is_empty(), "nothing survives a kill: {:?}", report.survivors);
    assert_eq!(child.wait().await, ExitStatus::Signal(9));
    assert_eq!(child.wait().await, ExitStatus::Signal(9), "waiting again gives the same answer");
    assert!(child.set_is_empty(), "a killed set is empty");
    child.signal_set(Signal::Term).await.expect("signalling an empty set is no error");

    let other = spawner.spawn(request(&lasting, 2)).await.expect("it starts again");
    assert_ne!(other.identity(), child.identity(), "each run has an identity of its own");
    other.signal_set(Signal::Term).await.expect("a running set can be signalled");
    assert_eq!(other.wait().await, ExitStatus::Signal(15));

    let refused =
        spawner.spawn(request(&missing, 1)).await.expect_err("a missing program does not start");
    assert_eq!(refused.kind, SpawnErrorKind::NotFound);
}
