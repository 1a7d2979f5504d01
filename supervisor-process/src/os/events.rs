//! Linux: what becomes readable, told to one thread.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// Events taken from the kernel at a time, at most.
const AT_A_TIME: usize = 64;

/// A set of descriptors that is waited for until one is readable.
#[derive(Debug)]
pub(crate) struct Events {
    epoll: OwnedFd,
    wake: OwnedFd,
}

impl Events {
    /// Makes an empty set; [`wake`](Self::wake) gives `end`.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn new(end: u64) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, EventData::new_u64(end), EventFlags::IN)?;
        Ok(Self { epoll, wake })
    }

    /// Adds a descriptor that gives `token` while it is readable.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN).map_err(Into::into)
    }

    /// Takes a descriptor out.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        // It fails for one that is not in it, which is as good.
        _ = epoll::delete(&self.epoll, fd);
    }

    /// Makes `end` ready for good.
    pub(crate) fn wake(&self, _end: u64) {
        // It can only fail when the counter is full, and then it is ready.
        _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Waits until something is ready and gives what, at most `most` at a time.
    ///
    /// # Errors
    /// What the system said; being interrupted is none, and gives nothing.
    pub(crate) fn wait(&self, most: usize, ready: &mut Vec<u64>) -> io::Result<()> {
        ready.clear();
        let mut space = [MaybeUninit::<Event>::uninit(); AT_A_TIME];
        let most = most.min(AT_A_TIME);
        match epoll::wait(&self.epoll, &mut space[..most], None) {
            Ok((events, _)) => ready.extend(events.iter().map(|event| event.data.u64())),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
