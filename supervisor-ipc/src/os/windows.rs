//! Windows: named pipes.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use supervisor_core::error::{ErrorClass, IpcError};
use tokio::net::TcpStream;
use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeServer, ServerOptions};
use tokio::sync::Mutex;

use crate::transport::{Connection, Transport, connect_error};

/// Connects over a named pipe the service listens on.
#[derive(Debug, Clone)]
pub struct PipeTransport {
    name: PathBuf,
}

impl PipeTransport {
    /// Connects to the pipe of this name, `\\.\pipe\…`.
    pub fn new(name: impl Into<PathBuf>) -> Self {
        Self { name: name.into() }
    }
}

#[async_trait]
impl Transport for PipeTransport {
    async fn connect(&self) -> Result<Connection, IpcError> {
        // A pipe whose instances are all taken answers busy, which the channel's backoff treats like any failure.
        let opened = ClientOptions::new().open(&self.name);
        opened
            .map(Connection::of)
            .map_err(|error| connect_error(&self.describe(), ErrorClass::Transient, error))
    }

    fn describe(&self) -> String {
        format!("pipe {}", self.name.display())
    }
}

/// The channel's own signs of life find a peer that vanished; the system's two hours stay as they are.
pub(crate) const fn end_dead_connections(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

/// A named pipe that a service listens on. Only its owner may write to it, which is what the system grants by default.
#[derive(Debug)]
pub(crate) struct LocalEar {
    name: PathBuf,
    /// The instance that the next peer connects to.
    next: Mutex<NamedPipeServer>,
}

impl LocalEar {
    pub(crate) fn bind(name: &Path) -> io::Result<Self> {
        let mut options = ServerOptions::new();
        let first = options.first_pipe_instance(true).reject_remote_clients(true).create(name)?;
        Ok(Self { name: name.into(), next: Mutex::new(first) })
    }

    pub(crate) async fn accept(&self) -> io::Result<NamedPipeServer> {
        let mut next = self.next.lock().await;
        next.connect().await?;
        let new = ServerOptions::new().reject_remote_clients(true).create(&self.name)?;
        Ok(std::mem::replace(&mut *next, new))
    }
}
