//! Who is woken for a channel, and who reads.
//!
//! When there is something to read, somebody who waits for an outcome is woken beside the driver and reads it himself, if he
//! comes first, which spares a turn of the scheduler on the way. The driver then finds nothing left to do, and it does not
//! matter whether who waits is ever polled again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;

use super::Task;

/// Wakes the driver for anything but something to read.
#[derive(Debug)]
pub(crate) struct Driver {
    waker: AtomicWaker,
    due: AtomicBool,
}

impl Wake for Driver {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.due.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// Is rung when there may be something to read.
#[derive(Debug)]
pub(crate) struct Bell {
    pub(crate) driver: Arc<Driver>,
    unread: AtomicBool,
    /// One of those who wait for an outcome, with a name of its own; the others are told the outcome only.
    listener: Mutex<Option<(usize, Waker)>>,
    task: OnceLock<Weak<Mutex<Task>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.unread.store(true, Ordering::Release);
        let listener = self.listener().take();
        self.driver.waker.wake();
        // Last: a worker of a runtime with several runs first whom it woke last, and leaves the driver to another one, so
        // that the outcome waits for no other core to wake up.
        if let Some((_, listener)) = listener {
            listener.wake();
        }
    }
}

impl Bell {
    pub(crate) fn new() -> Arc<Self> {
        let driver = Driver { waker: AtomicWaker::new(), due: AtomicBool::new(true) };
        Arc::new(Self {
            driver: Arc::new(driver),
            unread: AtomicBool::new(false),
            listener: Mutex::new(None),
            task: OnceLock::new(),
        })
    }

    /// Says whose bell it is, once.
    pub(crate) fn belongs_to(&self, task: &Arc<Mutex<Task>>) {
        drop(self.task.set(Arc::downgrade(task)));
    }

    /// Takes note of where the driver is woken; tells whether there is anything to do for it.
    pub(super) fn begin(&self, waker: &Waker) -> bool {
        self.driver.waker.register(waker);
        let due = self.driver.due.swap(false, Ordering::AcqRel);
        due || self.unread.load(Ordering::Acquire)
    }

    /// What rings from now on is news for whoever reads now.
    pub(super) fn heard(&self) {
        self.unread.store(false, Ordering::Release);
    }

    fn listener(&self) -> MutexGuard<'_, Option<(usize, Waker)>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what there is, unless somebody is at it.
    fn read(self: &Arc<Self>) {
        let Some(task) = self.task.get().and_then(Weak::upgrade) else { return };
        let mut locked = match task.try_lock() {
            Ok(locked) => locked,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let waker = Waker::from(Arc::clone(self));
        let settled = locked.read(&mut Context::from_waker(&waker));
        drop(locked);
        for (promise, outcome) in settled {
            promise.settle(outcome);
        }
    }
}

/// Somebody who waits for an outcome; dropped, it listens no more.
#[derive(Debug)]
pub(crate) struct Listener<'a> {
    bell: &'a Arc<Bell>,
    name: usize,
    listens: bool,
}

impl<'a> Listener<'a> {
    /// `name` is no other listener's.
    pub(crate) const fn new(bell: &'a Arc<Bell>, name: usize) -> Self {
        Self { bell, name, listens: false }
    }

    fn is_me(&self, listener: Option<&(usize, Waker)>) -> bool {
        listener.is_some_and(|(name, _)| *name == self.name)
    }

    /// Reads if the bell rang for this one.
    pub(crate) fn look(&mut self) {
        if std::mem::take(&mut self.listens) {
            let listener = self.bell.listener();
            self.listens = self.is_me(listener.as_ref());
            drop(listener);
            if !self.listens {
                self.bell.read();
            }
        }
    }

    /// Listens to the bell, unless another one does.
    pub(crate) fn listen(&mut self, waker: &Waker) {
        let mut listener = self.bell.listener();
        match &mut *listener {
            Some((name, known)) if *name == self.name => known.clone_from(waker),
            Some(_) => return,
            none => *none = Some((self.name, waker.clone())),
        }
        self.listens = true;
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        if self.listens {
            let mut listener = self.bell.listener();
            if self.is_me(listener.as_ref()) {
                *listener = None;
            }
        }
    }
}
