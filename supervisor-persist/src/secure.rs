//! Opening files that somebody outside named: what was checked is what is opened.
//!
//! [`validate_secure_path`] judges a path; between that and opening it, somebody could put a link in the way. So the
//! way is walked from the root again, directory by directory, each opened from the one before and no link followed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use supervisor_core::error::SecurityError;

use crate::paths::validate_secure_path;

/// Opens an existing file for reading if [`validate_secure_path`] accepts its path, and gives its real place.
///
/// # Errors
/// [`SecurityError::Path`] naming the rule that was broken, also when the path was changed while it was looked at, is no
/// regular file, or cannot be opened. A retry does not help.
///
/// # Platform
/// **Windows:** the last step is checked after opening; a directory exchanged in between is noticed only if it is a link.
pub fn open_secure_file(
    path: impl AsRef<Path>,
    roots: &[PathBuf],
) -> Result<(File, PathBuf), SecurityError> {
    let real = validate_secure_path(path, roots)?;
    let file = walk::open(&real, roots, false).map_err(|error| refused(&real, &error))?;
    match file.metadata() {
        Ok(found) if found.is_file() => Ok((file, real)),
        Ok(_) => Err(refused(&real, &io::Error::other("it is no regular file"))),
        Err(error) => Err(refused(&real, &error)),
    }
}

/// Makes a new file for this user alone if [`validate_secure_path`] accepts its path, and gives its real place.
///
/// # Errors
/// As for [`open_secure_file`]; also when something is there already.
///
/// # Platform
/// As for [`open_secure_file`].
pub fn create_secure_file(
    path: impl AsRef<Path>,
    roots: &[PathBuf],
) -> Result<(File, PathBuf), SecurityError> {
    let real = validate_secure_path(path, roots)?;
    let file = walk::open(&real, roots, true).map_err(|error| refused(&real, &error))?;
    Ok((file, real))
}

fn refused(path: &Path, error: &io::Error) -> SecurityError {
    let reason = match error.kind() {
        io::ErrorKind::AlreadyExists => "something is there already".to_owned(),
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    };
    SecurityError::Path { path: path.display().to_string().chars().take(120).collect(), reason }
}

#[cfg(unix)]
mod walk {
    use std::fs::File;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::{Component, Path, PathBuf};

    use rustix::fs::{Mode, OFlags, open as open_at_root, openat};

    /// Opens `real`, which lies below one of `roots`, following no link on the way.
    pub(super) fn open(real: &Path, roots: &[PathBuf], create: bool) -> io::Result<File> {
        let root = roots
            .iter()
            .filter_map(|root| std::fs::canonicalize(root).ok())
            .find(|root| real.starts_with(root))
            .ok_or(io::ErrorKind::PermissionDenied)?;
        let way = real.strip_prefix(&root).map_err(io::Error::other)?;
        let names: Vec<_> = way
            .components()
            .map(|part| match part {
                Component::Normal(name) => Ok(name),
                _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
            })
            .collect::<io::Result<_>>()?;
        let (last, between) = names.split_last().ok_or(io::ErrorKind::IsADirectory)?;
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at: OwnedFd = open_at_root(&root, directory, Mode::empty())?;
        for name in between {
            at = openat(&at, *name, directory, Mode::empty())?;
        }
        // Not blocking: opening a pipe that was put there would wait for a writer.
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let flags = flags
            | if create { OFlags::RDWR | OFlags::CREATE | OFlags::EXCL } else { OFlags::RDONLY };
        Ok(File::from(openat(&at, *last, flags, Mode::RUSR | Mode::WUSR)?))
    }
}

#[cfg(not(unix))]
mod walk {
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::path::{Path, PathBuf};

    /// Opens `real`, and refuses what is a link by the time it is open.
    pub(super) fn open(real: &Path, _roots: &[PathBuf], create: bool) -> io::Result<File> {
        let file = if create {
            OpenOptions::new().read(true).write(true).create_new(true).open(real)?
        } else {
            File::open(real)?
        };
        if std::fs::canonicalize(real)? != real {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(file)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_directory_exchanged_for_a_link_between_check_and_opening_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let roots = [root.path().to_owned()];
        std::fs::create_dir(root.path().join("dir")).unwrap();
        for place in [root.path().join("dir"), outside.path().to_owned()] {
            std::fs::write(place.join("file"), "x").unwrap();
        }
        let checked = validate_secure_path("dir/file", &roots).unwrap();
        let checked_new = validate_secure_path("dir/new", &roots).unwrap();
        std::fs::rename(root.path().join("dir"), root.path().join("away")).unwrap();
        symlink(outside.path(), root.path().join("dir")).unwrap();
        assert!(walk::open(&checked, &roots, false).is_err());
        assert!(walk::open(&checked_new, &roots, true).is_err());
        assert!(!outside.path().join("new").exists());
        // The last name as well.
        let checked = validate_secure_path("away/file", &roots).unwrap();
        std::fs::remove_file(root.path().join("away/file")).unwrap();
        symlink(outside.path().join("file"), root.path().join("away/file")).unwrap();
        assert!(walk::open(&checked, &roots, false).is_err());
    }
}
