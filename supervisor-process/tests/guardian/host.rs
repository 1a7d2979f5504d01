//! A host in a process of its own, so that it can be killed: this test program, run again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use supervisor_core::config::HostDeathPolicy::{self, Die, Outlive};
use supervisor_core::ports::ChildHandle;

use super::support::*;

/// Where the host's state directory is; set, this program is a host.
const DIR: &str = "GUARDIAN_TEST_DIR";
/// What the host does when everything runs: `wait`, `panic`, `abort`, `exit`, `return`, `hangup`, `stop`.
const END: &str = "GUARDIAN_TEST_END";
/// The services: lines of `policy id script`.
const SERVICES: &str = "GUARDIAN_TEST_SERVICES";

/// A host that was started, and what it said when everything ran.
pub(crate) struct Host {
    pub(crate) process: Child,
    pub(crate) guardian: u32,
    /// The leaders, in the order of the services.
    pub(crate) leaders: Vec<u32>,
}

impl Host {
    /// Starts a host with these services and waits until they run.
    pub(crate) async fn start(
        den: &Den,
        end: &str,
        services: &[(HostDeathPolicy, &str, &str)],
    ) -> Self {
        let lines: Vec<String> = services
            .iter()
            .map(|(policy, id, script)| {
                let policy = if *policy == Die { "die" } else { "outlive" };
                format!("{policy} {id} {script}")
            })
            .collect();
        let ready = den.path().join("ready");
        drop(std::fs::remove_file(&ready));
        let process = again("host::a_process_that_was_asked_to_is_a_host")
            .env(DIR, den.path())
            .env(END, end)
            .env(SERVICES, lines.join("\n"))
            .spawn()
            .unwrap();
        let said: Vec<u32> =
            words_in(&ready).await.iter().map(|word| word.parse().unwrap()).collect();
        Self { process, guardian: said[0], leaders: said[1..].to_vec() }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// This program again, running one test of its own and nothing else.
pub(crate) fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Writes a file whole or not at all.
pub(crate) fn publish(path: &Path, text: &str) {
    let part = path.with_extension("part");
    std::fs::File::create(&part).unwrap().write_all(text.as_bytes()).unwrap();
    std::fs::rename(part, path).unwrap();
}

#[test]
fn a_process_that_was_asked_to_is_a_host() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (spawner, children) = runtime.block_on(async {
        let spawner = open(&dir).await.unwrap();
        let mut children: Vec<Box<dyn ChildHandle>> = Vec::new();
        for line in std::env::var(SERVICES).unwrap().lines() {
            let mut parts = line.splitn(3, ' ');
            let policy = if parts.next() == Some("die") { Die } else { Outlive };
            let spec = sh(parts.next().unwrap(), parts.next().unwrap(), policy);
            children.push(spawn(&spawner, spec, 1).await);
        }
        (spawner, children)
    });
    let pids: Vec<String> = children.iter().map(|child| child.identity().pid.to_string()).collect();
    let end = std::env::var(END).unwrap();
    if end == "stop" {
        // In the middle of a stop: the signal is sent, the kill at the end of the grace period never comes.
        runtime.block_on(async {
            eventually("it is deaf", || dir.join("deaf").exists().then_some(())).await;
            for child in &children {
                child.signal_set(supervisor_core::Signal::Term).await.unwrap();
            }
        });
    }
    publish(&dir.join("ready"), &format!("{} {}\n", guardian_of(&spawner), pids.join(" ")));
    match end.as_str() {
        "panic" => panic!("asked for"),
        "abort" => std::process::abort(),
        "exit" => exit(),
        "return" => {}
        "hangup" => signal(std::process::id(), rustix::process::Signal::HUP),
        _ => loop {
            std::thread::park();
        },
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the route that is tested")]
fn exit() {
    std::process::exit(0)
}
