//! The face of a whole supervisor, for windows, sockets and tests.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointSummary, RejectedRung};
use crate::config::ServiceSpec;
use crate::error::SupervisorError;
use crate::event::SupervisorEvent;
use crate::journal::{Actor, AuditEntry, AuditVerification};
use crate::message::ChannelStatus;
use crate::status::{LogLine, StatusReport};
use crate::{CheckpointId, Sequence, ServiceId};

/// Which checkpoint is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointSelector {
    /// The newest that verifies.
    Latest,
    /// This one.
    Id(CheckpointId),
}

/// A loaded checkpoint and what was passed over on the way to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreSummary {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Where it came from, for people.
    pub source: String,
    /// What was passed over, newest first.
    pub rejected: Vec<RejectedRung>,
}

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// The next event.
    Event(Box<SupervisorEvent>),
    /// The subscriber was too slow; so many events are missing here, and a snapshot heals the gap.
    Missed(u64),
}

/// A bounded stream of events.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait EventSubscription: Send + std::fmt::Debug {
    /// Waits for the next event; nothing after the supervisor is gone.
    ///
    /// # Cancel safety
    /// Safe; no event is lost.
    async fn next(&mut self) -> Option<Delivery>;
}

/// Commands a whole supervisor.
///
/// Promise: every call answers, with the state it left behind or a typed error; a refused call changes nothing.
/// All limits are at most 10,000 and are lowered to that silently.
///
/// # Cancel safety
/// Dropping any of these futures loses the answer, not the effect.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait SupervisorControl: Send + Sync + std::fmt::Debug {
    /// Gives the state of everything.
    async fn status(&self) -> Result<StatusReport, SupervisorError>;

    /// Registers a service; it starts if monitoring runs and it starts by itself.
    async fn register(&self, spec: ServiceSpec, actor: Actor)
    -> Result<ServiceId, SupervisorError>;

    /// Recovers stored state and starts supervising; a second call changes nothing.
    async fn start_monitoring(&self) -> Result<(), SupervisorError>;

    /// Starts a service; one that is up already is left alone. Returns when its process runs.
    async fn start(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError>;

    /// Stops a service; returns when its set is empty. A second call while it stops kills at once.
    async fn stop(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError>;

    /// Stops and starts a service; works on a hung one at the first try.
    async fn restart(&self, service: &ServiceId, actor: Actor) -> Result<(), SupervisorError>;

    /// Takes a checkpoint now.
    async fn create_checkpoint(&self, actor: Actor) -> Result<CheckpointId, SupervisorError>;

    /// Loads and verifies a checkpoint; changes nothing that runs.
    async fn load_checkpoint(
        &self,
        which: CheckpointSelector,
    ) -> Result<RestoreSummary, SupervisorError>;

    /// Lists checkpoints, newest first.
    async fn checkpoints(&self, limit: usize) -> Result<Vec<CheckpointSummary>, SupervisorError>;

    /// Reads one checkpoint in both of its places and checks every hash.
    async fn verify_checkpoint(
        &self,
        id: CheckpointId,
    ) -> Result<CheckpointSummary, SupervisorError>;

    /// Gives the last `limit` captured lines of a service, oldest first.
    async fn logs(
        &self,
        service: &ServiceId,
        limit: usize,
    ) -> Result<Vec<LogLine>, SupervisorError>;

    /// Gives stored events after a sequence, or the newest ones when none is given; oldest first.
    async fn events(
        &self,
        after: Option<Sequence>,
        limit: usize,
    ) -> Result<Vec<SupervisorEvent>, SupervisorError>;

    /// Gives the health of every channel.
    async fn channels(&self) -> Result<Vec<ChannelStatus>, SupervisorError>;

    /// Gives audit rows after a sequence, or the newest ones when none is given; oldest first.
    async fn audit(
        &self,
        after: Option<Sequence>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, SupervisorError>;

    /// Checks the whole audit chain.
    async fn verify_audit(&self) -> Result<AuditVerification, SupervisorError>;

    /// Stops everything in order; returns when nothing is left.
    async fn shutdown(&self, actor: Actor) -> Result<(), SupervisorError>;

    /// Subscribes to events from now on.
    fn subscribe(&self) -> Box<dyn EventSubscription>;
}
