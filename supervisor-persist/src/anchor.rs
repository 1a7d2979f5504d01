//! The audit trail's head, written outside of the database: a trail that was cut short no longer reaches it.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use supervisor_core::Sequence;
use supervisor_core::error::DatabaseError;

use crate::{errors, files};

/// Longest anchor that is read.
const ANCHOR_MAX: u64 = 4096;

/// A head of the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) sequence: Sequence,
    pub(crate) hash: String,
}

/// The file beside the database.
#[derive(Debug)]
pub(crate) struct Anchor {
    path: PathBuf,
    /// One writer of the file at a time.
    writing: Mutex<()>,
}

impl Anchor {
    pub(crate) fn beside(database: &Path) -> Self {
        let mut name = database.file_name().unwrap_or_default().to_owned();
        name.push(".audit-anchor");
        Self { path: database.with_file_name(name), writing: Mutex::new(()) }
    }

    /// Reads the anchor; nothing if there is none yet.
    pub(crate) fn read(&self) -> Result<Option<Head>, DatabaseError> {
        use std::io::Read;
        let file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(errors::file("opening", &self.path, error)),
        };
        let mut text = String::new();
        file.take(ANCHOR_MAX)
            .read_to_string(&mut text)
            .map_err(|error| errors::unreadable("the audit anchor", &error))?;
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| errors::unreadable("the audit anchor", &error))
    }

    /// Writes the anchor, unless a later head is there already.
    pub(crate) fn write(&self, head: &Head) -> Result<(), DatabaseError> {
        let _writing = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if matches!(self.read(), Ok(Some(known)) if known.sequence >= head.sequence) {
            return Ok(());
        }
        let text = serde_json::to_vec(head)
            .map_err(|error| errors::unreadable("the audit anchor", &error))?;
        files::write_atomically(&self.path, &text)
            .map_err(|error| errors::file("writing", &self.path, error))
    }
}
