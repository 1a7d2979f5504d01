//! What happens after a service ended by itself.

use std::time::Duration;

use supervisor_core::config::{BeyondIntensity, RestartIntensity, RestartPolicy};
use supervisor_core::event::EventKind;
use supervisor_core::exit::{ExitReason, ExitStatus};
use supervisor_core::state::Phase;

use crate::support::{World, is_alive, signal};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_runs_again_with_another_pid() {
    let world = World::new();
    let mut spec = world.sh("svc", "exec sleep 1000");
    spec.restart_policy = RestartPolicy::Always;
    let id = world.up(spec).await;
    let first = world.until_phase(&id, Phase::Running).await;
    let pid = first.identity.unwrap().pid;
    signal(pid, "KILL");
    let second =
        world.until(&id, |state| state.restarts == 1 && state.phase == Phase::Running).await;
    assert_ne!(second.identity.unwrap().pid, pid);
    assert_eq!(second.incarnation.get(), first.incarnation.get() + 1);
    let exit = second.last_exit.unwrap();
    assert_eq!((exit.status, exit.reason), (Some(ExitStatus::Signal(9)), ExitReason::Crash));
    world
        .until_event(|event| matches!(event, EventKind::ServiceRestarted { restarts: 1, .. }))
        .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn once_nothing_more_is_started_a_crashed_service_waits_where_it_is() {
    let world = World::new();
    let mut spec = world.sh("svc", "exec sleep 1000");
    spec.restart_policy = RestartPolicy::Always;
    let id = world.up(spec).await;
    let first = world.until_phase(&id, Phase::Running).await;
    world.engine.start_no_more();
    signal(first.identity.unwrap().pid, "KILL");
    let after = world.until(&id, |state| state.phase != Phase::Running).await;
    assert_eq!((after.phase, after.incarnation), (Phase::Backoff, first.incarnation));
    assert!(world.engine.start(&id).await.is_err(), "by command neither");
    world.engine.stop(&id).await.unwrap();
    let last = world.until_phase(&id, Phase::Stopped).await;
    assert_eq!((last.incarnation, last.restarts), (first.incarnation, 0));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn never_leaves_a_crashed_service_failed() {
    let world = World::new();
    let id = world.up(world.sh("svc", "exit 3")).await;
    let state = world.until_phase(&id, Phase::Failed).await;
    assert_eq!(state.last_exit.unwrap().status, Some(ExitStatus::Code(3)));
    assert_eq!(state.restarts, 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn never_leaves_a_completed_service_stopped() {
    let world = World::new();
    let id = world.up(world.sh("svc", "exit 0")).await;
    let state = world.until_phase(&id, Phase::Stopped).await;
    assert_eq!(state.last_exit.unwrap().reason, ExitReason::Completed);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_delay_passes_before_each_restart() {
    let world = World::new();
    let mut spec =
        world.sh("svc", "date +%s%N >> at; test $(wc -l < at) -ge 3 && exec sleep 1000; exit 1");
    spec.restart_policy = RestartPolicy::FixedDelay { delay: Duration::from_millis(150) };
    let id = world.up(spec).await;
    world.until(&id, |state| state.restarts == 2 && state.phase == Phase::Running).await;
    let at = crate::support::eventually("three starts", || {
        let text = std::fs::read_to_string(world.path("at")).unwrap_or_default();
        let times: Vec<u128> = text.lines().flat_map(str::parse).collect();
        (times.len() == 3).then_some(times)
    })
    .await;
    for pair in at.windows(2) {
        assert!(pair[1] - pair[0] >= 150_000_000, "{at:?}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backoff_gives_up_after_its_attempts_and_says_that_it_was_critical() {
    let world = World::new();
    let mut spec = world.sh("svc", "echo run >> runs; exit 1");
    spec.critical = true;
    spec.restart_policy = RestartPolicy::ExponentialBackoff {
        base_delay: Duration::from_millis(10),
        max_delay: Duration::from_millis(40),
        max_attempts: 3,
    };
    let id = world.up(spec).await;
    world.until_phase(&id, Phase::Failed).await;
    let runs = std::fs::read_to_string(world.path("runs")).unwrap();
    assert_eq!(runs.lines().count(), 4, "the first run and three attempts");
    let event = world.until_event(|event| matches!(event, EventKind::ServiceGaveUp { .. })).await;
    assert!(matches!(event, EventKind::ServiceGaveUp { critical: true, .. }), "{event:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_exit_code_is_not_tried_again() {
    let world = World::new();
    let mut spec = world.sh("svc", "echo run >> runs; exit 78");
    spec.restart_policy = RestartPolicy::Always;
    spec.permanent_exit_codes = vec![78];
    let id = world.up(spec).await;
    let state = world.until_phase(&id, Phase::Failed).await;
    assert_eq!(state.last_exit.unwrap().reason, ExitReason::PermanentFailure);
    assert_eq!(std::fs::read_to_string(world.path("runs")).unwrap().lines().count(), 1);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_restarts_than_the_intensity_allows_end_it() {
    let world = World::new();
    let mut spec = world.sh("svc", "echo run >> runs; exit 1");
    spec.restart_policy = RestartPolicy::Always;
    spec.restart_intensity =
        RestartIntensity::limited(4, Duration::from_secs(600), Some(BeyondIntensity::GiveUp));
    let id = world.up(spec).await;
    world.until_phase(&id, Phase::Failed).await;
    assert_eq!(std::fs::read_to_string(world.path("runs")).unwrap().lines().count(), 5);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crashed_leader_left_in_its_group_is_gone_before_the_next_run_starts() {
    let world = World::new();
    let script =
        "if test -s left; then case $(cut -d ' ' -f 3 /proc/$(cat left)/stat 2>/dev/null) in
            ''|Z) echo gone > verdict;; *) echo alive > verdict;; esac; fi
        sleep 1000 & echo $! > left; exec sleep 1001";
    let mut spec = world.sh("svc", script);
    spec.restart_policy = RestartPolicy::Always;
    let id = world.up(spec).await;
    let pid = world.until_phase(&id, Phase::Running).await.identity.unwrap().pid;
    let left = world.pid_in("left").await;
    signal(pid, "KILL");
    assert_eq!(world.line_in("verdict").await, "gone");
    assert!(!is_alive(left));
    world.finish().await;
}
