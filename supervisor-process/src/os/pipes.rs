//! Linux and macOS: one thread with one set of events reads every pipe, through one buffer.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::io::Errno;

use super::{Events, Take};

/// Bytes read at a time, through one buffer for all pipes (the default size of a pipe).
const READ_MAX: usize = 64 * 1024;
/// Bytes read at a time by whoever wants a run's last words, on its own stack.
const LAST_READ: usize = 8 * 1024;
/// Bytes read of a run's last words: a full pipe and what was written meanwhile. The rest comes the usual way.
const LAST_MAX: usize = 128 * 1024;
/// Pipes looked at before the kernel is asked again; the ones after them come first then.
const EVENTS_MAX: usize = 64;
/// Stands for the wish to end.
const END: u64 = u64::MAX;

/// A pipe that can be read.
pub(crate) trait Pipe: Into<OwnedFd> + Send + 'static {}
impl<T: Into<OwnedFd> + Send + 'static> Pipe for T {}

/// The one thread that reads pipes; ends when dropped, pipes it still reads are closed then.
#[derive(Debug)]
pub(crate) struct PipeReader {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    events: Events,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    open: HashMap<u64, Arc<Slot>>,
}

/// One pipe; empty once it is at its end.
#[derive(Debug)]
struct Slot {
    token: u64,
    reading: Mutex<Option<Reading>>,
}

#[derive(Debug)]
struct Reading {
    pipe: OwnedFd,
    take: Box<dyn Take>,
}

/// A pipe that is being read.
#[derive(Debug)]
pub(crate) struct PipeHandle {
    slot: Arc<Slot>,
    shared: Weak<Shared>,
}

impl PipeReader {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared { events: Events::new(END)?, slots: Mutex::default() });
        let reading = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("supervisor-capture".to_owned())
            .spawn(move || reading.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Reads a pipe to its end into `take`.
    ///
    /// # Errors
    /// What the system said; the pipe is closed, so the service sees a closed pipe and not a stall.
    pub(crate) fn add(&self, pipe: impl Pipe, take: Box<dyn Take>) -> io::Result<PipeHandle> {
        let pipe = pipe.into();
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let mut slots = self.shared.slots();
        let token = slots.next;
        slots.next += 1;
        self.shared.events.add(&pipe, token)?;
        let reading = Mutex::new(Some(Reading { pipe, take }));
        let slot = Arc::new(Slot { token, reading });
        slots.open.insert(token, Arc::clone(&slot));
        Ok(PipeHandle { slot, shared: Arc::downgrade(&self.shared) })
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.shared.events.wake(END);
        if let Some(thread) = self.thread.take() {
            // Joined so that nothing writes to a log after its owner is gone; the thread wakes at once.
            drop(thread.join());
        }
        let left: Vec<_> = self.shared.slots().open.values().cloned().collect();
        for slot in left {
            self.shared.close(&slot, &mut slot.lock());
        }
    }
}

impl PipeHandle {
    /// Reads what is in the pipe now, up to a bound, so that the last words of a run that ended are kept when this
    /// returns; somebody else who holds the pipe open is not waited for.
    pub(crate) async fn last_words(&self, _limit: Duration) {
        self.read_now();
    }

    fn read_now(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut buffer = [0; LAST_READ];
        let mut left = LAST_MAX;
        let mut reading = self.slot.lock();
        while left > 0 {
            match shared.read_once(&self.slot, &mut reading, &mut buffer) {
                0 => return,
                read => left = left.saturating_sub(read),
            }
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Reading>> {
        // A panic of whoever takes the bytes leaves a pipe that is read on.
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut buffer = vec![0; READ_MAX];
        let mut ready = Vec::with_capacity(EVENTS_MAX);
        loop {
            if let Err(error) = self.events.wait(EVENTS_MAX, &mut ready) {
                // Nothing but a broken descriptor is left; reading on is impossible.
                return tracing::error!(%error, "output is not captured any more");
            }
            for &token in &ready {
                if token == END {
                    return;
                }
                let slot = self.slots().open.get(&token).cloned();
                // One read for each, so that a flood of one service takes turns with the others.
                if let Some(slot) = slot {
                    self.read_once(&slot, &mut slot.lock(), &mut buffer);
                }
            }
        }
    }

    /// Reads once without waiting and gives how much; nothing also at the end, where the pipe is closed.
    fn read_once(&self, slot: &Slot, reading: &mut Option<Reading>, buffer: &mut [u8]) -> usize {
        loop {
            let Some(open) = reading.as_mut() else { return 0 };
            match rustix::io::read(&open.pipe, &mut *buffer) {
                Ok(0) => self.close(slot, reading),
                Ok(read) => {
                    open.take.chunk(&buffer[..read]);
                    return read;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return 0,
                Err(error) => {
                    tracing::debug!(%error, "reading a service's output ended");
                    self.close(slot, reading);
                }
            }
        }
    }

    fn close(&self, slot: &Slot, reading: &mut Option<Reading>) {
        let Some(mut open) = reading.take() else { return };
        open.take.end();
        // Taken out before it is closed: a child being started may hold a copy for a moment, and then the set would
        // go on telling of it.
        self.events.remove(&open.pipe);
        self.slots().open.remove(&slot.token);
    }
}
