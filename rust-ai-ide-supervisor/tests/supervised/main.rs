//! The program and its services from outside: real processes, killed and looked at again.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it skips"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

mod channels;
mod critical;
mod guardian;
mod guardian_kills;
mod guardian_routes;
mod place;
mod real;
mod storage;
mod storage_faults;

use place::{LIMIT, PROGRAM, Place, all_ready, kill, pid_of, text};

const TWO: &str = r#"
[[service]]
id = "steady"
command = "sleep"
args = ["600"]
restart_policy = { type = "always" }

[[service]]
id = "forking"
command = "sh"
args = ["-c", "sleep 600 & sleep 600"]
restart_policy = { type = "fixed_delay", delay = "50ms" }
"#;

#[test]
fn a_killed_service_is_back_and_status_events_and_audit_tell_why() {
    let mut place = Place::new(TWO);
    place.up();
    let before = Place::service(&place.until("both run", all_ready), "forking");
    kill(pid_of(&before));
    let after = place.until("it is back", |status| {
        let service = Place::service(status, "forking");
        service["ready"] == true && service["incarnation"].as_u64() > before["incarnation"].as_u64()
    });
    let after = Place::service(&after, "forking");
    assert_eq!(after["restarts"], 1);
    assert_eq!(after["last_exit"]["signal"], 9);
    assert_eq!(after["last_exit"]["reason"], "crash");
    assert_eq!(place.marked(), 4, "sleep, sh and its two sleeps; nothing of the killed run");
    place.told(&["ServiceRestarted", "forking"]);
    place.audited(&["forking", "-> backoff"]);
    assert!(place.run(&["audit", "verify"]).status.success());
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}

#[test]
fn a_killed_supervisor_leaves_no_second_copy_and_the_next_one_says_what_it_recovered() {
    let mut place = Place::new(TWO);
    place.up();
    let status = place.until("both run", all_ready);
    kill(pid_of(&Place::service(&status, "steady")));
    place.until("it restarted once", |status| Place::service(status, "steady")["restarts"] == 1);
    let checkpoint = text(&place.run(&["checkpoint", "create"]).stdout).trim().to_owned();
    assert!(place.run(&["stop", "forking"]).status.success());
    let mut up = place.up.take().unwrap();
    up.kill().unwrap();
    up.wait().unwrap();
    place.up();
    let status =
        place.until("it is up again", |status| Place::service(status, "steady")["ready"] == true);
    let steady = Place::service(&status, "steady");
    assert_eq!(steady["restarts"], 1, "restart counters survive");
    assert!(steady["incarnation"].as_u64() > Some(2));
    assert_eq!(
        Place::service(&status, "forking")["phase"],
        "stopped",
        "what was stopped by hand stays stopped"
    );
    assert_eq!(place.marked(), 1);
    let events = place.told(&["\"Recovered\""]);
    let recovered = events.lines().find(|line| line.contains("\"Recovered\"")).expect("a recovery");
    assert!(recovered.contains(&checkpoint), "{recovered}");
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over_and_that_is_said() {
    let mut place = Place::new(TWO);
    place.up();
    place.until("both run", all_ready);
    let good = text(&place.run(&["checkpoint", "create"]).stdout).trim().to_owned();
    let bad = text(&place.run(&["checkpoint", "create"]).stdout).trim().to_owned();
    let mut up = place.up.take().unwrap();
    up.kill().unwrap();
    up.wait().unwrap();
    damage(&place.state(), &bad);
    place.up();
    let events = place.told(&["\"Recovered\""]);
    let recovered = events.lines().find(|line| line.contains("\"Recovered\"")).expect("a recovery");
    assert!(recovered.contains(&format!("checkpoint {good}")), "{recovered}");
    assert!(recovered.contains(&bad), "{recovered}");
    let verified = place.run(&["checkpoint", "verify", "--json", &bad]);
    assert_eq!(verified.status.code(), Some(1));
    let said = text(&verified.stdout) + &text(&verified.stderr);
    assert!(said.contains("quarantined"), "{said}");
    assert!(place.down().success());
}

/// Changes one byte of a checkpoint in both of its places.
fn damage(state: &Path, id: &str) {
    let database = rusqlite::Connection::open(state.join("supervisor.db")).unwrap();
    let number: i64 = database
        .query_row("SELECT number FROM checkpoint WHERE id = ?1", [id], |row| row.get(0))
        .unwrap();
    let change = "UPDATE checkpoint SET payload = CAST(replace(CAST(payload AS TEXT), 'schema', 'schemb') AS BLOB) WHERE id = ?1";
    assert_eq!(database.execute(change, [id]).unwrap(), 1);
    let file = state.join(format!("checkpoints/checkpoint-{number:08}.json"));
    let mut bytes = fs::read(&file).unwrap();
    bytes[10] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_second_up_is_refused_with_its_own_number_and_names_the_owner() {
    let mut place = Place::new(TWO);
    place.up();
    let second = place.spawn_up().wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(6));
    let owner = place.up.as_ref().unwrap().id().to_string();
    assert!(text(&second.stderr).contains(&owner), "{}", text(&second.stderr));
    assert!(place.down().success());
}

#[test]
fn a_database_that_is_not_ours_is_refused_with_its_own_number() {
    let place = Place::new(TWO);
    fs::create_dir(place.state()).unwrap();
    fs::write(
        place.state().join("supervisor.db"),
        "not a database, but long enough to look at".repeat(9),
    )
    .unwrap();
    let output = place.spawn_up().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(8), "{}", text(&output.stderr));
    assert_eq!(place.marked(), 0);
}

#[test]
fn a_bad_configuration_starts_nothing_and_ends_with_its_own_number() {
    for (config, expected) in [
        ("[[service]]\nid = \"a\"\ncommand = \"sleep\"\nresart_policy = 1\n", "restart_policy"),
        ("[[service]]\nid = \"a\"\ncommand = 7\n", "command"),
        (
            "[[service]]\nid = \"a\"\ncommand = \"no-such-program-anywhere\"\n",
            "no-such-program-anywhere",
        ),
        (
            "[[service]]\nid = \"a\"\ncommand = \"sleep\"\nshutdown_timeout = \"-5s\"\n",
            "shutdown_timeout",
        ),
        (
            "[[service]]\nid = \"a\"\ncommand = \"sleep\"\ndepends_on = [{ id = \"b\" }]\n\n[[service]]\nid = \"b\"\ncommand = \"sleep\"\ndepends_on = [{ id = \"a\" }]\n",
            "a -> b -> a",
        ),
    ] {
        let place = Place::new(config);
        let output = place.spawn_up().wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains(expected) || said.contains("b -> a -> b"), "{said}");
        assert!(!place.state().exists(), "nothing was made");
    }
}

#[test]
fn asking_where_nobody_runs_and_for_who_is_not_there_have_numbers_of_their_own() {
    let mut place = Place::new(TWO);
    assert_eq!(place.run(&["status"]).status.code(), Some(4));
    assert_eq!(place.run(&["start", "nobody"]).status.code(), Some(4));
    place.up();
    assert_eq!(place.run(&["start", "nobody"]).status.code(), Some(5));
    assert_eq!(place.run(&["logs", "nobody"]).status.code(), Some(5));
    assert!(place.run(&["restart", "steady"]).status.success());
    assert!(place.run(&["channels"]).status.success());
    assert!(place.down().success());
}

#[test]
fn a_critical_service_that_is_given_up_ends_everything_and_is_named() {
    let mut place = Place::new(
        r#"
[[service]]
id = "bystander"
command = "sleep"
args = ["600"]

[[service]]
id = "vital"
command = "sh"
args = ["-c", "echo last words; exit 1"]
critical = true
restart_policy = { type = "exponential_backoff", base_delay = "10ms", max_delay = "10ms", max_attempts = 2 }
"#,
    );
    let output = place.spawn_up().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("vital"), "{}", text(&output.stderr));
    assert_eq!(place.marked(), 0);
    let audit = text(&place.run(&["audit", "list"]).stdout);
    assert!(audit.contains("critical service vital"), "{audit}");
    assert!(place.run(&["audit", "verify"]).status.success());
    place.up = None;
}

#[test]
fn output_is_captured_and_followed() {
    let mut place = Place::new(
        "[[service]]\nid = \"talker\"\ncommand = \"sh\"\nargs = [\"-c\", \"echo hello; echo oops >&2; sleep 600\"]\n",
    );
    place.up();
    let deadline = Instant::now() + LIMIT;
    loop {
        let logs = text(&place.run(&["logs", "talker"]).stdout);
        if logs.contains("hello") && logs.contains("oops") {
            break;
        }
        assert!(Instant::now() < deadline, "{logs}");
    }
    assert!(place.down().success());
}

#[test]
fn a_reload_changes_only_what_changed() {
    let mut place = Place::new(TWO);
    place.up();
    let before = place.until("both run", all_ready);
    let config = TWO.replace("\"50ms\"", "\"60ms\"")
        + "\n[[service]]\nid = \"new\"\ncommand = \"sleep\"\nargs = [\"600\"]\n";
    fs::write(place.dir.path().join("ide-supervisor.toml"), config).unwrap();
    let reload = place.run(&["reload"]);
    assert!(reload.status.success(), "{}", text(&reload.stderr));
    let after = place.until("the new one runs", |status| {
        status["services"]
            .as_array()
            .is_some_and(|all| all.len() == 3 && all.iter().all(|one| one["ready"] == true))
    });
    assert_eq!(Place::service(&before, "steady")["pid"], Place::service(&after, "steady")["pid"]);
    assert_ne!(Place::service(&before, "forking")["pid"], Place::service(&after, "forking")["pid"]);
    fs::write(place.dir.path().join("ide-supervisor.toml"), "nonsense").unwrap();
    assert!(!place.run(&["reload"]).status.success());
    assert_eq!(place.status().unwrap()["services"].as_array().unwrap().len(), 3);
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}

#[test]
fn the_demo_tells_its_story_and_leaves_nothing_behind() {
    let place = Place::new(TWO);
    let demo = Command::new(PROGRAM)
        .arg("demo")
        .env("TMPDIR", place.dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = text(&demo.stdout);
    assert!(demo.status.success(), "{said}{}", text(&demo.stderr));
    for part in [
        "language_server is ready again",
        "after a hang",
        "still stored",
        "recovered from checkpoint",
        "no second copy",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(
        fs::read_dir(place.dir.path()).unwrap().count(),
        1,
        "only the test's own configuration is left"
    );
}

#[test]
fn a_demo_that_is_killed_takes_everything_with_it() {
    let place = Place::new(TWO);
    let mut demo = Command::new(PROGRAM);
    let mut demo = demo
        .arg("demo")
        .env("TMPDIR", place.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + LIMIT;
    let ours = || {
        let dir = fs::canonicalize(place.dir.path()).unwrap();
        let table = fs::read_dir("/proc").unwrap().flatten();
        table
            .filter_map(|entry| fs::read(entry.path().join("environ")).ok())
            .filter(|environ| {
                text(environ).contains(&format!("IDE_SUPERVISOR_MARK={}", dir.display()))
            })
            .count()
    };
    while ours() < 3 {
        assert!(Instant::now() < deadline, "the demo's services do not come up");
    }
    demo.kill().unwrap();
    demo.wait().unwrap();
    while ours() > 0 {
        assert!(Instant::now() < deadline, "the demo's services outlive it");
    }
}

const SLOW: &str = r#"
[[service]]
id = "slow"
command = "sleep"
args = ["600"]

[[service.probe]]
role = "readiness"
kind = "exec"
command = ["false"]

[[service]]
id = "waits"
command = "sleep"
args = ["600"]
depends_on = [{ id = "slow", condition = "ready" }]

[[service]]
id = "heart"
command = "sh"
args = ["-c", "until test -e go; do sleep 0.02; done; exit 9"]
critical = true
restart_policy = { type = "never" }
"#;

#[test]
fn a_start_that_waits_for_a_slow_dependency_keeps_neither_a_person_nor_a_critical_failure_from_ending_all()
 {
    for critical in [false, true] {
        let mut place = Place::new(SLOW);
        place.up();
        let status = place.until("one runs, one waits", |status| {
            let phase = |id| Place::service(status, id)["phase"].clone();
            phase("slow") == "running"
                && phase("heart") == "running"
                && phase("waits") == "registered"
        });
        assert!(
            Place::service(&status, "waits")["reason"].as_str().unwrap().contains("waiting for")
        );
        assert_eq!(status["supervisor"]["state"], "running");
        let mut up = place.up.take().unwrap();
        if critical {
            fs::write(place.dir.path().join("go"), "").unwrap();
        } else {
            let pid = rustix::process::Pid::from_child(&up);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        let deadline = Instant::now() + LIMIT;
        let ended = loop {
            if let Some(ended) = up.try_wait().unwrap() {
                break ended;
            }
            assert!(Instant::now() < deadline, "it does not end");
            // poll: the condition above is looked at again, with a generous limit.
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        };
        assert_eq!(ended.code(), Some(if critical { 7 } else { 0 }));
        assert_eq!(place.marked(), 0);
    }
}

#[test]
fn status_and_doctor_agree_whether_runs_get_groups_of_their_own_and_none_is_left() {
    let mut place = Place::new(TWO);
    place.up();
    let status = place.until("both run", all_ready);
    let layers = status["supervisor"]["containment"].to_string();
    let report: serde_json::Value =
        serde_json::from_slice(&place.run(&["doctor", "--json"]).stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "cgroup v2").unwrap();
    if check["verdict"] != "ok" {
        assert!(!layers.contains("cgroup_v2"), "{layers}");
        println!("left out: {}", check["detail"]);
        place.down();
        return;
    }
    assert!(layers.contains("cgroup_v2"), "{layers}");
    let pid = pid_of(&Place::service(&status, "forking"));
    let group = || fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    place.until("it was moved", |_| group().contains("ide-supervisor-"));
    let own = group()
        .lines()
        .find_map(|line| line.strip_prefix("0::")?.strip_suffix("/forking.1").map(str::to_owned))
        .unwrap();
    let parent = check["detail"].as_str().unwrap().rsplit(' ').next().unwrap();
    let base = Path::new(parent).join(Path::new(&own).file_name().unwrap());
    assert!(base.join("forking.1").is_dir());
    // What a killed supervisor leaves is cleaned up by the next one.
    let mut up = place.up.take().unwrap();
    up.kill().unwrap();
    up.wait().unwrap();
    place.up();
    place.until("both run again", all_ready);
    assert!(!base.exists());
    place.down();
    let left = fs::read_dir(parent).unwrap().flatten().map(|entry| entry.file_name());
    let prefix = &base.file_name().unwrap().to_str().unwrap()[..31];
    assert_eq!(left.filter(|name| name.to_str().unwrap().starts_with(prefix)).count(), 0);
}
