//! What a store promises its callers, on a real database in a directory of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::DateTime;
use supervisor_core::checkpoint::CheckpointHealth;
use supervisor_core::error::DatabaseError;
use supervisor_core::event::{EVENT_VERSION, EventKind, SupervisorEvent};
use supervisor_core::journal::{Actor, AuditAction, AuditRecord, Transition};
use supervisor_core::message::{DeadLetter, IpcMessage, OutboxEntry};
use supervisor_core::ports::{
    AuditLog, CheckpointStore, DedupStore, EventStore, Journal, Outbox, StateStore,
};
use supervisor_core::state::{OperationKind, PendingOperation, Phase, ServiceState};
use supervisor_core::{Incarnation, Sequence, ServiceId};
use supervisor_persist::StatePersistence;
use tempfile::TempDir;
use uuid::Uuid;

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("supervisor.db")
    }

    fn checkpoints(&self) -> PathBuf {
        self.dir.path().join("checkpoints")
    }

    async fn open(&self) -> StatePersistence {
        self.try_open().await.unwrap()
    }

    async fn try_open(&self) -> Result<StatePersistence, DatabaseError> {
        StatePersistence::new(self.database(), self.checkpoints()).await
    }
}

fn state(id: &str, incarnation: u64) -> ServiceState {
    let mut state = ServiceState::registered(ServiceId::new(id).unwrap(), DateTime::UNIX_EPOCH);
    state.incarnation = Incarnation(incarnation);
    state.phase = Phase::Running;
    state
}

fn transition(id: &str, incarnation: u64) -> Transition {
    Transition { state: state(id, incarnation), from: Phase::Starting, cause: "running".into() }
}

fn row(detail: &str) -> AuditRecord {
    AuditRecord {
        actor: Actor::Operator,
        action: AuditAction::Registration,
        subject: "svc".into(),
        detail: detail.into(),
    }
}

fn message(n: u128) -> IpcMessage {
    IpcMessage {
        id: Uuid::from_u128(n),
        message_type: "t".into(),
        payload: serde_json::json!({ "n": n as u64 }),
        timestamp: DateTime::UNIX_EPOCH,
        retry_count: 0,
    }
}

/// Changes the database behind the store's back.
fn tamper(database: &Path, statement: &str) {
    let connection = rusqlite::Connection::open(database).unwrap();
    // Whoever tampers on purpose takes the guard away first.
    connection.execute_batch("DROP TRIGGER IF EXISTS audit_is_pruned_under_a_seal").unwrap();
    connection.execute_batch(statement).unwrap();
}

#[tokio::test]
async fn states_and_their_journal_are_there_after_reopening() {
    let place = Place::new();
    let store = place.open().await;
    let last = store
        .record(vec![transition("a", 1), transition("b", 1), transition("a", 2)])
        .await
        .unwrap();
    store.close().await.unwrap();
    let store = place.open().await;
    assert_eq!(StateStore::load(&store).await.unwrap(), [state("a", 2), state("b", 1)]);
    let entries = Journal::read(&store, Sequence::ZERO, 10).await.unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[2].sequence, last);
    assert_eq!(Journal::head(&store).await.unwrap(), last);
    StateStore::remove(&store, &ServiceId::new("a").unwrap()).await.unwrap();
    assert_eq!(StateStore::load(&store).await.unwrap(), [state("b", 1)]);
}

#[tokio::test]
async fn a_late_write_of_an_older_incarnation_does_not_undo_a_newer_one() {
    let place = Place::new();
    let store = place.open().await;
    store.record(vec![transition("a", 5)]).await.unwrap();
    store.record(vec![transition("a", 4)]).await.unwrap();
    assert_eq!(StateStore::load(&store).await.unwrap(), [state("a", 5)]);
}

#[tokio::test]
async fn many_writers_share_commits_and_each_gets_its_answer() {
    let place = Place::new();
    let store = place.open().await;
    let writes: Vec<_> = (0..200)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store.record(vec![transition(&format!("s{n}"), 1)]).await.unwrap()
            })
        })
        .collect();
    let mut sequences = Vec::new();
    for write in writes {
        sequences.push(write.await.unwrap());
    }
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences.len(), 200);
    assert_eq!(StateStore::load(&store).await.unwrap().len(), 200);
}

#[tokio::test]
async fn a_second_opener_is_refused_and_told_who_has_it() {
    let place = Place::new();
    let _store = place.open().await;
    let error = place.try_open().await.unwrap_err();
    let DatabaseError::Owned { owner, .. } = &error else { panic!("{error}") };
    assert!(owner.contains(&std::process::id().to_string()), "{owner}");
}

#[tokio::test]
async fn dropping_the_store_without_closing_releases_it_and_loses_nothing() {
    let place = Place::new();
    let store = place.open().await;
    store.record(vec![transition("a", 1)]).await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(StateStore::load(&store).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_newest_checkpoint_comes_back_with_everything_in_it() {
    let place = Place::new();
    let store = place.open().await;
    assert!(matches!(store.load_latest_checkpoint().await, Err(DatabaseError::NotFound { .. })));
    let services = HashMap::from([(ServiceId::new("a").unwrap(), state("a", 3))]);
    let pending = vec![PendingOperation {
        id: Uuid::from_u128(1),
        kind: OperationKind::Restart,
        service: Some(ServiceId::new("a").unwrap()),
        requested_at: DateTime::UNIX_EPOCH,
        detail: serde_json::json!({"why": "test"}),
    }];
    store.create_checkpoint(&Default::default(), &Default::default()).await.unwrap();
    let id = store.create_checkpoint(&services, &pending).await.unwrap();
    store.close().await.unwrap();
    let latest = place.open().await.load_latest_checkpoint().await.unwrap();
    assert_eq!(latest.id, id);
    assert_eq!(latest.services, services);
    assert_eq!(latest.pending_operations, pending);
}

#[tokio::test]
async fn a_checkpoint_damaged_in_the_database_is_read_from_its_file() {
    let place = Place::new();
    let store = place.open().await;
    let id = store.create_checkpoint(&HashMap::new(), &Vec::new()).await.unwrap();
    store.close().await.unwrap();
    tamper(
        &place.database(),
        "UPDATE checkpoint SET payload = CAST(replace(CAST(payload AS TEXT), 'schema', 'schemb') AS BLOB)",
    );
    let store = place.open().await;
    let restored = store.restore().await.unwrap();
    assert_eq!(restored.checkpoint.unwrap().id, id);
    assert!(restored.source.starts_with("file of"), "{}", restored.source);
    assert_eq!(restored.rejected.len(), 1);
}

#[tokio::test]
async fn a_checkpoint_damaged_in_both_places_is_put_aside_and_the_one_before_is_used() {
    let place = Place::new();
    let store = place.open().await;
    let good = store.create_checkpoint(&HashMap::new(), &Vec::new()).await.unwrap();
    let bad = store.create_checkpoint(&HashMap::new(), &Vec::new()).await.unwrap();
    store.close().await.unwrap();
    tamper(
        &place.database(),
        "UPDATE checkpoint SET payload = CAST(replace(CAST(payload AS TEXT), 'schema', 'schemb') AS BLOB) WHERE number = 2",
    );
    let file = place.checkpoints().join("checkpoint-00000002.json");
    let mut bytes = fs::read(&file).unwrap();
    bytes[20] ^= 1;
    fs::write(&file, bytes).unwrap();
    let store = place.open().await;
    let restored = store.restore().await.unwrap();
    assert_eq!(restored.checkpoint.unwrap().id, good);
    assert_eq!(restored.rejected.len(), 2, "{:?}", restored.rejected);
    let list = CheckpointStore::list(&store, 10).await.unwrap();
    assert_eq!(list[0].id, bad);
    assert!(matches!(list[0].health, CheckpointHealth::Quarantined { .. }));
    assert!(matches!(CheckpointStore::load(&store, bad).await, Err(DatabaseError::Corrupt { .. })));
    // The second look finds the bad one put aside already.
    assert_eq!(store.restore().await.unwrap().rejected.len(), 0);
}

#[tokio::test]
async fn checkpoints_come_back_from_files_alone_when_the_database_is_gone() {
    let place = Place::new();
    let store = place.open().await;
    let id = store.create_checkpoint(&HashMap::new(), &Vec::new()).await.unwrap();
    store.close().await.unwrap();
    for name in ["supervisor.db", "supervisor.db-wal", "supervisor.db-shm"] {
        drop(fs::remove_file(place.dir.path().join(name)));
    }
    let store = place.open().await;
    assert_eq!(store.load_latest_checkpoint().await.unwrap().id, id);
    let next = store.create_checkpoint(&HashMap::new(), &Vec::new()).await.unwrap();
    assert_eq!(
        store.load_latest_checkpoint().await.unwrap().id,
        next,
        "a new one must not hide behind an old file"
    );
}

#[tokio::test]
async fn old_checkpoints_are_pruned_with_their_files() {
    let place = Place::new();
    let builder =
        StatePersistence::builder(place.database(), place.checkpoints()).keep_checkpoints(3);
    let store = builder.open().await.unwrap();
    for _ in 0..8 {
        store.create_checkpoint(&HashMap::new(), &Vec::new()).await.unwrap();
    }
    assert_eq!(CheckpointStore::list(&store, 100).await.unwrap().len(), 3);
    assert_eq!(fs::read_dir(place.checkpoints()).unwrap().count(), 6);
}

#[tokio::test]
async fn a_verified_checkpoint_was_read_in_both_of_its_places() {
    let place = Place::new();
    let store = place.open().await;
    let id = store.create_checkpoint(&HashMap::new(), &Vec::new()).await.unwrap();
    assert_eq!(
        CheckpointStore::verify(&store, id).await.unwrap().health,
        CheckpointHealth::Verified
    );
    fs::remove_file(place.checkpoints().join("checkpoint-00000001.json")).unwrap();
    let health = CheckpointStore::verify(&store, id).await.unwrap().health;
    assert!(
        matches!(&health, CheckpointHealth::Quarantined { reason } if reason.contains("in its file")),
        "{health:?}"
    );
    assert!(CheckpointStore::load(&store, id).await.is_ok(), "one good place is enough");
}

#[tokio::test]
async fn the_audit_trail_shows_a_changed_row_a_missing_row_and_a_cut() {
    for (statement, first_bad) in [
        ("DROP TRIGGER audit_is_not_changed; UPDATE audit SET detail = 'x' WHERE sequence = 3", 3),
        ("DELETE FROM audit WHERE sequence = 2", 2),
        ("DELETE FROM audit WHERE sequence > 3", 4),
    ] {
        let place = Place::new();
        let store = place.open().await;
        for n in 0..5 {
            AuditLog::append(&store, row(&format!("row {n}"))).await.unwrap();
        }
        assert!(AuditLog::verify(&store).await.unwrap().intact);
        store.close().await.unwrap();
        tamper(&place.database(), statement);
        let verification = AuditLog::verify(&place.open().await).await.unwrap();
        assert!(!verification.intact, "{statement}");
        assert_eq!(
            verification.first_bad,
            Some(Sequence(first_bad)),
            "{statement}: {}",
            verification.detail
        );
    }
}

#[tokio::test]
async fn known_secrets_are_redacted_before_they_are_hashed() {
    let place = Place::new();
    let builder = StatePersistence::builder(place.database(), place.checkpoints())
        .secrets(["hunter2".to_owned()]);
    let store = builder.open().await.unwrap();
    AuditLog::append(&store, row("the key is hunter2")).await.unwrap();
    let entries = AuditLog::read(&store, Sequence::ZERO, 1).await.unwrap();
    assert_eq!(entries[0].record.detail, "the key is [redacted]");
    store.close().await.unwrap();
    let bytes = fs::read(place.database()).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
}

#[tokio::test]
async fn events_keep_their_sequence_and_the_first_of_two_wins() {
    let place = Place::new();
    let store = place.open().await;
    let event = |sequence, reason: &str| SupervisorEvent {
        version: EVENT_VERSION,
        id: Uuid::from_u128(sequence),
        sequence: Sequence(u64::try_from(sequence).unwrap()),
        at: DateTime::UNIX_EPOCH,
        kind: EventKind::BackupFailed { reason: reason.into() },
    };
    store.append_events(vec![event(1, "a"), event(2, "b")]).await;
    store.append_events(vec![event(2, "other")]).await;
    assert_eq!(EventStore::head(&store).await.unwrap(), Sequence(2));
    assert_eq!(EventStore::read(&store, Sequence(1), 10).await.unwrap(), [event(2, "b")]);
}

trait AppendEvents {
    async fn append_events(&self, events: Vec<SupervisorEvent>);
}

impl AppendEvents for StatePersistence {
    async fn append_events(&self, events: Vec<SupervisorEvent>) {
        EventStore::append(self, events).await.unwrap();
    }
}

#[tokio::test]
async fn the_outbox_keeps_ids_order_and_dead_letters() {
    let place = Place::new();
    let store = place.open().await;
    let entry = |n| OutboxEntry {
        sequence: Sequence::ZERO,
        channel: "c".into(),
        message: message(n),
        expires_at: None,
    };
    let first = store.enqueue(entry(1)).await.unwrap();
    assert_eq!(store.enqueue(entry(1)).await.unwrap(), first, "the same id is the same message");
    store.enqueue(entry(2)).await.unwrap();
    store.enqueue(entry(3)).await.unwrap();
    store.acknowledge(&[Uuid::from_u128(2)]).await.unwrap();
    let letter = DeadLetter {
        channel: "c".into(),
        message: message(3),
        at: DateTime::UNIX_EPOCH,
        cause: "poison".into(),
        generations: Vec::new(),
        kept_because: None,
    };
    store.bury(letter.clone()).await.unwrap();
    store.close().await.unwrap();
    let store = place.open().await;
    let ids = |entries: Vec<OutboxEntry>| {
        entries.iter().map(|entry| entry.message.id.as_u128()).collect::<Vec<_>>()
    };
    assert_eq!(ids(store.pending("c", Sequence::ZERO, 10).await.unwrap()), [1]);
    assert_eq!(store.dead_letters(None, 10).await.unwrap(), [letter]);
    assert_eq!(store.requeue(&[Uuid::from_u128(3), Uuid::from_u128(9)]).await.unwrap(), 1);
    assert_eq!(ids(store.pending("c", Sequence::ZERO, 10).await.unwrap()), [1, 3]);
    assert_eq!(store.purge(None).await.unwrap(), 0);
}

#[tokio::test]
async fn the_first_sight_of_a_key_wins_until_its_time_is_over() {
    let place = Place::new();
    let store = place.open().await;
    let minute = std::time::Duration::from_secs(60);
    assert_eq!(store.first_sight("k", b"one", minute).await.unwrap(), None);
    assert_eq!(store.first_sight("k", b"two", minute).await.unwrap(), Some(b"one".to_vec()));
    assert_eq!(store.first_sight("gone", b"one", std::time::Duration::ZERO).await.unwrap(), None);
    assert_eq!(store.first_sight("gone", b"two", minute).await.unwrap(), None);
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused_and_left_as_it_was() {
    let text: &dyn Fn(&Path) = &|path| fs::write(path, vec![b'x'; 4096]).unwrap();
    let short: &dyn Fn(&Path) = &|path| fs::write(path, b"SQLite").unwrap();
    let foreign: &dyn Fn(&Path) =
        &|path| tamper(path, "CREATE TABLE t (x); PRAGMA application_id = 7;");
    let unmarked: &dyn Fn(&Path) = &|path| tamper(path, "CREATE TABLE t (x);");
    for make in [text, short, foreign, unmarked] {
        let place = Place::new();
        make(&place.database());
        let before = fs::read(place.database()).unwrap();
        let error = place.try_open().await.unwrap_err();
        assert!(matches!(error, DatabaseError::Foreign { .. }), "{error}");
        assert_eq!(fs::read(place.database()).unwrap(), before);
    }
}

#[tokio::test]
async fn a_newer_database_is_refused_naming_both_versions_and_left_as_it_was() {
    let place = Place::new();
    place.open().await.close().await.unwrap();
    tamper(&place.database(), "PRAGMA user_version = 99;");
    let before = fs::read(place.database()).unwrap();
    let error = place.try_open().await.unwrap_err();
    assert!(matches!(error, DatabaseError::TooNew { found: 99, .. }), "{error}");
    assert_eq!(fs::read(place.database()).unwrap(), before);
}

#[tokio::test]
async fn a_directory_in_the_databases_place_is_refused() {
    let place = Place::new();
    fs::create_dir(place.database()).unwrap();
    let error = place.try_open().await.unwrap_err();
    assert!(error.to_string().contains("directory"), "{error}");
}

#[tokio::test]
async fn a_damaged_migration_history_is_an_error_and_no_panic() {
    for damage in ["applied_on = 'never'", "checksum = 'x'", "checksum = '1'"] {
        let place = Place::new();
        place.open().await.close().await.unwrap();
        tamper(
            &place.database(),
            &format!(
                "UPDATE refinery_schema_history SET {damage} WHERE version = 1; PRAGMA user_version = 1;"
            ),
        );
        let error = place.try_open().await.unwrap_err();
        assert!(matches!(error, DatabaseError::Migration(_)), "{damage}: {error}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn everything_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    let store = place.open().await;
    store.create_checkpoint(&HashMap::new(), &Vec::new()).await.unwrap();
    AuditLog::append(&store, row("x")).await.unwrap();
    let mut looked_at = 0;
    for dir in [place.dir.path().to_owned(), place.checkpoints()] {
        for entry in fs::read_dir(dir).unwrap() {
            let found = entry.unwrap();
            let mode = found.metadata().unwrap().mode();
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", found.path().display());
            looked_at += 1;
        }
    }
    assert!(looked_at >= 7, "{looked_at}");
}
