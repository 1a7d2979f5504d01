//! The end of the program that wraps, by whatever route: nothing of its server is left.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use crate::client::{Client, children_of};
use crate::plumbing::{PATIENCE, Place, alive, kill, within};

/// A server that reads nothing, ignores whatever can be ignored, and starts a process that leaves its group, its
/// session, its parent and its environment behind; each writes its pid.
const STUBBORN: &str = r#"
trap '' TERM INT HUP
(setsid env -i "PATH=$PATH" sh -c 'trap "" TERM INT HUP; echo $$ > "$0/escaped"; exec sleep 1000' "$IDE_FAKE_DIR" &)
echo $$ > "$IDE_FAKE_DIR/leader"
exec sleep 1000
"#;

fn stubborn(place: &Place) -> (Command, impl Fn(&str) -> Option<u32> + use<>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ide-supervisor"));
    command.args(["wrap", "--protocol", "lsp", "--", "sh", "-c", STUBBORN]);
    command.env("IDE_FAKE_DIR", place.dir.path());
    let dir = place.dir.path().to_owned();
    (command, move |name| std::fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok())
}

/// Starts the stubborn server, ends something, and sees everything gone.
fn nothing_is_left_after(end: impl FnOnce(&mut Client)) {
    let place = Place::new(&json!([{}]));
    let (command, pid) = stubborn(&place);
    let mut client = Client::spawn(&place, command);
    assert!(within(|| pid("leader").is_some() && pid("escaped").is_some()), "{}", client.said());
    let worker = children_of(client.pid());
    let server = [pid("leader").unwrap(), pid("escaped").unwrap()];
    assert!(server.iter().all(|pid| alive(*pid)));
    let begin = Instant::now();
    end(&mut client);
    let all = || server.iter().chain(&worker).all(|pid| !alive(*pid));
    assert!(within(all), "left behind: {server:?}; {}", client.said());
    println!("everything was gone after {} ms", begin.elapsed().as_millis());
    assert!(begin.elapsed() < PATIENCE);
    client.ended();
}

#[test]
fn a_killed_wrap_leaves_nothing_of_a_server_that_ignores_everything_and_has_escaped_children() {
    nothing_is_left_after(|client| kill(client.pid()));
}

#[test]
fn a_wrap_whose_session_is_killed_below_it_leaves_nothing_and_says_so() {
    nothing_is_left_after(|client| {
        kill(children_of(client.pid())[0]);
        assert_eq!(client.ended(), Some(1));
        client.hears("the process that carried the session was ended by signal 9");
    });
}

#[test]
fn a_wrap_killed_while_its_session_is_stopped_leaves_nothing() {
    nothing_is_left_after(|client| {
        let worker = i32::try_from(children_of(client.pid())[0]).unwrap();
        let worker = rustix::process::Pid::from_raw(worker).unwrap();
        rustix::process::kill_process(worker, rustix::process::Signal::STOP).unwrap();
        kill(client.pid());
    });
}

#[test]
fn an_editor_killed_with_its_whole_group_leaves_no_server() {
    let place = Place::new(&json!([{}]));
    let (mut command, pid) = stubborn(&place);
    command.process_group(0);
    let mut client = Client::spawn(&place, command);
    assert!(within(|| pid("leader").is_some() && pid("escaped").is_some()));
    let group = i32::try_from(client.pid()).unwrap();
    let group = rustix::process::Pid::from_raw(group).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    let server = [pid("leader").unwrap(), pid("escaped").unwrap()];
    assert!(within(|| server.iter().all(|pid| !alive(*pid))), "left behind: {server:?}");
    client.ended();
}

#[test]
fn a_wrap_that_is_asked_to_end_by_any_of_three_signals_ends_its_server() {
    use rustix::process::Signal;
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let place = Place::new(&json!([{}]));
        let mut client = Client::start(&place);
        client.initialize();
        let pid = rustix::process::Pid::from_raw(i32::try_from(client.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        assert!(client.ended().is_some(), "{signal:?}: {}", client.said());
        assert!(!alive(place.pids()[0]), "{signal:?}");
    }
}

#[test]
fn a_wrap_asked_to_end_while_it_waits_for_a_restart_or_restores_starts_no_other_server() {
    let slow = json!({ "late_on": "initialize", "late_ms": 60_000 });
    let crash = json!({ "crash_on": "initialize" });
    for (then, starts) in [(slow, 2), (crash, 4)] {
        let mut runs = vec![json!({})];
        runs.extend(std::iter::repeat_n(then, 20));
        let place = Place::new(&json!(runs));
        let mut client = Client::start(&place);
        client.initialize();
        client.texts();
        kill(place.pids()[0]);
        client.hover("file:///w/a.x");
        // The second one waits a second after its fourth start.
        assert!(within(|| place.pids().len() >= starts));
        let pid = rustix::process::Pid::from_raw(i32::try_from(client.pid()).unwrap()).unwrap();
        _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        client.ended();
        let pids = place.pids();
        assert!(pids.len() <= starts + 1, "servers were started for nobody: {pids:?}");
        assert!(within(|| pids.iter().all(|pid| !alive(*pid))));
    }
}
