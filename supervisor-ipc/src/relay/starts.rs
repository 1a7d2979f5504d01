//! How long starts of a server take, and what that means for those who wait for one.

use std::time::Duration;

use supervisor_core::Monotonic;

/// Starts, as long as the slowest that succeeded, that are waited for.
const MARGIN: u32 = 2;
/// Longest time anybody waits for the sake of a slow start.
const LONGEST: Duration = Duration::from_secs(300);

/// The slowest start that succeeded, and the one on its way.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    since: Option<Monotonic>,
    slowest: Duration,
}

impl Starts {
    /// A server is given its handshake.
    pub(crate) const fn began(&mut self, now: Monotonic) {
        self.since = Some(now);
    }

    /// It has the client's state and answers.
    pub(crate) fn done(&mut self, now: Monotonic) {
        if let Some(since) = self.since.take() {
            self.slowest = self.slowest.max(now.since(since));
        }
    }

    /// This process stood still: how long the start on its way takes is not known.
    pub(crate) const fn stood_still(&mut self) {
        self.since = None;
    }

    /// Gives how long a start is waited for: as usual, or longer if this server needs it.
    pub(crate) fn patience(&self, usual: Duration) -> Duration {
        usual.max(self.slowest.saturating_mul(MARGIN).min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_start_is_waited_for_twice_as_long_and_no_longer_than_five_minutes() {
        let secs = Duration::from_secs;
        let at = |seconds| Monotonic::from_origin(secs(seconds));
        let mut starts = Starts::default();
        assert_eq!(starts.patience(secs(30)), secs(30));
        for (began, done, patience) in [(0, 10, 30), (20, 60, 80), (70, 75, 80), (80, 480, 300)] {
            starts.began(at(began));
            starts.done(at(done));
            assert_eq!(starts.patience(secs(30)), secs(patience), "{began}");
        }
        let mut starts = Starts::default();
        starts.began(at(0));
        starts.stood_still();
        starts.done(at(30_000));
        assert_eq!(starts.patience(secs(30)), secs(30), "a sleeping host is no slow server");
    }
}
