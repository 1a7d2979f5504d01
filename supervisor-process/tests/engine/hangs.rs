//! Services that live and do nothing, and hosts that are too busy to tell.

use std::process::{Command, Stdio};
use std::time::Duration;

use supervisor_core::Signal;
use supervisor_core::config::{ProbeKind, ProbeRole, ProbeSpec, RestartPolicy};
use supervisor_core::event::EventKind;
use supervisor_core::exit::ExitReason;
use supervisor_core::state::Phase;

use crate::fixture;
use crate::support::{LIMIT, World, eventually, is_alive, signal};

fn heartbeat(period: u64, failures: u32) -> ProbeSpec {
    let mut probe = ProbeSpec::new(ProbeRole::Liveness, ProbeKind::Heartbeat);
    probe.period = Some(Duration::from_millis(period));
    probe.failure_threshold = failures;
    probe
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_falls_silent_with_its_socket_still_accepting_is_restarted_once_as_a_hang() {
    let world = World::new();
    std::fs::write(world.path("beat"), "").unwrap();
    let mut spec = fixture::service(&world, "svc", "fixture::notifier", "while the file is there");
    let mut accepts = ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Exec);
    accepts.command = ["sh", "-c", "test -s address"].map(str::to_owned).to_vec();
    accepts.period = Some(Duration::from_millis(50));
    spec.probes = vec![heartbeat(500, 2), accepts];
    spec.restart_policy = RestartPolicy::Always;
    let id = world.up(spec).await;
    let pid = world.until(&id, |state| state.ready).await.identity.unwrap().pid;
    std::fs::remove_file(world.path("beat")).unwrap();
    let state = world.until(&id, |state| state.phase == Phase::Unhealthy).await;
    assert!(state.reason.contains("no heartbeat"), "{}", state.reason);
    let address = world.line_in("address").await;
    std::net::TcpStream::connect(address).expect("it accepts while it hangs");
    std::fs::write(world.path("beat"), "").unwrap();
    // Beating again at once would be in time; so it is silent until the restart.
    std::fs::remove_file(world.path("beat")).unwrap();
    let state = world.until(&id, |state| state.restarts == 1).await;
    std::fs::write(world.path("beat"), "").unwrap();
    assert_eq!(state.last_exit.unwrap().reason, ExitReason::Hang);
    assert!(!is_alive(pid));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_leaves_a_snapshot_and_the_stacks_its_runtime_dumped() {
    let world = World::new();
    let script =
        "trap 'echo STACK main parked in queue; exit 131' QUIT; while :; do sleep 0.02; done";
    let mut spec = world.sh("svc", script);
    let mut live = ProbeSpec::new(ProbeRole::Liveness, ProbeKind::Exec);
    live.command = vec!["false".to_owned()];
    live.period = Some(Duration::from_millis(50));
    live.failure_threshold = 2;
    spec.probes = vec![live];
    spec.dump_signal = Some(Signal::Quit);
    let id = world.up(spec).await;
    let exit = world.until_phase(&id, Phase::Failed).await.last_exit.unwrap();
    assert_eq!(exit.reason, ExitReason::Hang);
    let dumped = exit.last_lines.iter().any(|line| line == "STACK main parked in queue");
    assert!(dumped, "{exit:?}");
    let snapshot = world
        .until_event(|event| matches!(event, EventKind::ServiceDegraded { reason, .. } if reason.contains("before it is stopped")))
        .await;
    let text = format!("{snapshot:?}");
    assert!(text.contains("state ") && text.contains(" threads") && text.contains("sh "), "{text}");
    // The ladder, rung by rung: late is said first, the snapshot is taken before the stop.
    let rungs: Vec<_> = world
        .events()
        .iter()
        .filter_map(|event| match event {
            EventKind::ServiceDegraded { reason, .. } if reason.contains("1 of 2") => Some("late"),
            EventKind::ServiceDegraded { reason, .. } if reason.contains("lost") => Some("lost"),
            EventKind::ServiceDegraded { reason, .. } if reason.contains("before it") => {
                Some("seen")
            }
            EventKind::ServiceStateChanged { to: Phase::Stopping, .. } => Some("stop"),
            _ => None,
        })
        .collect();
    assert_eq!(rungs, ["late", "lost", "seen", "stop"]);
    world.finish().await;
}

/// Keeps one processor busy with nothing else to do.
struct Spinner(std::process::Child);

impl Spinner {
    fn on_first_processor() -> Self {
        let script = "while :; do :; done";
        let mut command = Command::new("taskset");
        command.args(["-c", "0", "sh", "-c", script]).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_others_keep_from_its_processor_is_not_restarted_for_it() {
    if !found("chrt") || !found("taskset") {
        println!("left out: it takes chrt and taskset to starve a service");
        return;
    }
    let world = World::new();
    // Idle class on one processor: it runs when nobody else wants that one.
    let mut spec = fixture::behind_shell(&world, "svc", "beats", |notifier| {
        format!("taskset -cp 0 $$ > /dev/null; chrt -i -p 0 $$; exec {notifier}")
    });
    spec.probes = vec![heartbeat(150, 2)];
    // An overloaded test machine may starve it before we do; that is no restart either.
    spec.restart_policy = RestartPolicy::Always;
    let id = world.up(spec).await;
    let pid = world.until_phase(&id, Phase::Running).await.identity.unwrap().pid;
    world.line_in("address").await;
    let spinners: Vec<_> = (0..4).map(|_| Spinner::on_first_processor()).collect();
    world
        .until_event(|event| matches!(event, EventKind::ServiceDegraded { reason, .. } if reason.contains("but not stopped")))
        .await;
    drop(spinners);
    let state = world.until(&id, |state| state.phase == Phase::Running).await;
    assert_eq!((state.restarts, state.identity.unwrap().pid), (0, pid), "{}", state.reason);
    // The same service, silent of its own accord on the same host, is a hang.
    signal(pid, "STOP");
    let hung = world.until(&id, |state| state.restarts == 1);
    let state = tokio::time::timeout(LIMIT, hung).await.unwrap();
    assert_eq!(state.last_exit.unwrap().reason, ExitReason::Hang);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_slower_than_its_period_never_runs_beside_itself() {
    let world = World::new();
    let mut spec = world.sh("svc", "exec sleep 1000");
    let mut probe = ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Exec);
    let script = "mkdir lock || echo twice >> twice; echo run >> runs; sleep 0.15; rmdir lock";
    probe.command = ["sh", "-c", script].map(str::to_owned).to_vec();
    probe.period = Some(Duration::from_millis(20));
    probe.timeout = Some(Duration::from_secs(20));
    spec.probes = vec![probe];
    world.up(spec).await;
    eventually("five runs", || {
        let runs = std::fs::read_to_string(world.path("runs")).unwrap_or_default();
        (runs.lines().count() >= 5).then_some(())
    })
    .await;
    assert!(!world.path("twice").exists(), "two probes were under way at once");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_hangs_is_killed_with_what_it_started_even_outside_its_group() {
    let world = World::new();
    let mut spec = world.sh("svc", "exec sleep 1000");
    let mut probe = ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Exec);
    let script = "setsid sh -c 'echo $$ >> left; exec sleep 1000' & sleep 1000 & echo $! >> left; sleep 1000";
    probe.command = ["sh", "-c", script].map(str::to_owned).to_vec();
    probe.period = Some(Duration::from_millis(50));
    probe.timeout = Some(Duration::from_millis(300));
    spec.probes = vec![probe];
    world.up(spec).await;
    let left = eventually("three probes", || {
        let text = std::fs::read_to_string(world.path("left")).unwrap_or_default();
        let pids: Vec<u32> = text.lines().flat_map(str::parse).collect();
        (pids.len() >= 6).then_some(pids)
    })
    .await;
    // The last one may be under way.
    for pid in &left[..4] {
        eventually("its end", || (!is_alive(*pid)).then_some(())).await;
    }
    world.finish().await;
    for pid in left {
        eventually("its end", || (!is_alive(pid)).then_some(())).await;
    }
}
