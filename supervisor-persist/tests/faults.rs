//! Every call that can fail does, one after the other: what was acknowledged is there afterwards, and nothing is damaged.
//!
//! A failing point prints how to run it alone: `PERSIST_FAULT=<work>:<how>:<n>`.
//!
//! | work | what runs under faults |
//! |---|---|
//! | commit | transitions, events, audit rows, messages, keys; by several callers |
//! | checkpoint | two checkpoints with their file copies |
//! | migration | opening a database of schema 4 |
//! | recovery | opening what a kill left, with a full log |
//! | prune | sealing the audit trail |

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use chrono::DateTime;
use supervisor_core::error::DatabaseError;
use supervisor_core::event::{EVENT_VERSION, EventKind, SupervisorEvent};
use supervisor_core::journal::{Actor, AuditAction, AuditRecord, Transition};
use supervisor_core::message::{IpcMessage, OutboxEntry};
use supervisor_core::ports::{
    AuditLog, CheckpointStore, DedupStore, EventStore, Journal, Outbox, StateStore,
};
use supervisor_core::state::{Phase, ServiceState};
use supervisor_core::{CheckpointId, Incarnation, Sequence, ServiceId};
use supervisor_persist::StatePersistence;
use supervisor_persist::testing::{FaultPlan, How};
use tempfile::TempDir;
use uuid::Uuid;

mod old {
    refinery::embed_migrations!("migrations");
}

const HOWS: [How; 6] = [
    How::Once,
    How::OnceFull,
    How::Torn,
    How::Persistent,
    How::PersistentFull,
    How::PersistentSync,
];

/// What was acknowledged.
#[derive(Debug, Default)]
struct Acked {
    services: Vec<String>,
    events: Vec<u64>,
    audit: Vec<String>,
    messages: Vec<Uuid>,
    keys: Vec<String>,
    checkpoints: Vec<CheckpointId>,
}

/// A file system in memory where there is one: the points are about order, not about disks.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

async fn open(dir: &Path) -> Result<StatePersistence, DatabaseError> {
    let builder = StatePersistence::builder(dir.join("s.db"), dir.join("c"));
    builder.hold_writes(Duration::ZERO).reserve(4096).open().await
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

fn event(n: u64) -> SupervisorEvent {
    SupervisorEvent {
        version: EVENT_VERSION,
        id: Uuid::from_u128(n.into()),
        sequence: Sequence(n),
        at: DateTime::UNIX_EPOCH,
        kind: EventKind::BackupFailed { reason: "x".repeat(200) },
    }
}

fn entry(id: Uuid) -> OutboxEntry {
    let message = IpcMessage {
        id,
        message_type: "t".into(),
        payload: serde_json::json!({ "text": "y".repeat(300) }),
        timestamp: DateTime::UNIX_EPOCH,
        retry_count: 0,
    };
    OutboxEntry { sequence: Sequence::ZERO, channel: "ch".into(), message, expires_at: None }
}

impl Acked {
    async fn some_of_everything(&mut self, store: &StatePersistence, round: u64) {
        let ids = [format!("a{round}"), format!("b{round}"), format!("c{round}")];
        let message = Uuid::from_u128(round.into());
        let key = format!("key{round}");
        let (one, two, told, noted, queued, seen) = tokio::join!(
            store.record(vec![transition(&ids[0])]),
            store.record(vec![transition(&ids[1]), transition(&ids[2])]),
            EventStore::append(store, vec![event(round)]),
            AuditLog::append(store, row(&key)),
            store.enqueue(entry(message)),
            store.first_sight(&key, b"mine", Duration::from_secs(1 << 40)),
        );
        if one.is_ok() {
            self.services.push(ids[0].clone());
        }
        if two.is_ok() {
            self.services.extend_from_slice(&ids[1..]);
        }
        self.events.extend(told.is_ok().then_some(round));
        self.audit.extend(noted.is_ok().then(|| key.clone()));
        self.messages.extend(queued.is_ok().then_some(message));
        self.keys.extend(seen.is_ok().then_some(key));
    }

    async fn checkpoint(&mut self, store: &StatePersistence) {
        let services: HashMap<_, _> = (0..5)
            .map(|n| transition(&format!("s{n}")).state)
            .map(|state| (state.id.clone(), state))
            .collect();
        let made = store.create_checkpoint(&services, &Vec::new()).await;
        self.checkpoints.extend(made.ok());
    }

    /// The oracle.
    async fn check(&self, dir: &Path) -> Result<(), String> {
        let text = |error: DatabaseError| supervisor_core::error::chain(&error);
        let store = open(dir).await.map_err(|error| format!("does not reopen: {}", text(error)))?;
        let states = StateStore::load(&store).await.map_err(text)?;
        let journal = Journal::read(&store, Sequence::ZERO, 10_000).await.map_err(text)?;
        for id in &self.services {
            if !states.iter().any(|state| state.id.as_str() == id) {
                return Err(format!("the state of {id} is lost"));
            }
            if journal.iter().filter(|row| row.service.as_str() == id).count() != 1 {
                return Err(format!("not one journal row of {id}"));
            }
        }
        let events = EventStore::read(&store, Sequence::ZERO, 10_000).await.map_err(text)?;
        let found: Vec<_> = events.iter().map(|event| event.sequence.get()).collect();
        lost("event", &self.events, &found)?;
        let trail = AuditLog::read(&store, Sequence::ZERO, 10_000).await.map_err(text)?;
        let found: Vec<_> = trail.into_iter().map(|row| row.record.detail).collect();
        lost("audit row", &self.audit, &found)?;
        let queue = store.pending("ch", Sequence::ZERO, 10_000).await.map_err(text)?;
        let found: Vec<_> = queue.iter().map(|entry| entry.message.id).collect();
        lost("message", &self.messages, &found)?;
        for key in &self.keys {
            let seen =
                store.first_sight(key, b"other", Duration::from_secs(1)).await.map_err(text)?;
            if seen.as_deref() != Some(b"mine") {
                return Err(format!("key {key} is forgotten"));
            }
        }
        for id in &self.checkpoints {
            CheckpointStore::load(&store, *id).await.map_err(text)?;
        }
        if let Some(newest) = self.checkpoints.last() {
            let restored = store.restore().await.map_err(text)?;
            // The newest acknowledged one, or one after it whose acknowledgement failed.
            let right = |id| id == *newest || !self.checkpoints.contains(&id);
            if !restored.checkpoint.is_some_and(|found| right(found.id)) {
                return Err("an older checkpoint was restored".to_owned());
            }
        }
        let verified = AuditLog::verify(&store).await.map_err(text)?;
        if !verified.intact {
            return Err(verified.detail);
        }
        store.record(vec![transition("afterwards")]).await.map_err(text)?;
        store.close().await.map_err(text)?;
        integrity(&dir.join("s.db"))
    }
}

fn lost<T: PartialEq + std::fmt::Debug>(
    what: &str,
    acked: &[T],
    found: &[T],
) -> Result<(), String> {
    match acked.iter().find(|one| !found.contains(one)) {
        Some(one) => Err(format!("{what} {one:?} is lost")),
        None => Ok(()),
    }
}

fn integrity(database: &Path) -> Result<(), String> {
    let connection = rusqlite::Connection::open(database).map_err(|error| error.to_string())?;
    let found: Result<String, _> =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0));
    match found {
        Ok(found) if found == "ok" => Ok(()),
        other => Err(format!("integrity: {other:?}")),
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// What runs under faults, and the directory it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Commit,
    Checkpoint,
    Migration,
    Recovery,
    Prune,
}

impl Work {
    const fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Checkpoint => "checkpoint",
            Self::Migration => "migration",
            Self::Recovery => "recovery",
            Self::Prune => "prune",
        }
    }

    /// Makes what it begins with, and what was acknowledged until then.
    async fn template(self, dir: &Path) -> Acked {
        let mut acked = Acked::default();
        match self {
            Self::Migration => {
                old_database(&dir.join("s.db"));
                acked.services.push("from-before".to_owned());
            }
            Self::Recovery => {
                let live = directory();
                let store = open(live.path()).await.unwrap();
                for round in 1..=20 {
                    acked.some_of_everything(&store, round).await;
                }
                acked.checkpoint(&store).await;
                // Copied under a living store: what a kill would leave, a log of everything in it.
                copy_all(live.path(), dir);
                assert!(fs::metadata(dir.join("s.db-wal")).unwrap().len() > 100_000);
                store.close().await.unwrap();
            }
            Self::Commit | Self::Checkpoint | Self::Prune => {
                let store = open(dir).await.unwrap();
                acked.some_of_everything(&store, 1).await;
                acked.checkpoint(&store).await;
                store.close().await.unwrap();
            }
        }
        acked
    }

    async fn run(self, dir: &Path, acked: &mut Acked) {
        let Ok(store) = open(dir).await else { return };
        match self {
            Self::Commit => {
                for round in 2..=4 {
                    acked.some_of_everything(&store, round).await;
                }
            }
            Self::Checkpoint => {
                acked.checkpoint(&store).await;
                acked.checkpoint(&store).await;
            }
            Self::Migration => acked.some_of_everything(&store, 2).await,
            Self::Recovery => {
                drop(store.restore().await);
                acked.some_of_everything(&store, 30).await;
            }
            Self::Prune => {
                for n in 0..3 {
                    drop(AuditLog::append(&store, row(&format!("old {n}"))).await);
                }
                if store.prune_audit(1).await.is_ok() {
                    acked.audit.clear();
                }
                // Pruned or not cannot be known after an error; the chain tells whether it is whole.
                acked.audit.clear();
            }
        }
        drop(store.close().await);
    }
}

fn old_database(path: &Path) {
    let mut connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA application_id=1229210963; PRAGMA journal_mode=WAL;").unwrap();
    let runner = old::migrations::runner().set_target(refinery::Target::Version(4));
    runner.set_grouped(true).run(&mut connection).unwrap();
    let state = serde_json::to_string(&transition("from-before").state).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA user_version=4;
             INSERT INTO service_state VALUES ('from-before', 1, 1, '{state}');
             INSERT INTO journal VALUES (1, 1, 'from-before', 1, 'starting', 'running', 'running', 'up');"
        ))
        .unwrap();
}

/// One point: the work with the n-th call failing, then the oracle, twice.
async fn point(work: Work, template: &Path, acked: &str, how: How, n: u64) -> Result<bool, String> {
    let dir = directory();
    copy_all(template, dir.path());
    let mut acked = reread(acked);
    let plan = FaultPlan::watch(dir.path()).unwrap();
    plan.arm(n, how);
    work.run(dir.path(), &mut acked).await;
    let fired = plan.fired();
    plan.disarm();
    drop(plan);
    for reopening in ["first", "second"] {
        acked.check(dir.path()).await.map_err(|error| {
            format!(
                "{error} (at the {reopening} reopening)\nfailed: {fired:?}\nrepeat: PERSIST_FAULT={}:{how:?}:{n}",
                work.name()
            )
        })?;
    }
    Ok(!fired.is_empty())
}

/// Acknowledgements as text, so that each point begins with its own copy.
fn written(acked: &Acked) -> String {
    serde_json::to_string(&(
        &acked.services,
        &acked.events,
        &acked.audit,
        &acked.messages,
        &acked.keys,
        &acked.checkpoints,
    ))
    .unwrap()
}

fn reread(text: &str) -> Acked {
    let (services, events, audit, messages, keys, checkpoints) =
        serde_json::from_str(text).unwrap();
    Acked { services, events, audit, messages, keys, checkpoints }
}

fn wanted() -> Option<(String, String, u64)> {
    let text = std::env::var("PERSIST_FAULT").ok()?;
    let mut parts = text.split(':').map(str::to_owned);
    Some((parts.next()?, parts.next()?, parts.next()?.parse().ok()?))
}

async fn every_point(work: Work) {
    let template = directory();
    let acked = written(&work.template(template.path()).await);
    let calls = {
        let dir = directory();
        copy_all(template.path(), dir.path());
        let plan = FaultPlan::watch(dir.path()).unwrap();
        work.run(dir.path(), &mut reread(&acked)).await;
        plan.calls()
    };
    assert!(calls > 10, "{} made {calls} calls", work.name());
    let mut hit = 0;
    let mut failures: Vec<String> = Vec::new();
    for how in HOWS {
        for n in 1..=calls {
            if let Some((name, kind, number)) = wanted()
                && (name != work.name() || kind != format!("{how:?}") || number != n)
            {
                continue;
            }
            match point(work, template.path(), &acked, how, n).await {
                Ok(fired) => hit += u64::from(fired),
                Err(failure) => failures.push(failure),
            }
        }
    }
    assert!(failures.is_empty(), "{} failures, the first:\n{}", failures.len(), failures[0]);
    if wanted().is_none() {
        // Persistent modes may end the work before a late point; most points are reached in any case.
        assert!(hit > calls * 3, "{}: only {hit} of {} points were hit", work.name(), calls * 6);
    }
}

#[tokio::test]
async fn a_fault_at_any_call_of_commits_loses_and_damages_nothing() {
    every_point(Work::Commit).await;
}

#[tokio::test]
async fn a_fault_at_any_call_of_checkpoints_loses_and_damages_nothing() {
    every_point(Work::Checkpoint).await;
}

#[tokio::test]
async fn a_fault_at_any_call_of_a_migration_loses_and_damages_nothing() {
    every_point(Work::Migration).await;
}

#[tokio::test]
async fn a_fault_at_any_call_of_a_recovery_loses_and_damages_nothing() {
    every_point(Work::Recovery).await;
}

#[tokio::test]
async fn a_fault_at_any_call_of_pruning_the_trail_loses_and_damages_nothing() {
    every_point(Work::Prune).await;
}

/// What the plan promises the tests above.
#[tokio::test]
async fn a_plan_concerns_its_own_directory_only() {
    let (one, other) = (directory(), directory());
    let plan = FaultPlan::watch(one.path()).unwrap();
    plan.arm(1, How::Persistent);
    assert!(open(one.path()).await.is_err());
    let store = open(other.path()).await.unwrap();
    store.record(vec![transition("a")]).await.unwrap();
    store.close().await.unwrap();
    assert!(plan.calls() > 0, "and it was asked");
}
