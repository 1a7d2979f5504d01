//! Writing files so that they are whole or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::faults;

/// Writes a file so that a reader sees the old content or the new, and the new one survives a power cut:
/// temporary name, sync, rename, sync of the directory.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    faults::open(path)?;
    let mut file = options.open(&temporary)?;
    if let Err(error) = faults::write(path) {
        // What a full disk leaves: half a file.
        file.write_all(content.get(..content.len() / 2).unwrap_or_default())?;
        return Err(error);
    }
    file.write_all(content)?;
    faults::sync(path)?;
    file.sync_all()?;
    drop(file);
    faults::rename(path)?;
    fs::rename(&temporary, path)?;
    sync_directory(path.parent().unwrap_or_else(|| Path::new(".")))
}

/// Makes a rename or a new name in a directory durable.
///
/// # Platform
/// **Windows:** directories cannot be synced; NTFS journals the rename.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    faults::sync(directory)?;
    File::open(directory)?.sync_all()
}

/// Makes a directory for this user alone.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Takes away what others may do with a file.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        }
    }
    #[cfg(not(unix))]
    let _: &Path = path;
    Ok(())
}

/// Makes a file that is not there yet, for this user alone.
pub(crate) fn create_new_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a file's content durable.
pub(crate) fn sync_file(path: &Path) -> io::Result<()> {
    // Windows syncs only what may be written to.
    OpenOptions::new().read(true).write(cfg!(windows)).open(path)?.sync_all()
}

/// Gives the bytes an ordinary user may still write there; nothing where the system does not tell.
pub(crate) fn free_space(directory: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(directory).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _: &Path = directory;
        None
    }
}
