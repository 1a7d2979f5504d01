//! Hosts that are not what a supervisor would wish for.

use std::process::{Command, Stdio};
use std::time::Duration;

use supervisor_core::config::ServiceSpec;
use supervisor_core::exit::ExitStatus;
use supervisor_core::state::Phase;
use supervisor_process::Engine;

use crate::fixture::BEHAVIOUR;
use crate::support::{LIMIT, eventually, nothing_left};

/// Runs a fixture of this file as a process of its own.
fn hosted(fixture: &str, mark: &str, prelude: &str) -> (std::process::Output, tempfile::TempDir) {
    let logs = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("{prelude} exec \"$0\" \"$@\"")])
        .arg(program)
        .args(["--exact", fixture, "--ignored", "--nocapture"])
        .env(BEHAVIOUR, mark)
        .env("TEST_LOGS", logs.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output, logs)
}

fn new_mark() -> String {
    format!("test-{}-{:016x}", std::process::id(), fastrand::u64(..))
}

fn engine(mark: String) -> Engine {
    Engine::builder().mark(mark).log_dir(std::env::var("TEST_LOGS").unwrap()).build().unwrap()
}

/// Runs services that end with these codes and signals, and checks that each is told right.
async fn ends_are_told(engine: &Engine) {
    for (n, (script, wanted)) in [
        // Gone before anybody could ask for it by its number.
        ("exit 0", ExitStatus::Code(0)),
        ("exit 4", ExitStatus::Code(4)),
        ("sleep 0.1; exit 0", ExitStatus::Code(0)),
        ("sleep 0.1; exit 3", ExitStatus::Code(3)),
        ("sleep 0.1; exit 255", ExitStatus::Code(255)),
        ("sleep 0.1; kill -9 $$", ExitStatus::Signal(9)),
        ("sleep 0.1; kill -15 $$", ExitStatus::Signal(15)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut spec = ServiceSpec::new(format!("svc-{n}"), "sh").unwrap();
        spec.args = vec!["-c".to_owned(), script.to_owned()];
        spec.restart_policy = supervisor_core::config::RestartPolicy::Never;
        let id = engine.register(spec, None).await.unwrap();
        engine.start(&id).await.unwrap();
        let mut watched = engine.watch(&id).unwrap();
        let ended = watched.wait_for(|state| matches!(state.phase, Phase::Stopped | Phase::Failed));
        let state = tokio::time::timeout(LIMIT, ended).await.unwrap().unwrap().clone();
        assert_eq!(state.last_exit.unwrap().status, Some(wanted), "{script}");
    }
}

#[test]
#[ignore = "started by another test as a host that ignores SIGCHLD"]
fn deaf() {
    let Ok(mark) = std::env::var(BEHAVIOUR) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = engine(mark);
        ends_are_told(&engine).await;
        engine.shutdown(LIMIT).await.unwrap();
        println!("all told");
    });
}

#[test]
#[ignore = "started by another test as a host with a library that reaps every child"]
fn reaping() {
    let Ok(mark) = std::env::var(BEHAVIOUR) else {
        return;
    };
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let until = std::sync::Arc::clone(&stop);
    let thief = std::thread::spawn(move || {
        while !until.load(std::sync::atomic::Ordering::Relaxed) {
            // Of any child, as a careless library does.
            _ = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
            std::thread::park_timeout(Duration::from_millis(1));
        }
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = engine(mark);
        ends_are_told(&engine).await;
        engine.shutdown(LIMIT).await.unwrap();
        println!("all told");
    });
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    thief.join().unwrap();
}

#[test]
#[ignore = "started by another test as a host that runs out of descriptors"]
fn exhausted() {
    use supervisor_core::config::RestartPolicy;
    let Ok(mark) = std::env::var(BEHAVIOUR) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = engine(mark.clone());
        let shell = |id: &str, script: &str| {
            let mut spec = ServiceSpec::new(id, "sh").unwrap();
            spec.args = vec!["-c".to_owned(), script.to_owned()];
            spec.shutdown_timeout = Duration::from_millis(100);
            spec.restart_policy = RestartPolicy::FixedDelay { delay: Duration::from_millis(20) };
            spec
        };
        let crashes = engine.register(shell("crashes", "exec sleep 1000"), None).await.unwrap();
        let escapes = "setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' & exec sleep 1000";
        let escapes = engine.register(shell("escapes", escapes), None).await.unwrap();
        engine.start(&crashes).await.unwrap();
        engine.start(&escapes).await.unwrap();
        let pid = engine.state(&crashes).unwrap().identity.unwrap().pid;
        let four = || (crate::support::marked(&mark).len() >= 4).then_some(());
        eventually("both services and the escaped one", four).await;
        let mut hoard = hoard();
        // The end is noticed, the start fails for lack of descriptors, and that burns nothing but time.
        _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
            rustix::process::Signal::KILL,
        );
        let mut watched = engine.watch(&crashes).unwrap();
        let starved = watched.wait_for(|state| state.reason.contains("descriptors"));
        let state = tokio::time::timeout(LIMIT, starved).await.unwrap().unwrap().clone();
        assert_eq!((state.phase, state.attempt), (Phase::Backoff, 1), "{}", state.reason);
        // A stop ends the whole set all the same.
        tokio::time::timeout(LIMIT, engine.stop(&escapes)).await.unwrap().unwrap();
        assert_eq!(engine.state(&escapes).unwrap().phase, Phase::Stopped);
        // Descriptors come back, and so does the service, with nobody's help.
        hoard.clear();
        let mut watched = engine.watch(&crashes).unwrap();
        let back = watched.wait_for(|state| state.phase == Phase::Running);
        let state = tokio::time::timeout(LIMIT, back).await.unwrap().unwrap().clone();
        assert_eq!(state.attempt, 1);
        let left = crate::support::marked(&mark);
        assert_eq!(left, [state.identity.unwrap().pid], "nothing of the stopped set is left");
        engine.shutdown(LIMIT).await.unwrap();
        println!("recovered");
    });
}

/// Opens files until there are no more descriptors, under a limit that makes that quick.
fn hoard() -> Vec<std::fs::File> {
    use rustix::process::{Resource, Rlimit};
    let now = rustix::process::getrlimit(Resource::Nofile);
    let low = Rlimit { current: Some(200), maximum: now.maximum };
    rustix::process::setrlimit(Resource::Nofile, low).unwrap();
    std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_out_of_descriptors_reaps_stops_and_answers_and_recovers_unaided() {
    let mark = new_mark();
    let (output, logs) = hosted("host::exhausted", &mark, "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("recovered"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    nothing_left(&mark).await;
    drop(logs);
}

#[test]
#[ignore = "started by another test as a host with a raised limit"]
fn raised() {
    let Ok(mark) = std::env::var(BEHAVIOUR) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        assert_eq!(supervisor_process::raise_open_files().unwrap(), 3000);
        let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!((own.current, own.maximum), (Some(3000), Some(3000)));
        let engine = engine(mark);
        let mut spec = ServiceSpec::new("svc", "sh").unwrap();
        let script = "echo $(ulimit -n) $(ulimit -Hn); exec sleep 1000";
        spec.args = vec!["-c".to_owned(), script.to_owned()];
        let id = engine.register(spec, None).await.unwrap();
        engine.start(&id).await.unwrap();
        let deadline = std::time::Instant::now() + LIMIT;
        while engine.logs(&id, 1).await.unwrap().first().is_none_or(|line| line.text != "1000 3000")
        {
            assert!(std::time::Instant::now() < deadline, "{:?}", engine.logs(&id, 9).await);
        }
        engine.shutdown(LIMIT).await.unwrap();
        println!("raised for us alone");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_limit_of_descriptors_is_not_inherited_by_services() {
    let mark = new_mark();
    let (output, logs) = hosted("host::raised", &mark, "ulimit -Sn 1000; ulimit -Hn 3000;");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("raised for us alone"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    nothing_left(&mark).await;
    drop(logs);
}

#[test]
#[ignore = "started by another test as a host that ignores signals and leaves descriptors open"]
fn careless() {
    let Ok(mark) = std::env::var(BEHAVIOUR) else {
        return;
    };
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignores = |line: &str| line.starts_with("SigIgn:") && !line.ends_with("0000000000000000");
    assert!(own.lines().any(ignores) && std::fs::exists("/proc/self/fd/9").unwrap(), "{own}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = engine(mark);
        let mut spec = ServiceSpec::new("svc", "sh").unwrap();
        // `ls` has the directory itself open as the fourth.
        let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd; echo done; exec sleep 1000";
        spec.args = vec!["-c".to_owned(), script.to_owned()];
        let id = engine.register(spec, None).await.unwrap();
        engine.start(&id).await.unwrap();
        let deadline = std::time::Instant::now() + LIMIT;
        let said = loop {
            let lines = engine.logs(&id, 99).await.unwrap();
            if lines.last().is_some_and(|line| line.text == "done") {
                break lines.into_iter().map(|line| line.text).collect::<Vec<_>>();
            }
            assert!(std::time::Instant::now() < deadline, "{lines:?}");
        };
        let (blocked, ignored) = ("SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000");
        assert_eq!(said, [blocked, ignored, "0", "1", "2", "3", "done"]);
        engine.shutdown(LIMIT).await.unwrap();
        println!("clean");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_the_host_ignores_and_descriptors_it_left_open_do_not_reach_a_service() {
    let mark = new_mark();
    let prelude = "trap '' HUP INT QUIT PIPE USR1 USR2 TERM TSTP; exec 7</dev/null 9</dev/null;";
    let (output, logs) = hosted("host::careless", &mark, prelude);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("clean"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    nothing_left(&mark).await;
    drop(logs);
}

/// Whether the kernel tells how a process ended that somebody else reaped (Linux 6.15).
fn kernel_tells() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).flat_map(str::parse::<u32>);
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_are_told_right_in_a_host_that_ignores_its_childrens_ends_or_steals_them() {
    if !kernel_tells() {
        println!("left out: it takes Linux 6.15 to know the end of a process somebody else reaped");
        return;
    }
    for (fixture, prelude) in [("host::deaf", "trap '' CHLD;"), ("host::reaping", "")] {
        let mark = new_mark();
        let (output, logs) = hosted(fixture, &mark, prelude);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && said.contains("all told"),
            "{fixture}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        nothing_left(&mark).await;
        drop(logs);
    }
}

#[test]
#[ignore = "started by another test as a host that runs for a while"]
fn steady() {
    let Ok(mark) = std::env::var(BEHAVIOUR) else {
        return;
    };
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let counted = || (count("fd"), count("task"));
    runtime.block_on(async {
        let engine = engine(mark);
        let mut after_each = Vec::new();
        for _ in 0..3 {
            everything(&engine).await;
            after_each.push(counted());
        }
        // The first rounds make what is kept; from then on nothing is added, but for what is just being closed.
        let warm = after_each[2];
        for _ in 0..3 {
            everything(&engine).await;
            eventually("no more descriptors and threads than before", || {
                let now = counted();
                (now.0 <= warm.0 && now.1 <= warm.1 + 1).then_some(())
            })
            .await;
        }
        engine.shutdown(LIMIT).await.unwrap();
    });
    drop(runtime);
    println!("steady");
}

/// Starts, kills, restarts, probes, stops and removes services that fail, escape and refuse.
async fn everything(engine: &Engine) {
    use supervisor_core::config::{ProbeKind, ProbeRole, ProbeSpec};
    let scripts = [
        "exec sleep 1000",
        "setsid sleep 1000 & exec sleep 1000",
        "echo words; exit 3",
        "trap '' TERM; while :; do sleep 0.02; done",
    ];
    for (n, script) in scripts.iter().enumerate() {
        let mut spec = ServiceSpec::new(format!("svc-{n}"), "sh").unwrap();
        spec.args = vec!["-c".to_owned(), (*script).to_owned()];
        spec.shutdown_timeout = Duration::from_millis(50);
        let mut probe = ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Exec);
        probe.command = vec!["true".to_owned()];
        probe.period = Some(Duration::from_millis(20));
        let tcp = ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Tcp).with_target("127.0.0.1:1");
        spec.probes = vec![probe, ProbeSpec { period: Some(Duration::from_millis(20)), ..tcp }];
        let id = engine.register(spec, None).await.unwrap();
        engine.start(&id).await.unwrap();
        drop(engine.restart(&id).await);
        _ = engine.usage(&id).await;
        engine.logs(&id, 10).await.unwrap();
        engine.remove(&id).await.unwrap();
    }
    let id = engine
        .register(ServiceSpec::new("none", "/nonexistent/program").unwrap(), None)
        .await
        .unwrap();
    engine.start(&id).await.unwrap_err();
    engine.remove(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_services_that_come_and_go_no_descriptor_no_thread_no_process() {
    let mark = new_mark();
    let (output, logs) = hosted("host::steady", &mark, "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("steady"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    nothing_left(&mark).await;
    drop(logs);
}
