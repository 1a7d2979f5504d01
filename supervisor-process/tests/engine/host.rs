//! Hosts that are not what a supervisor would wish for.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::ServiceId;
use supervisor_core::config::{RestartPolicy, ServiceSpec};
use supervisor_core::error::{Classified, SpawnError, SpawnErrorKind};
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ChildHandle, ProcessSpawner, SpawnRequest};
use supervisor_core::state::{Phase, ServiceState};
use supervisor_process::{Engine, SystemSpawner};

use crate::fixture::BEHAVIOUR;
use crate::support::{LIMIT, World, eventually, nothing_left};

/// Runs a fixture of this file as a process of its own, after what `prelude` does in its shell, and checks that it said
/// the word by which it is over, and that nothing is left of it.
pub(crate) async fn hosted(fixture: &str, prelude: &str, over: &str) {
    let mark = format!("test-{}-{:016x}", std::process::id(), fastrand::u64(..));
    let logs = tempfile::tempdir().unwrap();
    // Some hosts are another user.
    std::fs::set_permissions(logs.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("{prelude} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", fixture, "--ignored", "--nocapture"])
        .env(BEHAVIOUR, &mark)
        .env("TEST_LOGS", logs.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(over), "{fixture}: {said}{complained}");
    nothing_left(&mark).await;
}

/// Runs what a fixture does, if it was started as one, and tells whether it was.
pub(crate) fn as_host<F: Future<Output = ()>>(act: impl FnOnce(String) -> F) -> bool {
    let Ok(mark) = std::env::var(BEHAVIOUR) else { return false };
    tokio::runtime::Runtime::new().unwrap().block_on(act(mark));
    true
}

pub(crate) fn engine(mark: String) -> Engine {
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
        spec.restart_policy = RestartPolicy::Never;
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
    let ran = as_host(async |mark| {
        let engine = engine(mark);
        ends_are_told(&engine).await;
        engine.shutdown(LIMIT).await.unwrap();
    });
    if ran {
        println!("all told");
    }
}

#[test]
#[ignore = "started by another test as a host with a library that reaps every child"]
fn reaping() {
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let until = Arc::clone(&stop);
    let thief = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            // Of any child, as a careless library does.
            _ = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
            std::thread::park_timeout(Duration::from_millis(1));
        }
    });
    let ran = as_host(async |mark| {
        let engine = engine(mark);
        ends_are_told(&engine).await;
        engine.shutdown(LIMIT).await.unwrap();
    });
    if ran {
        println!("all told");
    }
    stop.store(true, Ordering::Relaxed);
    thief.join().unwrap();
}

#[test]
#[ignore = "started by another test as a host that runs out of descriptors"]
fn exhausted() {
    let ran = as_host(async |mark| {
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
        let late = engine.register(shell("late", "exec sleep 1000"), None).await.unwrap();
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
        // A first start fails in the same way, is no restart, and is tried again.
        let error = engine.start(&late).await.unwrap_err();
        assert!(error.class().retryable(), "{error:?}");
        let state = engine.state(&late).unwrap();
        assert_eq!((state.phase, state.attempt, state.restarts), (Phase::Backoff, 0, 0));
        // A stop ends the whole set all the same.
        tokio::time::timeout(LIMIT, engine.stop(&escapes)).await.unwrap().unwrap();
        assert_eq!(engine.state(&escapes).unwrap().phase, Phase::Stopped);
        // Descriptors come back, and so does the service, with nobody's help.
        hoard.clear();
        let state = until_running(&engine, &crashes).await;
        assert_eq!((state.attempt, state.restarts), (1, 1), "the kill was one restart");
        let first = until_running(&engine, &late).await;
        assert_eq!((first.attempt, first.restarts), (0, 0));
        let mut runs = [state, first].map(|state| state.identity.unwrap().pid);
        runs.sort_unstable();
        // A shell that becomes its command shows no environment for a moment.
        let only_runs = || {
            let mut left = crate::support::marked(&mark);
            left.sort_unstable();
            (left == runs).then_some(())
        };
        eventually("nothing but the two runs", only_runs).await;
        engine.shutdown(LIMIT).await.unwrap();
    });
    if ran {
        println!("recovered");
    }
}

async fn until_running(engine: &Engine, id: &ServiceId) -> ServiceState {
    let mut watched = engine.watch(id).unwrap();
    let running = watched.wait_for(|state| state.phase == Phase::Running);
    tokio::time::timeout(LIMIT, running).await.unwrap().unwrap().clone()
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
    hosted("host::exhausted", "", "recovered").await;
}

/// How many processes the other user of the test may have.
const PROCESSES: usize = 40;

#[test]
#[ignore = "started by another test as a host whose user has no process left"]
fn crowded() {
    let ran = as_host(async |mark| {
        let engine = engine(mark);
        let mut spec = ServiceSpec::new("svc", "sleep").unwrap();
        spec.args = vec!["1000".to_owned()];
        let id = engine.register(spec, None).await.unwrap();
        let mut crowd = Vec::new();
        while crowd.len() < PROCESSES {
            match Command::new("sleep").arg("1000").spawn() {
                Ok(child) => crowd.push(child),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "EAGAIN: {error}");
                    break;
                }
            }
        }
        assert!(crowd.len() < PROCESSES, "the limit holds");
        let error = engine.start(&id).await.unwrap_err();
        assert!(error.class().retryable(), "{error:?}");
        let state = engine.state(&id).unwrap();
        assert_eq!((state.phase, state.attempt, state.restarts), (Phase::Backoff, 0, 0));
        assert!(state.reason.contains("process"), "{}", state.reason);
        for child in &mut crowd {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let state = until_running(&engine, &id).await;
        assert_eq!((state.attempt, state.restarts), (0, 0), "{}", state.reason);
        engine.shutdown(LIMIT).await.unwrap();
    });
    if ran {
        println!("there is room again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_a_process_slot_is_tried_again_and_burns_nothing() {
    // Nobody else uses it, so the limit counts what this test starts.
    let uid = 3_000_000_000_u32 + std::process::id();
    let become_it = format!("--reuid={uid} --regid={uid} --clear-groups");
    let program = std::env::current_exe().unwrap();
    let limited = format!("prlimit --nproc={PROCESSES} setpriv {become_it}");
    let mut may = Command::new("sh");
    may.args(["-c", &format!("{limited} test -x \"$0\"")]).arg(program);
    if !may.status().is_ok_and(|status| status.success()) {
        println!(
            "left out: it takes root, setpriv, prlimit, and a test program others may execute"
        );
        return;
    }
    let prelude = format!("exec {limited} \"$0\" \"$@\";");
    hosted("host::crowded", &prelude, "there is room again").await;
}

/// A spawner that has no memory for so many starts, as the system says it.
#[derive(Debug)]
struct Starved(SystemSpawner, AtomicU32);

#[async_trait]
impl ProcessSpawner for Starved {
    async fn spawn(&self, request: SpawnRequest) -> Result<Box<dyn ChildHandle>, SpawnError> {
        let left = self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if left.is_err() {
            return self.0.spawn(request).await;
        }
        let source = std::io::Error::from_raw_os_error(libc::ENOMEM);
        Err(SpawnError {
            kind: SpawnErrorKind::ResourceExhausted,
            program: request.spec.command.clone(),
            reason: "no memory for it".to_owned(),
            source: Some(source),
        })
    }

    fn containment(&self) -> Vec<String> {
        self.0.containment()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_memory_is_tried_again_and_burns_nothing_and_a_crash_after_it_counts() {
    let world = World::with(|builder| {
        let mark = format!("test-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let logs = std::env::temp_dir().join(&mark);
        let system = SystemSpawner::new(mark, Some(logs), false).unwrap();
        builder.spawner(Arc::new(Starved(system, AtomicU32::new(3))))
    });
    let mut spec = world.sh("svc", "exec sleep 1000");
    spec.restart_policy = RestartPolicy::FixedDelay { delay: Duration::from_millis(1) };
    let id = world.register(spec).await;
    let error = world.engine.start(&id).await.unwrap_err();
    assert!(error.class().retryable(), "{error:?}");
    let state = world.until_phase(&id, Phase::Backoff).await;
    assert!(state.reason.contains("no memory for it"), "{}", state.reason);
    assert!(state.next_restart_at.is_some());
    let state = world.until_phase(&id, Phase::Running).await;
    assert_eq!((state.incarnation.get(), state.attempt, state.restarts), (4, 0, 0));
    crate::support::signal(state.identity.unwrap().pid, "KILL");
    let state = world.until(&id, |it| it.restarts == 1 && it.phase == Phase::Running).await;
    assert_eq!(state.attempt, 1);
    world.finish().await;
}

#[test]
#[ignore = "started by another test as a host with a raised limit"]
fn raised() {
    let ran = as_host(async |mark| {
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
    });
    if ran {
        println!("raised for us alone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_limit_of_descriptors_is_not_inherited_by_services() {
    hosted("host::raised", "ulimit -Sn 1000; ulimit -Hn 3000;", "raised for us alone").await;
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
    let prelude = "trap '' HUP INT QUIT PIPE USR1 USR2 TERM TSTP; exec 7</dev/null 9</dev/null;";
    hosted("host::careless", prelude, "clean").await;
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
    hosted("host::deaf", "trap '' CHLD;", "all told").await;
    hosted("host::reaping", "", "all told").await;
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
    hosted("host::steady", "", "steady").await;
}
