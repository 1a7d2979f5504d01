//! macOS: what becomes readable, told to one thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::kqueue::Event;

use super::kqueue;

/// A set of descriptors that is waited for until one is readable.
#[derive(Debug)]
pub(crate) struct Events(OwnedFd);

impl Events {
    /// Makes an empty set; [`wake`](Self::wake) gives `end`.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn new(end: u64) -> io::Result<Self> {
        let queue = kqueue::queue()?;
        kqueue::wakeable(&queue, end)?;
        Ok(Self(queue))
    }

    /// Adds a descriptor that gives `token` while it is readable.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        kqueue::reading(&self.0, fd, token, true)
    }

    /// Takes a descriptor out.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        // It fails for one that is not in it, which is as good.
        drop(kqueue::reading(&self.0, fd, 0, false));
    }

    /// Makes `end` ready for good.
    pub(crate) fn wake(&self, end: u64) {
        // It can only fail for a queue that was made otherwise.
        drop(kqueue::wake(&self.0, end));
    }

    /// Waits until something is ready and gives what, at most `most` at a time.
    ///
    /// # Errors
    /// What the system said; being interrupted is none, and gives nothing.
    pub(crate) fn wait(&self, most: usize, ready: &mut Vec<u64>) -> io::Result<()> {
        ready.clear();
        let mut events: Vec<Event> = Vec::with_capacity(most);
        match kqueue::take(&self.0, &[], rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(events.iter().map(kqueue::token));
        Ok(())
    }
}
