//! Critical services that are given up: one shutdown, in order, whatever else goes on.

use std::fs;

use super::place::{Place, text};

/// Two critical services that give up at about the same time, one that starts for ever, one that stops slowly, one in
/// its backoff, and two layers that must stop in order.
const STORM: &str = r#"
[supervisor]
global_shutdown_timeout = "20s"

[[service]]
id = "base"
command = "sh"
args = ["-c", "trap 'echo base >> order; exit 0' TERM; echo up > base.up; while :; do sleep 0.02; done"]

[[service]]
id = "top"
command = "sh"
args = ["-c", "trap 'sleep 0.3; echo top >> order; exit 0' TERM; echo up > top.up; while :; do sleep 0.02; done"]
depends_on = [{ id = "base", condition = "started" }]

[[service]]
id = "starting"
command = "sleep"
args = ["600"]
health_check_timeout = "300s"

[[service.probe]]
role = "startup"
kind = "exec"
command = ["false"]
period = "100ms"
failure_threshold = 1000

[[service]]
id = "waiting"
command = "false"
restart_policy = { type = "fixed_delay", delay = "600s" }

[[service]]
id = "heart"
command = "sh"
args = ["-c", "until test -e go; do sleep 0.02; done; exit 9"]
critical = true
restart_policy = { type = "never" }

[[service]]
id = "brain"
command = "sh"
args = ["-c", "until test -e go; do sleep 0.02; done; exit 8"]
critical = true
restart_policy = { type = "never" }
"#;

#[test]
fn two_critical_services_given_up_in_a_storm_cause_one_ordered_shutdown_that_names_both() {
    let mut place = Place::new(STORM);
    place.up();
    let ready = ["base.up", "top.up"].map(|name| place.dir.path().join(name));
    place.until("the storm is set", |status| {
        ready.iter().all(|file| file.exists())
            && Place::service(status, "waiting")["phase"] == "backoff"
            && Place::service(status, "starting")["phase"] == "starting"
    });
    fs::write(place.dir.path().join("go"), "").unwrap();
    let up = place.up.take().unwrap().wait_with_output().unwrap();
    assert_eq!(up.status.code(), Some(7), "{}", text(&up.stderr));
    let said = text(&up.stderr);
    assert!(said.contains("heart") || said.contains("brain"), "the culprit is named: {said}");
    assert_eq!(place.marked(), 0);
    let order = fs::read_to_string(place.dir.path().join("order")).unwrap();
    assert_eq!(order, "top\nbase\n", "dependents first, though they take longer");
    let database = rusqlite::Connection::open(place.state().join("supervisor.db")).unwrap();
    let events = |kind: &str| -> Vec<String> {
        let mut rows = database.prepare("SELECT body FROM event ORDER BY sequence").unwrap();
        let rows = rows.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
        let wanted = format!("\"type\":\"{kind}\"");
        rows.filter(|json| json.contains(&wanted)).collect()
    };
    assert_eq!(events("ShutdownStarted").len(), 1);
    assert_eq!(events("ShutdownCompleted").len(), 1);
    assert!(
        events("ShutdownCompleted")[0].contains("\"clean\":true"),
        "{:?}",
        events("ShutdownCompleted")
    );
    let given_up = events("ServiceGaveUp");
    for id in ["heart", "brain"] {
        let of = given_up.iter().filter(|json| json.contains(id)).count();
        assert_eq!(of, 1, "{id}: {given_up:?}");
    }
    assert!(events("CheckpointCreated").len() >= 2, "one before the stop and one after it");
    // Nothing was started once the shutdown had begun.
    let started = &events("ShutdownStarted")[0];
    let sequence = |json: &str| -> u64 {
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        value["sequence"].as_u64().unwrap()
    };
    let later =
        events("ServiceStateChanged").into_iter().filter(|json| sequence(json) > sequence(started));
    for json in later {
        assert!(!json.contains("\"to\":\"starting\""), "{json}");
    }
}
