//! Services whose channel breaks while they live: found by the channel, ended and restarted by the engine.

use std::time::Instant;

use serde_json::Value;

use super::place::{LIMIT, Place, all_ready, pid_of, text};
use super::real::found;

/// Answers every line that carries a number, as an MCP server answers `ping`.
const ANSWERING: &str = r#"answer() { while read -r line; do id=${line#*\"id\":}; echo "{\"jsonrpc\":\"2.0\",\"id\":${id%%[!0-9]*},\"result\":{}}"; done; }; "#;

fn service(id: &str, script: &str, more: &str) -> String {
    let script = format!("{ANSWERING}{script}");
    format!(
        r#"
[[service]]
id = "{id}"
command = "sh"
args = ["-c", {script:?}]
restart_policy = {{ type = "always" }}
shutdown_timeout = "1s"
channel = {{ transport = "stdio", framing = "mcp", recovery = {{ heartbeat = {{ idle = "200ms", misses = 3 }} }} }}
{more}
"#
    )
}

/// A liveness probe of this kind.
fn liveness(kind: &str) -> String {
    format!(
        "[[service.probe]]\nrole = \"liveness\"\nkind = \"{kind}\"\nperiod = \"200ms\"\ntimeout = \"10s\"\n"
    )
}

fn send(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Why a service was restarted, each time; events are stored a moment after the status shows them.
fn restarts(place: &Place, id: &str) -> Vec<String> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let events = text(&place.run(&["events", "--json", "-n", "1000"]).stdout);
        let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of = |event: &Value| event["type"] == "ServiceRestarted" && event["service"] == id;
        let reason = |event: Value| event["reason"].as_str().unwrap().to_owned();
        let told: Vec<_> = events.filter(of).map(reason).collect();
        if !told.is_empty() || Instant::now() > deadline {
            return told;
        }
    }
}

fn channel(status: &Value, name: &str) -> Value {
    let channels = status["channels"].as_array().unwrap();
    channels.iter().find(|channel| channel["name"] == name).unwrap().clone()
}

#[test]
fn a_service_whose_channel_hangs_or_ends_is_restarted_once_and_a_busy_one_and_a_sound_one_are_left_alone()
 {
    let config = [
        service("stopped", "answer", &liveness("process")),
        service("closing", "[ -e closed ] || { touch closed; exec >&-; sleep 600; }; answer", ""),
        service("busy", "while :; do :; done", ""),
        service("sound", "answer", &liveness("ipc")),
    ];
    let mut place = Place::new(&config.concat());
    place.up();
    let connected = |status: &Value, name: &str| channel(status, name)["state"] == "ready";
    let ready = |status: &Value| all_ready(status) && connected(status, "stopped");
    let before = place.until("all run", ready);
    send(pid_of(&Place::service(&before, "stopped")), rustix::process::Signal::STOP);
    let back = |status: &Value, id: &str| {
        let service = Place::service(status, id);
        service["restarts"].as_u64() >= Some(1)
            && service["ready"] == true
            && connected(status, id)
            && channel(status, id)["generation"] == 2
    };
    let after = place.until("both are back", |status| {
        back(status, "stopped")
            && back(status, "closing")
            && channel(status, "busy")["reason"].as_str().unwrap().contains("it is at work")
    });
    let closing = Place::service(&after, "closing");
    assert_eq!(closing["last_exit"]["reason"], "channel_lost", "{closing:#}");
    assert_eq!(
        restarts(&place, "closing"),
        ["channel lost: channel closing: the peer closed the connection"]
    );
    // Whoever noticed it first, the channel or the probe, it was restarted for it once.
    let stopped = Place::service(&after, "stopped");
    assert_eq!(stopped["last_exit"]["reason"], "hang", "{stopped:#}");
    let why = restarts(&place, "stopped");
    assert_eq!(why.len(), 1, "{why:?}");
    assert!(
        why[0].contains("channel stopped: the peer gives no sign of life")
            || why[0].contains("suspended"),
        "{why:?}"
    );
    for id in ["busy", "sound"] {
        let service = Place::service(&after, id);
        assert_eq!((&service["restarts"], &service["phase"]), (&0.into(), &"running".into()));
        assert_eq!(channel(&after, id)["generation"], 1, "{id}");
    }
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}

#[test]
fn a_service_that_takes_nothing_and_says_nothing_is_restarted_for_its_channel_alone() {
    let config = service("stopped", "answer", "");
    let mut place = Place::new(&config);
    place.up();
    let before = place.until("it runs", |status| channel(status, "stopped")["state"] == "ready");
    send(pid_of(&Place::service(&before, "stopped")), rustix::process::Signal::STOP);
    place.until("it is back", |status| {
        channel(status, "stopped")["generation"] == 2
            && channel(status, "stopped")["state"] == "ready"
    });
    assert_eq!(
        restarts(&place, "stopped"),
        ["hang: channel stopped: the peer gives no sign of life"]
    );
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}

/// Listens on `sock` once it may, and then answers nobody.
const LATE: &str = "import os, socket, time\n\
    while not os.path.exists('go'):\n    time.sleep(0.01)\n\
    if os.path.exists('sock'):\n    os.unlink('sock')\n\
    s = socket.socket(socket.AF_UNIX)\ns.bind('sock')\ns.listen()\n\
    held = []\nwhile True:\n    held.append(s.accept())\n";

#[test]
fn a_service_that_was_given_up_as_absent_is_connected_to_as_soon_as_it_is_ready() {
    if found("python3").is_none() {
        return;
    }
    let mut place = Place::new("");
    let dir = place.dir.path().to_owned();
    std::fs::write(dir.join("late.py"), LATE).unwrap();
    let config = format!(
        r#"
[[service]]
id = "late"
command = "python3"
args = ["late.py"]
working_dir = "."
restart_policy = {{ type = "always" }}
channel = {{ transport = "unix", path = {path:?}, framing = "mcp", recovery = {{ handshake_timeout = "100ms", heartbeat = {{ idle = "1h" }} }} }}

[[service.probe]]
role = "readiness"
kind = "exec"
command = ["test", "-S", "sock"]
period = "50ms"
"#,
        path = dir.join("sock"),
    );
    std::fs::write(dir.join("ide-supervisor.toml"), config).unwrap();
    place.up();
    for generation in 1..=2 {
        let absent = place
            .until("its channel is given up", |status| channel(status, "late")["state"] == "open");
        std::fs::write(dir.join("go"), "").unwrap();
        // Long before the minute is over that an open circuit waits.
        place.until("it is connected to", |status| {
            channel(status, "late")["state"] == "ready"
                && channel(status, "late")["generation"] == generation
        });
        std::fs::remove_file(dir.join("go")).unwrap();
        std::fs::remove_file(dir.join("sock")).unwrap();
        send(pid_of(&Place::service(&absent, "late")), rustix::process::Signal::KILL);
    }
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}
