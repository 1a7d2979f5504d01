//! Unix: a socket of mode 0600 in a directory of mode 0700, its peers' uid checked.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

pub(in crate::daemon) type Stream = UnixStream;

const SOCKET_NAME: &str = "control.sock";
/// Longest path a socket address holds on every Unix (macOS has 104 bytes, Linux 108, one is the NUL).
const SOCKET_PATH_MAX: usize = 103;

/// The listening socket; removes its file when dropped.
#[derive(Debug)]
pub(in crate::daemon) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens in a state directory that the caller owns by lock, so a socket left there is nobody's.
    pub(in crate::daemon) fn bind(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(SOCKET_NAME);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(&path)?,
            Ok(_) => {
                let text = format!("{} is in the way and is no socket", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = with_short_path(&path, |path| UnixListener::bind(path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { socket, path })
    }

    /// Waits for a peer; one of another user is refused, root excepted.
    pub(in crate::daemon) async fn accept(&self) -> io::Result<Stream> {
        let (stream, _) = self.socket.accept().await?;
        let peer = stream.peer_cred()?.uid();
        if peer != 0 && peer != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("a peer of user {peer} was refused"),
            ));
        }
        Ok(stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The next owner removes a leftover socket, so a failure here costs nothing.
        drop(fs::remove_file(&self.path));
    }
}

/// Connects to the supervisor of a state directory.
pub(in crate::daemon) async fn connect(state_dir: &Path) -> io::Result<Stream> {
    let path = state_dir.join(SOCKET_NAME);
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return UnixStream::connect(path).await;
    }
    let stream = with_short_path(&path, |path| std::os::unix::net::UnixStream::connect(path))?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Runs `with` on a path short enough for a socket address: a long one is reached through its directory's descriptor.
fn with_short_path<T>(path: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return with(path);
    }
    let directory = fs::File::open(path.parent().unwrap_or(path))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd()));
    with(&short)
}
