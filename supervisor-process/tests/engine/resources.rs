//! Ceilings, limits and what is measured of them.

use std::time::Duration;

use supervisor_core::config::{BeyondLimit, RestartPolicy};
use supervisor_core::event::EventKind;
use supervisor_core::exit::ExitReason;
use supervisor_core::state::Phase;
use supervisor_core::text::{ByteSize, CpuPercent};

use crate::support::{World, eventually};

/// Holds 60 MB in a child that left the group.
const HOARDER: &str =
    "setsid sh -c 'head -c 60000000 /dev/zero | tail -c 60000000 | sleep 1000' & exec sleep 1000";

#[tokio::test(flavor = "multi_thread")]
async fn a_set_over_its_memory_ceiling_is_restarted_with_that_reason_escaped_children_included() {
    let world = World::new();
    let mut spec = world.sh("svc", HOARDER);
    spec.restart_policy = RestartPolicy::FixedDelay { delay: Duration::from_secs(600) };
    spec.limits.memory = Some(ByteSize::mib(30));
    let id = world.up(spec).await;
    let state = world.until_phase(&id, Phase::Backoff).await;
    assert_eq!(state.last_exit.unwrap().reason, ExitReason::MemoryLimit);
    assert!(state.reason.contains("of 30 MiB"), "{}", state.reason);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_over_its_processor_ceiling_fails_or_is_reported_as_its_service_says() {
    // Ten seconds: a ceiling counts after four measurements two seconds apart.
    let world = World::new();
    let busy = |id: &str, beyond| {
        let mut spec = world.sh(id, "while :; do :; done");
        spec.restart_policy = RestartPolicy::Always;
        spec.limits.cpu = Some(CpuPercent(5));
        spec.limits.beyond = beyond;
        spec
    };
    let fails = world.up(busy("fails", BeyondLimit::Fail)).await;
    let reported = world.up(busy("reported", BeyondLimit::Report)).await;
    let state = world.until_phase(&fails, Phase::Failed).await;
    assert_eq!(state.last_exit.unwrap().reason, ExitReason::CpuLimit);
    assert!(state.reason.contains("of 5 %"), "{}", state.reason);
    world
        .until_event(|event| {
            matches!(event, EventKind::ServiceDegraded { service, reason, .. }
                if *service == reported && reason.contains("cpu limit exceeded"))
        })
        .await;
    assert_eq!(world.state(&reported).restarts, 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_use_of_a_whole_set_is_measured_processors_and_escaped_children_included() {
    let world = World::new();
    let busy = "setsid sh -c 'while :; do :; done' & setsid sleep 1000 & exec sleep 1000";
    let busy = world.up(world.sh("busy", busy)).await;
    let idle = world.up(world.sh("idle", "exec sleep 1000")).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let used = world.engine.usage(&busy).await.unwrap_or_default();
        if used.processes == 3 && used.cpu_percent > 5.0 {
            assert!(used.memory > 100_000, "{used:?}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{used:?}");
        // poll: until the shells have become what they exec, and have been busy for a while.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let used = world.engine.usage(&idle).await.unwrap();
    assert_eq!(used.processes, 1);
    assert!(used.cpu_percent < 5.0, "{used:?}");
    world.engine.stop(&busy).await.unwrap();
    // A measurement is given again for a quarter of a second.
    let gone = async {
        while world.engine.usage(&busy).await.is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_system_are_set_on_the_service() {
    let world = World::new();
    let mut spec = world.sh(
        "svc",
        "until test $(ulimit -n) = 32; do :; done; ulimit -f > size; ulimit -c > core; echo > done; exec sleep 1000",
    );
    spec.limits.open_files = Some(32);
    spec.limits.file_size = Some(ByteSize::mib(1));
    spec.limits.core_dump = Some(ByteSize(0));
    world.up(spec).await;
    world.line_in("done").await;
    assert_eq!(world.line_in("size").await, "2048", "in blocks of 512 bytes");
    assert_eq!(world.line_in("core").await, "0");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layers_that_contain_sets_are_named() {
    let world = World::new();
    let layers = world.engine.containment();
    assert!(layers.iter().any(|layer| layer == "process_group"), "{layers:?}");
    eventually("two layers", || (layers.len() >= 2).then_some(())).await;
    world.finish().await;
}
