//! One set in the guardian's hands: its leader, its pipes, how it ended.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use supervisor_core::config::HostDeathPolicy;
use supervisor_core::exit::{ExitStatus, LAST_LINES_MAX};
use supervisor_core::{Incarnation, ServiceId};

use super::super::protocol::{Exit, Held, Reply, RequestId, SetId};
use super::output::Source;
use crate::capture::Output;

/// First pause between two looks at a set that is being killed; doubles.
const LOOK_MIN: Duration = Duration::from_micros(500);
/// Longest pause between two looks while somebody waits.
const LOOK_MAX: Duration = Duration::from_millis(50);
/// Longest pause between two looks at what a kill did not end and nobody waits for.
const LOOK_MAX_ALONE: Duration = Duration::from_secs(1);

/// One run of a service and whatever it started.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) id: SetId,
    pub(super) service: ServiceId,
    pub(super) incarnation: Incarnation,
    pub(super) policy: HostDeathPolicy,
    pub(super) leader: u32,
    pub(super) start_time: u64,
    /// Readable once the leader has ended; closed then.
    pub(super) end: Option<OwnedFd>,
    pub(super) output: Output,
    /// Standard output and error, as far as they are read here and not at their end.
    pub(super) sources: [Option<Source>; 2],
    /// Our copies of a channel's pipes, kept for the next host of a set that outlives this one.
    pub(super) channel: Option<[OwnedFd; 2]>,
    pub(super) status: Option<ExitStatus>,
    /// Nothing of it is left, and the leader is reaped.
    pub(super) emptied: bool,
    pub(super) told_exit: bool,
    pub(super) told_emptied: bool,
    pub(super) kill: Option<Kill>,
    /// Nobody wants to know of it once it is empty.
    pub(super) forget: bool,
}

/// A kill under way.
#[derive(Debug, Clone)]
pub(super) struct Kill {
    /// Who waits for it, and until when.
    pub(super) asked: Vec<(RequestId, Instant)>,
    pub(super) killed: u32,
    /// The group was killed once; whatever is left after a moment is looked for everywhere.
    pub(super) begun: bool,
    pub(super) next_look: Instant,
    pause: Duration,
}

impl Kill {
    pub(super) fn new(now: Instant) -> Self {
        Self { asked: Vec::new(), killed: 0, begun: false, next_look: now, pause: LOOK_MIN }
    }

    /// Sets when to look again.
    pub(super) fn looked(&mut self, now: Instant) {
        self.next_look = now + self.pause;
        let longest = if self.asked.is_empty() { LOOK_MAX_ALONE } else { LOOK_MAX };
        self.pause = (self.pause * 2).min(longest);
    }
}

impl Set {
    /// What there is to tell of its end.
    pub(super) fn exit(&self) -> Option<Exit> {
        let status = self.status?;
        Some(Exit { status, empty: self.emptied, lines: self.output.last_lines(LAST_LINES_MAX) })
    }

    /// What the next host is told.
    pub(super) fn held(&self) -> Held {
        Held {
            set: self.id,
            service: self.service.clone(),
            incarnation: self.incarnation,
            policy: self.policy,
            pid: self.leader,
            start_time: self.start_time,
            channel: self.channel.is_some(),
            exit: self.exit(),
        }
    }

    /// Whether anything of it may be alive.
    pub(super) const fn may_live(&self) -> bool {
        self.status.is_none() || !self.emptied
    }
}

/// Names sets; their last words are left out where a frame does not hold them.
pub(super) fn named(sets: Vec<Held>) -> Reply {
    let whole = Reply::Sets(sets);
    if whole.encode(0).is_some() {
        return whole;
    }
    let Reply::Sets(mut sets) = whole else { return whole };
    for exit in sets.iter_mut().filter_map(|held| held.exit.as_mut()) {
        exit.lines.clear();
    }
    Reply::Sets(sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_sets_as_there_may_be_are_named_in_one_frame_whatever_their_last_words() {
        let lines = vec!["\u{1f600}".repeat(400); LAST_LINES_MAX];
        let exit = Exit { status: ExitStatus::Signal(9), empty: true, lines };
        let held = Held {
            set: 1,
            service: ServiceId::new("x".repeat(64)).unwrap(),
            incarnation: Incarnation(u64::MAX),
            policy: HostDeathPolicy::Outlive,
            pid: 42,
            start_time: 99,
            channel: true,
            exit: Some(exit),
        };
        let few = vec![held.clone(); 3];
        assert_eq!(named(few.clone()), Reply::Sets(few), "they fit with their last words");
        let all = named(vec![held; super::super::SETS_MAX]);
        assert!(all.encode(1).is_some());
        let Reply::Sets(sets) = all else { panic!("{all:?}") };
        assert_eq!(sets.len(), super::super::SETS_MAX);
        assert!(sets.iter().all(|held| held.exit.as_ref().is_some_and(|it| it.lines.is_empty())));
    }
}
