//! The number of the last run, in a file beside the database: a database that does not know that run has lost its end,
//! whether or not anything was audited.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use supervisor_core::error::DatabaseError;

use crate::folders::with_suffix;
use crate::{errors, files, sealed};

/// Names the kind of file in its seal.
const KIND: &str = "ide-supervisor run number v1";

#[derive(Serialize, Deserialize)]
struct Run {
    run: u64,
}

fn path(database: &Path) -> PathBuf {
    with_suffix(database, ".run")
}

/// Gives the last run that is known outside of the database; zero if there is none, or if what says so is damaged.
pub(super) fn known(database: &Path) -> u64 {
    let path = path(database);
    let Ok(text) = std::fs::read(&path) else { return 0 };
    match sealed::read::<Run>(KIND, &text) {
        Ok(found) => found.run,
        Err(reason) => {
            tracing::warn!(path = %path.display(), reason, "the number of the last run is written anew");
            0
        }
    }
}

/// Writes the number of this run down, after the database has it.
pub(super) fn begun(database: &Path, run: u64) -> Result<(), DatabaseError> {
    let path = path(database);
    let text = sealed::write(KIND, &Run { run })
        .map_err(|error| errors::unreadable("the number of a run", &error))?;
    files::write_atomically(&path, &text).map_err(|error| errors::file("writing", &path, error))
}
