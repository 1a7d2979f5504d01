//! What all channels of a monitor hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One channel's part of the bytes that a monitor buffers.
#[derive(Debug)]
pub(crate) struct Share {
    all: Arc<AtomicUsize>,
    mine: usize,
}

impl Share {
    pub(crate) const fn new(all: Arc<AtomicUsize>) -> Self {
        Self { all, mine: 0 }
    }

    /// Gives what the others hold, exact but for messages accepted at this very moment.
    pub(crate) fn elsewhere(&self) -> usize {
        // Relaxed: a bound that is a few messages late is still a bound, and nothing else hangs on it.
        self.all.load(Ordering::Relaxed).saturating_sub(self.mine)
    }

    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes >= self.mine {
            self.all.fetch_add(bytes - self.mine, Ordering::Relaxed);
        } else {
            self.all.fetch_sub(self.mine - bytes, Ordering::Relaxed);
        }
        self.mine = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}
