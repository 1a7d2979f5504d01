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

/// Set, the host is a sub-reaper, and a library in it waits for any child.
const REAPS: &str = "GUARDIAN_TEST_REAPS";
/// Set, this program is a sub-reaper above a host.
const ABOVE: &str = "GUARDIAN_TEST_ABOVE";

/// A host that was started, and what it said when everything ran.
pub(crate) struct Host {
    pub(crate) process: Child,
    pub(crate) guardian: u32,
    /// The host itself; what was started may be something above it.
    pub(crate) pid: u32,
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
        Self::start_in(den, Place::Alone, end, services).await
    }

    /// Starts a host in this place and waits until its services run.
    pub(crate) async fn start_in(
        den: &Den,
        place: Place<'_>,
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
        let mut command = again(HOST);
        match place {
            Place::Alone => {}
            Place::Within(wrapper) => {
                let mut wrapped = Command::new(wrapper[0]);
                wrapped.args(&wrapper[1..]).arg(command.get_program()).args(command.get_args());
                wrapped.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                command = wrapped;
            }
            Place::Reaping => drop(command.env(REAPS, "1")),
            Place::BelowAReaper => {
                command = again("host::a_process_that_was_asked_to_is_above_a_host");
                command.env(ABOVE, "1");
            }
        }
        let process = command
            .env(DIR, den.path())
            .env(END, end)
            .env(SERVICES, lines.join("\n"))
            .spawn()
            .unwrap();
        let said: Vec<u32> =
            words_in(&ready).await.iter().map(|word| word.parse().unwrap()).collect();
        Self { process, guardian: said[0], pid: said[1], leaders: said[2..].to_vec() }
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

/// Where a host runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    Alone,
    /// Executed by this command line, which must become it.
    Within(&'a [&'a str]),
    /// It is a sub-reaper itself, and something in it reaps every child.
    Reaping,
    /// Below a process that is one and does.
    BelowAReaper,
}

const HOST: &str = "host::a_process_that_was_asked_to_is_a_host";

/// Becomes a sub-reaper, and reaps whatever ends from now on, as a library might that knows of no other.
fn reap_everything() {
    use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};
    set_child_subreaper(Some(getpid())).unwrap();
    drop(std::thread::spawn(|| {
        loop {
            if wait(WaitOptions::empty()).is_err() {
                // poll: there is no child yet, or none any more; for as long as this process lives.
                std::thread::park_timeout(std::time::Duration::from_millis(1));
            }
        }
    }));
}

#[test]
fn a_process_that_was_asked_to_is_above_a_host() {
    if std::env::var_os(ABOVE).is_none() {
        return;
    }
    reap_everything();
    drop(again(HOST).env_remove(ABOVE).spawn().unwrap());
    loop {
        std::thread::park();
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
    if std::env::var_os(REAPS).is_some() {
        reap_everything();
    }
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
    let (guardian, own) = (guardian_of(&spawner), std::process::id());
    publish(&dir.join("ready"), &format!("{guardian} {own} {}\n", pids.join(" ")));
    if end == "codes" {
        let mut codes = Vec::new();
        for child in &children {
            let status = runtime.block_on(child.wait());
            let code = status.code().unwrap_or_else(|| 1000 + status.signal().unwrap_or(0));
            codes.push(code.to_string());
        }
        publish(&dir.join("codes"), &format!("{}\n", codes.join(" ")));
    }
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
