//! Services that are asked how they are.

use std::time::Duration;

use supervisor_core::config::{ProbeKind, ProbeRole, ProbeSpec, RestartPolicy, ServiceSpec};
use supervisor_core::exit::ExitReason;
use supervisor_core::state::Phase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::fixture;
use crate::support::{World, eventually, is_alive, signal};

fn probe(role: ProbeRole, kind: ProbeKind) -> ProbeSpec {
    let mut probe = ProbeSpec::new(role, kind);
    probe.period = Some(Duration::from_millis(50));
    probe
}

fn exec(role: ProbeRole, script: &str) -> ProbeSpec {
    let mut probe = probe(role, ProbeKind::Exec);
    probe.command = ["sh", "-c", script].map(str::to_owned).to_vec();
    probe
}

fn sleeper(world: &World, probes: Vec<ProbeSpec>) -> ServiceSpec {
    let mut spec = world.sh("svc", "exec sleep 1000");
    spec.probes = probes;
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_ready_when_its_command_says_so_and_no_longer_when_it_does_not() {
    let world = World::new();
    let id =
        world.register(sleeper(&world, vec![exec(ProbeRole::Readiness, "test -e ready")])).await;
    let started = tokio::spawn({
        let (engine, id) = (world.engine.clone(), id.clone());
        async move { engine.start(&id).await }
    });
    world.until(&id, |state| state.identity.is_some()).await;
    assert!(!world.state(&id).ready);
    std::fs::write(world.path("ready"), "").unwrap();
    world.until(&id, |state| state.ready).await;
    started.await.unwrap().unwrap();
    std::fs::remove_file(world.path("ready")).unwrap();
    world.until(&id, |state| !state.ready).await;
    assert_eq!(world.state(&id).restarts, 0, "readiness never restarts");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_accepts_makes_ready() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let id = world
        .up(sleeper(&world, vec![probe(ProbeRole::Readiness, ProbeKind::Tcp).with_target(target)]))
        .await;
    world.until(&id, |state| state.ready).await;
    drop(listener);
    world.until(&id, |state| !state.ready).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_answer_counts_by_its_status() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}/health", listener.local_addr().unwrap());
    let (status, answered) = tokio::sync::watch::channel("200 OK");
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 1024];
            drop(stream.read(&mut bytes).await);
            let status = *answered.borrow();
            drop(
                stream
                    .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())
                    .await,
            );
        }
    });
    let id = world
        .up(sleeper(&world, vec![probe(ProbeRole::Readiness, ProbeKind::Http).with_target(target)]))
        .await;
    world.until(&id, |state| state.ready).await;
    status.send_replace("503 Service Unavailable");
    world.until(&id, |state| !state.ready).await;
    status.send_replace("302 Found");
    world.until(&id, |state| state.ready).await;
    server.abort();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_service_is_restarted_once_as_hanging() {
    let world = World::new();
    let mut live = probe(ProbeRole::Liveness, ProbeKind::Process);
    live.failure_threshold = 2;
    let mut spec = sleeper(&world, vec![live]);
    spec.restart_policy = RestartPolicy::Always;
    spec.shutdown_timeout = Duration::from_millis(300);
    let id = world.up(spec).await;
    let pid = world.until_phase(&id, Phase::Running).await.identity.unwrap().pid;
    signal(pid, "STOP");
    let state = world.until(&id, |state| state.restarts > 0 && state.phase == Phase::Running).await;
    assert_eq!(state.restarts, 1);
    assert_eq!(state.last_exit.unwrap().reason, ExitReason::Hang);
    assert!(!is_alive(pid));
    let checked = world.events().len();
    eventually("more checks", || (world.events().len() > checked + 5).then_some(())).await;
    assert_eq!(world.state(&id).restarts, 1, "the new run is well");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_command_that_hangs_fails_and_is_gone() {
    let world = World::new();
    let mut live = exec(ProbeRole::Liveness, "echo $$ >> asked; sleep 1000");
    live.timeout = Some(Duration::from_millis(50));
    live.failure_threshold = 2;
    let mut spec = sleeper(&world, vec![live]);
    spec.shutdown_timeout = Duration::from_millis(300);
    let id = world.up(spec).await;
    let state = world.until_phase(&id, Phase::Failed).await;
    assert_eq!(state.last_exit.unwrap().reason, ExitReason::Hang);
    let asked = std::fs::read_to_string(world.path("asked")).unwrap();
    for pid in asked.lines() {
        let pid = pid.parse().unwrap();
        eventually("its end", || (!is_alive(pid)).then_some(())).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_reports_is_well_and_one_that_falls_silent_is_restarted() {
    let world = World::new();
    std::fs::write(world.path("beat"), "").unwrap();
    let mut spec = fixture::service(&world, "svc", "fixture::notifier", "while the file is there");
    let mut live = probe(ProbeRole::Liveness, ProbeKind::Heartbeat);
    live.timeout = Some(Duration::from_millis(500));
    live.period = Some(Duration::from_millis(500));
    live.failure_threshold = 1;
    spec.probes = vec![live];
    spec.restart_policy = RestartPolicy::Always;
    let id = world.up(spec).await;
    let first = world.until_phase(&id, Phase::Running).await;
    let pid = first.identity.unwrap().pid;
    let well = std::time::Instant::now();
    eventually("four periods", || {
        assert_eq!(world.state(&id).restarts, 0);
        (well.elapsed() > Duration::from_secs(2)).then_some(())
    })
    .await;
    std::fs::remove_file(world.path("beat")).unwrap();
    let state = world.until(&id, |state| state.restarts == 1).await;
    assert_eq!(state.last_exit.unwrap().reason, ExitReason::Hang);
    assert!(!is_alive(pid));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_never_becomes_ready_times_out() {
    let world = World::new();
    let mut spec = sleeper(&world, vec![exec(ProbeRole::Startup, "exit 1")]);
    spec.health_check_timeout = Duration::from_millis(400);
    let id = world.up(spec).await;
    let state = world.until_phase(&id, Phase::Failed).await;
    assert_eq!(state.last_exit.unwrap().reason, ExitReason::StartTimeout);
    world.finish().await;
}
