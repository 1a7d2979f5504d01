//! Core's contract suite on real processes.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor_core::config::{ProbeKind, ProbeRole, ProbeSpec, ServiceSpec};
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{MarkedProcess, ProbeRequest, ProcessSpawner, SpawnRequest};
use supervisor_core::testing::{probe_contract, process_contract, table_contract, time_contract};
use supervisor_core::{Incarnation, ProcessIdentity};
use supervisor_process::{
    SystemClock, SystemEntropy, SystemProbes, SystemProcessTable, SystemSpawner,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[tokio::test]
async fn the_systems_spawner_keeps_every_promise_of_a_spawner() {
    let logs = tempfile::tempdir().unwrap();
    let mark = format!("contract-{}", std::process::id());
    let spawner = SystemSpawner::new(mark, Some(logs.path().into()), false).unwrap();
    let lasting =
        ServiceSpec { args: vec!["600".into()], ..ServiceSpec::new("svc", "sleep").unwrap() };
    let missing = ServiceSpec::new("svc", "no-such-program-anywhere").unwrap();
    process_contract::spawner(&spawner, lasting, missing).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn niceness_and_oom_score_are_set_when_a_start_returns() {
    let mark = format!("contract-rank-{}", std::process::id());
    let spawner = SystemSpawner::new(mark, None, false).unwrap();
    // A program with a thread of its own by then would be ranked with it; `sleep` has none, and is what it is asked to be.
    let mut spec = ServiceSpec::new("svc", "sleep").unwrap();
    spec.args = vec!["600".into()];
    (spec.limits.nice, spec.limits.oom_score_adj) = (Some(15), Some(900));
    let request = SpawnRequest {
        service: spec.service_id().unwrap(),
        incarnation: Incarnation(1),
        spec: Arc::new(spec),
        extra_environment: Vec::new(),
    };
    let child = spawner.spawn(request).await.unwrap();
    let pid = child.identity().pid;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let nice = stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap();
    assert_eq!(nice, "15", "{stat}");
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "900");
    child.kill_set(Duration::from_secs(10)).await;
}

#[test]
#[ignore = "started by another test as a service"]
fn a_service_that_lasts() {
    while std::env::var_os(supervisor_process::MARK_VARIABLE).is_some() {
        std::thread::park();
    }
}

#[tokio::test]
async fn the_systems_table_keeps_every_promise_of_a_process_table() {
    let mark = format!("contract-table-{}", std::process::id());
    let spawner = SystemSpawner::new(mark.clone(), None, false).unwrap();
    // Not the system's own `sleep`, whose environment macOS shows to nobody.
    let program = std::env::current_exe().unwrap();
    let mut spec = ServiceSpec::new("svc", program.to_str().unwrap()).unwrap();
    spec.args = ["--exact", "a_service_that_lasts", "--ignored"].map(str::to_owned).into();
    let (service, incarnation) = (spec.service_id().unwrap(), Incarnation(4));
    let request = SpawnRequest {
        service: service.clone(),
        incarnation,
        spec: Arc::new(spec),
        extra_environment: Vec::new(),
    };
    let child = spawner.spawn(request).await.unwrap();
    let process = MarkedProcess { identity: child.identity(), service, incarnation };
    table_contract::table(&SystemProcessTable::new(), &mark, &process).await;
    assert_eq!(child.wait().await, ExitStatus::Signal(15), "it was asked before it was killed");
}

fn probe(kind: ProbeKind) -> ProbeSpec {
    ProbeSpec::new(ProbeRole::Readiness, kind)
}

fn asking(probe: ProbeSpec) -> ProbeRequest {
    let spec = ServiceSpec::new("svc", "sleep").unwrap();
    ProbeRequest {
        service: spec.service_id().unwrap(),
        incarnation: Incarnation(1),
        identity: ProcessIdentity { pid: 1, start_time: 0, boot_id: String::new() },
        spec: Arc::new(spec),
        probe,
        timeout: Duration::from_millis(300),
    }
}

#[tokio::test]
async fn http_probes_keep_every_promise_of_a_probe() {
    let (good, mute) = (
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let url = |of: &TcpListener| format!("http://{}/health", of.local_addr().unwrap());
    let of = |target: String| asking(ProbeSpec { target: Some(target), ..probe(ProbeKind::Http) });
    let (passes, hangs) = (of(url(&good)), of(url(&mute)));
    let refused = {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        of(url(&gone))
    };
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = good.accept().await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            // The probe may have seen enough already.
            drop(stream.write_all(answer).await);
        }
    });
    let began = Instant::now();
    let elapsed = || began.elapsed();
    probe_contract::probes(&SystemProbes::new(), passes, refused, hangs, elapsed).await;
    server.abort();
}

#[tokio::test]
async fn exec_probes_keep_every_promise_of_a_probe() {
    let of = |command: &[&str]| {
        let words = command.iter().map(|&word| word.to_owned()).collect();
        asking(ProbeSpec { command: words, ..probe(ProbeKind::Exec) })
    };
    let began = Instant::now();
    let probes = SystemProbes::new();
    let (passes, fails) = (of(&["true"]), of(&["sh", "-c", "echo no; exit 3"]));
    let hangs = of(&["sleep", "613"]);
    probe_contract::probes(&probes, passes, fails, hangs, || began.elapsed()).await;
}

#[test]
fn the_systems_clock_and_randomness_keep_their_promises() {
    time_contract::clock(&SystemClock::new(), || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
    });
    time_contract::entropy(&SystemEntropy, &SystemEntropy, false);
}
