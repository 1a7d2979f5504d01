//! The guardian's event loop on macOS.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::kqueue::Event;

use crate::os::macos::kqueue;

/// What became ready in an event loop: what it was registered as.
pub(crate) type Ready = u64;

/// An event loop over descriptors.
#[derive(Debug)]
pub(crate) struct Poller {
    queue: OwnedFd,
    batch: usize,
}

impl Poller {
    /// Makes a loop that gives at most `batch` events at a time.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn new(batch: usize) -> io::Result<Self> {
        Ok(Self { queue: kqueue::queue()?, batch })
    }

    /// Waits for a descriptor to become readable.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        kqueue::reading(&self.queue, fd, token, true)
    }

    /// Changes what a descriptor is waited for. The end of a connection shows either way.
    pub(crate) fn change(&self, fd: impl AsFd, token: u64, read: bool, write: bool) {
        // Ending to wait for what was not waited for fails, and is as good.
        drop(kqueue::reading(&self.queue, &fd, token, read));
        drop(kqueue::writing(&self.queue, &fd, token, write));
    }

    /// Waits no more for a descriptor.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        self.change(fd, 0, false, false);
    }

    /// Waits until something is ready, for at most `limit`; for ever without.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> Vec<Ready> {
        let timeout = limit.map(|limit| Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        let mut events: Vec<Event> = Vec::with_capacity(self.batch);
        let room = rustix::buffer::spare_capacity(&mut events);
        // Interrupted or failed: nothing is ready, and the next round asks again.
        _ = kqueue::take(&self.queue, &[], room, timeout.as_ref());
        events.iter().map(kqueue::token).collect()
    }
}
