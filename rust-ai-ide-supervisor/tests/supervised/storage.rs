//! Savepoints, backups and dead letters as a person and a script use them.

use std::fs;

use chrono::{DateTime, Utc};
use serde_json::Value;
use supervisor_core::message::{DeadLetter, IpcMessage};
use supervisor_core::ports::Outbox;
use supervisor_persist::StatePersistence;
use uuid::Uuid;

use crate::TWO;
use crate::place::{Place, all_ready, kill, pid_of, text};

fn json(place: &Place, args: &[&str]) -> Value {
    let output = place.run(&[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(place: &Place, args: &[&str]) -> String {
    let output = place.run(args);
    assert!(!output.status.success(), "{args:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

/// A supervisor whose service `steady` was restarted once after the savepoint `before`.
fn with_savepoint() -> Place {
    let mut place = Place::new(TWO);
    place.up();
    let status = place.until("both run", all_ready);
    let made = json(&place, &["savepoint", "create", "before", "--note", "all is well"]);
    assert_eq!((&made["services"], &made["health"]["state"]), (&2.into(), &"verified".into()));
    kill(pid_of(&Place::service(&status, "steady")));
    place.until("it restarted", |status| Place::service(status, "steady")["restarts"] == 1);
    place
}

#[test]
fn a_savepoint_is_compared_carried_elsewhere_and_gone_back_to() {
    let mut place = with_savepoint();
    let diff = json(&place, &["savepoint", "diff", "before"]);
    let fields = diff["services"][0]["fields"].as_array().unwrap();
    assert!(fields.iter().any(|field| field["field"] == "restarts"), "{diff:#}");
    assert!(refused(&place, &["savepoint", "create", "before"]).contains("before"));
    assert!(refused(&place, &["savepoint", "create", "../x"]).contains("../x"));
    assert!(refused(&place, &["savepoint", "restore", "before"]).contains("down"));

    let file = place.dir.path().join("carried");
    let path = file.to_str().unwrap();
    json(&place, &["savepoint", "export", "before", path]);
    let exported = fs::read(&file).unwrap();
    assert!(refused(&place, &["savepoint", "export", "before", path]).contains("already"));
    assert_eq!(fs::read(&file).unwrap(), exported, "what was there is untouched");
    json(&place, &["savepoint", "delete", "before"]);
    json(&place, &["savepoint", "import", path, "--name", "again"]);
    fs::write(&file, &exported[..exported.len() / 2]).unwrap();
    assert!(refused(&place, &["savepoint", "import", path, "--name", "cut"]).contains("damaged"));
    assert!(place.down().success());

    let dry = json(&place, &["savepoint", "restore", "again", "--dry-run"]);
    assert!(!dry["services"].as_array().unwrap().is_empty());
    let done = json(&place, &["savepoint", "restore", "again"]);
    let backups = json(&place, &["backup", "list"]);
    assert_eq!(backups[0]["name"], done["safety_backup"], "what was there is in a backup");
    place.up();
    let status = place.until("it runs", all_ready);
    assert_eq!(Place::service(&status, "steady")["restarts"], 0, "as before the restart");
    let incarnation = Place::service(&status, "steady")["incarnation"].as_u64();
    assert!(incarnation > Some(2), "but no run has the number of an earlier one: {incarnation:?}");
    assert!(place.down().success());
}

#[test]
fn a_checkpoint_is_gone_back_to_when_nothing_runs() {
    let mut place = with_savepoint();
    let taken = text(&place.run(&["checkpoint", "create"]).stdout).trim().to_owned();
    kill(pid_of(&Place::service(&place.status().unwrap(), "steady")));
    place.until("again", |status| Place::service(status, "steady")["restarts"] == 2);
    assert!(place.down().success());
    json(&place, &["checkpoint", "restore", &taken]);
    place.up();
    let status = place.until("it runs", all_ready);
    assert_eq!(Place::service(&status, "steady")["restarts"], 1);
    assert!(place.down().success());
}

#[test]
fn a_backup_is_taken_at_the_start_and_replaces_a_database_that_is_refused() {
    let mut place = with_savepoint();
    place.until("the first one on schedule", |_| {
        json(&place, &["backup", "list"])[0]["reason"]["kind"] == "scheduled"
    });
    place.told(&["BackupCompleted"]);
    let taken = json(&place, &["backup", "create"]);
    let name = taken["name"].as_str().unwrap().to_owned();
    let verified = json(&place, &["backup", "verify", &name]);
    assert_eq!(verified[0]["intact"], true);
    assert!(place.down().success());

    let database = place.state().join("supervisor.db");
    fs::write(&database, b"not a database at all").unwrap();
    for extension in ["supervisor.db-wal", "supervisor.db-shm"] {
        drop(fs::remove_file(place.state().join(extension)));
    }
    let mut up = place.spawn_up();
    assert_eq!(up.wait().unwrap().code(), Some(8));
    let output = place.run(&["backup", "list"]);
    assert_eq!(output.status.code(), Some(8), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("--replace-refused"), "{}", text(&output.stderr));
    assert!(place.run(&["backup", "restore", &name, "--replace-refused"]).status.success());
    place.up();
    let status = place.until("it runs", all_ready);
    assert_eq!(Place::service(&status, "steady")["restarts"], 1, "as the backup has it");
    assert!(place.down().success());
}

#[test]
fn stored_state_is_found_where_the_configuration_puts_it_and_when_that_is_broken_too() {
    let elsewhere = "[supervisor]\ndatabase_path = \"kept.db\"\ncheckpoint_dir = \"points\"\n";
    let mut place = Place::new(&format!("{elsewhere}{TWO}"));
    place.up();
    let taken = text(&place.run(&["checkpoint", "create"]).stdout).trim().to_owned();
    assert!(place.down().success());
    assert!(text(&place.run(&["checkpoint", "list"]).stdout).contains(&taken));
    let doctor = text(&place.run(&["doctor"]).stdout);
    assert!(doctor.contains("storage: checkpoints"), "{doctor}");
    fs::rename(place.state().join("kept.db"), place.state().join("supervisor.db")).unwrap();
    fs::rename(place.state().join("points"), place.state().join("checkpoints")).unwrap();
    fs::write(place.dir.path().join("ide-supervisor.toml"), "[supervisor").unwrap();
    assert!(text(&place.run(&["checkpoint", "list"]).stdout).contains(&taken));
}

#[test]
fn a_wrong_name_or_place_is_told_with_what_to_do_and_a_question_is_no_unclean_stop() {
    let mut place = with_savepoint();
    for (args, said) in [
        (vec!["savepoint", "show", "nope"], "`ide-supervisor savepoint list`"),
        (vec!["backup", "verify", "nope"], "`ide-supervisor backup list`"),
        (vec!["savepoint", "export", "before", "/not/there/x"], "no directory /not/there"),
        (vec!["savepoint", "export", "before", "."], "already"),
        (
            vec!["savepoint", "import", "ide-supervisor.toml"],
            "no savepoint written by this program",
        ),
        (vec!["savepoint", "import", "/dev/zero"], "device"),
        (vec!["savepoint", "import", "."], "regular file"),
        (vec!["dead-letters", "requeue", "x"], "`dead-letters list`"),
        (vec!["dead-letters", "purge"], "--all"),
    ] {
        let output = place.run(&args);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?}: {:?}", output.status);
        assert!(text(&output.stderr).contains(said), "{args:?}: {}", text(&output.stderr));
    }
    let empty = place.run(&["dead-letters", "list"]);
    assert_eq!(
        (text(&empty.stdout), text(&empty.stderr)),
        (String::new(), "no dead letters\n".into())
    );
    assert!(place.down().success());
    for args in [
        &["audit", "verify"][..],
        &["audit", "list"],
        &["checkpoint", "list"],
        &["checkpoint", "show"],
        &["checkpoint", "show", "00000000-0000-7000-8000-000000000000"],
        &["checkpoint", "verify"],
        &["savepoint", "list"],
        &["savepoint", "show", "nope"],
    ] {
        place.run(args);
    }
    let trail = text(&place.run(&["audit", "list"]).stdout);
    assert!(!trail.contains("did not end by itself"), "{trail}");
}

#[test]
fn what_opening_had_to_do_is_shown_until_somebody_says_that_it_was_seen() {
    let mut place = Place::new(TWO);
    place.up();
    assert!(place.run(&["backup", "create"]).status.success());
    assert!(place.down().success());
    fs::write(place.state().join("supervisor.db"), "").unwrap();
    let report = json(&place, &["recovery", "show"]);
    assert!(report["notes"].as_array().unwrap().iter().any(|note| note["settled"] == false));
    let doctor = text(&place.run(&["doctor"]).stdout);
    assert!(doctor.contains("`ide-supervisor recovery settle`"), "{doctor}");
    let shown = text(&place.run(&["recovery", "show"]).stdout);
    assert!(shown.contains("rebuilt"), "{shown}");
    assert!(json(&place, &["recovery", "settle"])["count"].as_u64() > Some(0));
    let doctor = text(&place.run(&["doctor"]).stdout);
    assert!(doctor.contains("nothing to look at"), "{doctor}");
    let report = json(&place, &["recovery", "show"]);
    assert!(report["notes"].as_array().unwrap().iter().all(|note| note["settled"] == true));
}

#[test]
fn damaged_backups_are_named_and_the_verdict_is_the_exit_code() {
    let mut place = Place::new(TWO);
    place.up();
    let taken = json(&place, &["backup", "create"]);
    assert!(place.down().success());
    let name = taken["name"].as_str().unwrap();
    let file = place.state().join("backups").join(format!("{name}.db"));
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let output = place.run(&["backup", "verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("NOT INTACT"), "{}", text(&output.stdout));
    let doctor = place.run(&["doctor"]);
    assert!(text(&doctor.stdout).contains("storage: backups"), "{}", text(&doctor.stdout));
}

#[tokio::test]
async fn dead_letters_are_listed_sent_again_and_purged() {
    let mut place = Place::new(TWO);
    place.up();
    assert!(place.down().success());
    let state = place.state();
    let letter = |n: u128| DeadLetter {
        channel: "steady".into(),
        message: IpcMessage {
            id: Uuid::from_u128(n),
            message_type: "index".into(),
            payload: Value::Null,
            timestamp: DateTime::<Utc>::UNIX_EPOCH,
            retry_count: 5,
        },
        at: Utc::now(),
        cause: "written 5 times".into(),
        generations: Vec::new(),
        kept_because: None,
    };
    let config = rust_ai_ide_supervisor::SupervisorConfig::default();
    let (database, checkpoints) =
        (state.join(config.database_path), state.join(config.checkpoint_dir));
    let store = StatePersistence::new(database, checkpoints).await.unwrap();
    for n in 1..=3 {
        store.bury(letter(n)).await.unwrap();
    }
    store.close().await.unwrap();
    place.up();
    let listed = text(&place.run(&["dead-letters", "list"]).stdout);
    assert!(listed.contains("written 5 times") && listed.lines().count() == 4, "{listed}");
    let id = Uuid::from_u128(1).to_string();
    assert_eq!(json(&place, &["dead-letters", "requeue", &id])["count"], 1);
    assert!(refused(&place, &["dead-letters", "requeue", &id]).contains("no dead letter"));
    let output = place.run(&["dead-letters", "purge"]);
    assert_eq!(output.status.code(), Some(2), "all of them only when that is said");
    assert_eq!(json(&place, &["dead-letters", "purge", "--channel", "other"])["count"], 0);
    assert_eq!(json(&place, &["dead-letters", "purge", "--all"])["count"], 2);
    assert!(place.down().success());
}
