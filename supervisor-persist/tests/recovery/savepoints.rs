//! Savepoints: named by their owner, carried elsewhere, restored on request, refused when they are not what they say.

use std::fs;

use crate::common::{Place, audited, content, flip_bit, hash, operation, record, state};
use supervisor_core::error::DatabaseError;
use supervisor_core::ports::StateStore;
use supervisor_persist::{ChangeKind, SavepointHealth};

#[tokio::test]
async fn a_savepoint_gives_back_what_was_put_in_and_outlives_the_database() {
    let place = Place::new();
    let store = place.open().await;
    let mut put = content(&[state("a", 3), state("b", 1)]);
    put.pending_operations.push(operation(1));
    let made = store.create_savepoint("before-upgrade", "why", put.clone()).await.unwrap();
    assert_eq!((made.services, made.pending_operations), (2, 1));
    store.close().await.unwrap();
    fs::remove_file(place.database()).unwrap();
    let store = place.open().await;
    let found = store.savepoint("before-upgrade").await.unwrap();
    assert_eq!(found.summary, made);
    assert_eq!(found.summary.note, "why");
    assert_eq!(found.snapshot.services, put.services);
    assert_eq!(found.snapshot.pending_operations, put.pending_operations);
}

#[tokio::test]
async fn a_diff_says_per_service_and_operation_what_would_change_and_changes_nothing() {
    let place = Place::new();
    let store = place.open().await;
    let mut then = content(&[state("a", 1), state("b", 1), state("same", 1)]);
    then.pending_operations.push(operation(1));
    store.create_savepoint("one", "", then).await.unwrap();
    let now = content(&[state("a", 5), state("c", 1), state("same", 1)]);
    let diff = store.diff_savepoint("one", &now).await.unwrap();
    let found: Vec<_> =
        diff.services.iter().map(|change| (change.id.as_str(), change.change)).collect();
    assert_eq!(
        found,
        [("a", ChangeKind::Changed), ("b", ChangeKind::Added), ("c", ChangeKind::Removed)]
    );
    let field = &diff.services[0].fields[0];
    assert_eq!(
        (field.field.as_str(), &field.now, &field.then),
        ("incarnation", &5.into(), &1.into())
    );
    assert_eq!(diff.operations.len(), 1);
    assert!(StateStore::load(&store).await.unwrap().is_empty());
    assert!(store.diff_savepoint("one", &content(&[])).await.unwrap().services.len() == 3);
}

#[tokio::test]
async fn restoring_a_savepoint_counts_from_the_next_start_on() {
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 1).await;
    let now = store.stored_content().await.unwrap();
    store.create_savepoint("one", "", now).await.unwrap();
    record(&store, "b", 1).await;
    let outcome = store.restore_savepoint("one").await.unwrap();
    assert_eq!(outcome.changes.services[0].change, ChangeKind::Removed);
    assert!(audited(&store, "savepoint one", "restored").await);
    store.close().await.unwrap();
    let store = place.open().await;
    assert_eq!(StateStore::load(&store).await.unwrap(), [state("a", 1)]);
    assert_eq!(store.load_latest_checkpoint().await.unwrap().id, outcome.checkpoint);
    assert_eq!(store.savepoints().await.unwrap().len(), 1, "restoring does not use it up");
}

#[tokio::test]
async fn a_savepoint_travels_to_another_store_and_is_the_same_there() {
    let (here, there) = (Place::new(), Place::new());
    let outside = tempfile::tempdir().unwrap();
    let roots = [outside.path().to_owned()];
    let store = here.open().await;
    let made = store.create_savepoint("one", "note", content(&[state("a", 1)])).await.unwrap();
    let file = store.export_savepoint("one", "one.savepoint".as_ref(), &roots).await.unwrap();
    let again = store.export_savepoint("one", "one.savepoint".as_ref(), &roots).await;
    assert!(matches!(again, Err(DatabaseError::Refused { .. })), "nothing is overwritten");

    let other = there.open().await;
    let taken = other.import_savepoint(&file, Some("from-here"), &roots).await.unwrap();
    assert_eq!((taken.checkpoint, &taken.blake3), (made.checkpoint, &made.blake3));
    assert_eq!((taken.name.as_str(), taken.note.as_str()), ("from-here", "note"));
    other.restore_savepoint("from-here").await.unwrap();
    assert_eq!(StateStore::load(&other).await.unwrap(), [state("a", 1)]);
}

#[tokio::test]
async fn a_file_made_by_hand_damaged_cut_short_or_newer_is_refused_and_left_as_it_was() {
    let place = Place::new();
    let outside = tempfile::tempdir().unwrap();
    let roots = [outside.path().to_owned()];
    let store = place.open().await;
    store.create_savepoint("one", "", content(&[state("a", 1)])).await.unwrap();
    let good = store.export_savepoint("one", "good".as_ref(), &roots).await.unwrap();
    let text = fs::read_to_string(&good).unwrap();
    let by_hand = text.replace("\"incarnation\":1", "\"incarnation\":2");
    assert_ne!(text, by_hand);
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    let newer_schema = text.replacen("\"schema\":1", "\"schema\":9", 1);
    for (bad, why) in [
        ("", "no savepoint"),
        ("{}", "no savepoint"),
        ("{\"services\":{}}\n{}\n", "no savepoint"),
        (by_hand.as_str(), "seal"),
        (&text[..text.len() - 1], "seal"),
        (&text[..text.len() / 2], "no savepoint"),
        (&format!("{text} "), "seal"),
        (newer.as_str(), "newer program"),
        (newer_schema.as_str(), "newer program"),
    ] {
        let file = outside.path().join("bad");
        fs::write(&file, bad).unwrap();
        let before = hash(&file);
        let refused = store.import_savepoint(&file, Some("two"), &roots).await.unwrap_err();
        assert!(matches!(refused, DatabaseError::Corrupt { .. }), "{refused}");
        assert!(refused.to_string().contains(why), "{refused} does not say {why}");
        assert_eq!(hash(&file), before);
    }
    assert_eq!(store.savepoints().await.unwrap().len(), 1);
}

#[tokio::test]
async fn any_flipped_bit_of_a_savepoint_is_noticed() {
    let place = Place::new();
    let store = place.open().await;
    store.create_savepoint("one", "", content(&[state("a", 1)])).await.unwrap();
    let file = place.path("savepoints/one.savepoint");
    let original = fs::read(&file).unwrap();
    for byte in (0..original.len()).step_by(5) {
        flip_bit(&file, byte, u8::try_from(byte % 8).unwrap());
        let listed = store.savepoints().await.unwrap();
        assert!(matches!(listed[0].health, SavepointHealth::Damaged { .. }), "byte {byte}");
        fs::write(&file, &original).unwrap();
    }
    flip_bit(&file, 300, 1);
    assert!(matches!(store.restore_savepoint("one").await, Err(DatabaseError::Corrupt { .. })));
    assert!(file.exists(), "damaged, and still its owner's");
    store.delete_savepoint("one").await.unwrap();
    assert!(store.savepoints().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_name_is_taken_once_whatever_its_case_and_a_bad_one_is_refused() {
    let place = Place::new();
    let store = place.open().await;
    store.create_savepoint("One", "", content(&[])).await.unwrap();
    for name in ["One", "one", "ONE", "a/b", "..", "...", "", "nul", "a.", "a\0", "ä"] {
        let refused = store.create_savepoint(name, "", content(&[])).await;
        assert!(matches!(refused, Err(DatabaseError::Refused { .. })), "{name:?}: {refused:?}");
    }
    let long = "x".repeat(5000);
    assert!(store.create_savepoint("two", &long, content(&[])).await.is_err());
    assert_eq!(place.files("savepoints"), ["One.savepoint"]);
    assert_eq!(store.savepoint("one").await.unwrap().summary.name, "One");
}

#[tokio::test]
async fn a_renamed_file_is_not_the_savepoint_it_claims_to_be() {
    let place = Place::new();
    let store = place.open().await;
    store.create_savepoint("one", "", content(&[])).await.unwrap();
    fs::rename(place.path("savepoints/one.savepoint"), place.path("savepoints/two.savepoint"))
        .unwrap();
    assert!(matches!(store.savepoint("two").await, Err(DatabaseError::Corrupt { .. })));
    assert!(matches!(store.savepoint("one").await, Err(DatabaseError::NotFound { .. })));
}

#[cfg(unix)]
#[tokio::test]
async fn exports_and_imports_follow_no_link_and_touch_no_device() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    let outside = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    let roots = [root.path().to_owned()];
    let store = place.open().await;
    store.create_savepoint("one", "", content(&[])).await.unwrap();
    symlink(outside.path(), root.path().join("out")).unwrap();
    symlink(outside.path().join("new"), root.path().join("dangling")).unwrap();
    symlink("/dev/zero", root.path().join("zero")).unwrap();
    for path in ["out/file", "dangling", "../file", "/dev/null", "a/../b", "nul", ""] {
        let refused = store.export_savepoint("one", path.as_ref(), &roots).await;
        assert!(matches!(refused, Err(DatabaseError::Refused { .. })), "{path}: {refused:?}");
    }
    for path in ["zero", "out/file", "/dev/zero", ".", "missing"] {
        let refused = store.import_savepoint(path.as_ref(), None, &roots).await;
        assert!(matches!(refused, Err(DatabaseError::Refused { .. })), "{path}: {refused:?}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}
