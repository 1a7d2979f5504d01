//! What the store can do at the moment, as a pure machine: faults and successes go in with the time, out come whether
//! to commit, to hold or to refuse, and when to try to return.

use std::time::Duration;

/// Pause before the first try to return; each failed one doubles it.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two tries.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What a store can do at the moment. It leaves every mode but the first by itself, without a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StorageMode {
    /// Everything.
    Normal,
    /// The disk is full: reads work, writes are held for a moment and then refused with
    /// [`DatabaseError::DiskFull`](supervisor_core::error::DatabaseError::DiskFull). Ends once the reserve file fits again.
    DiskFull,
    /// A sync or a write failed: nothing more is acknowledged on that connection. It is being opened anew and proven;
    /// writes are held and repeated afterwards.
    Reopening,
    /// Opening anew did not help so far: reads may work, writes are refused. Tried again every few seconds.
    Degraded,
}

impl StorageMode {
    /// Gives the stable word for it: `normal`, `disk_full`, `reopening`, `storage_degraded`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::DiskFull => "disk_full",
            Self::Reopening => "reopening",
            Self::Degraded => "storage_degraded",
        }
    }
}

impl std::fmt::Display for StorageMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of a store's storage, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageStatus {
    /// What it can do.
    pub mode: StorageMode,
    /// Why, and the way back; for people.
    pub reason: String,
    /// Whether the write-ahead log is larger than its alarm threshold, usually because a reader pins it.
    pub wal_alarm: bool,
}

/// What went wrong with a group of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There was no space; the group was rolled back.
    Full,
    /// The connection cannot be trusted any more, and perhaps the group was committed.
    Broken,
    /// The file is damaged.
    Corrupt,
}

/// What to do with a write now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Commit,
    Hold,
    Refuse,
}

/// The machine. Times count from any fixed moment.
#[derive(Debug)]
pub(crate) struct Machine {
    mode: StorageMode,
    since: Duration,
    next_try: Duration,
    pause: Duration,
    /// How long writes are held before they are refused.
    hold: Duration,
}

impl Machine {
    pub(crate) const fn new(hold: Duration) -> Self {
        Self {
            mode: StorageMode::Normal,
            since: Duration::ZERO,
            next_try: Duration::ZERO,
            pause: RETRY_MIN,
            hold,
        }
    }

    pub(crate) const fn mode(&self) -> StorageMode {
        self.mode
    }

    /// A group of writes failed. The first try to return is due at once.
    pub(crate) fn failed(&mut self, now: Duration, fault: Fault) {
        let next = match (self.mode, fault) {
            (_, Fault::Corrupt) | (StorageMode::Degraded, _) => StorageMode::Degraded,
            (StorageMode::Reopening, _) | (_, Fault::Broken) => StorageMode::Reopening,
            (_, Fault::Full) => StorageMode::DiskFull,
        };
        if self.mode == StorageMode::Normal {
            self.since = now;
            self.pause = RETRY_MIN;
            self.next_try = now;
        }
        self.mode = next;
    }

    /// A try to return failed.
    pub(crate) fn still_failing(&mut self, now: Duration, fault: Fault) {
        self.failed(now, fault);
        self.next_try = now.saturating_add(self.pause);
        self.pause = self.pause.saturating_mul(2).min(RETRY_MAX);
        self.tick(now);
    }

    /// A try to return succeeded.
    pub(crate) const fn returned(&mut self) {
        self.mode = StorageMode::Normal;
    }

    /// Time passes: what could not be opened anew for as long as writes are held is degraded.
    pub(crate) fn tick(&mut self, now: Duration) {
        if self.mode == StorageMode::Reopening && now >= self.patience_ends() {
            self.mode = StorageMode::Degraded;
        }
    }

    /// Tells what to do with writes.
    pub(crate) fn admission(&self, now: Duration) -> Admission {
        match self.mode {
            StorageMode::Normal => Admission::Commit,
            StorageMode::DiskFull | StorageMode::Reopening if now < self.patience_ends() => {
                Admission::Hold
            }
            _ => Admission::Refuse,
        }
    }

    /// Tells whether a try to return is due.
    pub(crate) fn try_due(&self, now: Duration) -> bool {
        self.mode != StorageMode::Normal && now >= self.next_try
    }

    /// Gives when something is due next, if nothing else happens.
    pub(crate) fn due(&self, now: Duration) -> Option<Duration> {
        let patience = (self.admission(now) == Admission::Hold).then(|| self.patience_ends());
        (self.mode != StorageMode::Normal)
            .then(|| patience.map_or(self.next_try, |end| end.min(self.next_try)))
    }

    const fn patience_ends(&self) -> Duration {
        self.since.saturating_add(self.hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(2);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_full_disk_holds_writes_then_refuses_them_and_stays_full_until_a_try_succeeds() {
        let mut machine = Machine::new(HOLD);
        assert_eq!(machine.admission(at(0)), Admission::Commit);
        machine.failed(at(1000), Fault::Full);
        assert_eq!((machine.mode(), machine.try_due(at(1000))), (StorageMode::DiskFull, true));
        machine.still_failing(at(1000), Fault::Full);
        assert_eq!(machine.admission(at(2999)), Admission::Hold);
        assert_eq!(machine.admission(at(3000)), Admission::Refuse);
        machine.tick(at(9000));
        assert_eq!(machine.mode(), StorageMode::DiskFull, "waiting does not make a disk worse");
        machine.returned();
        assert_eq!(machine.admission(at(9000)), Admission::Commit);
    }

    #[test]
    fn a_failed_sync_reopens_and_degrades_when_that_does_not_help_in_time() {
        let mut machine = Machine::new(HOLD);
        machine.failed(at(0), Fault::Broken);
        assert_eq!(machine.mode(), StorageMode::Reopening);
        machine.still_failing(at(10), Fault::Full);
        assert_eq!(machine.mode(), StorageMode::Reopening, "full while reopening is not less bad");
        machine.still_failing(at(2000), Fault::Broken);
        assert_eq!(machine.mode(), StorageMode::Degraded);
        assert_eq!(machine.admission(at(2001)), Admission::Refuse);
        machine.returned();
        assert_eq!(machine.mode(), StorageMode::Normal);
    }

    #[test]
    fn a_full_disk_that_also_fails_to_sync_is_reopened() {
        let mut machine = Machine::new(HOLD);
        machine.failed(at(0), Fault::Full);
        machine.still_failing(at(10), Fault::Broken);
        assert_eq!(machine.mode(), StorageMode::Reopening);
    }

    #[test]
    fn tries_become_rarer_up_to_a_bound_and_begin_anew_with_the_next_fault() {
        let mut machine = Machine::new(HOLD);
        machine.failed(at(0), Fault::Full);
        let mut now = at(0);
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            machine.still_failing(now, Fault::Full);
            let due = machine.next_try;
            longest = longest.max(due - now);
            now = due;
        }
        assert_eq!(longest, RETRY_MAX);
        machine.returned();
        machine.failed(now, Fault::Full);
        assert!(machine.try_due(now));
        machine.still_failing(now, Fault::Full);
        assert!(machine.try_due(now + RETRY_MIN));
    }

    #[test]
    fn something_is_due_in_every_mode_but_the_normal_one() {
        let mut machine = Machine::new(HOLD);
        assert_eq!(machine.due(at(5)), None);
        for fault in [Fault::Full, Fault::Broken, Fault::Corrupt] {
            machine.failed(at(5), fault);
            for now in [5, 2004, 2005, 99_999] {
                assert!(machine.due(at(now)).is_some(), "{fault:?} at {now}");
            }
        }
    }
}
