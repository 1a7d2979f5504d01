//! Services that need each other.

use std::time::Duration;

use supervisor_core::ServiceId;
use supervisor_core::config::{
    Dependency, DependencyCondition, Group, GroupStrategy, ProbeKind, ProbeRole, ProbeSpec,
    RestartPolicy,
};
use supervisor_core::event::EventKind;
use supervisor_core::state::Phase;

use crate::support::{World, eventually, signal};

fn need(id: &str, condition: DependencyCondition) -> Dependency {
    Dependency { id: ServiceId::new(id).unwrap(), condition }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependent_starts_when_what_it_needs_is_ready_and_not_before() {
    let world = World::new();
    let mut base = world.sh("base", "exec sleep 1000");
    let mut ready = ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Exec);
    ready.command = ["sh", "-c", "test -e ready"].map(str::to_owned).to_vec();
    ready.period = Some(Duration::from_millis(30));
    base.probes = vec![ready];
    let base = world.register(base).await;
    let mut top = world
        .sh("top", "test -e ready && echo after > order || echo before > order; exec sleep 1000");
    top.depends_on = vec![need("base", DependencyCondition::Ready)];
    let top = world.register(top).await;
    let starts: Vec<_> = [&top, &base]
        .map(|id| {
            let (engine, id) = (world.engine.clone(), id.clone());
            tokio::spawn(async move { engine.start(&id).await })
        })
        .into();
    world.until(&base, |state| state.identity.is_some()).await;
    assert_eq!(world.state(&top).identity, None);
    std::fs::write(world.path("ready"), "").unwrap();
    for start in starts {
        start.await.unwrap().unwrap();
    }
    assert_eq!(world.line_in("order").await, "after");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependent_waits_for_a_task_to_complete() {
    let world = World::new();
    let task = world.register(world.sh("task", "sleep 0.1; echo done > done; exit 0")).await;
    let mut top = world
        .sh("top", "test -e done && echo after > order || echo before > order; exec sleep 1000");
    top.depends_on = vec![need("task", DependencyCondition::Completed)];
    let top = world.register(top).await;
    world.engine.start(&task).await.unwrap();
    world.engine.start(&top).await.unwrap();
    assert_eq!(world.line_in("order").await, "after");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_for_good_fails_whoever_waits_for_it_and_names_the_cause() {
    let world = World::new();
    let mut base = world.sh("base", "exit 1");
    base.command = "/nonexistent/program".to_owned();
    let base = world.register(base).await;
    let mut top = world.sh("top", "exec sleep 1000");
    top.depends_on = vec![need("base", DependencyCondition::Ready)];
    let top = world.register(top).await;
    let start = tokio::spawn({
        let (engine, id) = (world.engine.clone(), top.clone());
        async move { engine.start(&id).await }
    });
    world.engine.start(&base).await.unwrap_err();
    start.await.unwrap().unwrap_err();
    let state = world.until_phase(&top, Phase::Failed).await;
    assert!(state.reason.contains("base"), "{}", state.reason);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_for_all_restarts_every_member_when_one_crashes() {
    let world = World::new();
    let mut ids = Vec::new();
    for id in ["a", "b", "c"] {
        let mut spec = world.sh(id, "exec sleep 1000");
        spec.restart_policy = RestartPolicy::Always;
        spec.group = Some(Group { name: "all".to_owned(), strategy: GroupStrategy::OneForAll });
        ids.push(world.up(spec).await);
    }
    let mut pids = Vec::new();
    for id in &ids {
        pids.push(world.until_phase(id, Phase::Running).await.identity.unwrap().pid);
    }
    signal(pids[1], "KILL");
    for (id, pid) in ids.iter().zip(&pids) {
        let again = |state: &supervisor_core::state::ServiceState| {
            state.phase == Phase::Running
                && state.identity.as_ref().is_some_and(|identity| identity.pid != *pid)
        };
        assert_eq!(world.until(id, again).await.incarnation.get(), 2, "{id}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_for_one_restarts_those_declared_after_the_one_that_crashed_and_no_others() {
    let world = World::new();
    let mut ids = Vec::new();
    for id in ["a", "b", "c"] {
        let mut spec = world.sh(id, "exec sleep 1000");
        spec.restart_policy = RestartPolicy::Always;
        spec.group = Some(Group { name: "rest".to_owned(), strategy: GroupStrategy::RestForOne });
        ids.push(world.up(spec).await);
    }
    // Of another group, and of none.
    let mut other = world.sh("other", "exec sleep 1000");
    other.group = Some(Group { name: "more".to_owned(), strategy: GroupStrategy::RestForOne });
    ids.push(world.up(other).await);
    ids.push(world.up(world.sh("alone", "exec sleep 1000")).await);
    signal(world.state(&ids[1]).identity.unwrap().pid, "KILL");
    for id in &ids[1..3] {
        world
            .until(id, |state| state.incarnation.get() == 2 && state.phase == Phase::Running)
            .await;
    }
    let group_restart = world.state(&ids[2]).last_exit.unwrap().reason;
    assert_eq!(group_restart, supervisor_core::exit::ExitReason::GroupRestart);
    for id in [&ids[0], &ids[3], &ids[4]] {
        assert_eq!(world.state(id).incarnation.get(), 1, "{id}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_fails_for_good_stops_a_dependent_that_runs_and_names_the_cause() {
    let world = World::new();
    let base = world.up(world.sh("base", "exec sleep 1000")).await;
    let mut top = world.sh("top", "exec sleep 1000");
    top.restart_policy = RestartPolicy::Always;
    top.depends_on = vec![need("base", DependencyCondition::Started)];
    let top = world.up(top).await;
    let pid = world.state(&top).identity.unwrap().pid;
    signal(world.state(&base).identity.unwrap().pid, "KILL");
    let state = world.until_phase(&top, Phase::Failed).await;
    assert!(state.reason.contains("base: crash (signal 9)"), "{}", state.reason);
    let reason = state.last_exit.unwrap().reason;
    assert_eq!(reason, supervisor_core::exit::ExitReason::DependencyFailed);
    assert!(!crate::support::is_alive(pid));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fell_with_a_dependency_starts_again_in_order_when_that_heals_and_not_what_was_stopped()
 {
    let world = World::new();
    let mut base = world.sh("base", "test -e cured || exit 1; echo base >> order; exec sleep 1000");
    base.restart_policy = RestartPolicy::ExponentialBackoff {
        base_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(1),
        max_attempts: 1,
    };
    let mut ready = ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Exec);
    ready.command = ["grep", "-q", "base", "order"].map(str::to_owned).to_vec();
    ready.period = Some(Duration::from_millis(30));
    base.probes = vec![ready];
    let half_open = |spec: &mut supervisor_core::config::ServiceSpec| {
        spec.half_open_after = Some(Duration::from_millis(300));
    };
    half_open(&mut base);
    let dependent = |id: &str, of: &str| {
        let mut spec = world.sh(id, &format!("echo {id} >> order; exec sleep 1000"));
        spec.depends_on = vec![need(of, DependencyCondition::Ready)];
        spec
    };
    let base = world.register(base).await;
    let top = world.register(dependent("top", "base")).await;
    let roof = world.register(dependent("roof", "top")).await;
    let stopped = world.register(dependent("stopped", "base")).await;
    let mut starts = Vec::new();
    for id in [&roof, &top, &stopped, &base] {
        let (engine, id) = (world.engine.clone(), id.clone());
        starts.push(tokio::spawn(async move { engine.start(&id).await }));
    }
    for id in [&roof, &top, &stopped] {
        let state = world.until_phase(id, Phase::Failed).await;
        assert!(state.reason.contains("base"), "{}", state.reason);
        assert!(state.reason.ends_with("starts again when that is back"), "{}", state.reason);
    }
    world.engine.stop(&stopped).await.unwrap();
    std::fs::write(world.path("cured"), "").unwrap();
    for id in [&base, &top, &roof] {
        world.until(id, |state| state.phase == Phase::Running && state.ready).await;
    }
    assert_eq!(world.state(&stopped).phase, Phase::Stopped);
    assert_eq!(world.state(&roof).restarts, 0, "it never ran before");
    let order = eventually("all three", || {
        let text = std::fs::read_to_string(world.path("order")).ok()?;
        (text.lines().count() >= 3).then_some(text)
    })
    .await;
    assert!(matches!(order.as_str(), "base\ntop\nroof\n" | "base\nroof\ntop\n"), "{order}");
    let back = |of: &ServiceId| {
        world.events().iter().any(|event| {
            matches!(event, EventKind::ServiceStateChanged { service, from, to: Phase::Registered, .. }
                if service == of && *from == Phase::Failed)
        })
    };
    assert!(back(&top) && back(&roof), "that they wait again is told");
    for start in starts {
        // They were answered when they failed; what came later is told by events.
        drop(start.await.unwrap());
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependent_that_was_stopped_for_its_dependency_runs_again_once_that_was_started_by_hand()
{
    let world = World::new();
    let base = world.up(world.sh("base", "exec sleep 1000")).await;
    let mut top = world.sh("top", "exec sleep 1000");
    top.depends_on = vec![need("base", DependencyCondition::Started)];
    let top = world.up(top).await;
    let first = world.state(&top).identity.unwrap().pid;
    signal(world.state(&base).identity.unwrap().pid, "KILL");
    world.until_phase(&top, Phase::Failed).await;
    world.engine.start(&base).await.unwrap();
    let state = world.until_phase(&top, Phase::Running).await;
    assert_ne!(state.identity.unwrap().pid, first);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_stops_dependents_first() {
    let world = World::new();
    let script = |id: &str| {
        format!(
            "trap 'sleep 0.1; echo {id} >> order; exit 0' TERM; echo up > {id}; while :; do sleep 0.01; done"
        )
    };
    world.up(world.sh("base", &script("base"))).await;
    let mut top = world.sh("top", &script("top"));
    top.depends_on = vec![need("base", DependencyCondition::Started)];
    world.up(top).await;
    world.line_in("base").await;
    world.line_in("top").await;
    let order = world.path("order");
    world.engine.shutdown(Duration::from_secs(30)).await.unwrap();
    assert_eq!(std::fs::read_to_string(order).unwrap(), "top\nbase\n");
    let stopped = world
        .events()
        .into_iter()
        .filter(|event| matches!(event, EventKind::ServiceStateChanged { to: Phase::Stopped, .. }));
    assert_eq!(stopped.count(), 2);
    world.finish().await;
}
