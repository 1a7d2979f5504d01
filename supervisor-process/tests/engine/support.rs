//! An engine of its own for each test, and the check that nothing is left of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use supervisor_core::ServiceId;
use supervisor_core::config::{RestartPolicy, ServiceSpec};
use supervisor_core::event::EventKind;
use supervisor_core::ports::{EventSink, ProcessTable};
use supervisor_core::state::{Phase, ServiceState};
use supervisor_process::{Engine, EngineBuilder, SystemProcessTable};
use tempfile::TempDir;

/// Longest wait for anything; far above what a loaded machine needs.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A directory that is this user's alone, whatever the mask of file modes: a guardian takes no other.
pub(crate) fn own_dir() -> TempDir {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}

/// Keeps every event.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<EventKind>>);

impl EventSink for Recorder {
    fn publish(&self, event: EventKind) {
        self.0.lock().unwrap().push(event);
    }
}

/// An engine with a mark, a directory and a record of its events.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) mark: String,
    events: Arc<Recorder>,
    directory: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(crate) fn with(settings: impl FnOnce(EngineBuilder) -> EngineBuilder) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mark = format!("test-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let events = Arc::new(Recorder::default());
        let builder = Engine::builder()
            .mark(mark.clone())
            .log_dir(directory.path().join("logs"))
            .health_check_interval(Duration::from_millis(100))
            .sink(Arc::clone(&events) as Arc<dyn EventSink>);
        Self { engine: settings(builder).build().unwrap(), mark, events, directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A shell script that runs in the test's directory, is not restarted and has five seconds to stop.
    pub(crate) fn sh(&self, id: &str, script: &str) -> ServiceSpec {
        let mut spec = ServiceSpec::new(id, "sh").unwrap();
        spec.args = vec!["-c".to_owned(), script.to_owned()];
        spec.working_dir = Some(self.directory.path().to_owned());
        spec.restart_policy = RestartPolicy::Never;
        spec.shutdown_timeout = Duration::from_secs(5);
        spec
    }

    pub(crate) async fn register(&self, spec: ServiceSpec) -> ServiceId {
        self.engine.register(spec, None).await.unwrap()
    }

    pub(crate) async fn up(&self, spec: ServiceSpec) -> ServiceId {
        let id = self.register(spec).await;
        tokio::time::timeout(LIMIT, self.engine.start(&id)).await.unwrap().unwrap();
        id
    }

    pub(crate) fn state(&self, id: &ServiceId) -> ServiceState {
        self.engine.state(id).unwrap()
    }

    pub(crate) async fn until(
        &self,
        id: &ServiceId,
        wanted: impl Fn(&ServiceState) -> bool,
    ) -> ServiceState {
        let mut watched = self.engine.watch(id).unwrap();
        let found = tokio::time::timeout(LIMIT, watched.wait_for(wanted)).await;
        match found {
            Ok(state) => state.unwrap().clone(),
            Err(_) => {
                panic!("it never came; now {:?}\nevents {:#?}", self.state(id), self.events())
            }
        }
    }

    pub(crate) async fn until_phase(&self, id: &ServiceId, phase: Phase) -> ServiceState {
        self.until(id, |state| state.phase == phase).await
    }

    pub(crate) fn events(&self) -> Vec<EventKind> {
        self.events.0.lock().unwrap().clone()
    }

    pub(crate) async fn until_event(&self, wanted: impl Fn(&EventKind) -> bool) -> EventKind {
        eventually("an event", || self.events().into_iter().find(|event| wanted(event))).await
    }

    /// Waits until a script wrote a whole line, and gives it.
    pub(crate) async fn line_in(&self, name: &str) -> String {
        let path = self.path(name);
        eventually("a line in a file", || first_line(&path)).await
    }

    pub(crate) async fn pid_in(&self, name: &str) -> u32 {
        self.line_in(name).await.parse().unwrap()
    }

    /// Stops everything and checks that nothing is left.
    pub(crate) async fn finish(self) {
        tokio::time::timeout(LIMIT * 2, self.engine.shutdown(LIMIT)).await.unwrap().unwrap();
        assert!(marked(&self.mark).is_empty(), "left after shutdown");
        drop(self.engine);
        nothing_left(&self.mark).await;
        let directory = self.directory.path().to_owned();
        eventually("no descriptor of its files", || {
            open_below(&directory).is_empty().then_some(())
        })
        .await;
    }
}

/// The files below a directory that this process has open.
fn open_below(directory: &Path) -> Vec<PathBuf> {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    descriptors
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|target| target.starts_with(directory))
        .collect()
}

fn first_line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.split_once('\n').map(|(line, _)| line.trim().to_owned())
}

/// The pids of living processes that carry a mark.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let alive = |pid: &u32| state_of(*pid).is_some_and(|state| state != 'Z');
    SystemProcessTable::new()
        .marked(mark)
        .into_iter()
        .map(|found| found.identity.pid)
        .filter(alive)
        .collect()
}

/// Waits until no process carries the mark and this process has no zombie.
pub(crate) async fn nothing_left(mark: &str) {
    eventually("no process with the mark", || marked(mark).is_empty().then_some(())).await;
    eventually("no zombie", || zombies().is_empty().then_some(())).await;
}

fn zombies() -> Vec<u32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<u32> = lists
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect();
    // Services lead groups of their own; what a test starts itself stays in ours, and is its own to wait for.
    let own = group_of(std::process::id());
    pids.into_iter()
        .filter(|pid| {
            state_of(*pid) == Some('Z') && group_of(*pid).is_some_and(|it| Some(it) != own)
        })
        .collect()
}

fn group_of(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text[text.rfind(')')? + 1..].split_ascii_whitespace().nth(2)?.parse().ok()
}

/// The state letter of a process; nothing if there is none.
pub(crate) fn state_of(pid: u32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text[text.rfind(')')? + 1..].trim_start().chars().next()
}

pub(crate) fn is_alive(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z')
}

/// Signals one process with the system's own tool.
pub(crate) fn signal(pid: u32, name: &str) {
    let done = std::process::Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status()
        .unwrap();
    assert!(done.success(), "kill -{name} {pid}");
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
