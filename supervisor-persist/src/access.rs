//! Who may touch the files of a store: its owner alone. What can be repaired is, the rest is refused.

use std::path::Path;

use supervisor_core::error::DatabaseError;

use crate::folders::{parent, with_suffix};

/// What lies beside a database, by its ending.
pub(crate) const COMPANIONS: [&str; 6] =
    ["", "-wal", "-shm", ".lock", ".audit-key", ".audit-anchor"];

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
        os::own(&path, &found)?;
    }
    os::directory(parent(database))
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
        if found.is_file() && found.mode() & OTHERS != 0 {
            let mode = Permissions::from_mode(0o600);
            std::fs::set_permissions(path, mode)
                .map_err(|error| crate::errors::file("securing", path, error))?;
            tracing::warn!(path = %path.display(), was = format!("{:o}", found.mode() & 0o777), "others could use the file; its mode is 600 now");
        }
        Ok(())
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

    pub(super) fn directory(_: &Path) -> Result<(), DatabaseError> {
        Ok(())
    }
}
