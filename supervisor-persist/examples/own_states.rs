//! A program that keeps the states of its own services, with this crate and core's traits alone.
//!
//! `cargo run -p supervisor-persist --example own_states` starts twice: the first run stores what its services do and
//! is dropped as if it had been killed; the second takes up where that one was.
//!
//! [`Fleet`] knows traits, not SQLite, so its tests (`cargo test -p supervisor-persist --examples`) use core's mocks
//! and its store in memory.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use supervisor_core::checkpoint::CheckpointContent;
use supervisor_core::error::DatabaseError;
use supervisor_core::journal::Transition;
use supervisor_core::ports::{CheckpointStore, StateStore};
use supervisor_core::state::{Desired, Phase, ServiceState};
use supervisor_core::{CheckpointId, ServiceId};
use supervisor_persist::{BackupReason, StatePersistence};

/// The services of a program, and where their states are kept.
struct Fleet {
    services: BTreeMap<ServiceId, ServiceState>,
    states: Arc<dyn StateStore>,
    checkpoints: Arc<dyn CheckpointStore>,
}

impl Fleet {
    /// Takes up where the program was: the newest checkpoint, with every later state laid over it.
    async fn restore(
        states: Arc<dyn StateStore>,
        checkpoints: Arc<dyn CheckpointStore>,
    ) -> Result<Self, DatabaseError> {
        let restored = checkpoints.restore().await?;
        let mut services: BTreeMap<_, _> = restored
            .checkpoint
            .map(|found| found.services)
            .unwrap_or_default()
            .into_iter()
            .collect();
        for state in states.load().await? {
            services.insert(state.id.clone(), state);
        }
        Ok(Self { services, states, checkpoints })
    }

    /// Begins a run of a service. On return the run is stored: a kill right after it does not lose it.
    async fn start(&mut self, id: &ServiceId, at: DateTime<Utc>) -> Result<(), DatabaseError> {
        let known = self.services.get(id).cloned();
        let mut state = known.unwrap_or_else(|| ServiceState::registered(id.clone(), at));
        let from = state.phase;
        state.incarnation = state.incarnation.next();
        state.desired = Desired::Up;
        state.phase = Phase::Running;
        state.since = at;
        "started by its program".clone_into(&mut state.reason);
        let transition = Transition { state: state.clone(), from, cause: "started".to_owned() };
        // Stored first: what is only in memory never gets ahead of what survives.
        self.states.record(vec![transition]).await?;
        self.services.insert(id.clone(), state);
        Ok(())
    }

    /// Takes a checkpoint of all services.
    async fn checkpoint(&self) -> Result<CheckpointId, DatabaseError> {
        let services = self.services.clone().into_iter().collect();
        self.checkpoints
            .create(CheckpointContent { services, ..CheckpointContent::default() })
            .await
    }
}

/// Opens the store and takes up where the program was.
async fn open(directory: &Path) -> Result<(StatePersistence, Fleet), DatabaseError> {
    let store =
        StatePersistence::new(directory.join("states.db"), directory.join("checkpoints")).await?;
    let fleet = Fleet::restore(Arc::new(store.clone()), Arc::new(store.clone())).await?;
    Ok((store, fleet))
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn show(what: &str, fleet: &Fleet) {
    println!("{what}:");
    for state in fleet.services.values() {
        println!("  {} is {}, run {}", state.id, state.phase, state.incarnation);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let now: DateTime<Utc> = std::time::SystemTime::now().into();
    let indexer: ServiceId = "indexer".parse()?;
    let server: ServiceId = "language_server".parse()?;

    let (store, mut fleet) = open(directory.path()).await?;
    fleet.start(&indexer, now).await?;
    fleet.start(&server, now).await?;
    fleet.checkpoint().await?;
    store.create_backup(BackupReason::Requested).await?;
    // After the checkpoint: this run is in the table of states alone.
    fleet.start(&server, now).await?;
    show("the first run leaves", &fleet);
    // Dropped, not closed: the next start is told that this one did not end by itself.
    drop((store, fleet));

    let (store, mut fleet) = open(directory.path()).await?;
    show("the second run finds", &fleet);
    let report = store.recovery_report().await?;
    assert!(report.unclean_stop, "a dropped store did not end by itself");
    fleet.start(&server, now).await?;
    show("and goes on", &fleet);
    store.close().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use supervisor_core::checkpoint::Restored;
    use supervisor_core::ports::{MockCheckpointStore, MockStateStore};
    use supervisor_core::testing::MemoryStore;
    use supervisor_core::{Incarnation, Sequence};

    use super::*;

    fn id() -> ServiceId {
        ServiceId::new("a").unwrap()
    }

    fn nothing_stored() -> MockCheckpointStore {
        let mut checkpoints = MockCheckpointStore::new();
        checkpoints.expect_restore().returning(|| Ok(Restored::default()));
        checkpoints
    }

    #[tokio::test]
    async fn a_run_that_could_not_be_stored_has_not_begun() {
        let mut states = MockStateStore::new();
        states.expect_load().returning(|| Ok(Vec::new()));
        states
            .expect_record()
            .times(1)
            .returning(|_| Err(DatabaseError::DiskFull { subject: "a transition".to_owned() }));
        let mut fleet = Fleet::restore(Arc::new(states), Arc::new(nothing_stored())).await.unwrap();
        assert!(fleet.start(&id(), DateTime::UNIX_EPOCH).await.is_err());
        assert!(fleet.services.is_empty());
    }

    #[tokio::test]
    async fn each_start_is_stored_once_with_the_next_run() {
        let mut states = MockStateStore::new();
        states.expect_load().returning(|| Ok(Vec::new()));
        let mut expected = 0;
        states.expect_record().times(3).returning(move |transitions| {
            expected += 1;
            assert_eq!(transitions.len(), 1);
            assert_eq!(transitions[0].state.incarnation, Incarnation(expected));
            Ok(Sequence(expected))
        });
        let mut fleet = Fleet::restore(Arc::new(states), Arc::new(nothing_stored())).await.unwrap();
        for _ in 0..3 {
            fleet.start(&id(), DateTime::UNIX_EPOCH).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_stored_after_the_checkpoint_wins() {
        let store = Arc::new(MemoryStore::new());
        let mut fleet = Fleet::restore(store.clone(), store.clone()).await.unwrap();
        fleet.start(&id(), DateTime::UNIX_EPOCH).await.unwrap();
        fleet.checkpoint().await.unwrap();
        fleet.start(&id(), DateTime::UNIX_EPOCH).await.unwrap();
        let again = Fleet::restore(store.clone(), store).await.unwrap();
        assert_eq!(again.services, fleet.services);
    }
}
