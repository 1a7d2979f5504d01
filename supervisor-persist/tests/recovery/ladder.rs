//! The restore ladder: what opening does about damage, and where a start takes its snapshot from.

use std::fs;

use supervisor_core::checkpoint::CheckpointHealth;
use supervisor_core::error::DatabaseError;
use supervisor_core::journal::Actor;
use supervisor_core::ports::{AuditLog, CheckpointStore, StateStore};
use supervisor_persist::{BackupReason, DatabaseOrigin, NoteKind, StructureCheck};

use crate::common::{
    Place, add_audit_row, audited, content, flip_bit, hash, record, services, state, tamper,
};

/// Damages the payload of a checkpoint by one bit, in the database or in its file.
fn damage_in_database(place: &Place, number: u64) {
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    let query = "SELECT payload FROM checkpoint WHERE number = ?1";
    let mut payload: Vec<u8> =
        connection.query_row(query, [number.cast_signed()], |row| row.get(0)).unwrap();
    payload[30] ^= 4;
    let update = "UPDATE checkpoint SET payload = ?2 WHERE number = ?1";
    connection.execute(update, (number.cast_signed(), payload)).unwrap();
}

fn damage_file(place: &Place, number: u64) {
    flip_bit(&place.path("checkpoints").join(format!("checkpoint-{number:08}.json")), 30, 2);
}

/// Overwrites pages of the database so that no reader can miss it.
fn wreck(place: &Place) {
    let mut bytes = fs::read(place.database()).unwrap();
    for byte in &mut bytes[4096..] {
        *byte = 0xa5;
    }
    fs::write(place.database(), bytes).unwrap();
}

fn rebuilt(origin: &DatabaseOrigin) -> (Option<&str>, Option<&std::path::Path>) {
    assert!(matches!(origin, DatabaseOrigin::Rebuilt { .. }), "{origin:?}");
    let DatabaseOrigin::Rebuilt { backup, quarantine, .. } = origin else { return (None, None) };
    (backup.as_deref(), quarantine.as_deref())
}

#[tokio::test]
async fn scenario_01_an_unclean_stop_is_told_once_and_a_clean_one_is_not() {
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 1).await;
    assert!(!store.recovery_report().await.unwrap().unclean_stop);
    drop(store);
    let store = place.open().await;
    let report = store.recovery_report().await.unwrap();
    assert!(report.unclean_stop);
    assert_eq!(report.database, DatabaseOrigin::AsFound);
    assert!(report.notes.iter().any(|note| note.kind == NoteKind::UncleanStop));
    assert!(audited(&store, "database", "unclean_stop").await);
    assert_eq!(StateStore::load(&store).await.unwrap(), [state("a", 1)]);
    store.close().await.unwrap();
    assert!(!place.open().await.recovery_report().await.unwrap().unclean_stop);
}

#[tokio::test]
async fn scenario_06_a_bit_flip_in_the_newest_checkpoint_uses_the_one_before_and_says_so() {
    let place = Place::new();
    let store = place.open().await;
    let good = store.create_checkpoint(&services(&[state("a", 1)]), &Vec::new()).await.unwrap();
    let bad = store.create_checkpoint(&services(&[state("a", 2)]), &Vec::new()).await.unwrap();
    store.close().await.unwrap();
    damage_in_database(&place, 2);
    damage_file(&place, 2);
    let store = place.open().await;
    let restored = CheckpointStore::restore(&store).await.unwrap();
    assert_eq!(restored.checkpoint.unwrap().id, good);
    assert_eq!(restored.rejected.len(), 2);
    let listed = CheckpointStore::list(&store, 10).await.unwrap();
    assert_eq!(listed[0].id, bad);
    assert!(matches!(listed[0].health, CheckpointHealth::Quarantined { .. }));
    assert!(audited(&store, &bad.to_string(), "hash").await);
    let notes = store.recovery_report().await.unwrap().notes;
    assert_eq!(notes.iter().filter(|note| note.kind == NoteKind::Rejected).count(), 2);
    // The same finding again is no new one.
    CheckpointStore::restore(&store).await.unwrap();
    assert_eq!(store.recovery_report().await.unwrap().notes, notes);
}

#[tokio::test]
async fn a_finding_that_somebody_has_seen_is_not_raised_again() {
    let place = Place::new();
    let store = place.open().await;
    store.create_checkpoint(&services(&[state("a", 1)]), &Vec::new()).await.unwrap();
    store.close().await.unwrap();
    damage_in_database(&place, 1);
    let store = place.open().await;
    for _ in 0..3 {
        let restored = CheckpointStore::restore(&store).await.unwrap();
        assert_eq!(restored.rejected.len(), 1, "its file is sound and used, the row is not");
    }
    let report = store.recovery_report().await.unwrap();
    assert_eq!(report.notes.len(), 1);
    assert!(report.needs_attention());
    store.settle_recovery(Actor::Operator).await.unwrap();
    CheckpointStore::restore(&store).await.unwrap();
    assert!(!store.recovery_report().await.unwrap().needs_attention());
}

#[tokio::test]
async fn a_checkpoint_file_that_is_newer_than_the_database_comes_first() {
    let place = Place::new();
    let store = place.open().await;
    store.create_checkpoint(&services(&[state("a", 1)]), &Vec::new()).await.unwrap();
    let newer = store.create_checkpoint(&services(&[state("a", 2)]), &Vec::new()).await.unwrap();
    store.close().await.unwrap();
    tamper(&place.database(), "DELETE FROM checkpoint WHERE number = 2");
    let restored = CheckpointStore::restore(&place.open().await).await.unwrap();
    assert_eq!(restored.checkpoint.unwrap().id, newer);
    assert!(restored.source.starts_with("file "), "{}", restored.source);
}

#[tokio::test]
async fn a_damaged_file_the_database_does_not_know_is_put_aside_and_kept() {
    let place = Place::new();
    let store = place.open().await;
    let good = store.create_checkpoint(&services(&[state("a", 1)]), &Vec::new()).await.unwrap();
    store.create_checkpoint(&services(&[state("a", 2)]), &Vec::new()).await.unwrap();
    store.close().await.unwrap();
    tamper(&place.database(), "DELETE FROM checkpoint WHERE number = 2");
    damage_file(&place, 2);
    let store = place.open().await;
    assert_eq!(CheckpointStore::restore(&store).await.unwrap().checkpoint.unwrap().id, good);
    assert!(place.path("checkpoints/checkpoint-00000002.json.damaged").exists());
    assert!(CheckpointStore::restore(&store).await.unwrap().rejected.is_empty());
}

#[tokio::test]
async fn with_every_checkpoint_damaged_the_newest_sound_backup_is_used() {
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 3).await;
    store.create_checkpoint(&services(&[state("a", 3)]), &Vec::new()).await.unwrap();
    let older = store.create_backup(BackupReason::Requested).await.unwrap();
    let newer = store.create_backup(BackupReason::Requested).await.unwrap();
    store.create_savepoint("mine", "", content(&[state("a", 1)])).await.unwrap();
    store.close().await.unwrap();
    flip_bit(&place.path("backups").join(format!("{}.db", newer.name)), 9000, 1);
    damage_in_database(&place, 1);
    damage_file(&place, 1);
    let store = place.open().await;
    let restored = CheckpointStore::restore(&store).await.unwrap();
    assert_eq!(restored.source, format!("backup {}", older.name));
    assert_eq!(restored.checkpoint.unwrap().services, services(&[state("a", 3)]));
    let passed_over: Vec<_> = restored.rejected.iter().map(|rung| rung.source.as_str()).collect();
    assert_eq!(passed_over.len(), 3, "{passed_over:?}");
    assert_eq!(passed_over[2], format!("backup {}", newer.name));
    // The second start goes the same way, though the checkpoint is put aside by now.
    let again = CheckpointStore::restore(&store).await.unwrap();
    assert_eq!(again.source, restored.source);
}

#[tokio::test]
async fn with_no_backup_either_the_savepoints_are_named_and_not_used() {
    let place = Place::new();
    let store = place.open().await;
    store.create_checkpoint(&services(&[state("a", 3)]), &Vec::new()).await.unwrap();
    store.create_savepoint("mine", "", content(&[state("a", 1)])).await.unwrap();
    store.close().await.unwrap();
    damage_in_database(&place, 1);
    damage_file(&place, 1);
    let store = place.open().await;
    let restored = CheckpointStore::restore(&store).await.unwrap();
    assert_eq!((restored.checkpoint, restored.source.as_str()), (None, "empty"));
    let last = restored.rejected.last().unwrap();
    assert_eq!(last.source, "savepoint mine");
    assert!(last.reason.contains("on request"));
    // On consent.
    store.restore_savepoint("mine").await.unwrap();
    let restored = CheckpointStore::restore(&store).await.unwrap();
    assert_eq!(restored.checkpoint.unwrap().services, services(&[state("a", 1)]));
}

#[tokio::test]
async fn a_wrecked_database_is_kept_aside_and_rebuilt_from_the_newest_backup_that_verifies() {
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 1).await;
    add_audit_row(&store, "before").await;
    store.create_checkpoint(&services(&[state("a", 1)]), &Vec::new()).await.unwrap();
    let good = store.create_backup(BackupReason::Scheduled).await.unwrap();
    let bad = store.create_backup(BackupReason::Scheduled).await.unwrap();
    record(&store, "a", 2).await;
    for n in 0..30 {
        add_audit_row(&store, &format!("lost {n}")).await;
    }
    let newest = store.create_checkpoint(&services(&[state("a", 2)]), &Vec::new()).await.unwrap();
    store.close().await.unwrap();
    flip_bit(&place.path("backups").join(format!("{}.db", bad.name)), 9000, 1);
    wreck(&place);
    let wrecked = hash(&place.database());

    let store = place.open().await;
    let report = store.recovery_report().await.unwrap();
    let (backup, quarantine) = rebuilt(&report.database);
    assert_eq!(backup, Some(good.name.as_str()));
    assert_eq!(hash(&quarantine.unwrap().join("supervisor.db")), wrecked, "kept as it was");
    assert!(report.needs_attention());
    assert!(audited(&store, "database", "rebuilt from backup").await);
    assert_eq!(StateStore::load(&store).await.unwrap(), [state("a", 1)]);
    let latest = store.load_latest_checkpoint().await.unwrap();
    assert_eq!(latest.id, newest, "files of checkpoints are newer than the backup");
    assert!(
        AuditLog::verify(&store).await.unwrap().intact,
        "the trail goes on with a row that tells"
    );
    store.settle_recovery(Actor::Operator).await.unwrap();
    store.close().await.unwrap();
    let report = place.open().await.recovery_report().await.unwrap();
    assert!(!report.needs_attention(), "{report:?}");
}

#[tokio::test]
async fn a_wrecked_database_without_a_backup_begins_anew_with_the_checkpoints_files() {
    let place = Place::new();
    let store = place.open().await;
    let id = store.create_checkpoint(&services(&[state("a", 1)]), &Vec::new()).await.unwrap();
    store.close().await.unwrap();
    wreck(&place);
    let store = place.open().await;
    assert_eq!(rebuilt(&store.recovery_report().await.unwrap().database).0, None);
    assert_eq!(store.load_latest_checkpoint().await.unwrap().id, id);
    record(&store, "b", 1).await;
}

#[tokio::test]
async fn a_database_that_was_deleted_or_emptied_comes_back_from_its_backup() {
    for empty in [false, true] {
        let place = Place::new();
        let store = place.open().await;
        record(&store, "a", 1).await;
        let backup = store.create_backup(BackupReason::Requested).await.unwrap();
        store.close().await.unwrap();
        fs::remove_file(place.database()).unwrap();
        if empty {
            fs::write(place.database(), "").unwrap();
        }
        let store = place.open().await;
        let report = store.recovery_report().await.unwrap();
        assert_eq!(rebuilt(&report.database).0, Some(backup.name.as_str()));
        assert_eq!(StateStore::load(&store).await.unwrap(), [state("a", 1)]);
    }
}

#[tokio::test]
async fn scenario_13_a_recovery_that_is_killed_anywhere_is_finished_by_the_next_start() {
    let original = Place::new();
    let store = original.open().await;
    record(&store, "a", 1).await;
    let backup = store.create_backup(BackupReason::Requested).await.unwrap();
    store.close().await.unwrap();
    wreck(&original);
    let wrecked = hash(&original.database());
    // A recovery that ran through, for what it leaves on the way.
    let through = copy_of(&original);
    let store = through.open().await;
    store.close().await.unwrap();
    let kept = fs::read_dir(through.path("quarantine")).unwrap().next().unwrap().unwrap();
    let kept = kept.file_name();
    let marker = |stage: &str, place: &Place, from: Option<&str>| {
        supervisor_persist_marker(place, stage, &place.path("quarantine").join(&kept), from);
    };

    for (step, what) in
        ["marked", "file moved", "all moved", "install marked", "copy half written", "copy named"]
            .iter()
            .enumerate()
    {
        let place = copy_of(&original);
        let aside = place.path("quarantine").join(&kept);
        fs::create_dir_all(&aside).unwrap();
        let from = (step >= 5).then_some(backup.name.as_str());
        marker(if step < 3 { "aside" } else { "install" }, &place, from);
        if step >= 1 {
            fs::rename(place.database(), aside.join("supervisor.db")).unwrap();
        }
        if step == 4 {
            fs::write(place.path("supervisor.db.rebuild"), "half of it").unwrap();
        }
        if step >= 5 {
            let copy = place.path("backups").join(format!("{}.db", backup.name));
            fs::copy(copy, place.database()).unwrap();
        }
        for round in 0..2 {
            let store = place.open().await;
            assert_eq!(StateStore::load(&store).await.unwrap(), [state("a", 1)], "{what}");
            let report = store.recovery_report().await.unwrap();
            if round == 0 {
                assert_eq!(rebuilt(&report.database).0, Some(backup.name.as_str()), "{what}");
            } else {
                assert_eq!(report.database, DatabaseOrigin::AsFound, "{what}");
            }
            let rebuilds = report.notes.iter().filter(|note| note.kind == NoteKind::Rebuilt);
            assert_eq!(rebuilds.count(), 1, "{what}");
            store.close().await.unwrap();
        }
        assert_eq!(hash(&aside.join("supervisor.db")), wrecked, "{what}");
        assert!(!place.path("supervisor.db.rebuilding").exists(), "{what}");
    }
}

/// Copies a whole state directory.
fn copy_of(original: &Place) -> Place {
    fn copy(from: &std::path::Path, to: &std::path::Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir_all(&target).unwrap();
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let place = Place::new();
    copy(original.dir.path(), place.dir.path());
    place
}

/// Writes the marker a killed recovery leaves.
fn supervisor_persist_marker(
    place: &Place,
    stage: &str,
    aside: &std::path::Path,
    from: Option<&str>,
) {
    let body = serde_json::to_string(&serde_json::json!({
        "stage": stage, "reason": "damaged", "aside": aside, "wanted": null, "from": from,
    }))
    .unwrap();
    let mut hasher = blake3::Hasher::new_derive_key("ide-supervisor rebuild marker v1");
    hasher.update(body.as_bytes());
    let text = format!("{body}\nblake3 {}\n", hasher.finalize().to_hex());
    fs::write(place.path("supervisor.db.rebuilding"), text).unwrap();
}

#[tokio::test]
async fn going_back_to_a_named_backup_moves_the_present_database_aside() {
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 1).await;
    let backup = store.create_backup(BackupReason::Requested).await.unwrap();
    record(&store, "a", 2).await;
    store.close().await.unwrap();
    let present = hash(&place.database());
    let wrong = place.builder().go_back_to("backup-99").open().await;
    assert!(matches!(wrong, Err(DatabaseError::NotFound { .. })), "{wrong:?}");
    assert_eq!(hash(&place.database()), present, "nothing was moved");
    let file = place.path("backups").join(format!("{}.db", backup.name));
    flip_bit(&file, 9000, 1);
    let damaged = place.builder().go_back_to(backup.name.clone()).open().await;
    assert!(matches!(damaged, Err(DatabaseError::Corrupt { .. })), "{damaged:?}");
    assert_eq!(hash(&place.database()), present, "nothing was moved");
    flip_bit(&file, 9000, 1);
    let store = place.builder().go_back_to(backup.name.clone()).open().await.unwrap();
    assert_eq!(StateStore::load(&store).await.unwrap(), [state("a", 1)]);
    let report = store.recovery_report().await.unwrap();
    assert_eq!(hash(&rebuilt(&report.database).1.unwrap().join("supervisor.db")), present);
}

#[tokio::test]
async fn checking_the_whole_structure_finds_damage_and_the_next_start_repairs_it() {
    let place = Place::new();
    let store = place.open().await;
    for n in 0..50 {
        record(&store, &format!("s{n}"), 1).await;
    }
    let backup = store.create_backup(BackupReason::Requested).await.unwrap();
    store.close().await.unwrap();
    let store = place.open().await;
    assert_eq!(store.check_structure().await.unwrap(), StructureCheck::Complete);
    store.close().await.unwrap();
    let store = place.open().await;
    wreck(&place);
    let damaged = store.check_structure().await;
    assert!(matches!(damaged, Err(DatabaseError::Corrupt { .. })), "{damaged:?}");
    // What closing says of a wrecked database does not matter here; that it is closed does.
    drop(store.close().await);
    let store = place.open().await;
    let report = store.recovery_report().await.unwrap();
    assert_eq!(rebuilt(&report.database).0, Some(backup.name.as_str()));
    assert_eq!(StateStore::load(&store).await.unwrap().len(), 50);
}
