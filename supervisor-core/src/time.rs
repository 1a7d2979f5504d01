//! Monotonic time as a plain value; core is told the time and never asks.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point on a clock that never goes back, counted from an origin its [`Clock`](crate::ports::Clock) chose.
///
/// Differences mean something only between values of the same clock in the same process; what must
/// survive a restart is stored as wall-clock time and converted on the way in.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// The origin of the clock.
    pub const ZERO: Self = Self(Duration::ZERO);
    /// A time that never comes.
    pub const MAX: Self = Self(Duration::MAX);

    /// Places a point `since_origin` after the origin.
    #[must_use]
    pub const fn from_origin(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// Gives the distance from the origin.
    #[must_use]
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// Gives the time passed since `earlier`, zero if `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl Sub<Duration> for Monotonic {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }
}
