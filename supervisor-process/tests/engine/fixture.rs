//! This test program itself as a service, for what a shell cannot do.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use supervisor_core::config::ServiceSpec;

use crate::support::{World, eventually};

/// Variable that tells a fixture how to behave; unset when the fixtures are run by hand.
pub(crate) const BEHAVIOUR: &str = "TEST_FIXTURE";

/// A service that runs the fixture of this name with a behaviour.
pub(crate) fn service(world: &World, id: &str, fixture: &str, behaviour: &str) -> ServiceSpec {
    let mut spec = world.sh(id, "");
    spec.command = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    spec.args = ["--exact", fixture, "--ignored", "--nocapture"].map(str::to_owned).to_vec();
    spec.environment.insert(BEHAVIOUR.to_owned(), behaviour.to_owned());
    spec
}

/// A service whose leader is a shell; `script` is given the command that runs the notifier.
pub(crate) fn behind_shell(
    world: &World,
    id: &str,
    behaviour: &str,
    script: impl FnOnce(&str) -> String,
) -> ServiceSpec {
    let mut spec = service(world, id, "fixture::notifier", behaviour);
    let notifier = format!("{} {}", spec.command, spec.args.join(" "));
    spec.command = "sh".to_owned();
    spec.args = vec!["-c".to_owned(), script(&notifier)];
    spec
}

/// Lets the notifier say something; it is said once it is gone from the directory.
pub(crate) async fn say(world: &World, words: &str) {
    let written = world.path("being written");
    std::fs::write(&written, words).unwrap();
    std::fs::rename(&written, world.path("say")).unwrap();
    eventually("it was said", || (!world.path("say").exists()).then_some(())).await;
}

#[test]
#[ignore = "started by other tests as a service"]
#[expect(clippy::disallowed_methods, reason = "a service that ends with a code of its own")]
fn notifier() {
    let Ok(behaviour) = std::env::var(BEHAVIOUR) else {
        return;
    };
    let name = std::env::var("NOTIFY_SOCKET").unwrap();
    let address = SocketAddr::from_abstract_name(name.strip_prefix('@').unwrap()).unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    let tell = |text: &str| drop(socket.send_to_addr(text.as_bytes(), &address));
    let (_never, pause) = std::sync::mpsc::sync_channel::<()>(1);
    // Accepts connections in the kernel whether or not anybody here lives.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write("address", format!("{}\n", listener.local_addr().unwrap())).unwrap();
    tell("STATUS=warming up\nREADY=1");
    loop {
        // Whatever a test wants said, and the code it wants to be left with.
        if let Ok(words) = std::fs::read_to_string("say") {
            std::fs::remove_file("say").unwrap();
            tell(&words);
        }
        if let Ok(code) = std::fs::read_to_string("leave") {
            std::process::exit(code.trim().parse().unwrap());
        }
        if behaviour == "beats" || std::fs::exists("beat").unwrap() {
            tell("WATCHDOG=1");
        }
        _ = pause.recv_timeout(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "started by other tests as a service"]
fn flooder() {
    if std::env::var(BEHAVIOUR).is_err() {
        return;
    }
    let name = std::env::var("NOTIFY_SOCKET").unwrap();
    let address = SocketAddr::from_abstract_name(name.strip_prefix('@').unwrap()).unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    let words = "STATUS=and another thing\n".repeat(100);
    // Until it is killed, or until there is nobody to talk to.
    while socket.send_to_addr(words.as_bytes(), &address).is_ok() {}
}
