//! The snapshot recovery starts from, and what is known about stored ones.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::state::{ChannelPosition, PendingOperation, ServiceState};
use crate::{CheckpointId, Sequence, ServiceId};

/// Version of the payload this code writes; an older reader refuses a newer one by name.
pub const CHECKPOINT_SCHEMA: u32 = 1;

/// What a checkpoint is made of, before it has an id.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckpointContent {
    /// Every service's state.
    pub services: HashMap<ServiceId, ServiceState>,
    /// Everything begun and not finished.
    pub pending_operations: Vec<PendingOperation>,
    /// Where every channel stood.
    pub channels: BTreeMap<String, ChannelPosition>,
}

/// A verified snapshot: every service's state, pending operations, channel positions, and the journal sequence it stands at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Names the snapshot.
    pub id: CheckpointId,
    /// Version of the payload, [`CHECKPOINT_SCHEMA`] or older.
    pub schema: u32,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
    /// The last journal row it includes.
    pub sequence: Sequence,
    /// Every service's state.
    pub services: HashMap<ServiceId, ServiceState>,
    /// Everything begun and not finished.
    pub pending_operations: Vec<PendingOperation>,
    /// Where every channel stood.
    #[serde(default)]
    pub channels: BTreeMap<String, ChannelPosition>,
}

/// Whether a stored snapshot can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CheckpointHealth {
    /// Its hash was verified.
    Verified,
    /// It was not read yet.
    Unverified,
    /// It is damaged and kept aside.
    Quarantined {
        /// How the damage was noticed.
        reason: String,
    },
}

/// What is known of a stored snapshot without loading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSummary {
    /// Names the snapshot.
    pub id: CheckpointId,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
    /// The last journal row it includes.
    pub sequence: Sequence,
    /// Services in it.
    pub services: u64,
    /// Pending operations in it.
    pub pending_operations: u64,
    /// Size of the payload in bytes.
    pub bytes: u64,
    /// Whether it can be trusted.
    pub health: CheckpointHealth,
}

/// One rung of the restore ladder that was tried and rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRung {
    /// What was tried: `checkpoint <id>`, `backup <name>`.
    pub source: String,
    /// Why it was not used.
    pub reason: String,
}

/// What recovery found, and what it passed over on the way.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Restored {
    /// The snapshot in use; nothing on a first start.
    pub checkpoint: Option<Checkpoint>,
    /// Where it came from, for people: `checkpoint <id>`, `backup <name>`, `empty`.
    pub source: String,
    /// Every rung passed over, newest first.
    pub rejected: Vec<RejectedRung>,
}
