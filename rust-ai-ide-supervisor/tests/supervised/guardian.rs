//! Supervisors and guardians that are killed: what is left, what goes on, what the next one says.

use serde_json::Value;

use super::place::{Place, kill, pid_of, text};

pub(crate) const MIXED: &str = r#"
[[service]]
id = "dies"
command = "sh"
args = ["-c", "(setsid sleep 600 &); sleep 600; :"]
restart_policy = { type = "always" }

[[service]]
id = "stays"
command = "sleep"
args = ["600"]
restart_policy = { type = "always" }
on_host_death = "outlive"
"#;

/// The guardian of a place, by its command line.
pub(crate) fn guardian(place: &Place) -> Option<u32> {
    let wanted = format!("--ide-supervisor-guardian\0{}\0", place.state().display());
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&wanted))
    })
}

pub(crate) fn killed(place: &mut Place) {
    let mut up = place.up.take().unwrap();
    up.kill().unwrap();
    up.wait().unwrap();
}

pub(crate) fn wait_for(what: &str, mut wanted: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + super::place::LIMIT;
    while !wanted() {
        assert!(std::time::Instant::now() < deadline, "{what} never came");
        // poll: the condition above is looked at again, with a generous limit.
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}

pub(crate) fn both_run(status: &Value) -> bool {
    ["dies", "stays"].iter().all(|id| Place::service(status, id)["ready"] == true)
}

#[test]
fn a_killed_supervisor_leaves_no_orphan_and_what_outlives_it_is_adopted_with_its_counters() {
    let mut place = Place::new(MIXED);
    place.up();
    let status = place.until("both run", both_run);
    assert!(status["supervisor"]["containment"].as_array().unwrap().contains(&"guardian".into()));
    kill(pid_of(&Place::service(&status, "stays")));
    let status = place.until("it restarted once", |status| {
        both_run(status) && Place::service(status, "stays")["restarts"] == 1
    });
    let before = Place::service(&status, "stays");
    // What was counted is stored a moment after it is shown, and before a checkpoint is.
    assert!(place.run(&["checkpoint", "create"]).status.success());
    killed(&mut place);
    wait_for("only what outlives is left", || place.marked() == 1);
    place.up();
    let status = place.until("both run again", both_run);
    let after = Place::service(&status, "stays");
    for field in ["pid", "incarnation", "restarts"] {
        assert_eq!(after[field], before[field], "{field} of {after:#}");
    }
    assert_eq!(
        place.marked(),
        4,
        "one of each, no second copy: sh, its two sleeps, one that stayed"
    );
    place.audited(&["stays", "outlived the supervisor: adopted"]);
    place.audited(&["dies", "ended with the supervisor"]);
    assert!(place.run(&["audit", "verify"]).status.success());
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
    wait_for("the guardian is gone too", || guardian(&place).is_none());
}

#[test]
fn what_ended_while_no_supervisor_was_there_is_judged_by_its_real_code_and_signal() {
    let place = |id: &str, end: &str| {
        format!(
            r#"
[[service]]
id = "{id}"
command = "sh"
args = ["-c", "while ! test -e go; do sleep 0.02; done; {end}"]
restart_policy = {{ type = "fixed_delay", delay = "1h" }}
on_host_death = "outlive"
"#
        )
    };
    let mut place = Place::new(&(place("code", "exit 41") + &place("signal", "kill -SEGV $$")));
    let running = |status: &Value| {
        ["code", "signal"].iter().all(|id| Place::service(status, id)["ready"] == true)
    };
    place.up();
    let status = place.until("both run", running);
    let pids = ["code", "signal"].map(|id| pid_of(&Place::service(&status, id)));
    killed(&mut place);
    std::fs::write(place.dir.path().join("go"), "").unwrap();
    wait_for("both ended", || place.marked() == 0);
    // With nothing left to guard it is gone, and what it recorded is not.
    wait_for("the guardian is gone", || guardian(&place).is_none());
    place.up();
    let status = place.until("both are judged", |status| {
        ["code", "signal"].iter().all(|id| Place::service(status, id)["phase"] == "backoff")
    });
    let exit = |id: &str| Place::service(&status, id)["last_exit"].clone();
    assert_eq!((&exit("code")["code"], &exit("code")["reason"]), (&41.into(), &"crash".into()));
    assert_eq!(exit("signal")["signal"], 11);
    place.audited(&[&format!("(pid {}) outlived", pids[0]), "exit code 41"]);
    assert!(place.down().success());
}

#[test]
fn what_takes_a_privilege_that_is_missing_is_a_warning_and_the_service_runs() {
    use std::process::{Command, Stdio};
    let without = ["--bounding-set=-sys_nice,-sys_resource", "--inh-caps=-sys_nice,-sys_resource"];
    let tried = Command::new("setpriv").args(without).arg("true").stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        println!("skipped: it takes setpriv and the right to give up rights");
        return;
    }
    for guardian in [true, false] {
        let mut place = Place::new(
            r#"
[[service]]
id = "wishes"
command = "sh"
args = ["-c", "nice; cat /proc/self/oom_score_adj; exec sleep 600"]
limits = { nice = -20, oom_score_adj = -900 }
"#,
        );
        let mut up = Command::new("setpriv");
        up.args(without).arg(super::place::PROGRAM).arg("up").current_dir(place.dir.path());
        if !guardian {
            up.arg("--no-guardian");
        }
        up.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        place.up = Some(up.spawn().unwrap());
        place.until("it runs", |status| Place::service(status, "wishes")["ready"] == true);
        place.run(&["down"]);
        let output = place.up.take().unwrap().wait_with_output().unwrap();
        let said = text(&output.stderr);
        for field in ["limits.nice", "limits.oom_score_adj"] {
            assert!(said.contains(field), "{field}, guardian {guardian}: {said}");
        }
        assert!(said.contains("wishes") && said.contains("inherited"), "{said}");
        assert_eq!(place.marked(), 0);
    }
}

#[test]
fn a_killed_guardian_is_replaced_without_a_second_copy_and_that_is_said() {
    let mut place = Place::new(MIXED);
    place.up();
    let before = place.until("both run", both_run);
    let first = guardian(&place).expect("a guardian");
    kill(first);
    let newer = |status: &Value, id: &str| {
        let run = |status: &Value| Place::service(status, id)["incarnation"].as_u64();
        run(status) > run(&before)
    };
    place.until("both run again", |status| {
        both_run(status) && newer(status, "dies") && newer(status, "stays")
    });
    assert_eq!(place.marked(), 4, "one of each, no second copy");
    let second = guardian(&place).expect("another guardian");
    assert_ne!(first, second);
    place.told(&["the guardian died"]);
    place.told(&[&format!("pid {second}")]);
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}

#[test]
fn both_killed_at_once_leave_no_second_copy() {
    let mut place = Place::new(MIXED);
    place.up();
    place.until("both run", both_run);
    let first = guardian(&place).expect("a guardian");
    let up = place.up.as_ref().unwrap().id();
    kill(first);
    kill(up);
    place.up.take().unwrap().wait().unwrap();
    place.up();
    place.until("both run again", both_run);
    assert_eq!(place.marked(), 4);
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}

#[test]
fn a_run_that_was_started_but_not_stored_keeps_its_number_for_itself() {
    let mut place = Place::new(MIXED);
    place.up();
    let started = place.until("both run", both_run);
    killed(&mut place);
    // As a run looks whose supervisor and guardian were killed before either told of it.
    let run = |service: &str, run: &str| {
        let mut sleep = std::process::Command::new("sleep");
        sleep.arg("600").env("IDE_SUPERVISOR_MARK", place.mark());
        sleep.env("IDE_SUPERVISOR_SERVICE", service).env("IDE_SUPERVISOR_INCARNATION", run);
        sleep.spawn().unwrap()
    };
    assert_eq!(Place::service(&started, "dies")["incarnation"], 1);
    let mut left = [run("dies", "7"), run("dies", "6"), run("dies", "18446744073709551615")];
    place.up();
    let status = place.until("both run again", both_run);
    assert_eq!(Place::service(&status, "dies")["incarnation"], 8);
    for sleep in &mut left {
        assert!(!sleep.wait().unwrap().success(), "it was ended");
    }
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
}

#[test]
fn what_hides_its_environment_is_no_second_copy_after_a_supervisor_without_a_guardian() {
    let mut place = Place::new(
        r#"
[[service]]
id = "hides"
command = "sh"
args = ["-c", "exec env -i /bin/sleep 600"]
restart_policy = { type = "always" }
"#,
    );
    let mut up = std::process::Command::new(super::place::PROGRAM);
    up.args(["up", "--no-guardian"]).current_dir(place.dir.path());
    let null = std::process::Stdio::null;
    place.up = Some(up.stdin(null()).stdout(null()).stderr(null()).spawn().unwrap());
    let status = place.until("it runs", |status| Place::service(status, "hides")["ready"] == true);
    let hidden = pid_of(&Place::service(&status, "hides"));
    let runs =
        || std::fs::read(format!("/proc/{hidden}/cmdline")).is_ok_and(|line| !line.is_empty());
    wait_for("a program without marks", || runs() && place.marked() == 0);
    place.audited(&["hides", "running"]);
    killed(&mut place);
    place.up();
    let again = place.until("it runs again", |status| {
        let service = Place::service(status, "hides");
        service["ready"] == true && pid_of(&service) != hidden
    });
    let ended = !runs();
    if !ended {
        kill(hidden);
    }
    assert!(ended, "process {hidden} runs on beside {}", pid_of(&Place::service(&again, "hides")));
    assert!(place.down().success());
}

#[test]
fn a_service_that_outlived_and_is_not_configured_any_more_is_ended_and_that_is_said() {
    let mut place = Place::new(MIXED);
    place.up();
    place.until("both run", both_run);
    killed(&mut place);
    let rest = MIXED.split("\n[[service]]").nth(1).unwrap();
    std::fs::write(place.dir.path().join("ide-supervisor.toml"), format!("[[service]]{rest}"))
        .unwrap();
    place.up();
    place.until("it runs", |status| Place::service(status, "dies")["ready"] == true);
    wait_for("what is not configured is ended", || place.marked() == 3);
    place.audited(&["stays", "its service is not registered any more: ended"]);
    assert!(place.down().success());
}

#[test]
fn without_a_guardian_everything_works_and_status_and_doctor_say_what_is_weaker() {
    let place = Place::new(MIXED);
    assert!(place.run(&["up", "--detach", "--no-guardian"]).status.success());
    let status = place.until("both run", both_run);
    assert!(!status["supervisor"]["containment"].as_array().unwrap().contains(&"guardian".into()));
    assert!(text(&place.run(&["status"]).stdout).contains("without a guardian"));
    assert_eq!(guardian(&place), None);
    assert!(place.run(&["down"]).status.success());
    assert!(place.run(&["up", "--detach"]).status.success());
    let log = std::fs::metadata(place.state().join("supervisor.log")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&log.permissions()) & 0o777, 0o600);
    place.until("both run", both_run);
    assert!(text(&place.run(&["status"]).stdout).contains("guarded"));
    let doctor = text(&place.run(&["doctor"]).stdout);
    let said = format!("process {} owns the services' processes", guardian(&place).unwrap());
    assert!(doctor.contains(&said), "{doctor}");
    assert!(place.run(&["down"]).status.success());
    assert_eq!(place.marked(), 0);
}
