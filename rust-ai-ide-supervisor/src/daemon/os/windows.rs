//! Windows: a named pipe that remote clients cannot reach, named after the state directory.
//!
//! The default security descriptor of a pipe gives full control to its creator and to administrators only.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::windows::named_pipe::{
    ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions,
};

pub(in crate::daemon) type Stream = NamedPipeServer;
pub(in crate::daemon) type ClientStream = NamedPipeClient;

/// All instances of the pipe are taken for a moment (ERROR_PIPE_BUSY).
const PIPE_BUSY: i32 = 231;

fn pipe_name(state_dir: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    let full = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
    full.to_string_lossy().to_lowercase().hash(&mut hasher);
    format!(r"\\.\pipe\ide-supervisor-{:016x}", hasher.finish())
}

/// The listening pipe.
#[derive(Debug)]
pub(in crate::daemon) struct Listener {
    name: String,
    next: Mutex<Option<NamedPipeServer>>,
}

impl Listener {
    pub(in crate::daemon) fn bind(state_dir: &Path) -> io::Result<Self> {
        let name = pipe_name(state_dir);
        let first = ServerOptions::new()
            .first_pipe_instance(true)
            .reject_remote_clients(true)
            .create(&name)?;
        Ok(Self { name, next: Mutex::new(Some(first)) })
    }

    pub(in crate::daemon) async fn accept(&self) -> io::Result<Stream> {
        let take = || self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let fresh = || ServerOptions::new().reject_remote_clients(true).create(&self.name);
        let waiting = match take() {
            Some(waiting) => waiting,
            None => fresh()?,
        };
        waiting.connect().await?;
        *self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(fresh()?);
        Ok(waiting)
    }
}

pub(in crate::daemon) async fn connect(state_dir: &Path) -> io::Result<ClientStream> {
    let name = pipe_name(state_dir);
    let mut tries = 0;
    loop {
        match ClientOptions::new().open(&name) {
            Err(error) if error.raw_os_error() == Some(PIPE_BUSY) && tries < 50 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other,
        }
    }
}
