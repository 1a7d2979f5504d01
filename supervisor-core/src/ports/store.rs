//! What must survive a crash.

use std::time::Duration;

use async_trait::async_trait;

use crate::checkpoint::{Checkpoint, CheckpointContent, CheckpointSummary, Restored};
use crate::error::DatabaseError;
use crate::event::SupervisorEvent;
use crate::journal::{AuditEntry, AuditRecord, AuditVerification, JournalEntry, Transition};
use crate::message::{DeadLetter, OutboxEntry};
use crate::state::ServiceState;
use crate::{CheckpointId, Sequence, ServiceId};

/// Keeps the last known state of every service, together with the journal row that explains it.
///
/// Promise: once [`record`](Self::record) has returned, state and row survive a kill; after an error neither is there
/// (or, for [`DatabaseError::Unknown`], both or neither).
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait StateStore: Send + Sync + std::fmt::Debug {
    /// Stores transitions in order, all or none, and gives the sequence of the last one.
    ///
    /// # Errors
    /// [`DatabaseError`]; its class says whether a retry may help.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the write, which may still happen.
    async fn record(&self, transitions: Vec<Transition>) -> Result<Sequence, DatabaseError>;

    /// Gives the stored state of every service.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Safe.
    async fn load(&self) -> Result<Vec<ServiceState>, DatabaseError>;

    /// Forgets a service; its journal rows stay.
    ///
    /// # Errors
    /// [`DatabaseError`]; an unknown service is no error.
    ///
    /// # Cancel safety
    /// As for [`record`](Self::record).
    async fn remove(&self, service: &ServiceId) -> Result<(), DatabaseError>;
}

/// Reads the ordered record of transitions.
///
/// Promise: sequences only grow, and a reader sees no hole that is filled later.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait Journal: Send + Sync + std::fmt::Debug {
    /// Gives up to `limit` (at most 10,000) rows after `after`, oldest first.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Safe.
    async fn read(&self, after: Sequence, limit: usize)
    -> Result<Vec<JournalEntry>, DatabaseError>;

    /// Gives the sequence of the newest row, zero if there is none.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Safe.
    async fn head(&self) -> Result<Sequence, DatabaseError>;
}

/// Keeps events for those who ask later.
///
/// Promise: an event is found under the sequence it was published with, or is gone by retention; storing the same sequence twice keeps the first.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait EventStore: Send + Sync + std::fmt::Debug {
    /// Stores events.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the write.
    async fn append(&self, events: Vec<SupervisorEvent>) -> Result<(), DatabaseError>;

    /// Gives up to `limit` (at most 10,000) events after `after`, oldest first.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Safe.
    async fn read(
        &self,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<SupervisorEvent>, DatabaseError>;

    /// Gives the sequence of the newest event ever stored, zero if there was none.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Safe.
    async fn head(&self) -> Result<Sequence, DatabaseError>;
}

/// Keeps the tamper-evident record of sensitive operations.
///
/// Promise: once [`append`](Self::append) has returned, the row survives a kill, and any later change to it or loss of it is found by [`verify`](Self::verify).
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait AuditLog: Send + Sync + std::fmt::Debug {
    /// Stores a row and gives its sequence.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the write.
    async fn append(&self, record: AuditRecord) -> Result<Sequence, DatabaseError>;

    /// Gives up to `limit` (at most 10,000) rows after `after`, oldest first.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Safe.
    async fn read(&self, after: Sequence, limit: usize) -> Result<Vec<AuditEntry>, DatabaseError>;

    /// Gives the sequence of the newest row, zero if there is none.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Safe.
    async fn head(&self) -> Result<Sequence, DatabaseError>;

    /// Checks the whole chain and its anchors.
    ///
    /// # Errors
    /// [`DatabaseError`] when it cannot be read at all; damage is an answer, not an error.
    ///
    /// # Cancel safety
    /// Safe.
    async fn verify(&self) -> Result<AuditVerification, DatabaseError>;
}

/// Keeps checkpoints.
///
/// Promise: [`restore`](Self::restore) gives the latest one that verifies or none, never half of one; a bad one is put aside, not deleted.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait CheckpointStore: Send + Sync + std::fmt::Debug {
    /// Takes a checkpoint; on return it is durable in both of its places.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Dropping it loses the answer; the checkpoint may still be there.
    async fn create(&self, content: CheckpointContent) -> Result<CheckpointId, DatabaseError>;

    /// Walks the restore ladder: the newest checkpoint that verifies, and what was passed over.
    ///
    /// # Errors
    /// [`DatabaseError`] only when nothing can be read at all.
    ///
    /// # Cancel safety
    /// Safe; rejections already recorded stay recorded.
    async fn restore(&self) -> Result<Restored, DatabaseError>;

    /// Loads one checkpoint, verified.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`], [`DatabaseError::Corrupt`] and others.
    ///
    /// # Cancel safety
    /// Safe.
    async fn load(&self, id: CheckpointId) -> Result<Checkpoint, DatabaseError>;

    /// Lists the newest `limit` (at most 10,000) checkpoints, newest first.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Safe.
    async fn list(&self, limit: usize) -> Result<Vec<CheckpointSummary>, DatabaseError>;

    /// Reads one checkpoint in both of its places and checks every hash.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`] and others; damage is in the summary.
    ///
    /// # Cancel safety
    /// Safe.
    async fn verify(&self, id: CheckpointId) -> Result<CheckpointSummary, DatabaseError>;
}

/// Keeps messages that must reach their peer even if this process dies first.
///
/// Promise: enqueued or not at all; delivered at least once, with the id it was accepted with; gone only when acknowledged, expired or dead-lettered.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait Outbox: Send + Sync + std::fmt::Debug {
    /// Stores a message durably; the same id again gives the first sequence.
    ///
    /// # Errors
    /// [`DatabaseError`]; [`DatabaseError::Busy`] at the bound of rows or bytes.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the write; repeat it with the same id.
    async fn enqueue(&self, entry: OutboxEntry) -> Result<Sequence, DatabaseError>;

    /// Stores messages durably, in their order, with one answer for each; one that cannot be stored keeps nobody from the
    /// others. A store that commits groups should override this with one commit.
    ///
    /// # Cancel safety
    /// Dropping it loses the answers, not the writes that were begun; repeat it with the same ids.
    async fn enqueue_all(&self, entries: Vec<OutboxEntry>) -> Vec<Result<Sequence, DatabaseError>> {
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            answers.push(self.enqueue(entry).await);
        }
        answers
    }

    /// Gives up to `limit` (at most 10,000) messages of a channel after `after`, oldest first.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Safe.
    async fn pending(
        &self,
        channel: &str,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, DatabaseError>;

    /// Removes messages whose outcome is known; unknown ids are no error.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the write.
    async fn acknowledge(&self, ids: &[uuid::Uuid]) -> Result<(), DatabaseError>;

    /// Moves a message to the dead letters.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the write.
    async fn bury(&self, letter: DeadLetter) -> Result<(), DatabaseError>;

    /// Lists up to `limit` (at most 10,000) dead letters, newest first; of one channel if given.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Safe.
    async fn dead_letters(
        &self,
        channel: Option<String>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DatabaseError>;

    /// Puts dead letters back into the queue with their old ids and gives how many there were.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the write.
    async fn requeue(&self, ids: &[uuid::Uuid]) -> Result<u64, DatabaseError>;

    /// Deletes these dead letters and gives how many there were.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the write.
    async fn forget(&self, ids: &[uuid::Uuid]) -> Result<u64, DatabaseError>;

    /// Deletes dead letters (all, or those of one channel) and gives how many there were.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the write.
    async fn purge(&self, channel: Option<String>) -> Result<u64, DatabaseError>;
}

/// Remembers what was seen, so that a repetition has no second effect.
///
/// Promise: the first sight of a key wins, across a kill, until its time is over.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait DedupStore: Send + Sync + std::fmt::Debug {
    /// Notes a key for `keep` with the value to give to repetitions; gives the value noted first if it was there already.
    ///
    /// # Errors
    /// [`DatabaseError`].
    ///
    /// # Cancel safety
    /// Dropping it loses the answer; ask again with the same key.
    async fn first_sight(
        &self,
        key: &str,
        value: &[u8],
        keep: Duration,
    ) -> Result<Option<Vec<u8>>, DatabaseError>;
}
