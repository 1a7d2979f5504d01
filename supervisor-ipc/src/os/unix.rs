//! Unix: sockets in the file system.

use std::path::PathBuf;

use async_trait::async_trait;
use supervisor_core::error::{ErrorClass, IpcError};
use tokio::net::UnixStream;

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
        let failed = |error: std::io::Error| {
            let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
            let class = if denied { ErrorClass::Permanent } else { ErrorClass::Transient };
            connect_error(&self.describe(), class, error)
        };
        let stream = UnixStream::connect(&self.path).await.map_err(failed)?;
        let peer = stream.peer_cred().map_err(failed)?.uid();
        if peer != rustix::process::geteuid().as_raw() && peer != 0 {
            let reason = format!("a process of user {peer} listens there");
            return Err(failed(std::io::Error::new(std::io::ErrorKind::PermissionDenied, reason)));
        }
        let (reader, writer) = stream.into_split();
        Ok(Connection { reader: Box::new(reader), writer: Box::new(writer) })
    }

    fn describe(&self) -> String {
        format!("unix {}", self.path.display())
    }
}
