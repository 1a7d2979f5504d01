//! What the tests of both protocols need: a place for one session, and ways to wait for other processes.

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::fake::DIRECTORY;

/// How long anything is waited for; generous, because machines that test are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory for one session: the script, what the server saw, what was said on standard error.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) fn new(scripts: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("script.json"), scripts.to_string()).unwrap();
        Self { dir }
    }

    /// What the servers saw, in order: the number of the start, and the message.
    pub(crate) fn seen(&self) -> Vec<(u64, Value)> {
        let text = std::fs::read_to_string(self.dir.path().join("log.jsonl")).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .map(|line| (line["run"].as_u64().unwrap(), line["got"].clone()))
            .collect()
    }

    /// The pids of the servers, in the order of their starts.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let all = self.seen().into_iter();
        all.filter_map(|(_, got)| got["started"].as_u64())
            .map(|pid| u32::try_from(pid).unwrap())
            .collect()
    }

    /// The command of the scripted server.
    pub(crate) fn command() -> Vec<String> {
        let me = std::env::current_exe().unwrap();
        let script = format!(
            "exec '{}' --exact serves_when_started_as_a_server --nocapture 3>&1 1>/dev/null",
            me.display()
        );
        vec!["sh".into(), "-c".into(), script]
    }
}

/// Starts a session whose standard error is added to a file, and gives what the client reads.
pub(crate) fn start(place: &Place, mut command: Command) -> (Child, ChildStdout, PathBuf) {
    let stderr = place.dir.path().join("stderr");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&stderr).unwrap();
    command
        .env(DIRECTORY, place.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(file);
    let mut child = command.spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    (child, stdout, stderr)
}

/// Polls until something holds.
pub(crate) fn within(mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > end {
            return false;
        }
        // poll: what is waited for is in another process; PATIENCE at most.
        pause(5);
    }
    true
}

#[expect(
    clippy::disallowed_methods,
    reason = "the other side is another process, and this thread has nothing else to do"
)]
pub(crate) fn pause(millis: u64) {
    // poll: the callers' own pause; each says what is waited for and how long at most.
    std::thread::sleep(Duration::from_millis(millis));
}

/// Tells whether a process is there and no zombie.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat[stat.rfind(')').unwrap_or(0)..].starts_with(") Z"))
}

pub(crate) fn kill(pid: u32) {
    send(pid, rustix::process::Signal::KILL);
}

/// Lets a process go on that was stopped.
pub(crate) fn go_on(pid: u32) {
    send(pid, rustix::process::Signal::CONT);
}

fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    _ = rustix::process::kill_process(pid, signal);
}
