//! The handle by which a service speaks on its own account.

use std::sync::Arc;

use supervisor_core::message::IpcMessage;

use super::pushing::Pushing;
use crate::machine::SendOptions;
use crate::receipt::Receipt;

/// Sends messages to the host that a service serves, without being asked; clones share one queue.
///
/// A message waits within the bounds of the endpoint's configuration until a host is connected that takes messages, is sent
/// again if the connection breaks, and has exactly one outcome: [`Acked`](supervisor_core::message::Outcome::Acked) once every
/// [subscriber](crate::Channel::incoming) of the host's channel has handled it, `Expired` when its time to live was up before,
/// `Indeterminate` if it must not be repeated and the connection broke, `NotSent` when the endpoint is gone first. The
/// host's channel recognises what comes again, by number within a connection and by id over connections, for its
/// `dedupe_window`. The order is that in which they were pushed, within a lane.
///
/// Of several hosts the one that greeted last is the one that is pushed to; when its connection ends, the one before it. A
/// message that one host has not acknowledged goes to the next with the same id: a host that was killed has
/// forgotten which ids it knew.
///
/// What is pushed is kept in memory. A service that must not lose it when it is killed keeps it until its outcome, and the new
/// process pushes it again with the same id; the host takes it once.
///
/// ```
/// # use supervisor_core::message::IpcMessage;
/// use supervisor_ipc::Endpoint;
///
/// # let message = |text: &str| IpcMessage { id: uuid::Uuid::from_u128(1), message_type: "progress".into(),
/// #     payload: text.into(), timestamp: chrono::DateTime::UNIX_EPOCH, retry_count: 0 };
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let endpoint = Endpoint::new(|message: IpcMessage| async move { Some(message.payload) });
/// let pusher = endpoint.pusher();
/// let receipt = pusher.push(message("half way")).await;
/// assert!(receipt.accepted().is_ok());
/// // `endpoint.serve(stream)` gives it to the host, and `receipt.outcome()` says when the host has it.
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pusher {
    shared: Arc<Pushing>,
}

impl Pusher {
    pub(super) fn new(shared: Arc<Pushing>) -> Self {
        shared.keep_time();
        Self { shared }
    }

    /// Sends a message with default options.
    ///
    /// # Cancel safety
    /// Safe; the message was accepted or not.
    pub async fn push(&self, message: IpcMessage) -> Receipt {
        self.push_with(message, SendOptions::default()).await
    }

    /// Sends a message. At the bound of its buffer the configuration's `overflow` says what happens, as it does for a channel:
    /// refused, or in the place of the oldest, or the sender waits; there is no outbox to spill to, so that is refused.
    ///
    /// A receipt says why a message was refused: [`IpcError::BufferFull`](supervisor_core::error::IpcError::BufferFull), where
    /// a later retry helps; `Closed` after the endpoint is gone, and `Unsendable` for one that is larger than a frame, or
    /// asks for what there is not here: `expect_reply`, `durable`, and the control lane.
    ///
    /// # Cancel safety
    /// Safe; the message was accepted or not.
    pub async fn push_with(&self, message: IpcMessage, options: SendOptions) -> Receipt {
        self.shared.push(message, options).await
    }

    /// Tells how many messages have no outcome yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting()
    }
}
