//! What every store promises, whatever it keeps things in. Each function panics with what was expected.

#![expect(clippy::unwrap_used, reason = "a contract suite fails by panicking")]

use std::time::Duration;

use chrono::DateTime;
use uuid::Uuid;

use crate::checkpoint::{CheckpointContent, CheckpointHealth};
use crate::error::DatabaseError;
use crate::event::{EVENT_VERSION, EventKind, SupervisorEvent};
use crate::journal::{Actor, AuditAction, AuditRecord, Transition};
use crate::message::{DeadLetter, IpcMessage, OutboxEntry};
use crate::ports::{
    AuditLog, CheckpointStore, DedupStore, EventStore, Journal, Outbox, StateStore,
};
use crate::state::{Phase, ServiceState};
use crate::{CheckpointId, Generation, Incarnation, Sequence, ServiceId};

fn state(id: &str, incarnation: u64) -> ServiceState {
    let mut state = ServiceState::registered(ServiceId::new(id).unwrap(), DateTime::UNIX_EPOCH);
    state.incarnation = Incarnation(incarnation);
    state.phase = Phase::Running;
    state
}

fn transition(id: &str, incarnation: u64) -> Transition {
    Transition { state: state(id, incarnation), from: Phase::Starting, cause: "running".to_owned() }
}

/// Runs the promises of [`StateStore`] and [`Journal`] on a fresh store.
///
/// # Panics
/// When a promise is not kept.
pub async fn states_and_journal(store: &(impl StateStore + Journal)) {
    assert_eq!(Journal::head(store).await.unwrap(), Sequence::ZERO, "a fresh journal is empty");
    let last = store
        .record(vec![transition("a", 1), transition("b", 1), transition("a", 2)])
        .await
        .unwrap();
    assert_eq!(Journal::head(store).await.unwrap(), last, "the head is the last row recorded");
    assert_eq!(
        StateStore::load(store).await.unwrap(),
        [state("a", 2), state("b", 1)],
        "the newest state of each"
    );
    let rows = Journal::read(store, Sequence::ZERO, 10).await.unwrap();
    assert_eq!(rows.len(), 3, "every transition has a row");
    assert!(rows.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "sequences only grow");
    assert_eq!(
        Journal::read(store, rows[1].sequence, 10).await.unwrap(),
        rows[2..],
        "reading goes on after a row"
    );
    assert_eq!(Journal::read(store, Sequence::ZERO, 1).await.unwrap().len(), 1, "a limit is kept");
    store.record(vec![transition("a", 1)]).await.unwrap();
    assert_eq!(
        StateStore::load(store).await.unwrap()[0],
        state("a", 2),
        "a late write undoes nothing newer"
    );
    store.remove(&ServiceId::new("a").unwrap()).await.unwrap();
    store.remove(&ServiceId::new("never").unwrap()).await.unwrap();
    assert_eq!(
        StateStore::load(store).await.unwrap(),
        [state("b", 1)],
        "a removed service is forgotten"
    );
    assert_eq!(
        Journal::read(store, Sequence::ZERO, 10).await.unwrap().len(),
        4,
        "its journal stays"
    );
}

/// Runs the promises of [`EventStore`] on a fresh store.
///
/// # Panics
/// When a promise is not kept.
pub async fn events(store: &impl EventStore) {
    let event = |n: u64, reason: &str| SupervisorEvent {
        version: EVENT_VERSION,
        id: Uuid::from_u128(u128::from(n)),
        sequence: Sequence(n),
        at: DateTime::UNIX_EPOCH,
        kind: EventKind::BackupFailed { reason: reason.to_owned() },
    };
    assert_eq!(
        EventStore::head(store).await.unwrap(),
        Sequence::ZERO,
        "a fresh store has no events"
    );
    store.append(vec![event(1, "a"), event(3, "c")]).await.unwrap();
    store.append(vec![event(3, "other")]).await.unwrap();
    assert_eq!(EventStore::head(store).await.unwrap(), Sequence(3));
    let read = EventStore::read(store, Sequence(1), 10).await.unwrap();
    assert_eq!(read, [event(3, "c")], "the first event of a number is kept");
}

/// Runs the promises of [`AuditLog`] on a fresh store.
///
/// # Panics
/// When a promise is not kept.
pub async fn audit(store: &impl AuditLog) {
    let record = |detail: &str| AuditRecord {
        actor: Actor::Host,
        action: AuditAction::Configuration,
        subject: "svc".to_owned(),
        detail: detail.to_owned(),
    };
    assert!(AuditLog::verify(store).await.unwrap().intact, "an empty trail is intact");
    for n in 1..=3 {
        assert_eq!(
            store.append(record(&n.to_string())).await.unwrap(),
            Sequence(n),
            "rows are numbered from 1"
        );
    }
    assert_eq!(AuditLog::head(store).await.unwrap(), Sequence(3));
    let rows = AuditLog::read(store, Sequence(1), 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.record.detail.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    assert_ne!(rows[0].hash, rows[1].hash, "each row has a hash of its own");
    let verification = AuditLog::verify(store).await.unwrap();
    assert_eq!((verification.intact, verification.rows), (true, 3));
}

/// Runs the promises of [`CheckpointStore`] on a fresh store.
///
/// # Panics
/// When a promise is not kept.
pub async fn checkpoints(store: &impl CheckpointStore) {
    assert_eq!(store.restore().await.unwrap().checkpoint, None, "a fresh store has none");
    let missing = CheckpointId(Uuid::max());
    assert!(matches!(store.load(missing).await, Err(DatabaseError::NotFound { .. })));
    let first = store.create(CheckpointContent::default()).await.unwrap();
    let mut content = CheckpointContent::default();
    content.services.insert(ServiceId::new("a").unwrap(), state("a", 7));
    let second = store.create(content.clone()).await.unwrap();
    assert_ne!(first, second);
    let restored = store.restore().await.unwrap();
    let checkpoint = restored.checkpoint.unwrap();
    assert_eq!(checkpoint.id, second, "the newest one is restored");
    assert_eq!(checkpoint.services, content.services, "with what was put in");
    assert!(restored.rejected.is_empty());
    let ids: Vec<_> = store.list(10).await.unwrap().iter().map(|summary| summary.id).collect();
    assert_eq!(ids, [second, first], "the newest first");
    assert_eq!(store.verify(first).await.unwrap().health, CheckpointHealth::Verified);
}

fn entry(channel: &str, id: u128) -> OutboxEntry {
    let message = IpcMessage {
        id: Uuid::from_u128(id),
        message_type: "t".to_owned(),
        payload: serde_json::json!({ "n": id.to_string() }),
        timestamp: DateTime::UNIX_EPOCH,
        retry_count: 0,
    };
    OutboxEntry { sequence: Sequence::ZERO, channel: channel.to_owned(), message, expires_at: None }
}

fn ids(entries: &[OutboxEntry]) -> Vec<u128> {
    entries.iter().map(|entry| entry.message.id.as_u128()).collect()
}

/// Runs the promises of [`Outbox`] on a fresh store.
///
/// # Panics
/// When a promise is not kept.
pub async fn outbox(store: &impl Outbox) {
    let pending = |after, limit| store.pending("a", after, limit);
    assert!(pending(Sequence::ZERO, 10).await.unwrap().is_empty(), "a fresh outbox is empty");
    let first = store.enqueue(entry("a", 1)).await.unwrap();
    let second = store.enqueue(entry("a", 2)).await.unwrap();
    store.enqueue(entry("b", 3)).await.unwrap();
    assert!(first < second, "sequences only grow");
    assert_eq!(store.enqueue(entry("a", 1)).await.unwrap(), first, "the same id is the same row");
    let group = vec![entry("c", 8), entry("c", 9), entry("c", 8)];
    let answers: Vec<_> =
        store.enqueue_all(group).await.into_iter().map(|answer| answer.unwrap()).collect();
    assert!(answers[0] < answers[1] && answers[2] == answers[0], "a group keeps its order");
    let rows = pending(Sequence::ZERO, 10).await.unwrap();
    assert_eq!(ids(&rows), [1, 2], "one channel's own, the oldest first");
    assert_eq!((rows[0].sequence, &rows[0].message), (first, &entry("a", 1).message));
    assert_eq!(ids(&pending(first, 10).await.unwrap()), [2], "reading goes on after a row");
    assert_eq!(ids(&pending(Sequence::ZERO, 1).await.unwrap()), [1], "a limit is kept");

    store.acknowledge(&[Uuid::from_u128(1), Uuid::from_u128(77)]).await.unwrap();
    assert_eq!(ids(&pending(Sequence::ZERO, 10).await.unwrap()), [2], "acknowledged is gone");
    let letter = |id| DeadLetter {
        channel: "a".to_owned(),
        message: entry("a", id).message,
        at: DateTime::UNIX_EPOCH,
        cause: "tried too often".to_owned(),
        generations: vec![Generation(1)],
        kept_because: None,
    };
    store.bury(letter(2)).await.unwrap();
    store.bury(letter(4)).await.unwrap();
    assert!(pending(Sequence::ZERO, 10).await.unwrap().is_empty(), "what is buried is not pending");
    let letters = store.dead_letters(None, 10).await.unwrap();
    assert_eq!(letters, [letter(4), letter(2)], "the newest dead letter first, as it was buried");
    assert!(store.dead_letters(Some("b".to_owned()), 10).await.unwrap().is_empty());
    let again = store.requeue(&[Uuid::from_u128(2), Uuid::from_u128(78)]).await.unwrap();
    assert_eq!(again, 1, "unknown ids are not counted");
    let rows = pending(Sequence::ZERO, 10).await.unwrap();
    assert_eq!(ids(&rows), [2], "a dead letter that was put back is pending with its id");
    assert!(rows[0].sequence > second, "at the end of the queue");
    assert_eq!(store.purge(Some("b".to_owned())).await.unwrap(), 0);
    store.bury(letter(5)).await.unwrap();
    assert_eq!(store.forget(&[Uuid::from_u128(4), Uuid::from_u128(78)]).await.unwrap(), 1);
    assert_eq!(store.dead_letters(None, 10).await.unwrap(), [letter(5)], "forgotten by its id");
    assert_eq!(store.purge(None).await.unwrap(), 1);
    assert!(store.dead_letters(None, 10).await.unwrap().is_empty(), "purged is gone");
}

/// Runs the promises of [`DedupStore`] on a fresh store.
///
/// # Panics
/// When a promise is not kept.
pub async fn dedup(store: &impl DedupStore) {
    let keep = Duration::from_secs(3600);
    assert_eq!(store.first_sight("k", b"first", keep).await.unwrap(), None, "it is new");
    for value in [&b"second"[..], b"third"] {
        let known = store.first_sight("k", value, keep).await.unwrap();
        assert_eq!(known.as_deref(), Some(&b"first"[..]), "the first sight wins");
    }
    assert_eq!(store.first_sight("other", b"", keep).await.unwrap(), None, "keys are apart");
    let empty = store.first_sight("other", b"later", keep).await.unwrap();
    assert_eq!(empty.as_deref(), Some(&b""[..]), "an empty value is remembered as one");
}
