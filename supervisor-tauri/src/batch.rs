//! The rule by which events become batches, as a pure machine: no clock, no task, no window.
//!
//! One script evaluated in a web page per event costs more than the event, so events are collected for one
//! tick and sent as one batch. Inputs are [`push`](Batcher::push), [`missed`](Batcher::missed) and
//! [`close`](Batcher::close); outputs are [`deadline`](Batcher::deadline) and [`poll`](Batcher::poll).

use std::collections::VecDeque;
use std::time::Duration;

use supervisor_core::Monotonic;

/// When a batch is sent and how large it may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchLimits {
    /// Time from the first event of a batch to its sending.
    pub(crate) tick: Duration,
    /// Most events in a batch.
    pub(crate) events_max: usize,
    /// Most bytes of events in a batch, as they are sent.
    pub(crate) bytes_max: usize,
}

/// What one tick sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch<T> {
    /// Oldest first.
    pub(crate) events: Vec<T>,
    /// Events that belong here and are not, because a bound was reached or the subscription lagged.
    pub(crate) missed: u64,
    /// No batch follows: the supervisor is gone.
    pub(crate) closed: bool,
}

/// Collects events for one tick.
///
/// **Invariant:** `bytes` is the sum over `events`, and both are within the limits. At a limit the oldest
/// event is dropped and counted: the newest says most about what is, and a snapshot heals the rest.
#[derive(Debug)]
pub(crate) struct Batcher<T> {
    limits: BatchLimits,
    events: VecDeque<(T, usize)>,
    bytes: usize,
    missed: u64,
    deadline: Option<Monotonic>,
    closed: bool,
}

impl<T> Batcher<T> {
    pub(crate) const fn new(limits: BatchLimits) -> Self {
        Self { limits, events: VecDeque::new(), bytes: 0, missed: 0, deadline: None, closed: false }
    }

    /// Takes an event that is `bytes` long when sent.
    pub(crate) fn push(&mut self, now: Monotonic, event: T, bytes: usize) {
        self.arm(now);
        if bytes > self.limits.bytes_max {
            self.missed = self.missed.saturating_add(1);
            return;
        }
        while self.events.len() >= self.limits.events_max
            || self.bytes + bytes > self.limits.bytes_max
        {
            let Some((_, freed)) = self.events.pop_front() else {
                break;
            };
            self.bytes -= freed;
            self.missed = self.missed.saturating_add(1);
        }
        self.events.push_back((event, bytes));
        self.bytes += bytes;
    }

    /// Takes the news that so many events never arrived.
    pub(crate) fn missed(&mut self, now: Monotonic, count: u64) {
        self.arm(now);
        self.missed = self.missed.saturating_add(count);
    }

    /// Takes the news that no event follows; what is waiting is due at once.
    pub(crate) fn close(&mut self, now: Monotonic) {
        self.deadline = Some(now);
        self.closed = true;
    }

    /// Says when [`poll`](Self::poll) has something; nothing while no event waits, so an idle host has no timer.
    pub(crate) const fn deadline(&self) -> Option<Monotonic> {
        self.deadline
    }

    /// Gives the batch that is due, if one is.
    pub(crate) fn poll(&mut self, now: Monotonic) -> Option<Batch<T>> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return None;
        }
        self.deadline = None;
        self.bytes = 0;
        Some(Batch {
            events: self.events.drain(..).map(|(event, _)| event).collect(),
            missed: std::mem::take(&mut self.missed),
            closed: self.closed,
        })
    }

    fn arm(&mut self, now: Monotonic) {
        // The first event of a batch sets its end: a flood must not push it ever further away.
        if self.deadline.is_none() {
            self.deadline = Some(now + self.limits.tick);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(200);

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(ms))
    }

    fn batcher(events_max: usize, bytes_max: usize) -> Batcher<u64> {
        Batcher::new(BatchLimits { tick: TICK, events_max, bytes_max })
    }

    #[test]
    fn events_of_one_tick_leave_as_one_batch() {
        let mut batcher = batcher(10, 1000);
        assert_eq!(batcher.deadline(), None, "an idle batcher has no timer");
        batcher.push(at(0), 1, 1);
        batcher.push(at(150), 2, 1);
        assert_eq!(batcher.poll(at(199)), None);
        let batch = batcher.poll(at(200)).unwrap();
        assert_eq!((batch.events, batch.missed), (vec![1, 2], 0));
        assert_eq!(batcher.deadline(), None);
        assert_eq!(batcher.poll(at(10_000)), None);
    }

    #[test]
    fn a_flood_does_not_push_the_tick_away() {
        let mut batcher = batcher(10, 1000);
        for n in 0..200 {
            batcher.push(at(n), n, 1);
        }
        assert_eq!(batcher.deadline(), Some(at(200)));
    }

    #[test]
    fn at_the_bound_the_oldest_are_dropped_and_counted() {
        let mut batcher = batcher(3, 1000);
        for n in 0..10 {
            batcher.push(at(0), n, 1);
        }
        let batch = batcher.poll(at(200)).unwrap();
        assert_eq!((batch.events, batch.missed), (vec![7, 8, 9], 7));
    }

    #[test]
    fn an_event_larger_than_a_batch_is_counted_and_keeps_the_others() {
        let mut batcher = batcher(10, 100);
        batcher.push(at(0), 1, 60);
        batcher.push(at(0), 2, 101);
        batcher.push(at(0), 3, usize::MAX);
        let batch = batcher.poll(at(200)).unwrap();
        assert_eq!((batch.events, batch.missed), (vec![1], 2));
    }

    #[test]
    fn a_gap_alone_is_a_batch() {
        let mut batcher = batcher(10, 100);
        batcher.missed(at(5), 17);
        let batch = batcher.poll(at(205)).unwrap();
        assert_eq!((batch.events, batch.missed), (vec![], 17));
    }

    #[test]
    fn closing_sends_what_waits_at_once_and_says_so() {
        let mut batcher = batcher(10, 100);
        batcher.push(at(0), 1, 1);
        batcher.close(at(1));
        let batch = batcher.poll(at(1)).unwrap();
        assert_eq!((batch.events, batch.closed), (vec![1], true));
    }

    proptest! {
        #[test]
        fn every_event_is_sent_in_order_or_counted(
            steps in proptest::collection::vec((0_u64..300, 0_usize..60, 0_u64..3), 0..300),
            events_max in 1_usize..20,
            bytes_max in 1_usize..200,
        ) {
            let mut batcher = batcher(events_max, bytes_max);
            let (mut now, mut given, mut sent) = (0, 0_u64, Vec::new());
            let (mut missed, mut gaps) = (0, 0);
            for (pause, bytes, gap) in steps {
                now += pause;
                if let Some(batch) = batcher.poll(at(now)) {
                    prop_assert!(batch.events.len() <= events_max);
                    sent.extend(batch.events);
                    missed += batch.missed;
                }
                batcher.push(at(now), given, bytes);
                given += 1;
                if gap > 0 {
                    batcher.missed(at(now), gap);
                    gaps += gap;
                }
                prop_assert!(batcher.bytes <= bytes_max);
                prop_assert_eq!(batcher.bytes, batcher.events.iter().map(|(_, bytes)| bytes).sum::<usize>());
            }
            batcher.close(at(now));
            let last = batcher.poll(at(now)).unwrap();
            sent.extend(last.events);
            missed += last.missed;
            prop_assert!(sent.is_sorted());
            prop_assert_eq!(sent.len() as u64 + missed, given + gaps);
        }
    }
}
