//! A store in a directory of its own, and what tests put into it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use supervisor_core::checkpoint::CheckpointContent;
use supervisor_core::error::DatabaseError;
use supervisor_core::journal::{Actor, AuditAction, AuditEntry, AuditRecord, Transition};
use supervisor_core::ports::{AuditLog, StateStore};
use supervisor_core::state::{OperationKind, PendingOperation, Phase, ServiceState};
use supervisor_core::testing::ManualClock;
use supervisor_core::{Incarnation, Sequence, ServiceId};
use supervisor_persist::{StatePersistence, StatePersistenceBuilder};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::new(noon()));
        Self { dir: tempfile::tempdir().unwrap(), clock }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("supervisor.db")
    }

    pub(crate) fn builder(&self) -> StatePersistenceBuilder {
        StatePersistence::builder(self.database(), self.path("checkpoints"))
            .clock(Arc::clone(&self.clock) as _)
    }

    pub(crate) async fn open(&self) -> StatePersistence {
        self.try_open().await.unwrap()
    }

    pub(crate) async fn try_open(&self) -> Result<StatePersistence, DatabaseError> {
        self.builder().open().await
    }

    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path(folder))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

pub(crate) fn id(name: &str) -> ServiceId {
    ServiceId::new(name).unwrap()
}

pub(crate) fn state(name: &str, incarnation: u64) -> ServiceState {
    let mut state = ServiceState::registered(id(name), DateTime::UNIX_EPOCH);
    state.incarnation = Incarnation(incarnation);
    state.phase = Phase::Running;
    state
}

pub(crate) fn transition(name: &str, incarnation: u64) -> Transition {
    Transition { state: state(name, incarnation), from: Phase::Starting, cause: "running".into() }
}

pub(crate) fn operation(n: u128) -> PendingOperation {
    PendingOperation {
        id: Uuid::from_u128(n),
        kind: OperationKind::Restart,
        service: Some(id("a")),
        requested_at: DateTime::UNIX_EPOCH,
        detail: serde_json::json!({ "why": "test" }),
    }
}

pub(crate) fn content(states: &[ServiceState]) -> CheckpointContent {
    CheckpointContent {
        services: states.iter().map(|state| (state.id.clone(), state.clone())).collect(),
        pending_operations: Vec::new(),
        channels: BTreeMap::new(),
    }
}

pub(crate) fn services(states: &[ServiceState]) -> HashMap<ServiceId, ServiceState> {
    content(states).services
}

pub(crate) async fn record(store: &StatePersistence, name: &str, incarnation: u64) {
    store.record(vec![transition(name, incarnation)]).await.unwrap();
}

pub(crate) async fn audit_rows(store: &StatePersistence) -> Vec<AuditEntry> {
    AuditLog::read(store, Sequence::ZERO, 10_000).await.unwrap()
}

/// Tells whether some audit row is about `subject` and says `word`.
pub(crate) async fn audited(store: &StatePersistence, subject: &str, word: &str) -> bool {
    let about =
        |row: &AuditEntry| row.record.subject.contains(subject) && row.record.detail.contains(word);
    audit_rows(store).await.iter().any(about)
}

pub(crate) async fn add_audit_row(store: &StatePersistence, detail: &str) {
    let record = AuditRecord {
        actor: Actor::Operator,
        action: AuditAction::Registration,
        subject: "svc".into(),
        detail: detail.into(),
    };
    AuditLog::append(store, record).await.unwrap();
}

pub(crate) fn hash(path: &Path) -> blake3::Hash {
    blake3::hash(&fs::read(path).unwrap())
}

pub(crate) fn flip_bit(path: &Path, byte: usize, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[byte] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}

/// Changes a database behind the store's back.
pub(crate) fn tamper(database: &Path, statement: &str) {
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.execute_batch(statement).unwrap();
}
