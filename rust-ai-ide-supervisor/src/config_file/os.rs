//! What a program is on each system.

#[cfg(unix)]
pub(super) use unix::{SEPARATORS, runnable, with_extensions};
#[cfg(windows)]
pub(super) use windows::{SEPARATORS, runnable, with_extensions};

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    /// Characters that make a command a path.
    pub(in super::super) const SEPARATORS: [char; 1] = ['/'];

    /// Tells whether a file can be executed, or why not.
    pub(in super::super) fn runnable(path: &Path) -> Result<(), &'static str> {
        match path.metadata() {
            Err(_) => Err("does not exist"),
            Ok(metadata) if !metadata.is_file() => Err("is a directory or a device"),
            Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
                Err("may not be executed (no x permission)")
            }
            Ok(_) => Ok(()),
        }
    }

    /// Gives the names a program may have.
    pub(in super::super) fn with_extensions(path: &Path) -> Vec<PathBuf> {
        vec![path.to_owned()]
    }
}

#[cfg(windows)]
mod windows {
    use std::path::{Path, PathBuf};

    /// Characters that make a command a path.
    pub(in super::super) const SEPARATORS: [char; 2] = ['/', '\\'];

    /// Tells whether a file can be executed, or why not.
    pub(in super::super) fn runnable(path: &Path) -> Result<(), &'static str> {
        match path.metadata() {
            Err(_) => Err("does not exist"),
            Ok(metadata) if !metadata.is_file() => Err("is a directory or a device"),
            Ok(_) => Ok(()),
        }
    }

    /// Gives the names a program may have: its extension may be left out.
    pub(in super::super) fn with_extensions(path: &Path) -> Vec<PathBuf> {
        let mut candidates = vec![path.to_owned()];
        candidates.extend([".exe", ".cmd", ".bat"].map(|extension| {
            let mut name = path.as_os_str().to_owned();
            name.push(extension);
            PathBuf::from(name)
        }));
        candidates
    }
}
