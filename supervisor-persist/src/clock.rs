//! The system's clock and randomness, for a store that is given none.

use std::time::{Instant, SystemTime};

use chrono::{DateTime, Utc};
use supervisor_core::Monotonic;
use supervisor_core::ports::{Clock, Entropy};

/// The system's clocks.
#[derive(Debug)]
pub(crate) struct StdClock(pub(crate) Instant);

impl Clock for StdClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic::from_origin(self.0.elapsed())
    }

    fn wall(&self) -> DateTime<Utc> {
        SystemTime::now().into()
    }
}

/// The system's randomness, seeded once per thread.
#[derive(Debug)]
pub(crate) struct StdEntropy;

impl Entropy for StdEntropy {
    fn next_u64(&self) -> u64 {
        fastrand::u64(..)
    }
}
