//! The service's side of our own envelope.

use std::future::Future;
use std::sync::Arc;

use serde_json::Value;
use supervisor_core::config::RecoveryConfig;
use supervisor_core::error::IpcError;
use supervisor_core::message::IpcMessage;
use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;

use memory::Memory;
use pushing::Pushing;
use serving::Serving;

/// Handles one message; what it gives back is the answer.
pub trait Handler: Send + Sync + 'static {
    /// Handles a message.
    fn handle(&self, message: IpcMessage) -> impl Future<Output = Option<Value>> + Send;
}

impl<F, R> Handler for F
where
    F: Fn(IpcMessage) -> R + Send + Sync + 'static,
    R: Future<Output = Option<Value>> + Send,
{
    fn handle(&self, message: IpcMessage) -> impl Future<Output = Option<Value>> + Send {
        self(message)
    }
}

/// The service's side of a channel: acknowledges, answers, and handles each id once.
///
/// What was handled is remembered across connections of one endpoint, so a message that is sent again because its
/// acknowledgement was lost has no second effect; its first answer is given again. One message is handled at a time, in the
/// order of the channel; signs of life are given meanwhile. A process that starts anew has to [recall](Self::recalling) what
/// it keeps with its effects.
#[derive(Debug)]
pub struct Endpoint<H> {
    handler: H,
    memory: Memory,
    config: RecoveryConfig,
    pushing: Owned,
}

/// What is pushed ends with the endpoint.
#[derive(Debug)]
struct Owned(Arc<Pushing>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<H: Handler> Endpoint<H> {
    /// Makes an endpoint with default limits.
    pub fn new(handler: H) -> Self {
        Self::with_config(handler, RecoveryConfig::default())
    }

    /// Makes an endpoint with limits of its own: `max_frame`, `max_buffered_bytes`, `dedupe_window` and `dedupe_max` apply,
    /// and to what is [pushed](Self::pusher) those of buffers, time to live, repetitions and `max_in_flight`, too.
    pub fn with_config(handler: H, config: RecoveryConfig) -> Self {
        let memory = Memory::new(config.dedupe_window, config.dedupe_max);
        let pushing = Owned(Arc::new(Pushing::new(&config)));
        Self { handler, memory, config, pushing }
    }

    /// Puts ids into the memory that were handled before this process began, with their answers.
    ///
    /// A service whose effects survive it keeps each id with its effect, in one write or one transaction, and recalls them
    /// when it starts; a message that took effect before it was killed then has no second one. Ids beyond `dedupe_max` push
    /// the first ones out.
    #[must_use]
    pub fn recalling(self, handled: impl IntoIterator<Item = (Uuid, Option<Value>)>) -> Self {
        for (id, answer) in handled {
            self.memory.recall(id, answer);
        }
        self
    }

    /// Gives a handle to send messages to the host on the service's own account.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub fn pusher(&self) -> Pusher {
        Pusher::new(Arc::clone(&self.pushing.0))
    }

    /// Tells how many ids were forgotten for want of room before `dedupe_window` was over: so often the promise to handle
    /// an id once was weaker than that window says.
    pub fn forgotten_early(&self) -> u64 {
        self.memory.forgotten_early()
    }

    /// Serves one connection to its end.
    ///
    /// # Errors
    /// [`IpcError::Protocol`] when the peer broke the protocol, [`IpcError::Incompatible`] when it speaks another
    /// version, [`IpcError::TimedOut`] when it promised signs of life and gave none. The end of the connection is no error.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection; a message under way may have had its effect, and is handled again if it is
    /// sent again. Without being dropped it finishes what it has begun to handle before it returns.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), IpcError> {
        Serving::new(self, stream, None).run().await
    }

    /// Serves a connection whose peer may be anybody, and greets in time if it is a channel.
    pub(crate) async fn serve_who_greets(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<(), IpcError> {
        Serving::new(self, stream, Some(self.config.handshake_timeout)).run().await
    }
}

pub use pusher::Pusher;

mod memory;
mod pusher;
mod pushing;
mod serving;
