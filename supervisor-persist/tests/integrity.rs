//! The audit trail under pruning, truncation and secrets; single flipped bits; many starters at once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use chrono::DateTime;
use supervisor_core::error::DatabaseError;
use supervisor_core::event::{EVENT_VERSION, EventKind, SupervisorEvent};
use supervisor_core::journal::{Actor, AuditAction, AuditRecord, Transition};
use supervisor_core::message::{IpcMessage, OutboxEntry};
use supervisor_core::ports::{AuditLog, DedupStore, EventStore, Journal, Outbox, StateStore};
use supervisor_core::state::{Phase, ServiceState};
use supervisor_core::{Incarnation, Sequence, ServiceId};
use supervisor_persist::StatePersistence;
use uuid::Uuid;

async fn open(dir: &Path) -> Result<StatePersistence, DatabaseError> {
    StatePersistence::builder(dir.join("s.db"), dir.join("c")).reserve(4096).open().await
}

fn transition(id: &str) -> Transition {
    let mut state = ServiceState::registered(ServiceId::new(id).unwrap(), DateTime::UNIX_EPOCH);
    state.incarnation = Incarnation(1);
    Transition { state, from: Phase::Starting, cause: "running".into() }
}

fn row(detail: &str) -> AuditRecord {
    AuditRecord {
        actor: Actor::Host,
        action: AuditAction::Configuration,
        subject: "svc".into(),
        detail: detail.into(),
    }
}

/// Changes the database behind the store's back.
fn tamper(dir: &Path, statement: &str) -> Result<(), rusqlite::Error> {
    rusqlite::Connection::open(dir.join("s.db")).unwrap().execute_batch(statement)
}

async fn trail(dir: &Path, rows: usize) -> StatePersistence {
    let store = open(dir).await.unwrap();
    for n in 1..=rows {
        AuditLog::append(&store, row(&format!("row {n}"))).await.unwrap();
    }
    store
}

#[tokio::test]
async fn a_trail_pruned_under_seals_still_verifies_and_says_what_went() {
    let dir = tempfile::tempdir().unwrap();
    let store = trail(dir.path(), 30).await;
    let seal = store.prune_audit(10).await.unwrap().unwrap();
    assert_eq!((seal.first, seal.last, seal.count), (Sequence(1), Sequence(20), 20));
    let second = store.prune_audit(5).await.unwrap().unwrap();
    assert_eq!(second.first, Sequence(21), "seals follow each other");
    assert_eq!(store.prune_audit(100).await.unwrap(), None);
    let verified = AuditLog::verify(&store).await.unwrap();
    assert!(verified.intact, "{}", verified.detail);
    let rows = AuditLog::read(&store, Sequence::ZERO, 100).await.unwrap();
    assert_eq!(rows.first().unwrap().sequence, second.last.next());
    assert_eq!(rows.last().unwrap().record.action, AuditAction::Audit, "pruning is in the trail");
    store.close().await.unwrap();
    assert!(
        tamper(dir.path(), "DELETE FROM audit WHERE sequence = 30").is_err(),
        "not without a seal"
    );
    for break_it in [
        "DROP TRIGGER audit_seal_is_not_changed; UPDATE audit_seal SET at = at + 1 WHERE number = 1;",
        "DROP TRIGGER audit_seal_is_not_deleted; DELETE FROM audit_seal WHERE number = 2;",
    ] {
        tamper(dir.path(), break_it).unwrap();
        let store = open(dir.path()).await.unwrap();
        let verified = AuditLog::verify(&store).await.unwrap();
        assert!(!verified.intact, "{break_it}: {}", verified.detail);
        // One that is only dropped may hold the database a moment longer.
        store.close().await.unwrap();
    }
}

async fn many(store: &StatePersistence, rows: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..rows {
        let store = store.clone();
        tasks.spawn(
            async move { AuditLog::append(&store, row(&format!("row {n}"))).await.unwrap() },
        );
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn a_trail_that_grows_is_pruned_under_seals_by_itself_unless_it_does_not_verify() {
    let dir = tempfile::tempdir().unwrap();
    let limited = || {
        StatePersistence::builder(dir.path().join("s.db"), dir.path().join("c")).keep_audit(1000)
    };
    let store = limited().open().await.unwrap();
    many(&store, 3500).await;
    let oldest = AuditLog::read(&store, Sequence::ZERO, 1).await.unwrap()[0].sequence;
    assert!(oldest > Sequence(1024), "from {oldest} on");
    let verified = AuditLog::verify(&store).await.unwrap();
    assert!(verified.intact && verified.rows < 3000, "{verified:?}");
    store.close().await.unwrap();
    tamper(
        dir.path(),
        "DROP TRIGGER audit_is_not_changed; UPDATE audit SET detail = 'x' WHERE sequence = (SELECT min(sequence) FROM audit)",
    )
    .unwrap();
    let store = limited().open().await.unwrap();
    many(&store, 1500).await;
    let still = AuditLog::read(&store, Sequence::ZERO, 1).await.unwrap()[0].sequence;
    assert_eq!(still, oldest, "the changed row is there to be found");
    assert_eq!(AuditLog::verify(&store).await.unwrap().first_bad, Some(oldest));
}

#[tokio::test]
async fn a_seal_never_hides_a_row_that_was_changed() {
    let dir = tempfile::tempdir().unwrap();
    trail(dir.path(), 20).await.close().await.unwrap();
    tamper(
        dir.path(),
        "DROP TRIGGER audit_is_not_changed; UPDATE audit SET detail = 'x' WHERE sequence = 7",
    )
    .unwrap();
    let store = open(dir.path()).await.unwrap();
    let error = store.prune_audit(5).await.unwrap_err();
    assert!(error.to_string().contains("row 7"), "{error}");
    assert_eq!(AuditLog::verify(&store).await.unwrap().first_bad, Some(Sequence(7)));
}

#[tokio::test]
async fn a_long_trail_without_its_anchor_is_not_called_intact() {
    let dir = tempfile::tempdir().unwrap();
    trail(dir.path(), 130).await.close().await.unwrap();
    fs::remove_file(dir.path().join("s.db.audit-anchor")).unwrap();
    let store = open(dir.path()).await.unwrap();
    let verified = AuditLog::verify(&store).await.unwrap();
    assert!(!verified.intact);
    assert!(verified.detail.contains("anchor is missing"), "{}", verified.detail);
}

#[tokio::test]
async fn a_planted_secret_is_in_no_byte_of_the_trail() {
    const CANARY: &str = "canary-7f3a9c-secret";
    let dir = tempfile::tempdir().unwrap();
    let builder = StatePersistence::builder(dir.path().join("s.db"), dir.path().join("c"));
    let store = builder.secrets([CANARY.to_owned()]).open().await.unwrap();
    let mut record = row(&format!("token={CANARY} and again {CANARY}"));
    record.subject = format!("svc-{CANARY}");
    AuditLog::append(&store, record).await.unwrap();
    let look = |when: &str| {
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let bytes = fs::read(&path).unwrap();
                let found = bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes());
                assert!(!found, "{when}: {}", path.display());
            }
        }
    };
    look("in the log");
    assert!(AuditLog::verify(&store).await.unwrap().intact, "redacted before it was hashed");
    store.close().await.unwrap();
    look("in the database");
}

/// Number 12 of the hard failures of supervision: two starters in the same moment, fifty times.
#[test]
fn of_two_starters_in_the_same_moment_one_wins_and_migrations_run_once() {
    for round in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        let start = Arc::new(Barrier::new(2));
        let starters: Vec<_> = (0..2)
            .map(|_| {
                let (start, dir) = (Arc::clone(&start), dir.path().to_owned());
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    start.wait();
                    runtime.block_on(open(&dir))
                })
            })
            .collect();
        let results: Vec<_> = starters.into_iter().map(|starter| starter.join().unwrap()).collect();
        let won = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(won, 1, "round {round}: {results:?}");
        let refused = results.iter().find_map(|result| result.as_ref().err()).unwrap();
        assert!(matches!(refused, DatabaseError::Owned { .. }), "round {round}: {refused}");
        drop(results);
    }
}

/// Everything of a store that means something, in one text.
async fn content(store: &StatePersistence) -> Result<String, DatabaseError> {
    let states = StateStore::load(store).await?;
    let journal = Journal::read(store, Sequence::ZERO, 10_000).await?;
    let events = EventStore::read(store, Sequence::ZERO, 10_000).await?;
    let audit = AuditLog::read(store, Sequence::ZERO, 10_000).await?;
    let outbox = store.pending("ch", Sequence::ZERO, 10_000).await?;
    let checkpoint = store.load_latest_checkpoint().await?;
    let services: std::collections::BTreeMap<_, _> = checkpoint.services.iter().collect();
    Ok(format!("{states:?}{journal:?}{events:?}{audit:?}{outbox:?}{:?}{services:?}", checkpoint.id))
}

async fn fill(dir: &Path) -> String {
    let store = open(dir).await.unwrap();
    for n in 1..=40_u64 {
        store.record(vec![transition(&format!("s{}", n % 7))]).await.unwrap();
        AuditLog::append(&store, row(&format!("row {n}"))).await.unwrap();
        let event = SupervisorEvent {
            version: EVENT_VERSION,
            id: Uuid::from_u128(n.into()),
            sequence: Sequence(n),
            at: DateTime::UNIX_EPOCH,
            kind: EventKind::BackupFailed { reason: format!("reason {n}") },
        };
        EventStore::append(&store, vec![event]).await.unwrap();
        let message = IpcMessage {
            id: Uuid::from_u128(n.into()),
            message_type: "t".into(),
            payload: serde_json::json!({ "n": n }),
            timestamp: DateTime::UNIX_EPOCH,
            retry_count: 0,
        };
        let entry = OutboxEntry {
            sequence: Sequence::ZERO,
            channel: "ch".into(),
            message,
            expires_at: None,
        };
        store.enqueue(entry).await.unwrap();
        store.first_sight(&format!("k{n}"), b"v", Duration::from_secs(1 << 40)).await.unwrap();
    }
    let states: HashMap<_, _> = StateStore::load(&store)
        .await
        .unwrap()
        .into_iter()
        .map(|state| (state.id.clone(), state))
        .collect();
    store.create_checkpoint(&states, &Vec::new()).await.unwrap();
    let truth = content(&store).await.unwrap();
    store.close().await.unwrap();
    truth
}

fn integrity(database: &Path) -> bool {
    let found = rusqlite::Connection::open(database)
        .and_then(|db| db.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)));
    found.is_ok_and(|found| found == "ok")
}

/// Whether a damaged copy is noticed, or holds the truth all the same.
async fn noticed_or_harmless(dir: &Path, truth: &str) -> Result<(), String> {
    let structure = integrity(&dir.join("s.db"));
    let Ok(store) = open(dir).await else { return Ok(()) };
    let trail = AuditLog::verify(&store).await.is_ok_and(|verified| verified.intact);
    let found = content(&store).await;
    // Asked last: a damaged row is noted when it is read.
    let attention = store.recovery_report().await.map_or(true, |report| report.needs_attention());
    drop(store.close().await);
    match found {
        Err(_) => Ok(()),
        Ok(found) if found == truth => Ok(()),
        Ok(_) if !structure || !trail || attention => Ok(()),
        Ok(found) => {
            let at = found.bytes().zip(truth.bytes()).take_while(|(a, b)| a == b).count();
            let from = at.saturating_sub(60);
            Err(found.get(from..(at + 60).min(found.len())).unwrap_or_default().to_owned())
        }
    }
}

#[tokio::test]
async fn a_single_flipped_bit_is_noticed_or_harmless() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("PERSIST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let flips = number("PERSIST_FLIPS").unwrap_or(400);
    println!("repeat with PERSIST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let template = tempfile::tempdir().unwrap();
    let truth = fill(template.path()).await;
    let mut files: Vec<_> = fs::read_dir(template.path().join("c"))
        .unwrap()
        .map(|entry| Path::new("c").join(entry.unwrap().file_name()))
        .collect();
    files.push("s.db.audit-anchor".into());
    for flip in 0..flips {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        for file in files
            .iter()
            .map(|file| file.as_path())
            .chain(["s.db".as_ref(), "s.db.audit-key".as_ref()])
        {
            fs::copy(template.path().join(file), dir.path().join(file)).unwrap();
        }
        // Three of four in the database, the rest in a file beside it.
        let target = match random.u8(0..4) {
            0 => files[random.usize(0..files.len())].clone(),
            _ => "s.db".into(),
        };
        let path = dir.path().join(&target);
        let mut bytes = fs::read(&path).unwrap();
        let (at, bit) = (random.usize(0..bytes.len()), random.u8(0..8));
        bytes[at] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        if let Err(found) = noticed_or_harmless(dir.path(), &truth).await {
            panic!("flip {flip}, bit {bit} of byte {at} of {}: {found}", target.display());
        }
    }
}
