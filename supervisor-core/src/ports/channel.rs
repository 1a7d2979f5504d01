//! Restoring a peer's state after a reconnect.

use async_trait::async_trait;

use crate::Generation;
use crate::error::IpcError;

/// The one connection a synchroniser talks over, before anything else flows.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait SyncSession: Send + std::fmt::Debug {
    /// Gives the generation being restored.
    fn generation(&self) -> Generation;

    /// Sends one frame's content.
    ///
    /// # Errors
    /// [`IpcError`]; the attempt is over and the next generation starts afresh.
    ///
    /// # Cancel safety
    /// Not safe: the frame may have been written in part, and the connection is closed.
    async fn send(&mut self, frame: Vec<u8>) -> Result<(), IpcError>;

    /// Receives one frame's content; frames nobody asked for arrive here too while synchronising.
    ///
    /// # Errors
    /// [`IpcError`] when the connection ended or the handshake's time is over.
    ///
    /// # Cancel safety
    /// Safe.
    async fn receive(&mut self) -> Result<Vec<u8>, IpcError>;
}

/// A session that owns what it talks over; the name spells out the `'static` that mocks need.
pub type OwnedSyncSession = dyn SyncSession;

/// Restores the peer's state after each reconnect, before anything else flows.
///
/// Promise: replays state, never messages; may be run any number of times.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait StateSynchronizer: Send + Sync + std::fmt::Debug {
    /// Brings a fresh peer to the current state.
    ///
    /// # Errors
    /// [`IpcError`]; the channel reconnects and tries again, within its breaker's limits.
    ///
    /// # Cancel safety
    /// Safe: the connection is given up and the next one starts from the beginning.
    async fn synchronize(&self, session: &mut OwnedSyncSession) -> Result<(), IpcError>;
}
