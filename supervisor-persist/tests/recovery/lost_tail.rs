//! A database that ends before what is known to have been stored: reported until somebody accepts it, never silently well.

use std::fs;

use supervisor_core::journal::Actor;
use supervisor_core::ports::{AuditLog, StateStore};
use supervisor_persist::BackupReason;

use crate::common::{Place, add_audit_row, audited, record, services, state};

#[tokio::test]
async fn scenario_08_a_database_without_its_log_is_a_lost_tail_until_somebody_accepts_it() {
    let place = Place::new();
    let store = place.open().await;
    for n in 0..10 {
        add_audit_row(&store, &format!("row {n}")).await;
    }
    store.close().await.unwrap();
    // The file as it is while everything newer is in the log.
    let copy = place.path("copy.db");
    fs::copy(place.database(), &copy).unwrap();
    let store = place.open().await;
    for n in 10..200 {
        add_audit_row(&store, &format!("row {n}")).await;
    }
    store.create_checkpoint(&services(&[state("a", 9)]), &Vec::new()).await.unwrap();
    let backup = store.create_backup(BackupReason::Requested).await.unwrap();
    store.close().await.unwrap();
    for part in ["supervisor.db-wal", "supervisor.db-shm"] {
        drop(fs::remove_file(place.path(part)));
    }
    fs::rename(&copy, place.database()).unwrap();

    let store = place.open().await;
    let report = store.recovery_report().await.unwrap();
    let tail = report.lost_tail.clone().expect("a lost tail");
    assert!(tail.database < tail.anchored, "{tail:?}");
    assert_eq!(tail.backups, std::slice::from_ref(&backup.name), "a way back is offered");
    assert_eq!(tail.newer_checkpoints, 1);
    assert!(report.needs_attention());
    assert!(!AuditLog::verify(&store).await.unwrap().intact);
    // What is left is used: the checkpoint's file is newer than the database.
    let latest = store.load_latest_checkpoint().await.unwrap();
    assert_eq!(latest.services, services(&[state("a", 9)]));
    // It does not go away by itself, not even once the trail is longer than it was.
    for n in 0..300 {
        add_audit_row(&store, &format!("later {n}")).await;
    }
    store.close().await.unwrap();
    let store = place.open().await;
    assert!(store.recovery_report().await.unwrap().needs_attention());
    assert!(place.path("quarantine").join(format!("audit-anchor-{}", tail.anchored)).exists());
    store.settle_recovery(Actor::Operator).await.unwrap();
    assert!(!store.recovery_report().await.unwrap().needs_attention());
    assert!(audited(&store, "recovery", "seen").await);
    store.close().await.unwrap();
    // The other way out: back to the backup that holds more.
    let store = place.builder().go_back_to(backup.name.clone()).open().await.unwrap();
    assert!(crate::common::audit_rows(&store).await.len() >= 200);
}

#[tokio::test]
async fn scenario_08_a_lost_log_is_noticed_when_nothing_was_audited_too() {
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 1).await;
    store.close().await.unwrap();
    // The file as it is while everything newer is in the log.
    let file_alone = fs::read(place.database()).unwrap();
    let store = place.open().await;
    record(&store, "a", 2).await;
    record(&store, "a", 3).await;
    store.close().await.unwrap();
    for part in ["supervisor.db-wal", "supervisor.db-shm"] {
        drop(fs::remove_file(place.path(part)));
    }
    fs::write(place.database(), file_alone).unwrap();
    let store = place.open().await;
    let report = store.recovery_report().await.unwrap();
    assert_eq!(report.lost_tail.as_ref().map(|tail| tail.runs), Some(1));
    assert!(report.needs_attention());
    assert_eq!(StateStore::load(&store).await.unwrap(), [state("a", 1)]);
    store.close().await.unwrap();
    let store = place.open().await;
    assert!(store.recovery_report().await.unwrap().needs_attention(), "until somebody has seen it");
    store.settle_recovery(Actor::Operator).await.unwrap();
    store.close().await.unwrap();
    assert!(!place.open().await.recovery_report().await.unwrap().needs_attention());
}

#[tokio::test]
async fn starts_that_end_in_whatever_way_are_no_lost_tail() {
    let place = Place::new();
    for round in 0..4 {
        let store = place.open().await;
        assert_eq!(store.recovery_report().await.unwrap().lost_tail, None, "round {round}");
        record(&store, "a", round + 1).await;
        if round % 2 == 0 {
            store.close().await.unwrap();
        }
    }
    fs::remove_file(place.path("supervisor.db.run")).unwrap();
    assert_eq!(place.open().await.recovery_report().await.unwrap().lost_tail, None);
    let damaged = fs::read_to_string(place.path("supervisor.db.run")).unwrap();
    fs::write(place.path("supervisor.db.run"), damaged.replace("\"run\":", "\"run\":9")).unwrap();
    assert_eq!(place.open().await.recovery_report().await.unwrap().lost_tail, None);
}

#[tokio::test]
async fn an_accepted_lost_tail_leaves_a_trail_that_verifies_and_tells() {
    let place = Place::new();
    let store = place.open().await;
    add_audit_row(&store, "kept").await;
    store.close().await.unwrap();
    let old = fs::read(place.database()).unwrap();
    let store = place.open().await;
    add_audit_row(&store, "lost").await;
    store.close().await.unwrap();
    fs::write(place.database(), old).unwrap();
    let store = place.open().await;
    assert!(store.recovery_report().await.unwrap().lost_tail.is_some());
    store.settle_recovery(Actor::Operator).await.unwrap();
    assert!(AuditLog::verify(&store).await.unwrap().intact);
    assert!(audited(&store, "recovery", "are lost").await);
    store.close().await.unwrap();
    assert_eq!(place.open().await.recovery_report().await.unwrap().lost_tail, None);
}
