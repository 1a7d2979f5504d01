//! Where a service of our own listens, and serves whoever connects.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::error::{ErrorClass, IpcError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::endpoint::{Endpoint, Handler};
use crate::os::{LocalEar, end_dead_connections};
use crate::transport::connect_error;

/// Connections served at once; one more waits until another ends. A channel has one, so this is for channels of several
/// supervisors, and for those of dead ones whose end is not noticed yet.
const CONNECTIONS_MAX: usize = 64;
/// Pause after a connection could not be accepted, for want of descriptors most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// A stream to a channel.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Where a service listens for its channel.
///
/// ```no_run
/// use supervisor_core::message::IpcMessage;
/// use supervisor_ipc::{Endpoint, Listener};
///
/// # async fn example() -> Result<(), supervisor_core::error::IpcError> {
/// let endpoint = Endpoint::new(|message: IpcMessage| async move { Some(message.payload) });
/// Listener::local("svc.sock")?.serve(endpoint).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listener {
    ear: Ear,
    name: String,
}

#[derive(Debug)]
enum Ear {
    Local(LocalEar),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens on a Unix socket, or on Windows on the named pipe of this name (`\\.\pipe\…`).
    ///
    /// The socket has mode 0600 before anybody can connect, and peers of other users are refused, root excepted. One that a
    /// dead process left is replaced; one that answers, that is another user's, or a file that is no socket, never is.
    /// Whoever listens holds a lock on a file beside it, `.lock` added to its name, which stays. The socket is removed when the
    /// listener is dropped.
    ///
    /// # Errors
    /// [`IpcError::Connect`] naming the path and what is in the way; a retry helps when another process listens there and
    /// ends.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    ///
    /// # Platform
    /// Unix; on Windows written, not run.
    pub fn local(path: impl AsRef<Path>) -> Result<Self, IpcError> {
        let path = path.as_ref();
        let name = format!("listener {}", path.display());
        let ear = LocalEar::bind(path).map_err(|error| failed(&name, error))?;
        Ok(Self { ear: Ear::Local(ear), name })
    }

    /// Listens on a TCP port of this machine, such as `127.0.0.1:0`. Every user of the machine can connect to it: where that
    /// matters, use [`local`](Self::local).
    ///
    /// # Errors
    /// [`IpcError::Connect`] for an address that is not the machine's own loopback, because nothing is encrypted, or that is
    /// taken.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn tcp(address: impl AsRef<str>) -> Result<Self, IpcError> {
        let address = address.as_ref();
        let name = format!("listener {address}");
        let listen = async {
            let found: Vec<SocketAddr> = tokio::net::lookup_host(address).await?.collect();
            if found.is_empty() || found.iter().any(|address| !address.ip().is_loopback()) {
                let text = "messages are not encrypted, so only a loopback address will do";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            TcpListener::bind(found.as_slice()).await
        };
        let ear = listen.await.map_err(|error| failed(&name, error))?;
        Ok(Self { ear: Ear::Tcp(ear), name })
    }

    /// Gives the TCP address it listens on.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.ear {
            Ear::Tcp(ear) => ear.local_addr().ok(),
            Ear::Local(_) => None,
        }
    }

    /// Waits for the next connection, for [`Endpoint::serve`].
    ///
    /// # Errors
    /// [`IpcError::Connect`] about this one connection; the next call waits for another.
    ///
    /// # Cancel safety
    /// Safe; a connection that waits is accepted by the next call.
    pub async fn accept(&self) -> Result<Box<dyn Stream>, IpcError> {
        let accepted = match &self.ear {
            Ear::Local(ear) => ear.accept().await.map(|stream| Box::new(stream) as Box<dyn Stream>),
            Ear::Tcp(ear) => ear.accept().await.map(|(stream, _)| {
                // Both only cost time when they fail.
                drop(stream.set_nodelay(true).and_then(|()| end_dead_connections(&stream)));
                Box::new(stream) as Box<dyn Stream>
            }),
        };
        accepted.map_err(|error| failed(&self.name, error))
    }

    /// Serves every connection, at most 64 at once, and never returns. What goes wrong on one is logged and ends that one,
    /// as does a peer that does not greet within `handshake_timeout`.
    ///
    /// # Cancel safety
    /// Dropping it closes every connection, as [`Endpoint::serve`] says, and removes the socket.
    pub async fn serve(self, endpoint: Endpoint<impl Handler>) {
        let endpoint = Arc::new(endpoint);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let stream = match self.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    let cause = supervisor_core::error::chain(&error);
                    tracing::warn!(error = %cause, "a connection was refused");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let endpoint = Arc::clone(&endpoint);
            connections.spawn(async move {
                if let Err(error) = endpoint.serve_who_greets(stream).await {
                    let cause = supervisor_core::error::chain(&error);
                    tracing::warn!(error = %cause, "a connection ended");
                }
                drop(place);
            });
        }
    }
}

fn failed(name: &str, error: io::Error) -> IpcError {
    let busy = error.kind() == io::ErrorKind::AddrInUse;
    let class = if busy { ErrorClass::Transient } else { ErrorClass::Permanent };
    connect_error(name, class, error)
}
