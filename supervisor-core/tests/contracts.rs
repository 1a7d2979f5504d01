//! The contract suites on the fakes that ship with them.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use supervisor_core::Sequence;
use supervisor_core::checkpoint::CheckpointContent;
use supervisor_core::config::ServiceSpec;
use supervisor_core::journal::{Actor, AuditAction, AuditRecord};
use supervisor_core::ports::{AuditLog, CheckpointStore};
use supervisor_core::testing::{MemoryStore, ScriptedSpawner, process_contract, store_contract};

/// Runs a future that never has to wait: the fakes answer at once.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a fake waited"),
    }
}

#[test]
fn the_memory_store_keeps_every_promise_of_a_store() {
    at_once(store_contract::states_and_journal(&MemoryStore::new()));
    at_once(store_contract::events(&MemoryStore::new()));
    at_once(store_contract::audit(&MemoryStore::new()));
    at_once(store_contract::checkpoints(&MemoryStore::new()));
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
