//! What was begun and not finished: kept in every checkpoint, found again after a crash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use supervisor_core::ports::{Clock, Entropy};
use supervisor_core::state::{OperationKind, PendingOperation};
use supervisor_core::{ServiceId, time_ordered_id};
use uuid::Uuid;

/// Operations that may be pending at once. One more is carried out all the same and not remembered.
const OPERATIONS_MAX: usize = 10_000;

/// Every operation under way.
#[derive(Debug)]
pub(super) struct Operations {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    pending: Arc<Mutex<BTreeMap<Uuid, PendingOperation>>>,
}

/// An operation that is remembered until this is dropped.
#[derive(Debug)]
#[must_use = "the operation ends when this is dropped"]
pub struct OperationGuard {
    id: Uuid,
    pending: Arc<Mutex<BTreeMap<Uuid, PendingOperation>>>,
}

impl Operations {
    pub(super) fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy, pending: Arc::default() }
    }

    pub(super) fn begin(
        &self,
        kind: OperationKind,
        service: Option<&ServiceId>,
        detail: serde_json::Value,
    ) -> OperationGuard {
        let at = self.clock.wall();
        let id = time_ordered_id(at, [self.entropy.next_u64(), self.entropy.next_u64()]);
        let operation =
            PendingOperation { id, kind, service: service.cloned(), requested_at: at, detail };
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < OPERATIONS_MAX {
            pending.insert(id, operation);
        }
        OperationGuard { id, pending: Arc::clone(&self.pending) }
    }

    pub(super) fn snapshot(&self) -> Vec<PendingOperation> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl OperationGuard {
    /// Gives the operation's id, as checkpoints have it.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.id
    }
}

impl Drop for OperationGuard {
    fn drop(&mut self) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
