//! Versions: two starters, a newer file, an edited history.

use supervisor_core::error::DatabaseError;
use supervisor_core::ports::StateStore;
use supervisor_persist::{BackupReason, DatabaseOrigin};

use crate::common::{Place, hash, record, state, tamper};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn scenario_03_of_many_that_start_at_once_one_owns_and_the_others_are_told_who() {
    for _ in 0..10 {
        let place = Place::new();
        let starts: Vec<_> = (0..6).map(|_| tokio::spawn(place.builder().open())).collect();
        let mut owners = Vec::new();
        for start in starts {
            match start.await.unwrap() {
                Ok(store) => owners.push(store),
                Err(error) => {
                    let pid = std::process::id().to_string();
                    assert!(
                        matches!(&error, DatabaseError::Owned { owner, .. } if owner.contains(&pid) || owner == "unknown"),
                        "{error}"
                    );
                }
            }
        }
        assert_eq!(owners.len(), 1);
        record(&owners[0], "a", 1).await;
        let connection = rusqlite::Connection::open(place.database()).unwrap();
        let (rows, versions): (u32, u32) = connection
            .query_row(
                "SELECT count(*), count(DISTINCT version) FROM refinery_schema_history",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        assert_eq!(rows, versions, "no migration ran twice");
    }
}

#[tokio::test]
async fn scenario_04_a_newer_database_is_refused_with_both_versions_and_the_backup_to_go_back_to() {
    let place = Place::new();
    let store = place.open().await;
    record(&store, "a", 1).await;
    let backup = store.create_backup(BackupReason::Requested).await.unwrap();
    store.close().await.unwrap();
    tamper(&place.database(), "PRAGMA user_version = 99;");
    let before = hash(&place.database());
    let refused = place.try_open().await.unwrap_err();
    let text = refused.to_string();
    let supported = backup.content.schema_version.to_string();
    for part in ["99", supported.as_str(), backup.name.as_str()] {
        assert!(text.contains(part), "{text} does not name {part}");
    }
    assert_eq!(hash(&place.database()), before);
    // The way it names leads back.
    let store = place.builder().go_back_to(backup.name).open().await.unwrap();
    assert_eq!(StateStore::load(&store).await.unwrap(), [state("a", 1)]);
    let kept = store.recovery_report().await.unwrap().database;
    let DatabaseOrigin::Rebuilt { quarantine: Some(kept), .. } = kept else { unreachable!() };
    assert_eq!(hash(&kept.join("supervisor.db")), before);
}

#[tokio::test]
async fn without_a_backup_a_newer_database_is_refused_with_what_is_known() {
    let place = Place::new();
    place.open().await.close().await.unwrap();
    tamper(&place.database(), "PRAGMA user_version = 99;");
    let refused = place.try_open().await.unwrap_err();
    assert!(matches!(refused, DatabaseError::TooNew { found: 99, backup: None, .. }), "{refused}");
}
