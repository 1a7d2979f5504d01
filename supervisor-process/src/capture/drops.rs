//! What of a service's output is not kept: counted for good, told once a run.

use std::fmt;
use std::sync::{Arc, OnceLock};

use supervisor_core::status::DroppedOutput;
use supervisor_core::{Incarnation, ServiceId};

/// Why output is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropCause {
    /// It comes faster than it may.
    Rate = 0,
    /// A line is too long.
    Line = 1,
    /// It cannot be written.
    Unwritten = 2,
}

impl DropCause {
    pub(crate) const ALL: [Self; 3] = [Self::Rate, Self::Line, Self::Unwritten];

    /// Says what is happening, for people.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Rate => {
                "its output is beyond capture.max_rate: the lines above it are dropped and counted"
            }
            Self::Line => {
                "a line of its output was longer than capture.max_line: the rest of it was dropped and counted"
            }
            Self::Unwritten => {
                "its output cannot be written, for lack of room or otherwise: lines are lost and counted"
            }
        }
    }
}

/// The counts of one service, and what was told of the run under way.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) counts: DroppedOutput,
    told: [bool; DropCause::ALL.len()],
}

impl Tally {
    /// Begins a run: what is dropped of it is told anew.
    pub(super) const fn begin_run(&mut self) {
        self.told = [false; DropCause::ALL.len()];
    }

    /// Takes the counts as they are now, and gives what there is to tell for the first time.
    pub(super) fn advance(
        &mut self,
        now: DroppedOutput,
    ) -> impl Iterator<Item = DropCause> + use<> {
        let before = std::mem::replace(&mut self.counts, now);
        let grown = [
            now.rate_lines > before.rate_lines,
            now.cut_lines > before.cut_lines,
            now.unwritten_lines > before.unwritten_lines,
        ];
        let told = self.told;
        for (told, grown) in self.told.iter_mut().zip(grown) {
            *told |= grown;
        }
        DropCause::ALL.into_iter().filter(move |cause| {
            let cause = *cause as usize;
            grown[cause] && !told[cause]
        })
    }
}

/// What hears of it.
type Listener = dyn Fn(&ServiceId, Incarnation, DropCause) + Send + Sync;

/// Whoever wants to hear when output of a run begins to be dropped; nobody until it is set, once.
#[derive(Clone, Default)]
pub(crate) struct DropWatch(Arc<OnceLock<Box<Listener>>>);

impl DropWatch {
    pub(crate) fn set(
        &self,
        listener: impl Fn(&ServiceId, Incarnation, DropCause) + Send + Sync + 'static,
    ) {
        // Whoever came first goes on listening.
        drop(self.0.set(Box::new(listener)));
    }

    pub(crate) fn tell(&self, service: &ServiceId, incarnation: Incarnation, cause: DropCause) {
        if let Some(listener) = self.0.get() {
            listener(service, incarnation, cause);
        }
    }
}

impl fmt::Debug for DropWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DropWatch").field(&self.0.get().is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_to_be_dropped_is_told_once_a_run_for_each_cause() {
        let mut tally = Tally::default();
        let mut now = DroppedOutput::default();
        let mut told = |tally: &mut Tally, change: fn(&mut DroppedOutput)| {
            change(&mut now);
            tally.advance(now).collect::<Vec<_>>()
        };
        assert_eq!(told(&mut tally, |_| {}), []);
        assert_eq!(told(&mut tally, |now| now.rate_lines += 1), [DropCause::Rate]);
        assert_eq!(told(&mut tally, |now| now.rate_lines += 1), []);
        assert_eq!(told(&mut tally, |now| now.aged_bytes += 1), [], "the oldest may go");
        assert_eq!(
            told(&mut tally, |now| {
                now.cut_lines += 1;
                now.unwritten_lines += 1;
            }),
            [DropCause::Line, DropCause::Unwritten]
        );
        tally.begin_run();
        assert_eq!(told(&mut tally, |now| now.rate_lines += 1), [DropCause::Rate]);
        assert_eq!(tally.counts.rate_lines, 3, "the counts go on");
    }
}
