//! Unix: sockets in the file system.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rustix::net::sockopt;
use supervisor_core::error::{ErrorClass, IpcError};
use tokio::net::{TcpStream, UnixListener, UnixSocket, UnixStream};

use crate::transport::{Connection, Transport, connect_error};

/// Connects over a Unix socket the service listens on; a process of another user, root's excepted, is refused.
#[derive(Debug, Clone)]
pub struct UnixTransport {
    path: PathBuf,
}

impl UnixTransport {
    /// Connects to the socket at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

#[async_trait]
impl Transport for UnixTransport {
    async fn connect(&self) -> Result<Connection, IpcError> {
        let failed = |error: io::Error| {
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            let class = if denied { ErrorClass::Permanent } else { ErrorClass::Transient };
            connect_error(&self.describe(), class, error)
        };
        let stream = UnixStream::connect(&self.path).await.map_err(failed)?;
        check_peer(&stream).map_err(failed)?;
        let (reader, writer) = stream.into_split();
        Ok(Connection { reader: Box::new(reader), writer: Box::new(writer) })
    }

    fn describe(&self) -> String {
        format!("unix {}", self.path.display())
    }
}

/// Refuses a peer of another user, root excepted.
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer == 0 || peer == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let reason = format!("the peer is a process of user {peer}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// Silence on a TCP connection after which the system asks the peer whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// Pause between two such questions.
const KEEPALIVE_PAUSE: Duration = Duration::from_secs(5);
/// Unanswered questions after which the connection ends.
const KEEPALIVE_MISSES: u32 = 3;
/// How long sent bytes may go unconfirmed, in milliseconds: as long as a channel's signs of life by default.
#[cfg(target_os = "linux")]
const UNCONFIRMED_MAX: u32 = 20_000;

/// Makes the system end a connection whose peer vanished, instead of after its two hours.
pub(crate) fn end_dead_connections(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_PAUSE)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_MISSES)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, UNCONFIRMED_MAX)?;
    Ok(())
}

/// A socket in the file system that a service listens on, and the lock that says that it is in use.
#[derive(Debug)]
pub(crate) struct LocalEar {
    socket: UnixListener,
    path: PathBuf,
    /// Device and number of our socket: what stands there later may be another's.
    identity: (u64, u64),
    _lock: File,
}

impl LocalEar {
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let lock = lock(path)?;
        remove_stale(path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        // Nobody can connect before it listens, so nobody gets in before this.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let found = fs::symlink_metadata(path)?;
        let socket = socket.listen(BACKLOG)?;
        Ok(Self { socket, path: path.into(), identity: (found.dev(), found.ino()), _lock: lock })
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.socket.accept().await?;
        check_peer(&stream)?;
        Ok(stream)
    }
}

impl Drop for LocalEar {
    fn drop(&mut self) {
        let ours = |found: &fs::Metadata| (found.dev(), found.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(|found| ours(&found)) {
            // One that stays is stale, and the next owner removes it.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// Takes the lock beside the socket. Its file stays: removing it would let two owners hold two locks.
fn lock(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options().create(true).append(true).open(name)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(in_use(path)),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn in_use(path: &Path) -> io::Error {
    let text = format!("{} is in use by another process", path.display());
    io::Error::new(io::ErrorKind::AddrInUse, text)
}

/// Removes a socket that a dead owner left. What is no socket, another user's, or answers, is left alone.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() || found.uid() != rustix::process::geteuid().as_raw() {
        let text = format!("{} is in the way and no socket of this user", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // It listens, or nobody can tell.
        _ => Err(in_use(path)),
    }
}
