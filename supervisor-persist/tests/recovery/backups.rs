//! Backups: proven before they count, verified again, pruned with care, restored without losing what is there.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{Place, audited, content, flip_bit, hash, record, services, state, tamper};
use supervisor_core::error::DatabaseError;
use supervisor_core::ports::{AuditLog, CheckpointStore, Journal, StateStore};
use supervisor_persist::{BackupHealth, BackupReason, BackupRetention, BackupStage};

const HOUR: Duration = Duration::from_secs(3600);

fn unchanging() -> BackupRetention {
    BackupRetention { keep: 100, ..BackupRetention::default() }
}

#[tokio::test]
async fn a_backup_holds_what_was_committed_and_says_so() {
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 1).await;
    record(&store, "b", 4).await;
    store.create_checkpoint(&services(&[state("a", 1)]), &Vec::new()).await.unwrap();
    crate::common::add_audit_row(&store, "something").await;
    let backup = store.create_backup(BackupReason::Requested).await.unwrap();
    assert_eq!(backup.content.sequence.get(), 2);
    assert_eq!(backup.content.checkpoints, 1);
    assert_eq!(backup.content.rows["service_state"], 2);
    assert_eq!(backup.content.audit.get(), 1);
    let file = place.path("backups").join(format!("{}.db", backup.name));
    assert_eq!(backup.blake3, hash(&file).to_hex().to_string());
    assert_eq!(backup.bytes, fs::metadata(&file).unwrap().len());
    assert_eq!(store.backups().await.unwrap(), std::slice::from_ref(&backup));
    assert!(store.verify_backup(&backup.name).await.unwrap().intact);
    assert!(audited(&store, &backup.name, "made and proven").await);
    assert_eq!(place.files("backups").len(), 2, "a database and its manifest, nothing else");
}

#[cfg(unix)]
#[tokio::test]
async fn backups_and_savepoints_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let store = place.open().await;
    store.create_backup(BackupReason::Requested).await.unwrap();
    store.create_savepoint("one", "", content(&[])).await.unwrap();
    for folder in ["backups", "savepoints"] {
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(place.path(folder)), 0o700);
        for file in place.files(folder) {
            assert_eq!(mode(place.path(folder).join(&file)), 0o600, "{file}");
        }
    }
}

#[tokio::test]
async fn writers_go_on_while_a_backup_is_taken_and_it_holds_a_moment_of_them() {
    let place = Place::new();
    let store = place.open().await;
    for n in 1..=20 {
        record(&store, "before", n).await;
    }
    let writing = store.clone();
    let writer = tokio::spawn(async move {
        for n in 1..=200 {
            record(&writing, "during", n).await;
        }
    });
    for _ in 0..5 {
        let backup = store.create_backup(BackupReason::Requested).await.unwrap();
        assert!(backup.content.sequence.get() >= 20);
        assert_eq!(
            backup.content.rows["journal"],
            backup.content.sequence.get(),
            "no row is missing"
        );
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn progress_is_told_for_every_stage_in_order() {
    let place = Place::new();
    let store = place.open().await;
    let stages = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&stages);
    let tell = move |progress: supervisor_persist::BackupProgress| {
        told.lock().unwrap().push(progress.stage);
    };
    store.create_backup_with_progress(BackupReason::Requested, tell).await.unwrap();
    let stages = stages.lock().unwrap().clone();
    assert!(stages.is_sorted(), "{stages:?}");
    for stage in
        [BackupStage::Copying, BackupStage::Proving, BackupStage::Hashing, BackupStage::Publishing]
    {
        assert!(stages.contains(&stage), "{stage:?} is missing");
    }
    let name = store.backups().await.unwrap()[0].name.clone();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = {
        let told = Arc::clone(&told);
        move |progress: supervisor_persist::BackupProgress| told.lock().unwrap().push(progress)
    };
    assert!(store.verify_backup_with_progress(&name, tell).await.unwrap().intact);
    let told = told.lock().unwrap().clone();
    assert_eq!(
        told.first().map(|first| (first.stage, first.done)),
        Some((BackupStage::Hashing, 0))
    );
    let last = told.last().unwrap();
    assert_eq!((last.stage, last.done), (BackupStage::Proving, last.total));
}

#[tokio::test]
async fn scenario_07_a_bit_flip_in_a_backup_is_found_excluded_audited_and_replaced() {
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 1).await;
    let good = store.create_backup(BackupReason::Scheduled).await.unwrap();
    let bad = store.create_backup(BackupReason::Scheduled).await.unwrap();
    flip_bit(&place.path("backups").join(format!("{}.db", bad.name)), 5000, 3);
    let found = store.verify_backup(&bad.name).await.unwrap();
    assert!(!found.intact && found.replacement_wanted, "{found:?}");
    assert!(audited(&store, &bad.name, "excluded from recovery").await);
    let listed = store.backups().await.unwrap();
    assert!(matches!(&listed[0].health, BackupHealth::Damaged { .. }));
    assert!(listed[1].health.is_sound());
    let refused = store.restore_backup(&bad.name).await;
    assert!(matches!(refused, Err(DatabaseError::Corrupt { .. })), "{refused:?}");
    // Its file stays, and the next round replaces it long before the interval is over.
    let round = store.run_backup_schedule(HOUR, unchanging()).await.unwrap();
    assert!(round.created.is_some());
    assert_eq!(round.verified[0].name, good.name);
    assert!(place.path("backups").join(format!("{}.db", bad.name)).exists());
}

#[tokio::test]
async fn any_flipped_bit_of_a_manifest_makes_its_backup_damaged() {
    let place = Place::new();
    let store = place.open().await;
    let backup = store.create_backup(BackupReason::Requested).await.unwrap();
    let manifest = place.path("backups").join(format!("{}.manifest", backup.name));
    let original = fs::read(&manifest).unwrap();
    for byte in (0..original.len()).step_by(7) {
        flip_bit(&manifest, byte, 2);
        let found = store.backups().await.unwrap();
        assert!(!found[0].health.is_sound(), "byte {byte} went unseen");
        fs::write(&manifest, &original).unwrap();
    }
    assert!(store.backups().await.unwrap()[0].health.is_sound());
}

#[tokio::test]
async fn a_backup_that_is_another_database_is_damaged_even_if_it_is_sound_in_itself() {
    let place = Place::new();
    let store = place.open().await;
    let first = store.create_backup(BackupReason::Requested).await.unwrap();
    record(&store, "a", 1).await;
    let second = store.create_backup(BackupReason::Requested).await.unwrap();
    let file = |name: &str| place.path("backups").join(format!("{name}.db"));
    fs::copy(file(&first.name), file(&second.name)).unwrap();
    assert!(!store.verify_backup(&second.name).await.unwrap().intact);
    assert!(store.verify_backup(&first.name).await.unwrap().intact);
    for ending in ["db", "manifest"] {
        let place = place.path("backups");
        let other = first.name.replace("00000001", "00000009");
        fs::copy(
            place.join(format!("{}.{ending}", first.name)),
            place.join(format!("{other}.{ending}")),
        )
        .unwrap();
    }
    let sound = store.backups().await.unwrap().into_iter().filter(|one| one.health.is_sound());
    assert_eq!(sound.count(), 1, "a copy under another name is none");
}

#[tokio::test]
async fn scenario_12_a_backup_that_a_crash_cut_short_is_swept_and_the_one_before_stays() {
    let place = Place::new();
    let store = place.open().await;
    let kept = store.create_backup(BackupReason::Requested).await.unwrap();
    store.close().await.unwrap();
    let dir = place.path("backups");
    // Killed while copying, while naming, and while writing the manifest.
    let copying = dir.join("backup-00000002-20270115T080000Z.db.tmp");
    fs::write(&copying, "half of a database").unwrap();
    fs::write(dir.join("backup-00000002-20270115T080000Z.db.tmp-journal"), "").unwrap();
    let named = dir.join("backup-00000003-20270115T080000Z.db");
    fs::copy(dir.join(format!("{}.db", kept.name)), &named).unwrap();
    fs::write(dir.join("backup-00000003-20270115T080000Z.manifest.tmp"), "{").unwrap();
    fs::write(dir.join("restore.tmp-wal"), "").unwrap();
    fs::write(dir.join("notes.txt"), "of somebody else").unwrap();
    let store = place.open().await;
    let listed: Vec<_> = store.backups().await.unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(listed, [kept.name.as_str()]);
    let mut left =
        [format!("{}.db", kept.name), format!("{}.manifest", kept.name), "notes.txt".into()];
    left.sort();
    assert_eq!(place.files("backups"), left);
    assert!(store.verify_backup(&kept.name).await.unwrap().intact);
}

#[tokio::test]
async fn retention_prunes_by_count_and_age_and_says_which() {
    let place = Place::new();
    let store = place.open().await;
    for _ in 0..5 {
        store.create_backup(BackupReason::Scheduled).await.unwrap();
        place.clock.advance(HOUR);
    }
    let names: Vec<_> = store.backups().await.unwrap().into_iter().map(|one| one.name).collect();
    let rule = BackupRetention { keep: 2, keep_for: 3 * HOUR, at_most: 10 };
    let pruned = store.prune_backups(rule).await.unwrap();
    assert_eq!(pruned, names[3..]);
    assert_eq!(store.backups().await.unwrap().len(), 3);
    assert_eq!(place.files("backups").len(), 6);
    assert!(audited(&store, "backups", "removed by retention").await);
    assert!(store.prune_backups(rule).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_schedule_takes_one_when_it_is_due_and_reads_an_older_one_again() {
    let place = Place::new();
    let store = place.open().await;
    let round = store.run_backup_schedule(HOUR, unchanging()).await.unwrap();
    let first = round.created.unwrap();
    assert_eq!(store.run_backup_schedule(HOUR, unchanging()).await.unwrap().created, None);
    place.clock.advance(HOUR);
    let round = store.run_backup_schedule(HOUR, unchanging()).await.unwrap();
    assert!(round.created.is_some());
    assert_eq!(round.verified.len(), 1);
    let looked_at = store.backups().await.unwrap().pop().unwrap();
    assert_eq!(looked_at.name, first.name);
    assert_eq!(looked_at.health, BackupHealth::Verified { at: crate::common::noon() + HOUR });
    place.clock.advance(HOUR);
    store.run_backup_schedule(HOUR, unchanging()).await.unwrap();
    place.clock.advance(HOUR);
    let fourth = store.run_backup_schedule(HOUR, unchanging()).await.unwrap();
    assert_eq!(
        fourth.verified[0].name,
        round.created.unwrap().name,
        "the one not looked at for longest"
    );
}

#[tokio::test]
async fn restoring_a_backup_brings_back_states_and_leaves_the_records_as_they_are() {
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 1).await;
    record(&store, "b", 1).await;
    let old = services(&[state("a", 1), state("b", 1)]);
    store.create_checkpoint(&old, &vec![crate::common::operation(1)]).await.unwrap();
    let backup = store.create_backup(BackupReason::Requested).await.unwrap();
    record(&store, "a", 7).await;
    record(&store, "c", 2).await;
    store.create_checkpoint(&services(&[state("a", 7), state("c", 2)]), &Vec::new()).await.unwrap();
    let before = (Journal::head(&store).await.unwrap(), AuditLog::head(&store).await.unwrap());

    let outcome = store.restore_backup(&backup.name).await.unwrap();
    assert_eq!(outcome.source, format!("backup {}", backup.name));
    let changed: Vec<_> =
        outcome.changes.services.iter().map(|change| change.id.as_str()).collect();
    assert_eq!(changed, ["c"], "a keeps its incarnation, b did not change");
    store.close().await.unwrap();

    let store = place.open().await;
    let latest = store.load_latest_checkpoint().await.unwrap();
    assert_eq!(latest.id, outcome.checkpoint);
    assert_eq!(latest.pending_operations, [crate::common::operation(1)]);
    let states = StateStore::load(&store).await.unwrap();
    assert_eq!(states, [state("a", 7), state("b", 1)], "incarnations never go back");
    assert!(Journal::head(&store).await.unwrap() >= before.0);
    assert!(AuditLog::head(&store).await.unwrap() > before.1);
    assert!(AuditLog::verify(&store).await.unwrap().intact);
    // And back again: what was there before is in the safety backup.
    store.restore_backup(&outcome.safety_backup).await.unwrap();
    assert_eq!(StateStore::load(&store).await.unwrap().len(), 3);
}

#[tokio::test]
async fn an_unknown_name_is_not_found_whatever_it_looks_like() {
    let place = Place::new();
    let store = place.open().await;
    store.create_backup(BackupReason::Requested).await.unwrap();
    for name in ["", "x", "../supervisor", "backup-00000009-20270115T080000Z", "/etc/passwd"] {
        let answers =
            [store.verify_backup(name).await.map(drop), store.restore_backup(name).await.map(drop)];
        for answer in answers {
            assert!(matches!(answer, Err(DatabaseError::NotFound { .. })), "{name}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_damaged_in_the_database_does_not_stop_backups() {
    let place = Place::new();
    let store = place.open().await;
    store.create_checkpoint(&services(&[state("a", 1)]), &Vec::new()).await.unwrap();
    store.create_checkpoint(&services(&[state("a", 2)]), &Vec::new()).await.unwrap();
    store.close().await.unwrap();
    tamper(&place.database(), "UPDATE checkpoint SET payload = x'00' WHERE number = 2");
    let store = place.open().await;
    let backup = store.create_backup(BackupReason::Requested).await.unwrap();
    assert_eq!((backup.content.checkpoints, backup.content.damaged_checkpoints), (1, 1));
    assert!(store.verify_backup(&backup.name).await.unwrap().intact);
    assert!(CheckpointStore::restore(&store).await.unwrap().checkpoint.is_some());
}
