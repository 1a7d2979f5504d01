//! macOS with real processes. Type-checked where there is no such machine; whoever has one runs them.

#![cfg(target_os = "macos")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor_core::config::{HostDeathPolicy, ServiceSpec};
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ChildHandle, ProcessSpawner, ProcessTable, SpawnRequest};
use supervisor_core::testing::process_contract;
use supervisor_core::{Incarnation, ProcessIdentity};
use supervisor_process::guardian::{GuardianProgram, GuardianSpawner};
use supervisor_process::{SystemProcessTable, SystemSpawner};

const LIMIT: Duration = Duration::from_secs(30);

fn sh(id: &str, script: &str) -> ServiceSpec {
    let mut spec = ServiceSpec::new(id, "sh").unwrap();
    spec.args = vec!["-c".to_owned(), script.to_owned()];
    spec
}

async fn spawn(spawner: &impl ProcessSpawner, spec: ServiceSpec) -> Box<dyn ChildHandle> {
    let request = SpawnRequest {
        service: spec.service_id().unwrap(),
        incarnation: Incarnation(1),
        spec: Arc::new(spec),
        extra_environment: Vec::new(),
    };
    spawner.spawn(request).await.unwrap()
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} never came");
        // poll: the condition above is looked at again, with a generous limit.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn system(logs: &Path) -> SystemSpawner {
    let mark = format!("macos-{}-{}", std::process::id(), logs.display());
    SystemSpawner::new(mark, Some(logs.into()), false).unwrap()
}

/// A directory that is this user's alone, whatever the mask of file modes.
fn own_dir() -> tempfile::TempDir {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}

async fn guardian(dir: &Path) -> GuardianSpawner {
    let program = GuardianProgram::Named(PathBuf::from(env!("CARGO_BIN_EXE_ide-guardian")));
    let mark = format!("macos-{}", dir.display());
    GuardianSpawner::open(dir, mark, dir.join("logs"), program).await.unwrap()
}

async fn gone(identities: &[ProcessIdentity]) {
    let table = SystemProcessTable::new();
    eventually("the end of the set", || {
        (!identities.iter().any(|identity| table.is_alive(identity))).then_some(())
    })
    .await;
}

/// A leader, and a child that has a group of its own.
const TWO_GROUPS: &str = "set -m; sleep 600 & wait";

#[tokio::test]
async fn an_end_is_told_with_its_code_or_signal() {
    let logs = tempfile::tempdir().unwrap();
    let spawner = system(logs.path());
    let ended = spawn(&spawner, sh("code", "exit 37")).await;
    assert_eq!(ended.wait().await, ExitStatus::Code(37));
    let ended = spawn(&spawner, sh("signal", "kill -9 $$")).await;
    assert_eq!(ended.wait().await, ExitStatus::Signal(9));
    eventually("its set is empty", || ended.set_is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_kill_ends_what_has_a_group_of_its_own() {
    let logs = tempfile::tempdir().unwrap();
    let spawner = system(logs.path());
    let child = spawn(&spawner, sh("groups", TWO_GROUPS)).await;
    let members = eventually("two processes", || {
        let members = child.members();
        (members.len() == 2).then_some(members)
    })
    .await;
    assert_eq!(child.kill_set(LIMIT).await.survivors, []);
    gone(&members).await;
}

#[tokio::test]
async fn the_guardian_keeps_every_promise_of_a_spawner() {
    let dir = own_dir();
    let spawner = guardian(dir.path()).await;
    let lasting =
        ServiceSpec { args: vec!["600".into()], ..ServiceSpec::new("svc", "sleep").unwrap() };
    let missing = ServiceSpec::new("svc", "no-such-program-anywhere").unwrap();
    process_contract::spawner(&spawner, lasting, missing).await;
    spawner.close().await;
}

#[tokio::test]
async fn what_dies_with_its_host_is_gone_whole_and_what_outlives_it_is_handed_over() {
    let dir = own_dir();
    let first = guardian(dir.path()).await;
    let dies = spawn(&first, sh("dies", TWO_GROUPS)).await;
    let stays = sh("stays", "sleep 600; :");
    let stays = spawn(&first, ServiceSpec { on_host_death: HostDeathPolicy::Outlive, ..stays });
    let stays = stays.await;
    let (kept, dying) = (
        stays.identity(),
        eventually("two processes", || {
            let members = dies.members();
            (members.len() == 2).then_some(members)
        })
        .await,
    );
    // The connection ends before the handles do, as when a host is killed.
    drop(first);
    gone(&dying).await;
    drop((dies, stays));
    let next = guardian(dir.path()).await;
    let outlived = next.outlived().await.unwrap();
    let [outlived] = <[_; 1]>::try_from(outlived).unwrap();
    assert_eq!((outlived.identity.clone(), outlived.status), (kept.clone(), None));
    let child = outlived.into_child();
    assert_eq!(child.kill_set(LIMIT).await.survivors, []);
    assert_eq!(child.wait().await, ExitStatus::Signal(9));
    gone(&[kept]).await;
    drop(child);
    next.close().await;
}
