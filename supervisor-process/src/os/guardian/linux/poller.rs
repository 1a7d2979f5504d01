//! The guardian's event loop on Linux.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// What became ready in an event loop: what it was registered as.
pub(crate) type Ready = u64;

/// An event loop over descriptors.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Poller {
    /// Makes a loop that gives at most `batch` events at a time.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn new(batch: usize) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(batch) })
    }

    /// Waits for a descriptor to become readable, or writable too.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN).map_err(Into::into)
    }

    /// Changes what a descriptor is waited for.
    pub(crate) fn change(&self, fd: impl AsFd, token: u64, read: bool, write: bool) {
        let mut flags = EventFlags::RDHUP;
        flags.set(EventFlags::IN, read);
        flags.set(EventFlags::OUT, write);
        // It fails for a descriptor that was never added, which is a bug that the loop survives.
        _ = epoll::modify(&self.epoll, fd, EventData::new_u64(token), flags);
    }

    /// Waits no more for a descriptor.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something is ready, for at most `limit`; for ever without.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> Vec<Ready> {
        let timeout = limit.map(|limit| rustix::event::Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        // Interrupted or failed: nothing is ready, and the next round asks again.
        _ = epoll::wait(&self.epoll, room, timeout.as_ref());
        self.events.iter().map(|event| event.data.u64()).collect()
    }
}
