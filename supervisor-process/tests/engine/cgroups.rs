//! Runs in cgroups of their own, where this machine lets us make some.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::config::RestartPolicy;
use supervisor_core::error::SpawnError;
use supervisor_core::exit::{ExitReason, ExitStatus};
use supervisor_core::ports::{ChildHandle, ChildStdio, KillReport, ProcessSpawner, SpawnRequest};
use supervisor_core::state::Phase;
use supervisor_core::{Incarnation, ProcessIdentity, ServiceId, Signal};
use supervisor_process::guardian::{GuardianNews, GuardianProgram, GuardianSpawner};
use supervisor_process::{Cgroups, SystemSpawner};

use crate::support::{World, eventually, is_alive, own_dir, signal};

/// A delegated cgroup v2 and its directory, or why there is none.
fn delegated() -> Result<(Cgroups, PathBuf), String> {
    let mark = format!("test-{}-{:016x}", std::process::id(), fastrand::u64(..));
    let cgroups = Cgroups::find(&mark).map_err(|error| error.to_string())?;
    let base = cgroups.directory().to_owned();
    Ok((cgroups, base))
}

fn groups(base: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.path().is_dir());
    directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Leaves its group, its session, its parents and its environment, once it has been put into its cgroup.
const VANISHES: &str = "until grep -q ide-supervisor /proc/$$/cgroup; do sleep 0.01; done
    (env -i setsid sh -c '(trap \"\" TERM; echo $$ > gone; sleep 1000; sleep 1000) &' &); exec sleep 1000";

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_group_session_parents_and_environment_is_killed_with_its_cgroup() {
    let (cgroups, base) = match delegated() {
        Ok(found) => found,
        Err(error) => {
            println!("left out: it takes a delegated cgroup v2: {error}");
            return;
        }
    };
    let world = World::with(|builder| builder.cgroups(cgroups));
    assert_eq!(world.engine.containment()[0], "cgroup_v2");
    let mut spec = world.sh("svc", VANISHES);
    spec.shutdown_timeout = Duration::from_millis(200);
    spec.restart_policy = RestartPolicy::Always;
    let id = world.up(spec).await;
    world.pid_in("gone").await;
    let procs = |incarnation: u32| {
        let file = base.join(format!("svc.{incarnation}/cgroup.procs"));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().flat_map(str::parse).collect::<Vec<u32>>()
    };
    let first = eventually("leader, shell and its sleep", || {
        let pids = procs(1);
        (pids.len() >= 3).then_some(pids)
    })
    .await;
    // A crash: nothing of the run is left before the next one starts.
    signal(world.state(&id).identity.unwrap().pid, "KILL");
    world.until(&id, |state| state.restarts == 1 && state.phase == Phase::Running).await;
    for pid in &first {
        assert!(!is_alive(*pid), "{first:?}");
    }
    let second = eventually("the same again", || {
        let pids = procs(2);
        (pids.len() >= 3).then_some(pids)
    })
    .await;
    world.engine.stop(&id).await.unwrap();
    for pid in &second {
        assert!(!is_alive(*pid), "{second:?}");
    }
    eventually("no group", || groups(&base).is_empty().then_some(())).await;
    world.finish().await;
    eventually("no directory", || (!base.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_dropped_leaves_no_cgroup() {
    let (cgroups, base) = match delegated() {
        Ok(found) => found,
        Err(error) => {
            println!("left out: it takes a delegated cgroup v2: {error}");
            return;
        }
    };
    let world = World::with(|builder| builder.cgroups(cgroups));
    world.up(world.sh("svc", VANISHES)).await;
    world.pid_in("gone").await;
    let pids = std::fs::read_to_string(base.join("svc.1/cgroup.procs")).unwrap();
    drop(world);
    for pid in pids.lines().flat_map(str::parse::<u32>) {
        eventually("its end", || (!is_alive(pid)).then_some(())).await;
    }
    eventually("no directory", || (!base.exists()).then_some(())).await;
}

#[test]
fn what_an_earlier_supervisor_left_in_its_groups_is_ended_by_its_successor_and_by_nobody_else() {
    let mark = format!("test-{}-{:016x}", std::process::id(), fastrand::u64(..));
    let find = |mark: &str| Cgroups::find(mark).map_err(|error| error.to_string());
    let earlier = match find(&mark) {
        Ok(found) => found,
        Err(error) => {
            println!("left out: it takes a delegated cgroup v2: {error}");
            return;
        }
    };
    let service = ServiceId::new("svc").unwrap();
    let left = |run: u64| {
        let group = earlier.directory().join(format!("svc.{run}"));
        std::fs::create_dir(&group).unwrap();
        let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        std::fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        child
    };
    let (lost, mut kept) = (left(1), left(2));
    let stranger = find(&format!("{mark}, but of another directory")).unwrap();
    assert_eq!(stranger.end_leftovers(&[]), 0);
    assert!(is_alive(lost.id()));
    let successor = find(&mark).unwrap();
    assert_eq!(successor.end_leftovers(&[(service, Incarnation(2))]), 1);
    assert!(!is_alive(lost.id()) && is_alive(kept.id()));
    assert_eq!(groups(earlier.directory()), ["svc.2"]);
    kept.kill().unwrap();
    for mut child in [lost, kept] {
        child.wait().unwrap();
    }
    assert_eq!(successor.end_leftovers(&[]), 0);
    assert!(!earlier.directory().exists(), "its directory goes with its last group");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_outlives_its_host_keeps_its_group_which_goes_with_it_under_the_next_one() {
    if let Err(error) = delegated() {
        println!("left out: it takes a delegated cgroup v2: {error}");
        return;
    }
    let dir = own_dir();
    let mark = dir.path().to_string_lossy().into_owned();
    let guardian = async || {
        let program = GuardianProgram::Named(env!("CARGO_BIN_EXE_ide-guardian").into());
        let (state, logs) = (dir.path(), dir.path().join("logs"));
        Arc::new(GuardianSpawner::open(state, mark.as_str(), logs, program).await.unwrap())
    };
    let found = || Cgroups::find(&mark).unwrap();
    let engine = async |cgroups| {
        let builder = supervisor_process::Engine::builder().mark(mark.as_str()).cgroups(cgroups);
        let guardian = guardian().await;
        (builder.guardian(Arc::clone(&guardian)).build().unwrap(), guardian)
    };
    let (first, first_guardian) = engine(found()).await;
    let mut spec = supervisor_core::config::ServiceSpec::new("svc", "sleep").unwrap();
    spec.args = vec!["1000".to_owned()];
    spec.on_host_death = supervisor_core::config::HostDeathPolicy::Outlive;
    let id = first.register(spec.clone(), None).await.unwrap();
    first.start(&id).await.unwrap();
    let state = first.state(&id).unwrap();
    let pid = state.identity.as_ref().unwrap().pid;
    let of = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let group = eventually("its group", || {
        of(pid).lines().find(|it| it.ends_with("/svc.1")).map(str::to_owned)
    })
    .await;
    drop((first, first_guardian));
    let successor = found();
    assert_eq!(successor.end_leftovers(&[(id.clone(), Incarnation(1))]), 0);
    let (second, second_guardian) = engine(successor).await;
    assert!(is_alive(pid) && of(pid).contains(&group), "it runs on where it was");
    second.register(spec, Some(state)).await.unwrap();
    for outlived in second_guardian.outlived().await.unwrap() {
        second.adopt(&id, outlived.into_child()).await.unwrap();
    }
    let mut watched = second.watch(&id).unwrap();
    watched.wait_for(|state| state.phase == Phase::Running).await.unwrap();
    second.stop(&id).await.unwrap();
    assert!(!is_alive(pid));
    second.shutdown(Duration::from_secs(30)).await.unwrap();
    second_guardian.close().await;
    drop((second, second_guardian));
    let own = Cgroups::find(&mark).unwrap();
    let parent = own.directory().parent().unwrap().to_owned();
    let prefix = own.directory().file_name().unwrap().to_str().unwrap()[..31].to_owned();
    drop(own);
    let mine =
        || groups(&parent).into_iter().filter(|name| name.starts_with(&prefix)).collect::<Vec<_>>();
    eventually("no directory of either", || mine().is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_death_of_its_guardian_would_lose_is_found_in_its_cgroup() {
    let (cgroups, base) = match delegated() {
        Ok(found) => found,
        Err(error) => {
            println!("left out: it takes a delegated cgroup v2: {error}");
            return;
        }
    };
    let dir = own_dir();
    let mark = dir.path().to_string_lossy().into_owned();
    let program = GuardianProgram::Named(env!("CARGO_BIN_EXE_ide-guardian").into());
    let logs = dir.path().join("logs");
    let guardian = GuardianSpawner::open(dir.path(), mark.as_str(), logs, program).await.unwrap();
    let guardian = Arc::new(guardian);
    let world = World::with(|it| it.mark(mark).guardian(Arc::clone(&guardian)).cgroups(cgroups));
    let mut spec = world.sh("svc", VANISHES);
    spec.restart_policy = RestartPolicy::Always;
    let id = world.up(spec).await;
    world.pid_in("gone").await;
    let first = eventually("leader, shell and its sleep", || {
        let text = std::fs::read_to_string(base.join("svc.1/cgroup.procs")).ok()?;
        let pids: Vec<u32> = text.lines().flat_map(str::parse).collect();
        (pids.len() >= 3).then_some(pids)
    })
    .await;
    let GuardianNews::Guarding { identity, .. } = guardian.news().borrow().clone() else {
        panic!("no guardian")
    };
    signal(identity.pid, "KILL");
    world.until(&id, |state| state.restarts == 1 && state.phase == Phase::Running).await;
    for pid in &first {
        assert!(
            !is_alive(*pid),
            "it left group, session, parents, environment and guardian: {first:?}"
        );
    }
    world.finish().await;
    guardian.close().await;
}

/// A spawner whose children are always said to have been killed for their memory, as a cgroup says it.
#[derive(Debug)]
struct Blaming(SystemSpawner);

#[derive(Debug)]
struct Blamed(Box<dyn ChildHandle>);

#[async_trait]
impl ProcessSpawner for Blaming {
    async fn spawn(&self, request: SpawnRequest) -> Result<Box<dyn ChildHandle>, SpawnError> {
        Ok(Box::new(Blamed(self.0.spawn(request).await?)))
    }

    fn containment(&self) -> Vec<String> {
        self.0.containment()
    }
}

#[async_trait]
impl ChildHandle for Blamed {
    fn identity(&self) -> ProcessIdentity {
        self.0.identity()
    }

    async fn wait(&self) -> ExitStatus {
        self.0.wait().await
    }

    async fn signal_set(&self, signal: Signal) -> std::io::Result<()> {
        self.0.signal_set(signal).await
    }

    async fn kill_set(&self, confirm: Duration) -> KillReport {
        self.0.kill_set(confirm).await
    }

    fn set_is_empty(&self) -> bool {
        self.0.set_is_empty()
    }

    fn members(&self) -> Vec<ProcessIdentity> {
        self.0.members()
    }

    fn take_stdio(&self) -> Option<ChildStdio> {
        self.0.take_stdio()
    }

    fn last_lines(&self, max: usize) -> Vec<String> {
        self.0.last_lines(max)
    }

    fn killed_for_memory(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_the_system_killed_for_its_memory_is_restarted_with_that_reason() {
    let world = World::with(|builder| {
        let mark = format!("test-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let logs = std::env::temp_dir().join(&mark);
        let system = SystemSpawner::new(mark, Some(logs), false).unwrap();
        builder.spawner(Arc::new(Blaming(system)))
    });
    let mut spec = world.sh("svc", "kill -9 $$");
    spec.restart_policy = RestartPolicy::FixedDelay { delay: Duration::from_secs(600) };
    let id = world.up(spec).await;
    let state = world.until_phase(&id, Phase::Backoff).await;
    let exit = state.last_exit.unwrap();
    assert_eq!((exit.reason, exit.status), (ExitReason::MemoryLimit, Some(ExitStatus::Signal(9))));
    assert!(state.reason.contains("memory limit exceeded"), "{}", state.reason);
    world.finish().await;
}
