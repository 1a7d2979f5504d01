//! A configuration, a state directory and a supervisor of a test's own.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use supervisor_core::ports::ProcessTable;
use supervisor_process::SystemProcessTable;
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_ide-supervisor");
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A configuration and a state directory of a test's own; nothing of it is left when it is dropped.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) up: Option<Child>,
}

impl Place {
    pub(crate) fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ide-supervisor.toml"), config).unwrap();
        Self { dir, up: None }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join(".ide-supervisor")
    }

    pub(crate) fn mark(&self) -> String {
        let state = fs::canonicalize(self.state()).unwrap_or_else(|_| self.state());
        state.to_string_lossy().into_owned()
    }

    pub(crate) fn spawn_up(&self) -> Child {
        let mut command = Command::new(PROGRAM);
        command.arg("up").current_dir(self.dir.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub(crate) fn up(&mut self) {
        self.up = Some(self.spawn_up());
        self.until("the supervisor answers", |_| true);
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        Command::new(PROGRAM)
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub(crate) fn status(&self) -> Option<Value> {
        let output = self.run(&["status", "--json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Polls the status until it is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| wanted(status)) {
                return status.clone();
            }
            assert!(Instant::now() < deadline, "{what}: {status:#?}");
        }
    }

    /// Gives the stored events once one of them holds all of these words; they are written a moment after what they tell.
    pub(crate) fn told(&self, words: &[&str]) -> String {
        self.recorded(&["events", "--json", "-n", "10000"], words)
    }

    /// Gives the audit trail once one row of it holds all of these words; it is written a moment after what it tells.
    pub(crate) fn audited(&self, words: &[&str]) -> String {
        self.recorded(&["audit", "list", "-n", "10000"], words)
    }

    fn recorded(&self, command: &[&str], words: &[&str]) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let rows = text(&self.run(command).stdout);
            if rows.lines().any(|row| words.iter().all(|word| row.contains(word))) {
                return rows;
            }
            assert!(Instant::now() < deadline, "{words:?} never came: {rows}");
        }
    }

    pub(crate) fn service(status: &Value, id: &str) -> Value {
        let services = status["services"].as_array().unwrap();
        services
            .iter()
            .find(|service| service["id"] == id)
            .unwrap_or_else(|| panic!("{id} in {status:#}"))
            .clone()
    }

    /// Ends the supervisor as an operator would, and gives how it ended.
    pub(crate) fn down(&mut self) -> std::process::ExitStatus {
        let output = self.run(&["down"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        self.up.take().unwrap().wait().unwrap()
    }

    pub(crate) fn marked(&self) -> usize {
        SystemProcessTable::new().marked(&self.mark()).len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut up) = self.up.take() {
            drop(up.kill());
            drop(up.wait());
        }
        for process in SystemProcessTable::new().marked(&self.mark()) {
            kill(process.identity.pid);
        }
    }
}

/// Whether every service can be used, however long each took to start.
pub(crate) fn all_ready(status: &Value) -> bool {
    let services = status["services"].as_array();
    services.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one["ready"] == true))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

pub(crate) fn pid_of(service: &Value) -> u32 {
    u32::try_from(service["pid"].as_u64().expect("a process")).unwrap()
}
