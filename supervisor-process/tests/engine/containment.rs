//! What leaves its place in the set, what cannot be killed, and what is not ours.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::Incarnation;
use supervisor_core::config::{RestartPolicy, ServiceSpec};
use supervisor_core::error::{ProcessError, SupervisorError};
use supervisor_core::event::EventKind;
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ProcessSpawner, SpawnRequest};
use supervisor_core::state::{Desired, Phase};
use supervisor_process::SystemSpawner;

use crate::support::{World, eventually, is_alive, signal};

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_outlives_its_leader_is_ended_before_the_next_run_and_never_runs_twice() {
    let world = World::new();
    // Forks twice and leaves with success, as daemons of old do.
    let script = "(setsid sh -c 'mkdir alone || echo twice >> twice
            trap \"rmdir alone\" EXIT; echo $$ >> deep; sleep 1000; sleep 1000' &)
        until test \"$(wc -l < deep)\" -ge $IDE_SUPERVISOR_INCARNATION; do sleep 0.01; done; rmdir alone; exit 0";
    std::fs::write(world.path("deep"), "").unwrap();
    let mut spec = world.sh("svc", script);
    spec.restart_policy = RestartPolicy::FixedDelay { delay: Duration::from_millis(10) };
    let id = world.up(spec).await;
    world.until(&id, |state| state.restarts >= 4).await;
    let deep: Vec<u32> =
        std::fs::read_to_string(world.path("deep")).unwrap().lines().flat_map(str::parse).collect();
    for pid in &deep[..4] {
        assert!(!is_alive(*pid), "one of an earlier run is alive: {deep:?}");
    }
    world.engine.stop(&id).await.unwrap();
    for pid in deep {
        assert!(!is_alive(pid));
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_group_session_and_environment_is_ended_as_long_as_its_parent_lives() {
    let world = World::new();
    // It ignores the signal, so only a kill of its own ends it; the one that only has no marks obeys.
    let script = "env -i setsid sh -c 'trap \"\" TERM; echo $$ > deaf; while :; do sleep 1; done' &
        env -i setsid sh -c 'echo $$ > obeys; while :; do sleep 1; done' &
        trap '' TERM; wait; wait";
    let mut spec = world.sh("svc", script);
    spec.shutdown_timeout = Duration::from_millis(300);
    let id = world.up(spec).await;
    let (deaf, obeys) = (world.pid_in("deaf").await, world.pid_in("obeys").await);
    let others = world.up(world.sh("others", "sleep 1000")).await;
    world.engine.stop(&others).await.unwrap();
    assert!(is_alive(deaf) && is_alive(obeys), "another service's stop is none of theirs");
    world.engine.stop(&id).await.unwrap();
    eventually("both ended", || (!is_alive(deaf) && !is_alive(obeys)).then_some(())).await;
    world.finish().await;
}

/// A frozen control group: what is in it survives SIGKILL until it is thawed.
struct Freezer(std::path::PathBuf);

impl Freezer {
    fn new() -> Option<Self> {
        let path = format!("/sys/fs/cgroup/freezer/test-{:016x}", fastrand::u64(..));
        std::fs::create_dir(&path).ok()?;
        Some(Self(path.into()))
    }

    fn freeze(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
        std::fs::write(self.0.join("freezer.state"), "FROZEN").unwrap();
    }

    fn thaw(&self) {
        drop(std::fs::write(self.0.join("freezer.state"), "THAWED"));
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        drop(std::fs::remove_dir(&self.0));
    }
}

/// Takes fifteen seconds: five until survivors are reported, ten until the next try.
#[tokio::test(flavor = "multi_thread")]
async fn what_survives_a_kill_is_named_nothing_takes_its_place_and_it_is_ended_when_that_is_possible()
 {
    let Some(freezer) = Freezer::new() else {
        println!(
            "left out: it takes a control group that can be frozen to make a process unkillable"
        );
        return;
    };
    let world = World::new();
    let mut spec = world.sh("svc", "exec sleep 1000");
    spec.restart_policy = RestartPolicy::Always;
    spec.shutdown_timeout = Duration::ZERO;
    let id = world.up(spec).await;
    let pid = world.until_phase(&id, Phase::Running).await.identity.unwrap().pid;
    freezer.freeze(pid);
    let began = std::time::Instant::now();
    let error = world.engine.stop(&id).await.unwrap_err();
    let SupervisorError::Process(ProcessError::Unkillable { survivors, .. }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(survivors, &[format!("{pid} D")]);
    assert!(began.elapsed() < Duration::from_secs(25), "the host stays responsive");
    let state = world.state(&id);
    assert_eq!((state.phase, state.desired), (Phase::Failed, Desired::Down));
    assert!(state.reason.contains(&format!("{pid} D")), "{}", state.reason);
    world.until_event(|event| matches!(event, EventKind::ServiceUnkillable { .. })).await;
    // Others are served meanwhile, and nobody is started beside it.
    world.up(world.sh("other", "exec sleep 1000")).await;
    world.engine.start(&id).await.unwrap_err();
    assert_eq!(world.state(&id).incarnation, Incarnation(1));
    freezer.thaw();
    world.until_phase(&id, Phase::Stopped).await;
    assert!(!is_alive(pid));
    world.finish().await;
}

#[test]
fn a_service_does_not_notice_that_the_thread_that_started_it_is_gone() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let mark = format!("test-{}-{:016x}", std::process::id(), fastrand::u64(..));
    let guard = runtime.enter();
    let spawner = Arc::new(SystemSpawner::new(mark, Some(logs.path().into()), false).unwrap());
    drop(guard);
    let spec =
        ServiceSpec { args: vec!["1000".into()], ..ServiceSpec::new("svc", "sleep").unwrap() };
    let request = SpawnRequest {
        service: spec.service_id().unwrap(),
        incarnation: Incarnation(1),
        spec: Arc::new(spec),
        extra_environment: Vec::new(),
    };
    let handle = runtime.handle().clone();
    let starting = Arc::clone(&spawner);
    let child = std::thread::spawn(move || handle.block_on(starting.spawn(request)).unwrap());
    let child = child.join().unwrap();
    let pid = child.identity().pid;
    runtime.block_on(async {
        // Longer than any signal takes: a parent-death signal would have come at once.
        let ended = tokio::time::timeout(Duration::from_millis(300), child.wait()).await;
        assert!(ended.is_err(), "{ended:?}");
        assert!(is_alive(pid));
        signal(pid, "TERM");
        assert_eq!(child.wait().await, ExitStatus::Signal(15));
        drop(child);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_own_children_are_neither_signalled_nor_reaped() {
    let world = World::new();
    let own = |script: &str| {
        Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap()
    };
    let mut lasting = own("exec sleep 1000");
    // A zombie until its owner asks for it.
    let mut ended = own("exit 7");
    let mut spec = world.sh("svc", "sleep 1000 & exec sleep 1000");
    spec.restart_policy = RestartPolicy::Always;
    let id = world.up(spec).await;
    for restarts in 1..=3 {
        let up = |state: &supervisor_core::state::ServiceState| {
            state.restarts == restarts - 1 && state.phase == Phase::Running
        };
        signal(world.until(&id, up).await.identity.unwrap().pid, "KILL");
    }
    world.until(&id, |state| state.restarts == 3).await;
    eventually("its end", || (!is_alive(ended.id())).then_some(())).await;
    world.engine.stop(&id).await.unwrap();
    assert!(is_alive(lasting.id()));
    assert_eq!(ended.wait().unwrap().code(), Some(7));
    lasting.kill().unwrap();
    lasting.wait().unwrap();
    world.finish().await;
}
