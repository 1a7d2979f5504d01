//! A look at everything that matters to a store, line by line, with what to do about each.

mod lines;

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use supervisor_core::error::{DatabaseError, chain};
use supervisor_core::ports::AuditLog;

use crate::StatePersistence;
use crate::folders::Folders;

/// What an examination found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// The database that was looked at.
    pub database: PathBuf,
    /// What was found, in a fixed order.
    pub lines: Vec<DoctorLine>,
}

impl DoctorReport {
    /// Gives the worst verdict of all lines.
    #[must_use]
    pub fn verdict(&self) -> DoctorVerdict {
        self.lines.iter().map(|line| line.verdict).max().unwrap_or(DoctorVerdict::Ok)
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorLine {
    /// What was looked at, one stable word such as `backups`.
    pub name: String,
    /// How it is.
    pub verdict: DoctorVerdict,
    /// What was found, for people.
    pub found: String,
    /// What to do about it; empty when it is well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoctorVerdict {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// Something that was promised does not hold.
    Fail,
}

/// Examines a store's files without opening the store: nothing of it is changed, repaired or locked, and a running
/// owner is not disturbed. Blocks for as long as reading takes, a few seconds at most.
///
/// Call it from another process than the owner's, where [`StatePersistence::doctor`] is the one to use: SQLite's file
/// locks belong to the process, and looking at the file from within would drop them.
#[must_use]
pub fn examine(database: &Path, checkpoint_dir: &Path, now: DateTime<Utc>) -> DoctorReport {
    let patient = lines::Patient {
        folders: Folders::beside(database),
        checkpoint_dir: checkpoint_dir.to_owned(),
        now,
        live: false,
    };
    DoctorReport { database: database.to_owned(), lines: lines::all(&patient) }
}

impl StatePersistence {
    /// Examines the open store; beyond [`examine`], the whole audit chain is verified.
    ///
    /// # Errors
    /// [`DatabaseError::Closed`]; what is wrong with the store is in the report.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn doctor(&self) -> Result<DoctorReport, DatabaseError> {
        let now = self.inner.clock.wall();
        let mut report = self
            .blocking(move |inner| {
                let patient = lines::Patient {
                    folders: inner.folders.clone(),
                    checkpoint_dir: inner.checkpoint_dir.clone(),
                    now,
                    live: true,
                };
                let database = inner.folders.database.clone();
                Ok(DoctorReport { database, lines: lines::all(&patient) })
            })
            .await?;
        let chain_line = match AuditLog::verify(self).await {
            Ok(found) if found.intact => lines::ok("audit_chain", found.detail),
            Ok(found) => lines::fail(
                "audit_chain",
                found.detail,
                "look at the recovery report: settle it when the loss is known, or go back to a backup",
            ),
            Err(DatabaseError::Closed) => return Err(DatabaseError::Closed),
            Err(error) => lines::fail(
                "audit_chain",
                chain(&error),
                "restart, so that the database is rebuilt",
            ),
        };
        report.lines.push(chain_line);
        Ok(report)
    }
}
