//! How many restarts a service had lately, and how far apart they are spaced beyond the limit.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Monotonic;

/// Spacing of the first restart beyond the intensity under `slow`.
pub const SLOW_DELAY_BASE: Duration = Duration::from_secs(1);
/// Longest spacing beyond the intensity under `slow`.
pub const SLOW_DELAY_MAX: Duration = Duration::from_secs(30);

/// Gives the spacing of the `n`-th restart (from 0) beyond the intensity.
#[must_use]
pub fn slow_delay(n: u32) -> Duration {
    SLOW_DELAY_BASE.saturating_mul(1_u32.checked_shl(n).unwrap_or(u32::MAX)).min(SLOW_DELAY_MAX)
}

/// The restarts of one service that still count against its restart intensity.
///
/// **Invariant:** holds at most `max + 1` points, so its memory is bounded by configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntensityWindow {
    max: usize,
    window: Duration,
    restarts: VecDeque<Monotonic>,
}

impl IntensityWindow {
    /// Makes an empty window that allows `max` restarts in any stretch of `window`.
    #[must_use]
    pub fn new(max: u32, window: Duration) -> Self {
        Self { max: max as usize, window, restarts: VecDeque::new() }
    }

    /// Tells whether one more restart at `now` would exceed the limit.
    #[must_use]
    pub fn is_full(&mut self, now: Monotonic) -> bool {
        self.forget(now);
        self.restarts.len() >= self.max
    }

    /// Notes a restart.
    pub fn note(&mut self, now: Monotonic) {
        self.forget(now);
        self.restarts.push_back(now);
        // Under `slow` restarts go on past the limit; only the newest decide whether the next is past it too.
        while self.restarts.len() > self.max + 1 {
            self.restarts.pop_front();
        }
    }

    /// Takes the newest restart back: it came to nothing, and not through the service's fault.
    pub fn take_back(&mut self) {
        self.restarts.pop_back();
    }

    /// Forgets everything, as a manual start does.
    pub fn clear(&mut self) {
        self.restarts.clear();
    }

    /// Gives the restarts that still count, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Monotonic> + '_ {
        self.restarts.iter().copied()
    }

    fn forget(&mut self, now: Monotonic) {
        while self.restarts.front().is_some_and(|at| now.since(*at) >= self.window) {
            self.restarts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_secs(secs))
    }

    #[test]
    fn the_window_is_full_until_its_oldest_restart_leaves_it() {
        let mut window = IntensityWindow::new(2, Duration::from_secs(10));
        window.note(at(0));
        assert!(!window.is_full(at(1)));
        window.note(at(1));
        assert!(window.is_full(at(9)));
        assert!(!window.is_full(at(10)));
    }

    #[test]
    fn slow_spacing_doubles_to_its_cap() {
        let spacing: Vec<_> = (0..7).map(|n| slow_delay(n).as_secs()).collect();
        assert_eq!(spacing, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(slow_delay(u32::MAX), SLOW_DELAY_MAX);
    }
}
