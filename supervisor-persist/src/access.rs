//! Who may touch the files of a store: its owner alone. What can be repaired is, the rest is refused.

use std::path::Path;

use supervisor_core::error::DatabaseError;

use crate::folders::{parent, with_suffix};

/// What lies beside a database, by its ending.
pub(crate) const COMPANIONS: [&str; 7] =
    ["", "-wal", "-shm", ".lock", ".run", ".audit-key", ".audit-anchor"];

/// Refuses a database that is a link or belongs to somebody else, or lies where anybody may exchange it; takes away
/// what others may do with the files. Nothing is opened for writing before this.
pub(crate) fn secure(database: &Path) -> Result<(), DatabaseError> {
    for suffix in COMPANIONS {
        let path = with_suffix(database, suffix);
        let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
        if found.is_symlink() {
            return Err(DatabaseError::Foreign {
                path,
                reason: "it is a link; give the real path, or put the file itself there".to_owned(),
            });
        }
        if !found.is_dir() {
            os::own(&path, &found)?;
        }
    }
    crate::filesystem::judge(parent(database))?;
    os::directory(parent(database))
}

/// Takes away what others may do with a directory of ours; refuses one that belongs to somebody else.
pub(crate) fn secure_folder(path: &Path) -> Result<(), DatabaseError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => os::own(path, &found),
        // Nothing is there yet, or what is there is in the way and is refused when the directory is made.
        _ => Ok(()),
    }
}

/// Names what is open to group or others, with its mode.
pub(crate) fn open_to_others(path: &Path) -> Option<String> {
    let found = std::fs::symlink_metadata(path).ok()?;
    os::open_to_others(&found).map(|mode| format!("{} ({mode:o})", path.display()))
}

#[cfg(unix)]
mod os {
    use std::fs::{Metadata, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    use supervisor_core::error::DatabaseError;

    /// Bits of a mode that let group or others do something.
    const OTHERS: u32 = 0o077;
    /// Anybody may write into the directory.
    const WORLD_WRITABLE: u32 = 0o002;
    /// Only the owner of a file may exchange it.
    const STICKY: u32 = 0o1000;

    pub(super) fn own(path: &Path, found: &Metadata) -> Result<(), DatabaseError> {
        let me = rustix::process::geteuid().as_raw();
        if found.uid() != me {
            let reason = format!(
                "it belongs to user {} and this program runs as {me}; run it as that user, or give it the file with chown",
                found.uid()
            );
            return Err(DatabaseError::Refused { subject: path.display().to_string(), reason });
        }
        let wanted = if found.is_dir() { 0o700 } else { 0o600 };
        if (found.is_file() || found.is_dir()) && found.mode() & OTHERS != 0 {
            std::fs::set_permissions(path, Permissions::from_mode(wanted))
                .map_err(|error| crate::errors::file("securing", path, error))?;
            let was = format!("{:o}", found.mode() & 0o777);
            tracing::warn!(path = %path.display(), was, "others could use it; now its owner alone can");
        }
        Ok(())
    }

    pub(super) fn open_to_others(found: &Metadata) -> Option<u32> {
        (found.mode() & OTHERS != 0 && !found.is_symlink()).then_some(found.mode() & 0o777)
    }

    pub(super) fn directory(path: &Path) -> Result<(), DatabaseError> {
        let Ok(found) = std::fs::metadata(path) else { return Ok(()) };
        let mode = found.mode();
        if mode & WORLD_WRITABLE != 0 && mode & STICKY == 0 {
            let reason = format!(
                "its mode {:o} lets anybody exchange the database; take that away with chmod o-w",
                mode & 0o7777
            );
            return Err(DatabaseError::Refused { subject: path.display().to_string(), reason });
        }
        Ok(())
    }
}

#[cfg(not(unix))]
mod os {
    use std::fs::Metadata;
    use std::path::Path;

    use supervisor_core::error::DatabaseError;

    pub(super) fn own(_: &Path, _: &Metadata) -> Result<(), DatabaseError> {
        Ok(())
    }

    pub(super) fn open_to_others(_: &Metadata) -> Option<u32> {
        None
    }

    pub(super) fn directory(_: &Path) -> Result<(), DatabaseError> {
        Ok(())
    }
}
