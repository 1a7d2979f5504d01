#![doc = include_str!("../README.md")]

mod access;
mod anchor;
mod audit;
mod backup;
mod checkpoint;
mod clock;
mod damaged;
mod diff;
mod digest;
mod doctor;
mod errors;
mod events;
mod faults;
mod files;
mod filesystem;
mod folders;
mod journal;
mod ladder;
mod lock;
mod mode;
mod open;
#[cfg(feature = "test-util")]
mod os;
mod outbox;
mod paths;
mod readers;
mod reserve;
mod restore;
mod retention;
mod row;
mod savepoint;
mod schema;
mod sealed;
mod secure;
mod shape;
mod store;
#[cfg(feature = "test-util")]
pub mod testing;
mod trail;
mod writer;

pub use backup::{
    BackupContent, BackupHealth, BackupProgress, BackupReason, BackupRetention, BackupRound,
    BackupStage, BackupSummary, BackupVerification, RestoreOutcome, backup_due,
};
pub use diff::{ChangeKind, FieldChange, SnapshotChange, SnapshotDiff};
pub use doctor::{DoctorLine, DoctorReport, DoctorVerdict, examine};
pub use ladder::{
    DatabaseOrigin, LostTail, MigrationDone, NoteKind, RecoveryNote, RecoveryReport, StructureCheck,
};
pub use mode::{StorageMode, StorageStatus};
pub use paths::validate_secure_path;
pub use savepoint::{Savepoint, SavepointHealth, SavepointSummary};
pub use secure::{create_secure_file, open_secure_file};
pub use store::{StatePersistence, StatePersistenceBuilder};
pub use trail::AuditSeal;
pub use writer::Durability;
