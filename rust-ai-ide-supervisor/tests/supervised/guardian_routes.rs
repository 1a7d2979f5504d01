//! Ways a supervisor can go while something is under way, and what its services notice of it.

use std::fs;
use std::process::{Command, Stdio};

use super::guardian::{MIXED, both_run, guardian, killed, wait_for};
use super::place::{PROGRAM, Place, kill, pid_of};

/// Whether a program can be run; what needs one that is not there is left out, and that is said.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    let has = found.is_ok_and(|status| status.success());
    if !has {
        println!("skipped: {program} is not installed");
    }
    has
}

/// Reports every 50 ms until a file is there.
const BEATING: &str = r#"
import os, socket, time
name = os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1)
out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def say(text):
    try: out.sendto(text, name)
    except OSError: pass
say(b"READY=1")
while True:
    if not os.path.exists("silent"): say(b"WATCHDOG=1")
    time.sleep(0.05)
"#;

#[test]
fn the_heartbeat_of_an_adopted_service_keeps_it_alive_and_its_silence_is_noticed() {
    if !has("python3") {
        return;
    }
    let mut place = Place::new(
        r#"
[[service]]
id = "beats"
command = "python3"
args = ["beating.py"]
restart_policy = { type = "fixed_delay", delay = "1h" }
on_host_death = "outlive"

[[service.probe]]
role = "liveness"
kind = "heartbeat"
period = "500ms"
failure_threshold = 2
"#,
    );
    fs::write(place.dir.path().join("beating.py"), BEATING).unwrap();
    place.up();
    let ready = |status: &serde_json::Value| Place::service(status, "beats")["ready"] == true;
    let before = Place::service(&place.until("it runs", ready), "beats");
    killed(&mut place);
    place.up();
    place.until("it is adopted", ready);
    let began = std::time::Instant::now();
    // Three times as long as silence is borne: without its heartbeat it would have been restarted.
    place.until("time has passed", |_| began.elapsed() > std::time::Duration::from_secs(3));
    let after = Place::service(&place.status().unwrap(), "beats");
    for field in ["pid", "incarnation", "restarts", "ready"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    fs::write(place.dir.path().join("silent"), "").unwrap();
    let status = place.until("its silence is noticed", |status| {
        Place::service(status, "beats")["phase"] == "backoff"
    });
    assert_eq!(Place::service(&status, "beats")["last_exit"]["reason"], "hang");
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}

#[test]
fn a_stop_that_was_under_way_when_the_supervisor_was_killed_is_finished_by_the_next_one() {
    let mut place = Place::new(
        r#"
[[service]]
id = "deaf"
command = "sh"
args = ["-c", "trap '' TERM; (setsid sh -c \"trap '' TERM; sleep 600; :\" &); sleep 600; :"]
restart_policy = { type = "always" }
shutdown_timeout = "3s"
on_host_death = "outlive"
"#,
    );
    place.up();
    place.until("it runs", |status| Place::service(status, "deaf")["ready"] == true);
    let mut stop = Command::new(PROGRAM);
    stop.args(["stop", "deaf"]).current_dir(place.dir.path()).stdin(Stdio::null());
    let mut stop = stop.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    place.until("it is stopping", |status| Place::service(status, "deaf")["phase"] == "stopping");
    killed(&mut place);
    stop.wait().unwrap();
    assert!(place.marked() > 0, "it ignores the signal, and outlives");
    place.up();
    place.until("the stop is finished", |status| {
        Place::service(status, "deaf")["phase"] == "stopped"
    });
    assert_eq!(place.marked(), 0, "its set is gone, what left it included");
    assert!(place.down().success());
}

/// `up` at a terminal of its own, whose other end is the process that is given.
fn up_at_a_terminal(place: &Place) -> std::process::Child {
    let command = format!("exec '{PROGRAM}' up");
    let mut script = Command::new("script");
    script.args(["--quiet", "--command", &command, "/dev/null"]);
    script.current_dir(place.dir.path()).stdin(Stdio::null());
    script.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn supervisor(place: &Place) -> Option<u32> {
    let pid = place.status()?["supervisor"]["pid"].as_u64()?;
    u32::try_from(pid).ok()
}

#[test]
fn a_terminal_that_is_closed_ends_what_dies_and_leaves_what_outlives_to_be_adopted() {
    if !has("script") {
        return;
    }
    let mut place = Place::new(MIXED);
    let mut terminal = up_at_a_terminal(&place);
    let before = place.until("both run", both_run);
    let pid = supervisor(&place).unwrap();
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    wait_for("the supervisor is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    wait_for("only what outlives is left", || place.marked() == 1);
    assert!(guardian(&place).is_some(), "it guards what is left");
    place.up();
    let after = place.until("both run again", both_run);
    let stays = |status| pid_of(&Place::service(status, "stays"));
    assert_eq!(stays(&before), stays(&after), "adopted");
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}

#[test]
fn a_terminal_that_is_closed_shuts_down_in_order_where_nothing_outlives_and_without_one_sighup_reloads()
 {
    if !has("script") {
        return;
    }
    let config = r#"
[[service]]
id = "orderly"
command = "sh"
args = ["-c", "trap 'echo asked > asked; exit 0' TERM; while :; do sleep 0.05; done"]
"#;
    let mut place = Place::new(config);
    let mut terminal = up_at_a_terminal(&place);
    let ready = |status: &serde_json::Value| Place::service(status, "orderly")["ready"] == true;
    place.until("it runs", ready);
    let hup = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    };
    let pid = supervisor(&place).unwrap();
    let second = config.replace("orderly", "second");
    fs::write(place.dir.path().join("ide-supervisor.toml"), format!("{config}{second}")).unwrap();
    hup(pid);
    place.until("the file is read again, for the terminal is there", |status| {
        status["services"].as_array().is_some_and(|all| all.len() == 2)
    });
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    wait_for("the supervisor is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(place.dir.path().join("asked").exists(), "it was asked to end, not killed");
    assert_eq!(place.marked(), 0);
    place.up();
    place.told(&["ShutdownCompleted"]);
    fs::write(place.dir.path().join("ide-supervisor.toml"), config).unwrap();
    hup(place.up.as_ref().unwrap().id());
    place.until("the file is read again", |status| {
        status["services"].as_array().is_some_and(|all| all.len() == 1)
    });
    assert!(place.down().success());
}

#[test]
fn a_stored_pid_that_is_a_strangers_by_now_is_neither_adopted_nor_signalled() {
    let mut place = Place::new(MIXED);
    place.up();
    let before = place.until("both run", both_run);
    let guarding = guardian(&place).unwrap();
    killed(&mut place);
    kill(guarding);
    kill(pid_of(&Place::service(&before, "stays")));
    wait_for("nobody is left to adopt it from", || guardian(&place).is_none());
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    let started: u64 = {
        let stat = fs::read_to_string(format!("/proc/{}/stat", stranger.id())).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap()
    };
    let database = rusqlite::Connection::open(place.state().join("supervisor.db")).unwrap();
    let old = Place::service(&before, "stays")["pid"].as_u64().unwrap();
    let rows: Vec<(String, String)> = {
        let mut all = database.prepare("SELECT service, state FROM service_state").unwrap();
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let mut changed = 0;
    for (row, state) in rows {
        let mut state: serde_json::Value = serde_json::from_str(&state).unwrap();
        if state["identity"]["pid"] == old {
            state["identity"]["pid"] = stranger.id().into();
            state["identity"]["start_time"] = started.into();
            let update = "UPDATE service_state SET state = ?1 WHERE service = ?2";
            changed += database.execute(update, (state.to_string(), row)).unwrap();
        }
    }
    assert_eq!(changed, 1, "the record is forged");
    drop(database);
    place.up();
    let after = place.until("both run", both_run);
    assert_ne!(pid_of(&Place::service(&after, "stays")), stranger.id());
    assert!(place.down().success());
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger lives");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_eq!(place.marked(), 0);
}

#[test]
fn what_outlives_a_supervisor_that_had_no_time_to_store_an_event_is_adopted() {
    let mut place = Place::new(MIXED);
    place.up();
    let before = place.until("both run", both_run);
    killed(&mut place);
    let database = rusqlite::Connection::open(place.state().join("supervisor.db")).unwrap();
    assert!(database.execute("DELETE FROM event", ()).unwrap() > 0);
    drop(database);
    place.up();
    let after = place.until("both run again", both_run);
    let stays = |status| pid_of(&Place::service(status, "stays"));
    assert_eq!(stays(&before), stays(&after));
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}
