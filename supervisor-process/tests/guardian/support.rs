//! A state directory, a guardian and a host of a test's own, and the check that nothing is left of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor_core::config::{HostDeathPolicy, ServiceSpec};
use supervisor_core::ports::{ChildHandle, ProcessSpawner, ProcessTable, SpawnRequest};
use supervisor_core::{Incarnation, ServiceId};
use supervisor_process::SystemProcessTable;
use supervisor_process::guardian::{GuardianNews, GuardianProgram, GuardianSpawner};
use tempfile::TempDir;

/// Longest wait for anything; far above what a loaded machine needs.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
pub(crate) const GUARDIAN: &str = env!("CARGO_BIN_EXE_ide-guardian");

/// A state directory with a mark of its own.
pub(crate) struct Den {
    dir: TempDir,
}

impl Den {
    pub(crate) fn new() -> Self {
        Self { dir: own_dir() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn mark(&self) -> String {
        mark(self.path())
    }

    pub(crate) async fn spawner(&self) -> GuardianSpawner {
        open(self.path()).await.unwrap()
    }

    pub(crate) fn marked(&self) -> Vec<u32> {
        marked(&self.mark())
    }

    /// The process that holds the guardian's lock, by its command line and state directory.
    pub(crate) fn guardians(&self) -> Vec<u32> {
        guardians(self.path())
    }

    /// Waits until neither a service nor a guardian of this directory is left.
    pub(crate) async fn nothing_left(&self) {
        eventually("no service and no guardian", || {
            (self.marked().is_empty() && self.guardians().is_empty()).then_some(())
        })
        .await;
    }
}

/// A directory that is this user's alone, whatever the mask of file modes.
fn own_dir() -> TempDir {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}

pub(crate) fn mark(dir: &Path) -> String {
    format!("guardian-test-{}", dir.display())
}

pub(crate) async fn open(
    dir: &Path,
) -> Result<GuardianSpawner, supervisor_core::error::ProcessError> {
    let program = GuardianProgram::Named(PathBuf::from(GUARDIAN));
    GuardianSpawner::open(dir, mark(dir), dir.join("logs"), program).await
}

pub(crate) fn sh(id: &str, script: &str, policy: HostDeathPolicy) -> ServiceSpec {
    let mut spec = ServiceSpec::new(id, "sh").unwrap();
    spec.args = vec!["-c".to_owned(), script.to_owned()];
    spec.on_host_death = policy;
    spec
}

pub(crate) fn request(spec: ServiceSpec, incarnation: u64) -> SpawnRequest {
    SpawnRequest {
        service: spec.service_id().unwrap(),
        incarnation: Incarnation(incarnation),
        spec: Arc::new(spec),
        extra_environment: Vec::new(),
    }
}

pub(crate) async fn spawn(
    spawner: &GuardianSpawner,
    spec: ServiceSpec,
    incarnation: u64,
) -> Box<dyn ChildHandle> {
    spawner.spawn(request(spec, incarnation)).await.unwrap()
}

pub(crate) fn guardian_of(spawner: &GuardianSpawner) -> u32 {
    match &*spawner.news().borrow() {
        GuardianNews::Guarding { identity, .. } => identity.pid,
        GuardianNews::Lost => panic!("no guardian"),
    }
}

pub(crate) fn service(id: &str) -> ServiceId {
    ServiceId::new(id).unwrap()
}

/// The pids of living processes that carry a mark.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let found = SystemProcessTable::new().marked(mark).into_iter();
    found.map(|process| process.identity.pid).filter(|pid| is_alive(*pid)).collect()
}

/// The living guardians of a state directory.
pub(crate) fn guardians(dir: &Path) -> Vec<u32> {
    let wanted = format!("--ide-supervisor-guardian\0{}\0", dir.display());
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&wanted))
        })
        .filter(|pid| is_alive(*pid))
        .collect()
}

/// The state letter of a process; nothing if there is none.
pub(crate) fn state_of(pid: u32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text[text.rfind(')')? + 1..].trim_start().chars().next()
}

pub(crate) fn is_alive(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z')
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // Gone already is what a kill wants.
    _ = rustix::process::kill_process(pid, signal);
}

/// Looks again and again until there is something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} never came");
        // poll: the condition above is looked at again, with a generous limit.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a file holds a whole line, and gives its words.
pub(crate) async fn words_in(path: &Path) -> Vec<String> {
    eventually("a line in a file", || {
        let text = std::fs::read_to_string(path).ok()?;
        let (line, _) = text.split_once('\n')?;
        Some(line.split_whitespace().map(str::to_owned).collect())
    })
    .await
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it took too long")
}

/// A process that is none of a guardian's; ended with the test, however that ends.
pub(crate) struct Stranger(pub(crate) std::process::Child);

impl Stranger {
    pub(crate) fn start(command: &mut std::process::Command) -> Self {
        let null = std::process::Stdio::null;
        Self(command.stdin(null()).stdout(null()).stderr(null()).spawn().unwrap())
    }
}

impl Stranger {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
