//! The contract suites on the fakes that ship with them.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;

use supervisor_core::checkpoint::CheckpointContent;
use supervisor_core::config::ServiceSpec;
use supervisor_core::error::IpcError;
use supervisor_core::journal::{Actor, AuditAction, AuditRecord};
use supervisor_core::ports::{
    AuditLog, CheckpointStore, MarkedProcess, OwnedSyncSession, StateSynchronizer,
};
use supervisor_core::testing::{
    ManualClock, MemoryEvents, MemoryStore, MemoryTable, ScriptedSpawner, SeededEntropy,
    event_contract, process_contract, store_contract, sync_contract, table_contract, time_contract,
};
use supervisor_core::{Incarnation, ProcessIdentity, Sequence};

/// Runs a future that never has to wait: the fakes answer at once.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a fake waited"),
    }
}

#[test]
fn the_memory_table_keeps_every_promise_of_a_process_table() {
    let table = MemoryTable::new();
    let identity = ProcessIdentity { boot_id: "boot".into(), pid: 7, start_time: 40 };
    let (service, incarnation) = ("svc".parse().unwrap(), Incarnation(3));
    let process = MarkedProcess { identity, service, incarnation };
    table.put("mark", process.clone());
    at_once(table_contract::table(&table, "mark", &process));
}

#[test]
fn the_memory_events_keep_every_promise_of_a_sink_and_end_when_told() {
    let events = MemoryEvents::new(10);
    at_once(event_contract::events(&events, || events.subscribe(), 25));
    let mut last = events.subscribe();
    events.end();
    assert_eq!(at_once(last.next()), None);
}

#[test]
fn the_memory_store_keeps_every_promise_of_a_store() {
    at_once(store_contract::states_and_journal(&MemoryStore::new()));
    at_once(store_contract::events(&MemoryStore::new()));
    at_once(store_contract::audit(&MemoryStore::new()));
    at_once(store_contract::checkpoints(&MemoryStore::new()));
    at_once(store_contract::outbox(&MemoryStore::new()));
    at_once(store_contract::dedup(&MemoryStore::new()));
}

#[test]
fn the_memory_store_can_be_damaged_and_says_so() {
    let store = MemoryStore::new();
    let good = at_once(store.create(CheckpointContent::default())).unwrap();
    let bad = at_once(store.create(CheckpointContent::default())).unwrap();
    store.damage_checkpoint(bad);
    let restored = at_once(store.restore()).unwrap();
    assert_eq!(restored.checkpoint.unwrap().id, good);
    assert_eq!(restored.rejected.len(), 1);
    let record = AuditRecord {
        actor: Actor::Host,
        action: AuditAction::Audit,
        subject: "s".to_owned(),
        detail: "d".to_owned(),
    };
    at_once(AuditLog::append(&store, record)).unwrap();
    store.tamper_with_audit(Sequence(1));
    assert_eq!(at_once(AuditLog::verify(&store)).unwrap().first_bad, Some(Sequence(1)));
}

#[test]
fn the_scripted_spawner_keeps_every_promise_of_a_spawner() {
    let spawner = ScriptedSpawner::new();
    spawner.forget_program("missing");
    let lasting = ServiceSpec::new("svc", "sleep").unwrap();
    at_once(process_contract::spawner(
        &spawner,
        lasting,
        ServiceSpec::new("svc", "missing").unwrap(),
    ));
    assert_eq!(spawner.started().len(), 2);
}

#[test]
fn time_and_randomness_for_tests_keep_the_promises_of_the_real_ones() {
    let clock = ManualClock::new(DateTime::UNIX_EPOCH);
    time_contract::clock(&clock, || clock.advance(Duration::from_nanos(1)));
    time_contract::entropy(&SeededEntropy::new(7), &SeededEntropy::new(7), true);
    time_contract::entropy(&SeededEntropy::new(7), &SeededEntropy::new(8), false);
}

/// Greets, and tells its peer one thing.
#[derive(Debug)]
struct Greets;

#[async_trait]
impl StateSynchronizer for Greets {
    async fn synchronize(&self, session: &mut OwnedSyncSession) -> Result<(), IpcError> {
        session.send(b"hello".to_vec()).await?;
        session.receive().await?;
        session.send(b"state".to_vec()).await
    }
}

#[test]
fn the_scripted_session_answers_as_its_peer_does_and_ends_when_it_owes_nothing() {
    at_once(sync_contract::synchronizer(&Greets, || {
        |frame: &[u8]| if frame == b"hello" { vec![b"welcome".to_vec()] } else { Vec::new() }
    }));
    let mut mute =
        sync_contract::ScriptedSession::new(supervisor_core::Generation(1), |_: &[u8]| Vec::new());
    let lost = at_once(Greets.synchronize(&mut mute)).unwrap_err();
    assert!(matches!(lost, IpcError::Lost { was_written: true, .. }), "{lost}");
    assert_eq!(mute.sent(), [b"hello"]);
}
