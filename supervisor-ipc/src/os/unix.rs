//! Unix: sockets in the file system.

use std::path::PathBuf;

use async_trait::async_trait;
use supervisor_core::error::{ErrorClass, IpcError};
use tokio::net::UnixStream;

use crate::transport::{Connection, Transport, connect_error};

/// Connects over a Unix socket the service listens on.
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
        let connected = UnixStream::connect(&self.path).await;
        connected.map(Connection::of).map_err(|error| {
            let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
            let class = if denied { ErrorClass::Permanent } else { ErrorClass::Transient };
            connect_error(&self.describe(), class, error)
        })
    }

    fn describe(&self) -> String {
        format!("unix {}", self.path.display())
    }
}
