//! Where everything of one store lies.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The places of one store: all beside its database.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    pub(crate) database: PathBuf,
    pub(crate) backups: PathBuf,
    pub(crate) savepoints: PathBuf,
    /// What could not be used and is kept for somebody to look at.
    pub(crate) quarantine: PathBuf,
}

impl Folders {
    pub(crate) fn beside(database: &Path) -> Self {
        let parent = parent(database);
        Self {
            database: database.to_owned(),
            backups: parent.join("backups"),
            savepoints: parent.join("savepoints"),
            quarantine: parent.join("quarantine"),
        }
    }
}

/// Gives the directory a file lies in; the working directory for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Gives the path with something added to its last name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}
