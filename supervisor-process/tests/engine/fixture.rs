//! This test program itself as a service, for what a shell cannot do.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use supervisor_core::config::ServiceSpec;

use crate::support::World;

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

#[test]
#[ignore = "started by other tests as a service"]
fn notifier() {
    let Ok(behaviour) = std::env::var(BEHAVIOUR) else {
        return;
    };
    let name = std::env::var("NOTIFY_SOCKET").unwrap();
    let address = SocketAddr::from_abstract_name(name.strip_prefix('@').unwrap()).unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    let tell = |text: &str| drop(socket.send_to_addr(text.as_bytes(), &address));
    let (_never, pause) = std::sync::mpsc::sync_channel::<()>(1);
    tell("STATUS=warming up\nREADY=1");
    loop {
        if behaviour == "beats" || std::fs::exists("beat").unwrap() {
            tell("WATCHDOG=1");
        }
        _ = pause.recv_timeout(Duration::from_millis(20));
    }
}
