//! What a sender gets: how the message was accepted, and later how it ended.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use supervisor_core::error::IpcError;
use supervisor_core::message::Outcome;
use tokio::sync::watch;
use uuid::Uuid;

/// How a message was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// The channel is ready; it is on its way.
    Sent,
    /// The channel is not ready; it waits.
    Buffered,
    /// The same id was accepted before; this is that message's receipt.
    Duplicate,
}

/// The receipt of one message; await it for the outcome.
///
/// Dropping it changes nothing about the message.
#[derive(Debug, Clone)]
#[must_use = "the outcome says whether the message arrived"]
pub struct Receipt {
    id: Uuid,
    accepted: Result<Acceptance, Arc<IpcError>>,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Receipt {
    pub(crate) const fn new(
        id: Uuid,
        accepted: Acceptance,
        outcome: watch::Receiver<Option<Outcome>>,
    ) -> Self {
        Self { id, accepted: Ok(accepted), outcome }
    }

    pub(crate) fn refused(id: Uuid, error: IpcError) -> Self {
        let (_, outcome) = watch::channel(Some(Outcome::Rejected { reason: error.to_string() }));
        Self { id, accepted: Err(Arc::new(error)), outcome }
    }

    /// Gives the message's id.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Says how the message was accepted.
    ///
    /// # Errors
    /// Why it was refused; its outcome is `Rejected` then, and nothing of it was kept.
    pub fn accepted(&self) -> Result<Acceptance, &IpcError> {
        self.accepted.as_ref().copied().map_err(|error| &**error)
    }

    /// Waits until it is known how the message ended.
    ///
    /// # Cancel safety
    /// Safe; ask again.
    pub async fn outcome(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        let settled =
            outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        settled.unwrap_or_else(|| Outcome::NotSent { reason: "the monitor is gone".to_owned() })
    }
}

impl IntoFuture for Receipt {
    type Output = Outcome;
    type IntoFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.outcome().await })
    }
}
