//! What can go wrong with stored state, and with bringing its schema up to date.

use std::path::PathBuf;

use super::{Cause, Classified, ErrorClass};

/// An error of the persistence engine.
///
/// After [`DatabaseError::Unknown`] the caller cannot know whether the write happened; repeat it with the
/// same idempotency key. Every other error of a write means that nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The file cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The database file.
        path: PathBuf,
        /// What the system or SQLite said.
        #[source]
        source: Cause,
    },
    /// Another live process owns this state directory.
    #[error("{path} is in use by process {owner}")]
    Owned {
        /// The lock file.
        path: PathBuf,
        /// Pid and start time of the owner as it recorded them, or `unknown`.
        owner: String,
    },
    /// The file belongs to another program or is no database.
    #[error("{path} is not a database of this program: {reason}")]
    Foreign {
        /// The database file, untouched.
        path: PathBuf,
        /// What gave it away.
        reason: String,
    },
    /// A newer version of this program wrote the file.
    #[error(
        "{path} has schema version {found}, this program knows up to {supported}: use the newer program, or {}",
        way_back(backup.as_deref())
    )]
    TooNew {
        /// The database file, untouched.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version known here.
        supported: u32,
        /// The newest sound backup that this program can read, if there is one.
        backup: Option<String>,
    },
    /// Stored data is damaged.
    #[error("{subject} is damaged: {reason}")]
    Corrupt {
        /// What is damaged: a file, a table, a checkpoint.
        subject: String,
        /// How that was noticed.
        reason: String,
    },
    /// A setting of the connection did not take effect; the file is refused rather than used unsafely.
    #[error("{path}: pragma {pragma} is {found:?} instead of {wanted:?}")]
    Pragma {
        /// The database file.
        path: PathBuf,
        /// The setting.
        pragma: &'static str,
        /// What was asked for.
        wanted: String,
        /// What is in force.
        found: String,
    },
    /// The disk is full; reads and supervision go on, and writes return by themselves once there is space.
    #[error("the disk is full: there is no room for {subject}; free some space, then repeat it")]
    DiskFull {
        /// What was being written.
        subject: String,
    },
    /// The outcome of a write is unknown (a failed sync, a connection lost in commit).
    #[error("the outcome of writing {subject} is unknown")]
    Unknown {
        /// What was being written.
        subject: String,
        /// What SQLite said.
        #[source]
        source: Cause,
    },
    /// The write queue is full, or the store is in a degraded mode that refuses writes for now.
    #[error("the store cannot take {subject} now: {reason}")]
    Busy {
        /// What was to be written.
        subject: String,
        /// Why.
        reason: String,
    },
    /// There is no such checkpoint, savepoint, backup or row.
    #[error("there is no {subject}")]
    NotFound {
        /// What was looked for.
        subject: String,
    },
    /// The request itself was refused: a bad name, a limit out of range, a payload over the cap.
    #[error("{subject}: {reason}")]
    Refused {
        /// What was asked for.
        subject: String,
        /// Why, with the way out.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Anything else SQLite or the file system said.
    #[error("{action} failed")]
    Storage {
        /// What was tried.
        action: String,
        /// What the system said.
        #[source]
        source: Cause,
    },
    /// Bringing the schema up to date failed.
    #[error(transparent)]
    Migration(#[from] MigrationError),
}

/// Says how to go on with this program and a newer file.
fn way_back(backup: Option<&str>) -> String {
    match backup {
        Some(name) => format!("go back to backup {name}, taken before the upgrade"),
        None => "restore a backup taken before the upgrade".to_owned(),
    }
}

impl Classified for DatabaseError {
    fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "database_open",
            Self::Owned { .. } => "database_owned",
            Self::Foreign { .. } => "database_foreign",
            Self::TooNew { .. } => "database_too_new",
            Self::Corrupt { .. } => "database_corrupt",
            Self::Pragma { .. } => "database_pragma",
            Self::DiskFull { .. } => "database_disk_full",
            Self::Unknown { .. } => "database_unknown_outcome",
            Self::Busy { .. } => "database_busy",
            Self::NotFound { .. } => "database_not_found",
            Self::Refused { .. } => "database_refused",
            Self::Closed => "database_closed",
            Self::Storage { .. } => "database_storage",
            Self::Migration(error) => error.code(),
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::DiskFull { .. }
            | Self::Unknown { .. }
            | Self::Busy { .. }
            | Self::Storage { .. } => ErrorClass::Transient,
            Self::Open { .. }
            | Self::Owned { .. }
            | Self::Foreign { .. }
            | Self::Pragma { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::Closed => ErrorClass::Permanent,
            Self::Corrupt { .. } => ErrorClass::Corrupt,
            Self::TooNew { .. } => ErrorClass::Incompatible,
            Self::Migration(error) => error.class(),
        }
    }
}

/// An error while bringing the schema up to date; the file is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// A migration that was applied differs from the one in this program.
    #[error("migration {version} ({name}) in the database differs from the one in this program")]
    Divergent {
        /// The migration's number.
        version: u32,
        /// The migration's name.
        name: String,
    },
    /// The history table cannot be read.
    #[error("the migration history is damaged at row {row}: {reason}")]
    DamagedHistory {
        /// The row, counted from 1.
        row: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A migration failed; the whole group was rolled back.
    #[error("migrating from version {from} to {to} failed; nothing was changed")]
    Failed {
        /// The version the file has.
        from: u32,
        /// The version that was wanted.
        to: u32,
        /// What SQLite said.
        #[source]
        source: Cause,
    },
    /// The backup that precedes a migration could not be taken or proven, so nothing was migrated.
    #[error("the backup before the migration failed; nothing was changed")]
    Backup {
        /// Why.
        #[source]
        source: Cause,
    },
}

impl Classified for MigrationError {
    fn code(&self) -> &'static str {
        match self {
            Self::Divergent { .. } => "migration_divergent",
            Self::DamagedHistory { .. } => "migration_damaged_history",
            Self::Failed { .. } => "migration_failed",
            Self::Backup { .. } => "migration_backup",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Divergent { .. } => ErrorClass::Incompatible,
            Self::DamagedHistory { .. } => ErrorClass::Corrupt,
            Self::Failed { .. } => ErrorClass::Permanent,
            Self::Backup { .. } => ErrorClass::Transient,
        }
    }
}
