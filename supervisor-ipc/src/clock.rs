//! Time and randomness for a monitor that is given none; follows tokio's clock, so that tests can pause it.

use chrono::{DateTime, Utc};
use supervisor_core::Monotonic;
use supervisor_core::ports::{Clock, Entropy};
use tokio::time::Instant;

/// Tokio's clock.
#[derive(Debug)]
pub(crate) struct TokioClock(pub(crate) Instant);

impl Clock for TokioClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic::from_origin(self.0.elapsed())
    }

    fn wall(&self) -> DateTime<Utc> {
        std::time::SystemTime::now().into()
    }
}

/// The system's randomness.
#[derive(Debug)]
pub(crate) struct StdEntropy;

impl Entropy for StdEntropy {
    fn next_u64(&self) -> u64 {
        fastrand::u64(..)
    }
}
