//! Starting, ending and asking sets to end.

use std::time::Duration;

use supervisor_core::config::{RestartPolicy, ServiceSpec};
use supervisor_core::error::SpawnErrorKind;
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ProcessSpawner, ProcessTable, SpawnRequest};
use supervisor_core::state::Phase;
use supervisor_core::{Incarnation, ProcessIdentity, Signal};
use supervisor_process::{Engine, SystemProcessTable, SystemSpawner};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::role::{process, service};
use super::support::*;

fn spawner(logs: &tempfile::TempDir) -> SystemSpawner {
    let mark = format!("windows-{}-{}", std::process::id(), logs.path().display());
    SystemSpawner::new(mark, Some(logs.path().into()), false).unwrap()
}

#[tokio::test]
async fn an_end_is_told_with_its_code_and_the_set_is_empty_then() {
    let logs = tempfile::tempdir().unwrap();
    let spawner = spawner(&logs);
    assert_eq!(spawner.containment(), ["job_object"]);
    let child = spawn(&spawner, service("svc", "ends with 7", logs.path())).await;
    assert_eq!(child.wait().await, ExitStatus::Code(7));
    eventually("the set is empty", || child.set_is_empty().then_some(())).await;
    assert!(!SystemProcessTable::new().is_alive(&child.identity()));
}

#[tokio::test]
async fn a_kill_ends_the_whole_set_the_leaders_children_included() {
    let logs = tempfile::tempdir().unwrap();
    let (spawner, ready) = (spawner(&logs), logs.path().join("ready"));
    let child = spawn(&spawner, service("svc", "starts another and waits", &ready)).await;
    eventually("the grandchild runs", || ready.exists().then_some(())).await;
    let members = child.members();
    assert!(members.len() >= 2 && members.contains(&child.identity()), "{members:?}");
    let report = child.kill_set(LIMIT).await;
    assert!(report.survivors.is_empty(), "{report:?}");
    assert!(child.set_is_empty() && child.members().is_empty());
    all_gone(&members).await;
    assert_eq!(child.wait().await, ExitStatus::Code(137));
}

#[tokio::test]
async fn what_its_ended_leader_left_behind_still_counts_and_is_killed() {
    let logs = tempfile::tempdir().unwrap();
    let (spawner, ready) = (spawner(&logs), logs.path().join("ready"));
    let child = spawn(&spawner, service("svc", "starts another and waits", &ready)).await;
    eventually("the grandchild runs", || ready.exists().then_some(())).await;
    let leader = [child.identity()];
    SystemProcessTable::new().end(&leader, Duration::ZERO).await.unwrap();
    assert_eq!(child.wait().await, ExitStatus::Code(137));
    let left = child.members();
    assert!(!left.is_empty() && !left.contains(&leader[0]), "{left:?}");
    assert!(!child.set_is_empty());
    assert!(child.kill_set(LIMIT).await.survivors.is_empty());
    all_gone(&left).await;
}

#[tokio::test]
#[ignore = "Wine passes no break events on; run it on Windows with --include-ignored"]
async fn a_stop_is_asked_for_by_a_break_event_that_nobody_else_hears() {
    let logs = tempfile::tempdir().unwrap();
    let (spawner, ready) = (spawner(&logs), logs.path().join("ready"));
    let other_ready = logs.path().join("other");
    let child = spawn(&spawner, service("svc", "ends when asked", &ready)).await;
    let other = spawn(&spawner, service("other", "ends when asked", &other_ready)).await;
    for ready in [&ready, &other_ready] {
        eventually("it listens", || ready.exists().then_some(())).await;
    }
    child.signal_set(Signal::Term).await.unwrap();
    assert_eq!(child.wait().await, ExitStatus::Code(5));
    assert!(child.last_lines(100).iter().any(|line| line.ends_with("asked to end")));
    assert!(SystemProcessTable::new().is_alive(&other.identity()));
    // One that ended is asked again without harm.
    child.signal_set(Signal::Term).await.unwrap();
}

#[tokio::test]
async fn an_engine_restarts_what_ends_and_kills_what_does_not_end_when_it_is_asked_to() {
    let logs = tempfile::tempdir().unwrap();
    let ready = logs.path().join("ready");
    let engine = Engine::builder().log_dir(logs.path()).build().unwrap();
    let mut spec = service("svc", "hears and goes on", &ready);
    spec.restart_policy = RestartPolicy::Always;
    spec.shutdown_timeout = Duration::from_millis(200);
    let id = engine.register(spec, None).await.unwrap();
    engine.start(&id).await.unwrap();
    let first = eventually("it runs", || engine.state(&id).unwrap().identity).await;
    eventually("it listens", || ready.exists().then_some(())).await;
    let table = SystemProcessTable::new();
    table.end(std::slice::from_ref(&first), Duration::ZERO).await.unwrap();
    let another = || engine.state(&id).unwrap().identity.filter(|now| *now != first);
    let second = eventually("it runs again", another).await;
    engine.stop(&id).await.unwrap();
    let stopped = || (engine.state(&id).unwrap().phase == Phase::Stopped).then_some(());
    eventually("it is stopped", stopped).await;
    assert!(!table.is_alive(&second));
    engine.shutdown(LIMIT).await.unwrap();
}

#[tokio::test]
async fn output_and_errors_are_captured_by_stream() {
    let logs = tempfile::tempdir().unwrap();
    let spawner = spawner(&logs);
    let spec = service("svc", "speaks", logs.path());
    let id = spec.service_id().unwrap();
    let child = spawn(&spawner, spec).await;
    assert_eq!(child.wait().await, ExitStatus::Code(0));
    let said = |text: &str| {
        let lines = spawner.logs(&id, 100).unwrap();
        lines.iter().find(|line| line.text.ends_with(text)).map(|line| format!("{:?}", line.stream))
    };
    let output = eventually("output", || said("one line of output")).await;
    let errors = eventually("errors", || said("one line of errors")).await;
    assert_eq!((output.as_str(), errors.as_str()), ("Stdout", "Stderr"));
}

#[tokio::test]
async fn a_dropped_child_takes_its_set_with_it() {
    let logs = tempfile::tempdir().unwrap();
    let (spawner, ready) = (spawner(&logs), logs.path().join("ready"));
    let child = spawn(&spawner, service("svc", "starts another and waits", &ready)).await;
    eventually("the grandchild runs", || ready.exists().then_some(())).await;
    let members = child.members();
    drop(child);
    all_gone(&members).await;
}

#[tokio::test]
async fn whole_sets_are_gone_after_a_host_that_was_killed() {
    let logs = tempfile::tempdir().unwrap();
    let ready = logs.path().join("ready");
    let mut host = process("is a host", &ready).spawn().unwrap();
    let told = eventually("the host is ready", || std::fs::read_to_string(&ready).ok()).await;
    let members = heard(&told);
    assert!(members.len() >= 2, "{told}");
    let table = SystemProcessTable::new();
    assert!(members.iter().all(|member| table.is_alive(member)), "{told}");
    host.kill().unwrap();
    host.wait().unwrap();
    all_gone(&members).await;
}

#[tokio::test]
async fn a_pid_that_is_another_process_by_now_is_not_touched() {
    let logs = tempfile::tempdir().unwrap();
    let (spawner, ready) = (spawner(&logs), logs.path().join("ready"));
    let child = spawn(&spawner, service("svc", "waits", &ready)).await;
    eventually("it runs", || ready.exists().then_some(())).await;
    let (table, now) = (SystemProcessTable::new(), child.identity());
    let earlier = ProcessIdentity { start_time: now.start_time - 1, ..now.clone() };
    let other_boot = ProcessIdentity { boot_id: "another".to_owned(), ..now.clone() };
    for stranger in [earlier, other_boot] {
        assert!(!table.is_alive(&stranger));
        table.end(&[stranger], Duration::ZERO).await.unwrap();
    }
    assert!(table.is_alive(&now));
}

#[tokio::test]
async fn a_batch_file_is_run_and_its_arguments_are_not_commands() {
    let logs = tempfile::tempdir().unwrap();
    let spawner = spawner(&logs);
    let script = logs.path().join("script.cmd");
    std::fs::write(&script, "@exit /b 9\r\n").unwrap();
    let harm = logs.path().join("harm");
    let name = script.with_extension("");
    let mut spec = ServiceSpec::new("svc", name.to_str().unwrap()).unwrap();
    spec.args = vec![format!("&echo x>{}", harm.display())];
    let child = spawn(&spawner, spec).await;
    assert_eq!(child.wait().await, ExitStatus::Code(9));
    assert!(!harm.exists());
}

#[tokio::test]
async fn a_missing_program_and_one_that_is_none_are_told_apart() {
    let logs = tempfile::tempdir().unwrap();
    let spawner = spawner(&logs);
    let text = logs.path().join("text.exe");
    std::fs::write(&text, "no program").unwrap();
    let missing = logs.path().join("missing.exe");
    for (program, kind) in
        [(text, SpawnErrorKind::BadExecutable), (missing, SpawnErrorKind::NotFound)]
    {
        let spec = ServiceSpec::new("svc", program.to_str().unwrap()).unwrap();
        let request = SpawnRequest {
            service: spec.service_id().unwrap(),
            incarnation: Incarnation(1),
            spec: std::sync::Arc::new(spec),
            extra_environment: Vec::new(),
        };
        let error = spawner.spawn(request).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }
}

#[tokio::test]
async fn a_channel_carries_bytes_both_ways() {
    use supervisor_core::config::{ChannelBinding, FramingKind, TransportKind};
    let logs = tempfile::tempdir().unwrap();
    let spawner = spawner(&logs);
    let root = std::env::var("SystemRoot").unwrap();
    let program = format!(r"{root}\System32\find.exe");
    let mut spec = ServiceSpec::new("svc", program).unwrap();
    spec.args = vec!["needle".to_owned()];
    spec.channel = Some(ChannelBinding::new(TransportKind::Stdio, FramingKind::Lsp));
    let child = spawn(&spawner, spec).await;
    let stdio = child.take_stdio().expect("a channel");
    let mut stdin = tokio::process::ChildStdin::from_std(stdio.stdin).unwrap();
    stdin.write_all(b"hay\r\na needle in hay\r\n").await.unwrap();
    stdin.flush().await.unwrap();
    drop(stdin);
    let stdout = tokio::process::ChildStdout::from_std(stdio.stdout).unwrap();
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line.as_deref().map(str::trim), Some("a needle in hay"));
}
