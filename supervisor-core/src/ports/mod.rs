//! The traits through which the machines reach the world: one promise each, object-safe, small.
//!
//! Under the feature `mock` every trait `X` has a mockall mock `MockX`; under `test-util` there are
//! hand-written fakes and a contract suite per trait in [`crate::testing`].

mod channel;
mod control;
mod process;
mod store;
mod time;

pub use channel::{OwnedSyncSession, StateSynchronizer, SyncSession};
pub use control::{
    CheckpointSelector, Delivery, EventSubscription, RestoreSummary, SupervisorControl,
};
pub use process::{
    ChannelWatch, ChildHandle, ChildStdio, EventSink, KillReport, MarkedProcess, ProbeOutcome,
    ProbeRequest, ProbeRunner, ProcessSpawner, ProcessTable, SpawnRequest, StdioReceiver, Survivor,
};
pub use store::{AuditLog, CheckpointStore, DedupStore, EventStore, Journal, Outbox, StateStore};
pub use time::{Clock, Entropy};

#[cfg(any(test, feature = "mock"))]
pub use self::{
    channel::{MockStateSynchronizer, MockSyncSession},
    control::{MockEventSubscription, MockSupervisorControl},
    process::{
        MockChannelWatch, MockChildHandle, MockEventSink, MockProbeRunner, MockProcessSpawner,
        MockProcessTable, MockStdioReceiver,
    },
    store::{
        MockAuditLog, MockCheckpointStore, MockDedupStore, MockEventStore, MockJournal, MockOutbox,
        MockStateStore,
    },
    time::{MockClock, MockEntropy},
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_object_safe_and_shareable() {
        fn shareable<T: ?Sized + Send + Sync + std::fmt::Debug>() {}
        shareable::<dyn Clock>();
        shareable::<dyn Entropy>();
        shareable::<dyn ProcessSpawner>();
        shareable::<dyn ChildHandle>();
        shareable::<dyn ProcessTable>();
        shareable::<dyn ProbeRunner>();
        shareable::<dyn EventSink>();
        shareable::<dyn StdioReceiver>();
        shareable::<dyn ChannelWatch>();
        shareable::<dyn StateStore>();
        shareable::<dyn Journal>();
        shareable::<dyn EventStore>();
        shareable::<dyn AuditLog>();
        shareable::<dyn CheckpointStore>();
        shareable::<dyn Outbox>();
        shareable::<dyn DedupStore>();
        shareable::<dyn StateSynchronizer>();
        shareable::<dyn SupervisorControl>();
    }
}
