//! The system's clocks and randomness behind core's traits.

use std::time::{Instant, SystemTime};

use chrono::{DateTime, Utc};
use supervisor_core::Monotonic;
use supervisor_core::ports::{Clock, Entropy};

use crate::os;

/// The system's clocks.
///
/// # Platform
/// **Linux:** [`since_boot`](Clock::since_boot) counts system suspend (`CLOCK_BOOTTIME`). Elsewhere it is the monotonic clock.
#[derive(Debug, Clone)]
pub struct SystemClock {
    origin: Instant,
    boot_origin: std::time::Duration,
}

impl SystemClock {
    /// Makes a clock whose origin is now.
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
        Monotonic::from_origin(self.origin.elapsed())
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
