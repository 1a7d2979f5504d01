//! What the processes of these tests do: this program, run again as one test of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use supervisor_core::config::{HostDeathPolicy, ServiceSpec};
use supervisor_process::SystemSpawner;

use super::guarding::open;
use super::support::*;

/// What the process does; set, this program plays a role.
const ROLE: &str = "WINDOWS_TEST_ROLE";
/// Where it says that it is ready.
const READY: &str = "WINDOWS_TEST_READY";
const TEST: &str = "role::a_process_that_was_asked_to_plays_its_role";

/// A service that plays a role.
pub(crate) fn service(id: &str, role: &str, ready: &std::path::Path) -> ServiceSpec {
    let program = std::env::current_exe().unwrap();
    let mut spec = ServiceSpec::new(id, program.to_str().unwrap()).unwrap();
    spec.args = ["--exact", TEST, "--nocapture", "--test-threads=1"].map(str::to_owned).into();
    spec.environment.insert(ROLE.to_owned(), role.to_owned());
    spec.environment.insert(READY.to_owned(), ready.to_str().unwrap().to_owned());
    spec
}

/// The same outside any supervision.
pub(crate) fn process(role: &str, ready: &std::path::Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", TEST, "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(READY, ready);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_process_that_was_asked_to_plays_its_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let ready = PathBuf::from(std::env::var_os(READY).unwrap());
    match role.as_str() {
        "ends with 7" => exit(7),
        "waits" => publish(&ready, "1"),
        "starts another and waits" => {
            // One that knows nothing of us, as whatever a service starts.
            let other = process("waits", &ready).spawn().unwrap();
            println!("started {}", other.id());
        }
        "ends when asked" => runtime().block_on(async {
            let mut asked = tokio::signal::windows::ctrl_break().unwrap();
            publish(&ready, "1");
            asked.recv().await;
            println!("asked to end");
            exit(5);
        }),
        "hears and goes on" => runtime().block_on(async {
            let mut asked = tokio::signal::windows::ctrl_break().unwrap();
            publish(&ready, "1");
            loop {
                asked.recv().await;
            }
        }),
        "answers" => {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                println!("heard {}", line.trim_end());
            }
            exit(0);
        }
        "speaks" => {
            println!("one line of output");
            eprintln!("one line of errors");
            exit(0);
        }
        "ends when it may" => {
            publish(&ready, "1");
            println!("still here");
            let may = ready.with_extension("may");
            runtime().block_on(eventually("it may", || may.exists().then_some(())));
            exit(7);
        }
        "is a host with a guardian" => runtime().block_on(async {
            let dir = ready.parent().unwrap();
            let spawner = open(dir).await.unwrap();
            let mut members = Vec::new();
            let mut children = Vec::new();
            for (id, policy) in
                [("dies", HostDeathPolicy::Die), ("lives", HostDeathPolicy::Outlive)]
            {
                let inner = dir.join(id);
                let role =
                    if id == "dies" { "starts another and waits" } else { "ends when it may" };
                let mut spec = service(id, role, &inner);
                spec.on_host_death = policy;
                let child = spawn(&spawner, spec).await;
                eventually("it runs", || inner.exists().then_some(())).await;
                // Of the one that lives on its leader; it may have a console beside it.
                members.extend(if id == "dies" { child.members() } else { vec![child.identity()] });
                children.push(child);
            }
            // The one that lives on is the last.
            publish(&ready, &told(&members));
            std::future::pending().await
        }),
        "is a host" => runtime().block_on(async {
            let spawner = SystemSpawner::new("host", None, false).unwrap();
            let inner = ready.with_extension("inner");
            let child = spawn(&spawner, service("tree", "starts another and waits", &inner)).await;
            eventually("the grandchild runs", || inner.exists().then_some(())).await;
            publish(&ready, &told(&child.members()));
            std::future::pending().await
        }),
        other => panic!("no role {other}"),
    }
    loop {
        std::thread::park();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a role ends with a code of its own")]
fn exit(code: i32) -> ! {
    std::process::exit(code)
}
