//! What a sender gets: how the message was accepted, and later how it ended.

use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use supervisor_core::error::IpcError;
use supervisor_core::message::Outcome;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::machine::{Accepted, Machine};
use crate::task::{Bell, Listener};

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

/// Where the outcome of a message appears, once; whoever holds it may wait for it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    outcome: OnceLock<Outcome>,
    changed: Notify,
}

impl Slot {
    pub(crate) fn settle(&self, outcome: Outcome) {
        // The first one counts; there is no second.
        drop(self.outcome.set(outcome));
        self.changed.notify_waiters();
    }
}

/// Settles the slot when its owner goes away without an outcome, so that nobody waits for ever.
#[derive(Debug, Default)]
pub(crate) struct Promise(Arc<Slot>);

impl Promise {
    pub(crate) fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.0)
    }

    pub(crate) fn settle(self, outcome: Outcome) {
        self.0.settle(outcome);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.0.outcome.get().is_none() {
            self.0.settle(Outcome::NotSent { reason: "the monitor is gone".to_owned() });
        }
    }
}

/// The receipt of one message; await it for the outcome.
///
/// Dropping it changes nothing about the message.
#[derive(Debug, Clone)]
#[must_use = "the outcome says whether the message arrived"]
pub struct Receipt {
    id: Uuid,
    accepted: Result<Acceptance, Arc<IpcError>>,
    outcome: Arc<Slot>,
    /// Rung when the channel's peer says something.
    bell: Option<Arc<Bell>>,
}

impl Receipt {
    pub(crate) const fn new(id: Uuid, accepted: Acceptance, outcome: Arc<Slot>) -> Self {
        Self { id, accepted: Ok(accepted), outcome, bell: None }
    }

    /// The receipt of a message that the machine took; `slot` is where its outcome appears if it is a new one.
    pub(crate) fn of(id: Uuid, accepted: Accepted, machine: &Machine, slot: Arc<Slot>) -> Self {
        match accepted {
            Accepted::Sent => Self::new(id, Acceptance::Sent, slot),
            Accepted::Buffered => Self::new(id, Acceptance::Buffered, slot),
            Accepted::Duplicate(None) => {
                Self::new(id, Acceptance::Duplicate, machine.slot(id).unwrap_or(slot))
            }
            Accepted::Duplicate(Some(ended)) => Self::ended(id, ended),
        }
    }

    /// Lets who waits for the outcome read what the peer says.
    pub(crate) fn beside(self, bell: &Arc<Bell>) -> Self {
        Self { bell: Some(Arc::clone(bell)), ..self }
    }

    pub(crate) fn refused(id: Uuid, error: IpcError) -> Self {
        let outcome = Outcome::Rejected { reason: error.to_string() };
        Self { accepted: Err(Arc::new(error)), ..Self::ended(id, outcome) }
    }

    /// The receipt of a message that was sent before and has ended.
    pub(crate) fn ended(id: Uuid, outcome: Outcome) -> Self {
        let slot = Slot { outcome: OnceLock::from(outcome), changed: Notify::new() };
        Self::new(id, Acceptance::Duplicate, Arc::new(slot))
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
        let slot = &self.outcome;
        // Listening first: what is settled in between wakes it.
        let mut changed = pin!(slot.changed.notified());
        let name = Arc::as_ptr(slot).addr();
        let mut listener = self.bell.as_ref().map(|bell| Listener::new(bell, name));
        std::future::poll_fn(|cx| {
            if slot.outcome.get().is_none()
                && let Some(listener) = &mut listener
            {
                listener.look();
            }
            if let Some(outcome) = slot.outcome.get() {
                return Poll::Ready(outcome.clone());
            }
            if let Some(listener) = &mut listener {
                listener.listen(cx.waker());
            }
            if changed.as_mut().poll(cx).is_ready() {
                changed.set(slot.changed.notified());
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }
}

impl IntoFuture for Receipt {
    type Output = Outcome;
    type IntoFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.outcome().await })
    }
}
