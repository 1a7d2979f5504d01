//! Windows: named pipes.

use std::path::PathBuf;

use async_trait::async_trait;
use supervisor_core::error::{ErrorClass, IpcError};
use tokio::net::windows::named_pipe::ClientOptions;

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
