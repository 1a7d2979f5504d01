//! What carries the bytes of a channel.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use supervisor_core::error::{ErrorClass, IpcError};
use supervisor_core::ports::{ChannelWatch, ChildStdio, StdioReceiver};
use supervisor_core::{Incarnation, ServiceId};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// A connection: bytes in and bytes out. Dropping both halves closes it.
pub struct Connection {
    /// What the peer sends.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What the peer receives.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Splits a stream that goes both ways.
    pub fn of(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { reader: Box::new(reader), writer: Box::new(writer) }
    }
}

/// Makes connections to one peer.
///
/// Promise: each success is a fresh connection that shares nothing with the one before.
#[async_trait]
pub trait Transport: Send + Sync + std::fmt::Debug {
    /// Connects.
    ///
    /// # Errors
    /// [`IpcError::Connect`], whose class says whether trying again may help.
    ///
    /// # Cancel safety
    /// Safe; nothing is left open.
    async fn connect(&self) -> Result<Connection, IpcError>;

    /// Names what carries the bytes, for people.
    fn describe(&self) -> String;

    /// Whether connecting waits by itself until the peer is there, as for a service's own pipes. It is then not bounded
    /// by the connect timeout, and neither backoff nor circuit keeps the channel from what is there: who starts the peer
    /// says how often.
    fn waits(&self) -> bool {
        false
    }

    /// Whether somebody runs the peer and may be asked why it is silent.
    fn weighs(&self) -> bool {
        false
    }

    /// Tells why the peer of the newest connection may be silent without being dead, for people; nothing when its silence
    /// is to be believed. Asked only if [`weighs`](Self::weighs), before a connection is given up for silence.
    ///
    /// # Cancel safety
    /// Safe.
    async fn excuse(&self) -> Option<String> {
        None
    }

    /// Is told that the newest connection was given up; `silent` when that was for want of a sign of life. Never blocks.
    fn lost(&self, silent: bool, reason: &str) {
        let _ = (silent, reason);
    }
}

pub(crate) fn connect_error(transport: &str, class: ErrorClass, error: std::io::Error) -> IpcError {
    IpcError::Connect {
        channel: String::new(),
        transport: transport.to_owned(),
        class,
        source: error.into(),
    }
}

/// Connects over TCP.
///
/// A peer that vanished without a word is noticed by the channel's own signs of life, and by the system: on Linux it ends a
/// connection whose bytes nobody confirmed for 20 s, on every Unix one that answers no keepalive for about 30 s.
#[derive(Debug, Clone)]
pub struct TcpTransport {
    address: String,
}

impl TcpTransport {
    /// Connects to `host:port`.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }

    async fn dial(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address).await?;
        // A message is written whole; waiting for more to fill a packet only delays it.
        stream.set_nodelay(true)?;
        if let Err(error) = crate::os::end_dead_connections(&stream) {
            // The channel's own signs of life find a dead peer, too.
            tracing::debug!(%error, "the system does not look after a connection");
        }
        Ok(stream)
    }
}

#[async_trait]
impl Transport for TcpTransport {
    async fn connect(&self) -> Result<Connection, IpcError> {
        let failed = |error| connect_error(&self.describe(), ErrorClass::Transient, error);
        let stream = self.dial().await.map_err(failed)?;
        let (reader, writer) = stream.into_split();
        Ok(Connection { reader: Box::new(reader), writer: Box::new(writer) })
    }

    fn describe(&self) -> String {
        format!("tcp {}", self.address)
    }
}

/// Takes over a service's standard input and output each time it starts.
///
/// Give it to the process engine as its [`StdioReceiver`] and to the channel as its transport: every incarnation of
/// the service is then a generation of the channel.
#[derive(Debug)]
pub struct StdioSlot {
    newest: watch::Sender<Option<Incarnation>>,
    pipes: Mutex<Pipes>,
    watch: Option<Arc<dyn ChannelWatch>>,
}

/// What is there to be taken, and what was taken last.
#[derive(Debug, Default)]
struct Pipes {
    waiting: Option<(Run, ChildStdio)>,
    taken: Option<Run>,
    /// The latest that was attached.
    newest: Option<Run>,
}

type Run = (ServiceId, Incarnation);

impl Default for StdioSlot {
    fn default() -> Self {
        Self { newest: watch::Sender::new(None), pipes: Mutex::default(), watch: None }
    }
}

impl StdioSlot {
    /// Makes a slot whose channel asks `watch` before it gives a silent service up, and tells it what became of the
    /// channel: pipes that are lost can only be had anew from a new incarnation.
    #[must_use]
    pub fn watched(watch: Arc<dyn ChannelWatch>) -> Self {
        Self { watch: Some(watch), ..Self::default() }
    }

    fn locked(&self) -> MutexGuard<'_, Pipes> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self) -> Option<(&dyn ChannelWatch, Run)> {
        Some((self.watch.as_deref()?, self.locked().taken.clone()?))
    }
}

impl StdioReceiver for StdioSlot {
    fn attach(&self, service: &ServiceId, incarnation: Incarnation, stdio: ChildStdio) {
        {
            let mut pipes = self.locked();
            if pipes
                .newest
                .as_ref()
                .is_some_and(|(of, newest)| of == service && *newest > incarnation)
            {
                // Late: that run is over, and its pipes are dead.
                return;
            }
            pipes.newest = Some((service.clone(), incarnation));
            pipes.waiting = Some(((service.clone(), incarnation), stdio));
        }
        self.newest.send_replace(Some(incarnation));
    }
}

#[async_trait]
impl Transport for StdioSlot {
    async fn connect(&self) -> Result<Connection, IpcError> {
        let mut newest = self.newest.subscribe();
        loop {
            let taken = {
                let mut pipes = self.locked();
                let waiting = pipes.waiting.take();
                if let Some((run, _)) = &waiting {
                    pipes.taken = Some(run.clone());
                }
                waiting
            };
            if let Some((_, stdio)) = taken {
                let failed = |error| connect_error("stdio", ErrorClass::Transient, error);
                let reader = tokio::process::ChildStdout::from_std(stdio.stdout).map_err(failed)?;
                let writer = tokio::process::ChildStdin::from_std(stdio.stdin).map_err(failed)?;
                return Ok(Connection { reader: Box::new(reader), writer: Box::new(writer) });
            }
            if newest.changed().await.is_err() {
                let error = std::io::Error::from(std::io::ErrorKind::NotConnected);
                return Err(connect_error("stdio", ErrorClass::Permanent, error));
            }
        }
    }

    fn describe(&self) -> String {
        "stdio".to_owned()
    }

    fn waits(&self) -> bool {
        true
    }

    fn weighs(&self) -> bool {
        self.watch.is_some()
    }

    async fn excuse(&self) -> Option<String> {
        let (watch, (service, incarnation)) = self.taken()?;
        watch.excuse(&service, incarnation).await
    }

    fn lost(&self, silent: bool, reason: &str) {
        if let Some((watch, (service, incarnation))) = self.taken() {
            watch.lost(&service, incarnation, silent, reason);
        }
    }
}

/// Connects inside of this process, for tests.
#[derive(Debug)]
pub struct MemoryTransport {
    peers: mpsc::Sender<DuplexStream>,
    buffer: usize,
}

/// The other side of a [`MemoryTransport`].
#[derive(Debug)]
pub struct MemoryPeer {
    connections: mpsc::Receiver<DuplexStream>,
}

impl MemoryTransport {
    /// Makes a transport whose pipes hold `buffer` bytes, and its other side.
    #[must_use]
    pub fn new(buffer: usize) -> (Self, MemoryPeer) {
        // One connection waits at a time; the next attempt waits for it to be taken.
        let (peers, connections) = mpsc::channel(1);
        (Self { peers, buffer }, MemoryPeer { connections })
    }
}

impl MemoryPeer {
    /// Waits for the next connection; nothing when the transport is gone.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn accept(&mut self) -> Option<DuplexStream> {
        self.connections.recv().await
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn connect(&self) -> Result<Connection, IpcError> {
        let (ours, theirs) = tokio::io::duplex(self.buffer);
        let gone = |_| {
            connect_error(
                "memory",
                ErrorClass::Transient,
                std::io::ErrorKind::ConnectionRefused.into(),
            )
        };
        self.peers.send(theirs).await.map_err(gone)?;
        Ok(Connection::of(ours))
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::net::sockopt;

    use super::*;

    #[tokio::test]
    async fn the_system_is_told_to_end_a_tcp_connection_whose_peer_vanished() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stream = TcpTransport::new(address).dial().await.unwrap();
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 20_000);
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap().as_secs(), 15);
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap().as_secs(), 5);
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), 3);
    }
}
