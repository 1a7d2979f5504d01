//! Deadlines as data: one per kind, arming replaces.

use crate::Monotonic;

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Timer {
    /// The service must have passed its startup probes.
    Startup,
    /// The next step of a stop.
    StopStep,
    /// The next try to get rid of what survived a kill.
    KillRetry,
    /// The restart is due.
    Backoff,
    /// The service has been ready long enough to count as stable.
    Stable,
    /// One more try after giving up.
    HalfOpen,
    /// The answer whether a hang is believable must have come.
    Weigh,
    /// A service whose channel ended must have ended, too.
    Channel,
}

impl Timer {
    const ALL: [Self; 8] = [
        Self::Startup,
        Self::StopStep,
        Self::KillRetry,
        Self::Backoff,
        Self::Stable,
        Self::HalfOpen,
        Self::Weigh,
        Self::Channel,
    ];
}

/// The deadlines of one service, its probes' aside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TimerTable([Option<Monotonic>; Timer::ALL.len()]);

impl TimerTable {
    pub(super) fn arm(&mut self, timer: Timer, at: Monotonic) {
        self.0[timer as usize] = Some(at);
    }

    pub(super) fn disarm(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) fn clear(&mut self) {
        self.0 = Default::default();
    }

    pub(super) fn get(&self, timer: Timer) -> Option<Monotonic> {
        self.0[timer as usize]
    }

    pub(super) fn earliest(&self) -> Option<Monotonic> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one deadline that has passed, the earliest first.
    pub(super) fn take_due(&mut self, now: Monotonic) -> Option<Timer> {
        let due = Timer::ALL
            .into_iter()
            .filter_map(|timer| self.get(timer).map(|at| (at, timer)))
            .filter(|(at, _)| *at <= now)
            .min_by_key(|(at, _)| *at)?;
        self.disarm(due.1);
        Some(due.1)
    }
}
