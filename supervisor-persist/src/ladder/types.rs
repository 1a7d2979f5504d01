//! What opening a store found and did, and what is remembered of it.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use supervisor_core::Sequence;
use supervisor_core::checkpoint::RejectedRung;

/// What the last opening found and did, and what earlier ones left to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryReport {
    /// The run before this one did not close the store: it was killed, or the system went down.
    pub unclean_stop: bool,
    /// How far the structure of the file was checked.
    pub structure: StructureCheck,
    /// Where the database came from.
    pub database: DatabaseOrigin,
    /// The database ends before what is known to have been stored.
    pub lost_tail: Option<LostTail>,
    /// The schema was brought up to date.
    pub migrated: Option<MigrationDone>,
    /// What a crash had left half done and was removed.
    pub swept: Vec<String>,
    /// What was found by this and earlier openings, the newest first, at most 100.
    pub notes: Vec<RecoveryNote>,
}

impl RecoveryReport {
    /// Tells whether there is something that somebody should look at.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        self.lost_tail.is_some()
            || !matches!(self.database, DatabaseOrigin::AsFound | DatabaseOrigin::New)
            || self.notes.iter().any(|note| !note.settled)
    }
}

/// How far the structure of the file was checked while opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StructureCheck {
    /// All of it is sound.
    Complete,
    /// No damage was found in the time that opening may take; [`check_structure`](crate::StatePersistence::check_structure) looks at all of it.
    Partial,
}

/// Where the database came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum DatabaseOrigin {
    /// It was there and sound.
    AsFound,
    /// There was none, and nothing to make one from.
    New,
    /// What was there could not be used, or nothing was there where something had been.
    Rebuilt {
        /// Why.
        reason: String,
        /// The backup it was rebuilt from; nothing if it is empty and checkpoints come from their files.
        backup: Option<String>,
        /// Where what was there was moved to, unchanged.
        quarantine: Option<PathBuf>,
        /// The backups that were passed over.
        rejected: Vec<RejectedRung>,
    },
}

/// The database ends before what is known to have been stored: its log was deleted, it was copied without it, or
/// an older copy was put in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostTail {
    /// The newest audit row in the database.
    pub database: Sequence,
    /// The newest audit row that is known to have been there.
    pub anchored: Sequence,
    /// Runs that are known to have been and that the database does not know.
    pub runs: u64,
    /// Checkpoints that are newer than the database knows; they are used.
    pub newer_checkpoints: u64,
    /// Sound backups that hold more than the database, the newest first: what can be gone back to.
    pub backups: Vec<String>,
}

impl LostTail {
    /// Tells whether the audit trail ends before its anchor.
    #[must_use]
    pub fn trail_is_cut(&self) -> bool {
        self.anchored > self.database
    }
}

/// A migration that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationDone {
    /// The version before.
    pub from: u32,
    /// The version now.
    pub to: u32,
    /// The backup taken before it.
    pub backup: String,
}

/// What was recovered from, passed over or lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryNote {
    /// Its place in the order.
    pub number: u64,
    /// When it was first found.
    pub at: DateTime<Utc>,
    /// What kind of finding it is.
    pub kind: NoteKind,
    /// What it is about.
    pub subject: String,
    /// What was found, for people.
    pub reason: String,
    /// Whether somebody has seen it, or nobody has to.
    pub settled: bool,
}

/// What kind of finding a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NoteKind {
    /// A run did not close the store.
    UncleanStop,
    /// The database was rebuilt.
    Rebuilt,
    /// The database ends before what is known to have been stored.
    LostTail,
    /// A rung of the ladder was passed over.
    Rejected,
    /// The structure of the file is damaged.
    Damaged,
    /// The schema was brought up to date.
    Migrated,
}
