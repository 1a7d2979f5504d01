//! The directory that holds everything one supervisor keeps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use supervisor_core::error::{ProcessError, SecurityError, SupervisorError};

/// Name of the state directory beside a configuration file, or in the working directory.
pub const STATE_DIR_NAME: &str = ".ide-supervisor";

/// A state directory that exists and belongs to this user alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Makes sure that the directory exists, is a directory, is ours, and has mode 0700.
    ///
    /// A mode that is too open is repaired; another owner is refused, because what such a directory holds may
    /// have been put there by somebody else.
    ///
    /// # Errors
    /// [`SecurityError::Ownership`] for a stranger's directory or something that is no directory,
    /// [`ProcessError::Os`] for what the system said.
    ///
    /// # Platform
    /// **Windows:** owner and mode are left to what the directory inherits.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, SupervisorError> {
        let path = path.into();
        let path = std::path::absolute(&path).unwrap_or(path);
        let failed = |action: &str, source: io::Error| {
            SupervisorError::from(ProcessError::Os {
                action: format!("{action} the state directory {}", path.display()),
                source: source.into(),
            })
        };
        create(&path).map_err(|error| failed("creating", error))?;
        let found = fs::metadata(&path).map_err(|error| failed("reading", error))?;
        if !found.is_dir() {
            return Err(refused(&path, "it is no directory"));
        }
        secure(&path, &found)?;
        Ok(Self { path })
    }

    /// Gives the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the place of a file inside.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Gives the mark that every process started from here carries in its environment.
    ///
    /// It is the directory's own name for itself, so that a supervisor started again in the same place finds
    /// what its predecessor left behind.
    #[must_use]
    pub fn mark(&self) -> String {
        fs::canonicalize(&self.path)
            .unwrap_or_else(|_| self.path.clone())
            .to_string_lossy()
            .into_owned()
    }
}

fn refused(path: &Path, reason: &str) -> SupervisorError {
    let subject = format!("state directory {}", path.display());
    SecurityError::Ownership { subject, reason: reason.to_owned() }.into()
}

#[cfg(unix)]
fn create(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.exists() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn create(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(unix)]
fn secure(path: &Path, found: &fs::Metadata) -> Result<(), SupervisorError> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != me {
        let reason = format!(
            "it belongs to user {}, not to {me}; name another with --state-dir",
            found.uid()
        );
        return Err(refused(path, &reason));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| {
            refused(path, &format!("others may enter it, and that could not be changed: {error}"))
        })?;
        tracing::warn!(path = %path.display(), "others could enter the state directory; its mode is 0700 now");
    }
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the signature is that of the other systems")]
fn secure(_: &Path, _: &fs::Metadata) -> Result<(), SupervisorError> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_directory_others_can_enter_is_repaired() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        StateDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_in_its_place_is_refused_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        fs::write(&path, "mine").unwrap();
        let error = StateDir::open(&path).unwrap_err();
        assert!(error.to_string().contains("no directory"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
