//! The system's clocks and randomness behind core's traits.

use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use supervisor_core::Monotonic;
use supervisor_core::ports::{Clock, Entropy};

use crate::os;

/// How far before its own start the origin of a clock lies.
///
/// A supervisor that takes over places restarts of the one before it on its own clock; without room before its start they
/// would all seem to have happened just now, and count against the restart intensity for a whole window again. No window
/// is longer than this.
const BEFORE: Duration = supervisor_core::text::DURATION_MAX;

/// The system's clocks.
///
/// # Platform
/// **Linux** and **macOS:** [`since_boot`](Clock::since_boot) counts system suspend (`CLOCK_BOOTTIME`, `CLOCK_MONOTONIC_RAW`).
/// Elsewhere it is the monotonic clock.
#[derive(Debug, Clone)]
pub struct SystemClock {
    origin: Instant,
    boot_origin: Duration,
}

impl SystemClock {
    /// Makes a clock whose origin is long before now, so that the past of an earlier supervisor has a place on it.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now(), boot_origin: os::since_boot() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic::from_origin(BEFORE + self.origin.elapsed())
    }

    fn wall(&self) -> DateTime<Utc> {
        SystemTime::now().into()
    }

    fn since_boot(&self) -> Monotonic {
        Monotonic::from_origin(os::since_boot().saturating_sub(self.boot_origin))
    }
}

/// Random numbers for jitter and ids, seeded by the system once per thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl SystemEntropy {
    /// Makes a source.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        fastrand::u64(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_of_the_supervisor_before_this_one_has_its_place_on_the_clock() {
        let now = SystemClock::new().monotonic();
        for ago in [Duration::from_secs(170), BEFORE] {
            assert_eq!(now.since(now - ago), ago);
        }
    }
}
