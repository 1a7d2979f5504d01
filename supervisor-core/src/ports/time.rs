//! Where time and randomness come from.

use chrono::{DateTime, Utc};

use crate::Monotonic;

/// Tells the time: a monotonic clock for decisions, a wall clock for people.
///
/// Promise: [`monotonic`](Self::monotonic) never goes back. The wall clock may jump; nothing is ever
/// ordered or expired by it.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Gives the monotonic time. Time spent in system suspend does not count.
    fn monotonic(&self) -> Monotonic;

    /// Gives the wall-clock time.
    fn wall(&self) -> DateTime<Utc>;

    /// Gives a monotonic time that goes on counting in system suspend, where the system has one.
    ///
    /// A suspend shows as this one having advanced further than [`monotonic`](Self::monotonic).
    fn since_boot(&self) -> Monotonic {
        self.monotonic()
    }
}

/// Gives random numbers, for jitter and for ids; not for secrets.
///
/// Promise: a seeded implementation gives the same numbers again.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
pub trait Entropy: Send + Sync + std::fmt::Debug {
    /// Gives the next 64 random bits.
    fn next_u64(&self) -> u64;
}
