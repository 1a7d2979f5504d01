//! How what the peer says on its own account gets from the channel to its subscribers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use supervisor_core::config::RecoveryConfig;
use supervisor_core::message::IpcMessage;
use tokio::sync::Notify;

use crate::inbox::Inbox;

/// An inbox shared by a channel and its subscribers.
#[derive(Debug)]
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    arrived: Notify,
}

#[derive(Debug)]
struct Inner {
    inbox: Inbox,
    /// Who tells the peer what was handled.
    driver: Option<Waker>,
    closed: bool,
}

impl Mailbox {
    pub(crate) fn new(config: &RecoveryConfig) -> Self {
        let inner = Inner { inbox: Inbox::new(config), driver: None, closed: false };
        Self { inner: Mutex::new(inner), arrived: Notify::new() }
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the inbox for the channel.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Inbox) -> T) -> T {
        act(&mut self.locked().inbox)
    }

    /// Tells subscribers that something came.
    pub(crate) fn arrived(&self) {
        self.arrived.notify_waiters();
    }

    /// Has this waker woken when a subscriber is done with something.
    pub(crate) fn driven_by(&self, waker: &Waker) {
        self.locked().driver = Some(waker.clone());
    }

    /// Nothing comes any more.
    pub(crate) fn close(&self) {
        self.locked().closed = true;
        self.arrived.notify_waiters();
    }

    /// Does something for a subscriber; what that makes of the acknowledgements is for the channel to look at.
    fn touch<T>(&self, act: impl FnOnce(&mut Inbox) -> T) -> (T, bool) {
        let mut inner = self.locked();
        let done = act(&mut inner.inbox);
        if inner.inbox.owes()
            && let Some(driver) = &inner.driver
        {
            driver.wake_by_ref();
        }
        (done, inner.closed)
    }
}

/// A subscription to what the peer sends on its own account.
///
/// A service with an [`Endpoint`](crate::Endpoint), or another one that [numbers what it
/// says](https://github.com/rust-ai-ide/supervisor/blob/main/docs/wire-protocol.md), is told that a message arrived when every
/// subscriber has asked for the next one after it: asking says that the last one is handled. So a subscriber that stops
/// asking holds it back, until what the service has is full or too old, and none is lost or comes twice on the way.
/// Without subscribers nothing is acknowledged. A new one begins with the oldest message that is not handled yet by every
/// subscriber there is.
///
/// Any other peer does not wait: of its messages those of a subscriber that is more than a thousand behind are dropped,
/// oldest first, and counted as [missed](Self::missed).
#[derive(Debug)]
pub struct Incoming {
    mailbox: Arc<Mailbox>,
    reader: u64,
}

impl Incoming {
    pub(crate) fn new(mailbox: Arc<Mailbox>) -> Self {
        let reader = mailbox.with(Inbox::subscribe);
        Self { mailbox, reader }
    }

    /// Waits for the next message; nothing once the channel is closed and everything was taken.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken by a call that is dropped. Those taken before it count as handled.
    pub async fn recv(&mut self) -> Option<Arc<IpcMessage>> {
        let mailbox = Arc::clone(&self.mailbox);
        loop {
            // Listening first: what comes in between wakes it.
            let mut arrived = std::pin::pin!(mailbox.arrived.notified());
            arrived.as_mut().enable();
            match mailbox.touch(|inbox| inbox.next(self.reader)) {
                (Some(message), _) => return Some(message),
                (None, true) => return None,
                (None, false) => arrived.await,
            }
        }
    }

    /// Takes the next message if it is there. As with [`recv`](Self::recv), asking says that the last one is handled.
    pub fn try_recv(&mut self) -> Option<Arc<IpcMessage>> {
        self.mailbox.touch(|inbox| inbox.next(self.reader)).0
    }

    /// Tells how many messages were dropped because this subscriber was too far behind; never one of a service that waits
    /// to be told that they arrived.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.mailbox.with(|inbox| inbox.missed(self.reader))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.mailbox.touch(|inbox| inbox.leave(self.reader));
    }
}
