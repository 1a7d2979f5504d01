//! Time that passes when it is told to, and randomness that repeats itself.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::Monotonic;
use crate::policy::SplitMix;
use crate::ports::{Clock, Entropy};

/// A clock that stands still until it is advanced.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<(Monotonic, DateTime<Utc>)>,
}

impl ManualClock {
    /// Makes a clock at its origin that shows `wall`.
    #[must_use]
    pub fn new(wall: DateTime<Utc>) -> Self {
        Self { now: Mutex::new((Monotonic::ZERO, wall)) }
    }

    /// Lets both clocks advance.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.0 = now.0 + by;
        now.1 =
            now.1.checked_add_signed(TimeDelta::from_std(by).unwrap_or_default()).unwrap_or(now.1);
    }

    /// Sets the wall clock, backwards too; the monotonic one does not notice.
    pub fn set_wall(&self, wall: DateTime<Utc>) {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).1 = wall;
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Monotonic {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn wall(&self) -> DateTime<Utc> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// Random numbers that are the same for the same seed.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<SplitMix>);

impl SeededEntropy {
    /// Starts the stream of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(Mutex::new(SplitMix::new(seed)))
    }
}

impl Entropy for SeededEntropy {
    fn next_u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }
}
