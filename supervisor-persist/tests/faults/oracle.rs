//! What is written under faults, what was acknowledged of it, and what must be there afterwards.

use std::collections::HashMap;
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
use tempfile::TempDir;
use uuid::Uuid;

/// What was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Acked {
    pub(crate) services: Vec<String>,
    pub(crate) events: Vec<u64>,
    pub(crate) audit: Vec<String>,
    pub(crate) messages: Vec<Uuid>,
    pub(crate) keys: Vec<String>,
    pub(crate) checkpoints: Vec<CheckpointId>,
    pub(crate) backups: Vec<String>,
}

/// A file system in memory where there is one: the points are about order, not about disks.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) async fn open(dir: &Path) -> Result<StatePersistence, DatabaseError> {
    let builder = StatePersistence::builder(dir.join("s.db"), dir.join("c"));
    builder.hold_writes(Duration::ZERO).reserve(4096).open().await
}

pub(crate) fn transition(id: &str) -> Transition {
    let mut state = ServiceState::registered(ServiceId::new(id).unwrap(), DateTime::UNIX_EPOCH);
    state.incarnation = Incarnation(1);
    Transition { state, from: Phase::Starting, cause: "running".into() }
}

pub(crate) fn row(detail: &str) -> AuditRecord {
    AuditRecord {
        actor: Actor::Host,
        action: AuditAction::Configuration,
        subject: "svc".into(),
        detail: detail.into(),
    }
}

pub(crate) fn event(n: u64) -> SupervisorEvent {
    SupervisorEvent {
        version: EVENT_VERSION,
        id: Uuid::from_u128(n.into()),
        sequence: Sequence(n),
        at: DateTime::UNIX_EPOCH,
        kind: EventKind::BackupFailed { reason: "x".repeat(200) },
    }
}

pub(crate) fn entry(id: Uuid) -> OutboxEntry {
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
    pub(crate) async fn some_of_everything(&mut self, store: &StatePersistence, round: u64) {
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

    pub(crate) async fn checkpoint(&mut self, store: &StatePersistence) {
        let services: HashMap<_, _> = (0..5)
            .map(|n| transition(&format!("s{n}")).state)
            .map(|state| (state.id.clone(), state))
            .collect();
        let made = store.create_checkpoint(&services, &Vec::new()).await;
        self.checkpoints.extend(made.ok());
    }

    /// The oracle.
    pub(crate) async fn check(&self, dir: &Path) -> Result<(), String> {
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
        let listed = store.backups().await.map_err(text)?;
        for backup in &listed {
            let verified = store.verify_backup(&backup.name).await.map_err(text)?;
            if !verified.intact {
                return Err(format!("{} is listed and damaged: {}", backup.name, verified.detail));
            }
        }
        let listed: Vec<_> = listed.into_iter().map(|backup| backup.name).collect();
        lost("backup", &self.backups, &listed)?;
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
        store.close().await.map_err(text)
    }
}

pub(crate) async fn reopens(dir: &Path) -> Result<(), String> {
    let text = |error: DatabaseError| supervisor_core::error::chain(&error);
    open(dir).await.map_err(text)?.close().await.map_err(text)?;
    integrity(&dir.join("s.db"))
}

pub(crate) fn lost<T: PartialEq + std::fmt::Debug>(
    what: &str,
    acked: &[T],
    found: &[T],
) -> Result<(), String> {
    match acked.iter().find(|one| !found.contains(one)) {
        Some(one) => Err(format!("{what} {one:?} is lost")),
        None => Ok(()),
    }
}

pub(crate) fn integrity(database: &Path) -> Result<(), String> {
    let connection = rusqlite::Connection::open(database).map_err(|error| error.to_string())?;
    let found: Result<String, _> =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0));
    match found {
        Ok(found) if found == "ok" => Ok(()),
        other => Err(format!("integrity: {other:?}")),
    }
}

/// Acknowledgements as text, so that each point begins with its own copy.
pub(crate) fn written(acked: &Acked) -> String {
    serde_json::to_string(&(
        &acked.services,
        &acked.events,
        &acked.audit,
        &acked.messages,
        &acked.keys,
        &acked.checkpoints,
        &acked.backups,
    ))
    .unwrap()
}

pub(crate) fn reread(text: &str) -> Acked {
    let (services, events, audit, messages, keys, checkpoints, backups) =
        serde_json::from_str(text).unwrap();
    Acked { services, events, audit, messages, keys, checkpoints, backups }
}
