//! A real language server and a real HTTP server under the program.

use std::path::PathBuf;

use serde_json::Value;
use supervisor_core::ports::ProcessTable;
use supervisor_process::SystemProcessTable;

use super::place::{Place, kill, pid_of};

/// Finds a program on PATH, or says loudly that a test cannot do its work without it.
pub(crate) fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
    if found.is_none() {
        println!("skipped: {program} is not on PATH; `cargo xtask setup --tools` installs it");
    }
    found
}

/// A port nobody uses now.
fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn a_real_language_server_a_real_http_server_and_a_crashing_service_are_kept_alive() {
    let (Some(ruff), Some(python)) = (found("ruff"), found("python3")) else { return };
    let port = free_port();
    let mut place = Place::new(&format!(
        r#"
[[service]]
id = "language_server"
command = {ruff:?}
args = ["server"]
restart_policy = {{ type = "always" }}
channel = {{ transport = "stdio", framing = "lsp" }}

[[service]]
id = "model_manager"
command = {python:?}
args = ["-m", "http.server", "--bind", "127.0.0.1", "{port}"]
restart_policy = {{ type = "exponential_backoff", base_delay = "50ms", max_delay = "1s", max_attempts = 20 }}

[[service.probe]]
role = "readiness"
kind = "http"
target = "http://127.0.0.1:{port}/"
period = "100ms"

[[service]]
id = "crasher"
command = "sh"
args = ["-c", "echo going down; exit 3"]
restart_policy = {{ type = "fixed_delay", delay = "200ms" }}
"#
    ));
    place.up();
    for id in ["language_server", "model_manager"] {
        let ready = |status: &Value| Place::service(status, id)["ready"] == true;
        let before = Place::service(&place.until("it is ready", ready), id);
        kill(pid_of(&before));
        let after = place.until("it is back", |status| {
            let service = Place::service(status, id);
            service["ready"] == true
                && service["incarnation"].as_u64() > before["incarnation"].as_u64()
        });
        let after = Place::service(&after, id);
        assert_eq!(after["last_exit"]["signal"], 9, "{after:#}");
        assert_ne!(after["pid"], before["pid"]);
    }
    let crasher = |status: &Value| Place::service(status, "crasher");
    let status =
        place.until("it crashed thrice", |status| crasher(status)["restarts"].as_u64() >= Some(3));
    assert_eq!(crasher(&status)["last_exit"]["code"], 3);
    let channels = status["channels"].as_array().unwrap();
    assert_eq!(channels[0]["name"], "language_server");
    assert!(channels[0]["generation"].as_u64() >= Some(2), "{channels:?}");
    for id in ["language_server", "model_manager", "crasher"] {
        place.told(&["ServiceRestarted", id]);
    }
    // The last words of a crash.
    place.told(&["going down"]);
    let mut up = place.up.take().unwrap();
    up.kill().unwrap();
    up.wait().unwrap();
    place.up();
    place.until("both are ready again", |status| {
        ["language_server", "model_manager"]
            .iter()
            .all(|id| Place::service(status, id)["ready"] == true)
    });
    place.told(&["\"Recovered\""]);
    let leaders = SystemProcessTable::new().marked(&place.mark());
    let of = |id: &str| leaders.iter().filter(|process| process.service.as_str() == id).count();
    assert_eq!((of("language_server"), of("model_manager")), (1, 1), "no second copy");
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}
