//! What is known of a backup, what a check of it found, and what a restoration did.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use supervisor_core::checkpoint::RejectedRung;
use supervisor_core::{CheckpointId, Sequence};

use crate::diff::SnapshotDiff;

/// Why a backup was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BackupReason {
    /// Somebody asked for it.
    Requested,
    /// The interval was over, or a damaged one had to be replaced.
    Scheduled,
    /// The schema was about to be changed.
    BeforeMigration {
        /// The schema version in the backup.
        from: u32,
        /// The version that was wanted.
        to: u32,
    },
    /// Stored states were about to be replaced by older ones.
    BeforeRestore,
}

/// What a backup was found to hold when it was reopened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupContent {
    /// Version of the schema.
    pub schema_version: u32,
    /// The newest journal row.
    pub sequence: Sequence,
    /// The newest event.
    pub events: Sequence,
    /// The newest audit row.
    pub audit: Sequence,
    /// The hash of the newest audit row, in hexadecimal; empty without one.
    pub audit_hash: String,
    /// Checkpoints whose payload was read and fits its hash.
    pub checkpoints: u64,
    /// Checkpoints that were damaged in the database already.
    pub damaged_checkpoints: u64,
    /// Rows of every table.
    pub rows: BTreeMap<String, u64>,
}

/// Whether a backup can be relied on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum BackupHealth {
    /// Every byte was read, and what it holds is what it held when it was taken.
    Verified {
        /// When that was looked at last.
        at: DateTime<Utc>,
    },
    /// It is damaged and never restored from; its file stays for somebody to look at.
    Damaged {
        /// How that was noticed.
        reason: String,
    },
}

impl BackupHealth {
    /// Tells whether the backup may be restored from.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        matches!(self, Self::Verified { .. })
    }
}

/// A backup as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupSummary {
    /// Names it, for the other calls.
    pub name: String,
    /// Its place in the order; the clock has no say in it.
    pub number: u64,
    /// When it was taken.
    pub created_at: DateTime<Utc>,
    /// Why it was taken.
    pub reason: BackupReason,
    /// Size in bytes.
    pub bytes: u64,
    /// Hash of the whole file, in hexadecimal.
    pub blake3: String,
    /// What it holds.
    pub content: BackupContent,
    /// Whether it can be relied on.
    pub health: BackupHealth,
}

/// How far a long run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupProgress {
    /// What is being done.
    pub stage: BackupStage,
    /// Bytes done of this stage.
    pub done: u64,
    /// Bytes of this stage as far as known; `done` may end below it, for copying leaves free pages out.
    pub total: u64,
}

/// The stages of taking a backup, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BackupStage {
    /// Copying the database.
    Copying,
    /// Reopening the copy and reading what it holds.
    Proving,
    /// Hashing the file.
    Hashing,
    /// Giving it its name and writing its manifest.
    Publishing,
}

/// What a check of a backup found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupVerification {
    /// The backup.
    pub name: String,
    /// Whether it can be relied on.
    pub intact: bool,
    /// Whether a new backup should be taken in its place: it is damaged and nothing sound is newer.
    pub replacement_wanted: bool,
    /// What was found, for people.
    pub detail: String,
}

/// What one round of the schedule did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRound {
    /// The backup that was due and taken.
    pub created: Option<BackupSummary>,
    /// Older ones that were read again.
    pub verified: Vec<BackupVerification>,
    /// Names of those retention removed.
    pub pruned: Vec<String>,
}

/// What a restoration did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreOutcome {
    /// What was restored from: `backup <name>`, `savepoint <name>`.
    pub source: String,
    /// The checkpoint the next start begins with.
    pub checkpoint: CheckpointId,
    /// What changed.
    pub changes: SnapshotDiff,
    /// The backup taken of what was there before.
    pub safety_backup: String,
    /// What was passed over inside of the source.
    pub rejected: Vec<RejectedRung>,
}
