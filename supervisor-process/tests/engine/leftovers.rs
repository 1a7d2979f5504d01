//! What a supervisor that was killed leaves behind, and who is left alone.

use std::process::{Command, Stdio};
use std::time::Duration;

use supervisor_core::ProcessIdentity;
use supervisor_core::config::ServiceSpec;
use supervisor_core::ports::{ProcessSpawner, ProcessTable, SpawnRequest};
use supervisor_process::{Engine, SystemProcessTable, SystemSpawner};

use crate::fixture::BEHAVIOUR;
use crate::support::{eventually, is_alive, marked, nothing_left};

#[test]
#[ignore = "started by another test as a supervisor that is killed"]
fn host() {
    let Ok(mark) = std::env::var(BEHAVIOUR) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = Engine::builder().mark(mark).log_dir(std::env::var("TEST_LOGS").unwrap()).build().unwrap();
        for id in ["a", "b"] {
            let mut spec = ServiceSpec::new(id, "sh").unwrap();
            let script = "trap '' HUP PIPE; setsid sh -c 'trap \"\" TERM HUP; sleep 1000; sleep 1000' & sleep 1000";
            spec.args = vec!["-c".to_owned(), script.to_owned()];
            let id = engine.register(spec, None).await.unwrap();
            engine.start(&id).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_a_killed_supervisor_started_is_found_and_ended_and_no_stranger() {
    let mark = format!("test-{}-{:016x}", std::process::id(), fastrand::u64(..));
    let logs = tempfile::tempdir().unwrap();
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leftovers::host", "--ignored", "--nocapture"])
        .env(BEHAVIOUR, &mark)
        .env("TEST_LOGS", logs.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // A stranger that looks the same but carries another mark.
    let mut stranger = Command::new("sleep")
        .arg("1000")
        .env(supervisor_process::MARK_VARIABLE, format!("{mark}x"))
        .env(supervisor_process::SERVICE_VARIABLE, "a")
        .env(supervisor_process::INCARNATION_VARIABLE, "1")
        .spawn()
        .unwrap();
    // Two leaders, their sleeps, two sessions, their sleeps.
    eventually("eight processes", || (marked(&mark).len() >= 8).then_some(())).await;
    host.kill().unwrap();
    host.wait().unwrap();
    let table = SystemProcessTable::new();
    let found = table.marked(&mark);
    assert!(found.len() >= 6, "{found:?}");
    assert!(found.iter().all(|process| table.is_alive(&process.identity)));
    let identities: Vec<_> = found.into_iter().map(|process| process.identity).collect();
    let report = table.end(&identities, Duration::from_millis(200)).await.unwrap();
    assert_eq!(report.survivors, []);
    assert!(table.marked(&mark).is_empty());
    assert!(is_alive(stranger.id()));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    nothing_left(&mark).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pid_that_is_somebody_elses_by_now_is_not_touched() {
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let table = SystemProcessTable::new();
    let mut identity = ProcessIdentity {
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap()
            .trim()
            .to_owned(),
        pid: stranger.id(),
        start_time: 1,
    };
    for boot in [identity.boot_id.clone(), "another boot".to_owned(), String::new()] {
        identity.boot_id = boot;
        assert!(!table.is_alive(&identity));
        table.end(std::slice::from_ref(&identity), Duration::ZERO).await.unwrap();
        assert!(is_alive(stranger.id()));
    }
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shows_no_marks_is_found_by_its_leader_as_long_as_that_is_the_same_process() {
    let mark = format!("test-{}-{:016x}", std::process::id(), fastrand::u64(..));
    let logs = tempfile::tempdir().unwrap();
    let spawner = SystemSpawner::new(mark.as_str(), Some(logs.path().into()), false).unwrap();
    let mut spec = ServiceSpec::new("hides", "sh").unwrap();
    spec.args = vec!["-c".into(), "env -i /bin/sleep 600 & exec env -i /bin/sleep 600".into()];
    let request = SpawnRequest {
        service: spec.service_id().unwrap(),
        incarnation: supervisor_core::Incarnation(1),
        spec: spec.into(),
        extra_environment: Vec::new(),
    };
    let child = spawner.spawn(request).await.unwrap();
    let table = SystemProcessTable::new();
    let leader = child.identity();
    let led = eventually("two without marks", || {
        let led = table.led_by(std::slice::from_ref(&leader));
        (led.len() == 2 && marked(&mark).is_empty()).then_some(led)
    })
    .await;
    assert!(led.contains(&leader), "{led:?}");
    let other_time = ProcessIdentity { start_time: leader.start_time + 1, ..leader.clone() };
    let other_boot = ProcessIdentity { boot_id: "another boot".to_owned(), ..leader.clone() };
    assert_eq!(table.led_by(&[other_time, other_boot]), []);
    assert_eq!(child.kill_set(Duration::from_secs(30)).await.survivors, []);
    assert_eq!(table.led_by(&[leader]), []);
}
