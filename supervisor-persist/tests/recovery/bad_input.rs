//! What is put in a store's place by accident or on purpose: a clear refusal, the file untouched, a way out.

use std::fs;
use std::path::Path;

use supervisor_core::error::DatabaseError;
use supervisor_core::ports::{CheckpointStore, StateStore};
use supervisor_persist::{BackupReason, DatabaseOrigin};

use crate::common::{Place, hash, record, services, state, tamper};

/// A database of some other program.
fn foreign_database(path: &Path) {
    tamper(
        path,
        "PRAGMA application_id = 77; CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine');",
    );
}

#[tokio::test]
async fn scenario_15_a_foreign_file_is_refused_with_a_reason_and_moved_only_on_consent() {
    type Put = fn(&Path);
    let cases: [(&str, Put); 6] = [
        ("application id", foreign_database),
        ("application id", |path| tamper(path, "CREATE TABLE notes (text);")),
        ("not an SQLite file", |path| fs::write(path, "x".repeat(5000)).unwrap()),
        ("too short", |path| fs::write(path, "short").unwrap()),
        ("directory", |path| fs::create_dir(path).unwrap()),
        ("not an SQLite file", |path| fs::write(path, vec![0; 8192]).unwrap()),
    ];
    for (reason, put) in cases {
        let place = Place::new();
        put(&place.database());
        let before = place.database().is_file().then(|| hash(&place.database()));
        for _ in 0..2 {
            let refused = place.try_open().await.unwrap_err();
            assert!(matches!(refused, DatabaseError::Foreign { .. }), "{refused}");
            assert!(refused.to_string().contains(reason), "{refused} does not say {reason}");
        }
        assert_eq!(place.database().is_file().then(|| hash(&place.database())), before);
        assert!(!place.path("quarantine").exists());
        // On consent it is kept elsewhere.
        let store = place.builder().set_aside_refused().open().await.unwrap();
        record(&store, "a", 1).await;
        let origin = store.recovery_report().await.unwrap().database;
        let DatabaseOrigin::Rebuilt { quarantine: Some(kept), .. } = origin else {
            unreachable!("{origin:?}")
        };
        let kept = kept.join("supervisor.db");
        assert_eq!(kept.is_file().then(|| hash(&kept)), before);
    }
}

#[tokio::test]
async fn scenario_15_our_mark_on_tables_that_are_not_ours_is_refused_and_nothing_of_them_runs() {
    for evil in [
        "CREATE VIEW journal_copy AS SELECT load_extension('x')",
        "CREATE TABLE more (text)",
        "CREATE TRIGGER grow AFTER INSERT ON journal BEGIN DELETE FROM audit; END",
    ] {
        let place = Place::new();
        let store = place.open().await;
        record(&store, "a", 1).await;
        store.close().await.unwrap();
        tamper(&place.database(), evil);
        let before = hash(&place.database());
        let refused = place.try_open().await.unwrap_err();
        assert!(matches!(refused, DatabaseError::Foreign { .. }), "{evil}: {refused}");
        assert!(refused.to_string().contains("no version of this program"), "{refused}");
        assert_eq!(hash(&place.database()), before);
    }
}

#[tokio::test]
async fn a_table_that_is_missing_or_different_is_damage_and_the_backup_is_used() {
    for damage in ["DROP TABLE outbox", "ALTER TABLE dedupe RENAME COLUMN value TO other"] {
        let place = Place::new();
        let store = place.open().await;
        record(&store, "a", 1).await;
        let backup = store.create_backup(BackupReason::Requested).await.unwrap();
        store.close().await.unwrap();
        tamper(&place.database(), damage);
        let store = place.open().await;
        let origin = store.recovery_report().await.unwrap().database;
        let used = matches!(&origin, DatabaseOrigin::Rebuilt { backup: Some(name), .. } if *name == backup.name);
        assert!(used, "{damage}: {origin:?}");
        assert_eq!(StateStore::load(&store).await.unwrap(), [state("a", 1)]);
    }
}

#[tokio::test]
async fn an_index_or_trigger_that_is_missing_is_put_back_and_noted() {
    let place = Place::new();
    place.open().await.close().await.unwrap();
    tamper(&place.database(), "DROP INDEX outbox_by_channel; DROP TRIGGER audit_is_not_changed");
    let store = place.open().await;
    let report = store.recovery_report().await.unwrap();
    assert_eq!(report.database, DatabaseOrigin::AsFound);
    let text = &report.notes[0].reason;
    assert!(text.contains("outbox_by_channel") && text.contains("audit_is_not_changed"), "{text}");
    store.close().await.unwrap();
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    let query = "SELECT count(*) FROM sqlite_schema WHERE name IN ('outbox_by_channel', 'audit_is_not_changed')";
    assert_eq!(connection.query_row(query, [], |row| row.get::<_, u32>(0)).unwrap(), 2);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_or_a_device_in_the_databases_place_is_refused_even_on_consent() {
    use std::os::unix::fs::symlink;
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("target.db");
    fs::write(&target, "").unwrap();
    for target in [target.as_path(), Path::new("/dev/null"), Path::new("/nowhere/at/all")] {
        let place = Place::new();
        symlink(target, place.database()).unwrap();
        for builder in [place.builder(), place.builder().set_aside_refused()] {
            let refused = builder.open().await.unwrap_err();
            assert!(matches!(refused, DatabaseError::Foreign { .. }), "{refused}");
            assert!(refused.to_string().contains("link"), "{refused}");
        }
        assert!(place.database().is_symlink());
    }
    assert_eq!(fs::read(&target).unwrap(), b"");
}

#[cfg(unix)]
#[tokio::test]
async fn another_users_database_and_a_directory_anybody_may_write_are_refused_with_the_way_out() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let place = Place::new();
    place.open().await.close().await.unwrap();
    if chown(place.database(), Some(12345), None).is_ok() {
        let before = hash(&place.database());
        let refused = place.try_open().await.unwrap_err().to_string();
        assert!(refused.contains("12345") && refused.contains("chown"), "{refused}");
        assert_eq!(hash(&place.database()), before);
    } else {
        println!("not root: another user's file is left out");
    }
    let place = Place::new();
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = place.try_open().await.unwrap_err().to_string();
    assert!(refused.contains("chmod"), "{refused}");
    assert!(!place.database().exists());
}

#[cfg(unix)]
#[tokio::test]
async fn modes_that_let_others_in_are_repaired_at_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 1).await;
    store.create_backup(BackupReason::Requested).await.unwrap();
    store.create_savepoint("one", "", crate::common::content(&[])).await.unwrap();
    store.create_checkpoint(&services(&[state("a", 1)]), &Vec::new()).await.unwrap();
    store.close().await.unwrap();
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
    let files = [
        "supervisor.db",
        "supervisor.db.audit-key",
        "supervisor.db.audit-anchor",
        "supervisor.db.lock",
    ];
    let folders = ["backups", "savepoints", "checkpoints"];
    for name in files.iter().chain(&folders) {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let _store = place.open().await;
    for name in files {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    for name in folders {
        assert_eq!(mode(name), 0o700, "{name}");
    }
}

#[tokio::test]
async fn a_database_somebody_else_has_locked_is_busy_and_not_touched() {
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 1).await;
    store.close().await.unwrap();
    let before = hash(&place.database());
    let other = rusqlite::Connection::open(place.database()).unwrap();
    other.execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN IMMEDIATE;").unwrap();
    let refused = place.try_open().await.unwrap_err();
    assert!(matches!(refused, DatabaseError::Busy { .. }), "{refused}");
    drop(other);
    assert_eq!(hash(&place.database()), before);
    assert_eq!(StateStore::load(&place.open().await).await.unwrap().len(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn a_database_that_may_only_be_read_is_refused_and_not_touched() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 1).await;
    store.close().await.unwrap();
    fs::set_permissions(place.database(), fs::Permissions::from_mode(0o400)).unwrap();
    let before = hash(&place.database());
    match place.try_open().await {
        Err(error) => {
            assert!(matches!(error, DatabaseError::Open { .. }), "{error}");
            assert_eq!(hash(&place.database()), before);
        }
        Ok(_) => println!("root writes to everything: the refusal is left out"),
    }
}

#[tokio::test]
async fn a_checkpoint_made_by_hand_is_passed_over_and_kept() {
    let place = Place::new();
    let store = place.open().await;
    let good = store.create_checkpoint(&services(&[state("a", 1)]), &Vec::new()).await.unwrap();
    let dir = place.path("checkpoints");
    let made = fs::read_to_string(dir.join("checkpoint-00000001.json"))
        .unwrap()
        .replace("running", "stopped");
    let manifest = fs::read_to_string(dir.join("checkpoint-00000001.manifest")).unwrap();
    for (number, payload, manifest) in [
        (2, made.as_str(), manifest.as_str()),
        (3, "{}", "{}"),
        (4, "", ""),
        (5, made.as_str(), "{\"format\":\"x\"}"),
    ] {
        fs::write(dir.join(format!("checkpoint-{number:08}.json")), payload).unwrap();
        fs::write(dir.join(format!("checkpoint-{number:08}.manifest")), manifest).unwrap();
    }
    let restored = CheckpointStore::restore(&store).await.unwrap();
    assert_eq!(restored.checkpoint.unwrap().id, good);
    assert_eq!(restored.rejected.len(), 4, "{:?}", restored.rejected);
    let kept = place.files("checkpoints").into_iter().filter(|file| file.ends_with(".damaged"));
    assert_eq!(kept.count(), 8);
    // The next one does not hide behind them.
    let next = store.create_checkpoint(&services(&[state("a", 2)]), &Vec::new()).await.unwrap();
    assert_eq!(store.load_latest_checkpoint().await.unwrap().id, next);
}

#[tokio::test]
async fn a_directory_where_a_folder_or_file_should_be_is_an_error_that_names_it() {
    for name in ["checkpoints", "supervisor.db.lock", "supervisor.db.audit-key"] {
        let place = Place::new();
        if name == "checkpoints" {
            fs::write(place.path(name), "a file").unwrap();
        } else {
            fs::create_dir(place.path(name)).unwrap();
        }
        let error = place.try_open().await.unwrap_err();
        let text = supervisor_core::error::chain(&error);
        assert!(text.contains(name), "{text}");
    }
}

/// The child of the next test; alone it does nothing.
#[test]
fn child_that_writes_until_it_is_killed() {
    use std::io::Write;
    let Some(dir) = std::env::var_os("SUPERVISOR_PERSIST_TEST_WRITE_IN") else { return };
    let dir = Path::new(&dir);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = supervisor_persist::StatePersistence::new(
            dir.join("supervisor.db"),
            dir.join("checkpoints"),
        )
        .await
        .unwrap();
        for n in 1.. {
            record(&store, "a", n).await;
            let mut out = std::io::stdout().lock();
            writeln!(out, "acknowledged {n}").unwrap();
            out.flush().unwrap();
        }
    });
}

#[tokio::test]
async fn scenario_01_after_a_kill_in_the_middle_of_writing_everything_acknowledged_is_there() {
    use std::io::BufRead;
    use std::process::{Command, Stdio};
    for kill_after in [1, 7, 40] {
        let place = Place::new();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "bad_input::child_that_writes_until_it_is_killed", "--nocapture"])
            .env("SUPERVISOR_PERSIST_TEST_WRITE_IN", place.dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        while acknowledged < kill_after {
            let line = lines.next().expect("the child ended early").unwrap();
            // The first one may share its line with what the test harness prints.
            if let Some((_, n)) = line.split_once("acknowledged ") {
                acknowledged = n.parse().unwrap();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some(n) = line.strip_prefix("acknowledged ") {
                acknowledged = n.parse().unwrap_or(acknowledged);
            }
        }
        let store = place.open().await;
        let states = StateStore::load(&store).await.unwrap();
        assert!(states[0].incarnation.get() >= acknowledged, "{acknowledged} were acknowledged");
        let report = store.recovery_report().await.unwrap();
        assert!(report.unclean_stop);
        assert_eq!(report.database, DatabaseOrigin::AsFound);
    }
}
