//! Ending services: politely, then not, and never half.

use std::time::{Duration, Instant};

use supervisor_core::config::RestartPolicy;
use supervisor_core::exit::{ExitReason, ExitStatus};
use supervisor_core::state::{Desired, Phase};

use crate::support::{World, eventually, is_alive, nothing_left, state_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_obeys_is_stopped_without_a_kill() {
    let world = World::new();
    let mut spec = world.sh(
        "svc",
        "trap 'echo bye > bye; exit 0' TERM; echo ready > ready; while :; do sleep 0.01; done",
    );
    spec.restart_policy = RestartPolicy::Always;
    let id = world.up(spec).await;
    world.line_in("ready").await;
    world.engine.stop(&id).await.unwrap();
    let state = world.state(&id);
    assert_eq!((state.phase, state.desired), (Phase::Stopped, Desired::Down));
    assert_eq!(world.line_in("bye").await, "bye");
    assert_eq!(state.last_exit.unwrap().reason, ExitReason::Stopped);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_ignores_the_signal_is_killed_after_its_time() {
    let world = World::new();
    let mut spec =
        world.sh("svc", "trap '' TERM; echo ready > ready; while :; do sleep 0.01; done");
    spec.shutdown_timeout = Duration::from_millis(300);
    let id = world.up(spec).await;
    world.line_in("ready").await;
    let began = Instant::now();
    world.engine.stop(&id).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    let state = world.state(&id);
    assert_eq!(state.phase, Phase::Stopped);
    assert_eq!(state.last_exit.unwrap().status, Some(ExitStatus::Signal(9)));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grandchild_in_a_session_of_its_own_that_ignores_the_signal_is_gone_after_the_stop() {
    let world = World::new();
    let script = "setsid sh -c 'trap \"\" TERM; echo $$ > deep; while :; do sleep 0.01; done' & exec sleep 1000";
    let mut spec = world.sh("svc", script);
    spec.shutdown_timeout = Duration::from_millis(300);
    let id = world.up(spec).await;
    let deep = world.pid_in("deep").await;
    world.engine.stop(&id).await.unwrap();
    assert!(!is_alive(deep));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_not_over_while_a_child_of_the_ended_leader_runs() {
    let world = World::new();
    let script =
        "sh -c 'trap \"\" TERM; echo $$ > child; while :; do sleep 0.01; done' & exec sleep 1000";
    let mut spec = world.sh("svc", script);
    spec.shutdown_timeout = Duration::from_millis(400);
    let id = world.up(spec).await;
    let child = world.pid_in("child").await;
    let began = Instant::now();
    world.engine.stop(&id).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    assert!(!is_alive(child));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_over_as_soon_as_the_last_child_ended_by_itself() {
    let world = World::new();
    let script = "sh -c 'trap \"sleep 0.2; exit 0\" TERM; echo $$ > child; while :; do sleep 0.01; done' & exec sleep 1000";
    let mut spec = world.sh("svc", script);
    spec.shutdown_timeout = Duration::from_secs(60);
    let id = world.up(spec).await;
    let child = world.pid_in("child").await;
    tokio::time::timeout(Duration::from_secs(20), world.engine.stop(&id)).await.unwrap().unwrap();
    assert!(!is_alive(child));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stop_does_not_wait_for_the_grace_of_the_first() {
    let world = World::new();
    let mut spec = world
        .sh("svc", "trap 'echo got > got' TERM; echo ready > ready; while :; do sleep 0.01; done");
    spec.shutdown_timeout = Duration::from_secs(300);
    let id = world.up(spec).await;
    world.line_in("ready").await;
    let first = tokio::spawn({
        let (engine, id) = (world.engine.clone(), id.clone());
        async move { engine.stop(&id).await }
    });
    world.line_in("got").await;
    tokio::time::timeout(Duration::from_secs(20), world.engine.stop(&id)).await.unwrap().unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(world.state(&id).phase, Phase::Stopped);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_service_is_stopped_too() {
    let world = World::new();
    let mut spec = world.sh("svc", "kill -STOP $$; exec sleep 1000");
    spec.shutdown_timeout = Duration::from_secs(2);
    let id = world.up(spec).await;
    let pid = world.until(&id, |state| state.identity.is_some()).await.identity.unwrap().pid;
    eventually("suspension", || (state_of(pid) == Some('T')).then_some(())).await;
    tokio::time::timeout(Duration::from_secs(20), world.engine.stop(&id)).await.unwrap().unwrap();
    assert!(!is_alive(pid));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_what_is_stopped_succeeds_and_a_backoff_is_cancelled() {
    let world = World::new();
    let mut spec = world.sh("svc", "exit 1");
    spec.restart_policy = RestartPolicy::FixedDelay { delay: Duration::from_secs(600) };
    let id = world.up(spec).await;
    world.until_phase(&id, Phase::Backoff).await;
    world.engine.stop(&id).await.unwrap();
    assert_eq!(world.state(&id).phase, Phase::Stopped);
    world.engine.stop(&id).await.unwrap();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_stopping_ends_with_a_new_run() {
    let world = World::new();
    let mut spec = world
        .sh("svc", "trap 'echo got > got' TERM; echo ready > ready; while :; do sleep 0.01; done");
    spec.shutdown_timeout = Duration::from_millis(500);
    let id = world.up(spec).await;
    world.line_in("ready").await;
    let first = world.state(&id).incarnation;
    let stop = tokio::spawn({
        let (engine, id) = (world.engine.clone(), id.clone());
        async move { engine.stop(&id).await }
    });
    world.line_in("got").await;
    tokio::time::timeout(Duration::from_secs(20), world.engine.restart(&id))
        .await
        .unwrap()
        .unwrap();
    let state = world.until_phase(&id, Phase::Running).await;
    assert!(state.incarnation > first);
    assert_eq!(state.desired, Desired::Up);
    // Whether the stop was superseded or done first, it was answered.
    drop(tokio::time::timeout(Duration::from_secs(20), stop).await.unwrap().unwrap());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_dropped_takes_everything_with_it() {
    let world = World::new();
    let script = "setsid sleep 1000 & echo $! > deep; exec sleep 1000";
    world.up(world.sh("svc", script)).await;
    world.line_in("deep").await;
    let mark = world.mark.clone();
    drop(world);
    nothing_left(&mark).await;
}

#[test]
fn a_runtime_that_is_dropped_takes_everything_with_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(async {
        let world = World::new();
        world.up(world.sh("svc", "setsid sleep 1000 & echo $! > deep; exec sleep 1000")).await;
        world.line_in("deep").await;
        world
    });
    let mark = world.mark.clone();
    drop(runtime);
    drop(world);
    tokio::runtime::Runtime::new().unwrap().block_on(nothing_left(&mark));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_past_its_deadline_kills() {
    let world = World::new();
    let mut spec =
        world.sh("svc", "trap '' TERM; echo ready > ready; while :; do sleep 0.01; done");
    spec.shutdown_timeout = Duration::from_secs(600);
    world.up(spec).await;
    world.line_in("ready").await;
    let began = Instant::now();
    world.engine.shutdown(Duration::from_millis(200)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
    let mark = world.mark.clone();
    drop(world);
    nothing_left(&mark).await;
}
