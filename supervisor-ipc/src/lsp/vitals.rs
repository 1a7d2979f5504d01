//! Telling a silent server from a dead one.

use std::time::Duration;

use supervisor_core::Monotonic;

use super::options::LspOptions;
use crate::relay::Id;

/// Signs of life of one server.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// Since when something is owed: the later of the first unanswered write and the last sign of life.
    since: Option<Monotonic>,
    next: Option<Monotonic>,
    misses: u32,
    probe: Option<Id>,
    busy: bool,
    stopped: bool,
}

/// What a look at the clock asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// Ask for a sign of life; `look` also at what its set does.
    Probe {
        /// Look at the processor, too.
        look: bool,
    },
    /// It is dead.
    Dead(Duration),
}

impl Vitals {
    /// Something was written to the server.
    pub(crate) fn written(&mut self, now: Monotonic, options: &LspOptions) {
        if self.since.is_none() {
            self.since = Some(now);
            self.next = Some(now + options.probe_after);
        }
    }

    /// The server said something. What it still owes is owed from now on, and has to be said again.
    pub(crate) fn heard(&mut self) {
        let probe = self.probe.take();
        *self = Self { probe, ..Self::default() };
    }

    /// Takes the answer to a probe.
    pub(crate) fn answered(&mut self, id: &Id) -> bool {
        let ours = self.probe.as_ref() == Some(id);
        if ours {
            self.probe = None;
        }
        ours
    }

    /// This process stood still, so nothing that was owed meanwhile counts.
    pub(crate) fn forgive(&mut self, now: Monotonic, options: &LspOptions) {
        if self.since.is_some() {
            (self.since, self.misses) = (Some(now), 0);
            self.next = Some(now + options.probe_after);
        }
    }

    pub(crate) const fn seen(&mut self, busy: bool, stopped: bool) {
        (self.busy, self.stopped) = (busy, stopped);
    }

    pub(crate) const fn busy(&self) -> bool {
        self.busy
    }

    pub(crate) const fn deadline(&self) -> Option<Monotonic> {
        self.next
    }

    pub(crate) const fn suspect(&self, options: &LspOptions) -> bool {
        // One that is stopped is dead by the second miss.
        self.misses >= options.misses || (self.stopped && self.misses > 0)
    }

    pub(crate) fn probing(&mut self, id: Id) {
        self.probe = Some(id);
    }

    /// Judges the silence; `patient` when the server said that it would take long.
    pub(crate) fn look(&mut self, now: Monotonic, patient: bool, options: &LspOptions) -> Verdict {
        let (Some(since), Some(next)) = (self.since, self.next) else {
            return Verdict::Fine;
        };
        if now < next {
            return Verdict::Fine;
        }
        let silence = now.since(since);
        if self.probe.is_some() {
            self.misses = self.misses.saturating_add(1);
        }
        let limit = if self.stopped && self.misses > 0 {
            options.silence_stopped
        } else if self.busy || patient {
            options.silence_busy
        } else {
            options.silence_idle
        };
        if silence >= limit {
            // Said again if nothing came of it.
            self.next = Some(now + options.probe_after);
            return Verdict::Dead(silence);
        }
        self.next = Some(now + options.probe_after.min(limit.saturating_sub(silence)));
        Verdict::Probe { look: self.misses > 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_secs(secs))
    }

    fn silent_until(busy: bool, stopped: bool, patient: bool) -> u64 {
        let options = LspOptions::default();
        let mut vitals = Vitals::default();
        vitals.written(at(0), &options);
        loop {
            let now = vitals.deadline().unwrap();
            match vitals.look(now, patient, &options) {
                Verdict::Dead(_) => return now.since_origin().as_secs(),
                Verdict::Probe { look } => {
                    vitals.probing(Id::number(1));
                    if look {
                        vitals.seen(busy, stopped);
                    }
                }
                Verdict::Fine => panic!("a deadline without a verdict"),
            }
        }
    }

    #[test]
    fn silence_is_judged_by_what_the_server_does_meanwhile() {
        assert_eq!(silent_until(false, false, false), 60);
        assert_eq!(silent_until(true, false, false), 300);
        assert_eq!(silent_until(false, false, true), 300);
        assert_eq!(silent_until(false, true, false), 30);
    }

    #[test]
    fn a_sign_of_life_ends_suspicion_and_nothing_owed_means_nothing_asked() {
        let options = LspOptions::default();
        let mut vitals = Vitals::default();
        vitals.written(at(0), &options);
        for now in [10, 20, 30] {
            assert!(!vitals.suspect(&options));
            assert!(matches!(vitals.look(at(now), false, &options), Verdict::Probe { .. }));
            vitals.probing(Id::number(1));
        }
        assert!(vitals.suspect(&options));
        vitals.heard();
        assert!(!vitals.suspect(&options));
        assert_eq!(vitals.deadline(), None);
    }
    #[test]
    fn a_server_that_is_stopped_is_suspect_from_the_first_sign_it_does_not_give() {
        let options = LspOptions::default();
        let mut vitals = Vitals::default();
        vitals.written(at(0), &options);
        for (now, suspect) in [(10, false), (20, true)] {
            assert!(matches!(vitals.look(at(now), false, &options), Verdict::Probe { .. }));
            vitals.probing(Id::number(1));
            vitals.seen(false, true);
            assert_eq!(vitals.suspect(&options), suspect, "after {now} s");
        }
        assert!(matches!(vitals.look(at(30), false, &options), Verdict::Dead(_)));
    }
}
