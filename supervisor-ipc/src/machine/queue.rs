//! What waits, in which order it is written, and when it is given up.

use std::collections::VecDeque;

use supervisor_core::Monotonic;
use supervisor_core::config::OverflowPolicy;
use supervisor_core::message::{ChannelState, Lane, Outcome};
use supervisor_core::text::ByteSize;

use uuid::Uuid;

use super::{Action, Item, Limit, Machine, Refusal};

/// Weights of the lanes below control: so many of each are written in one round.
const WEIGHTS: [(Lane, usize); 3] = [(Lane::Interactive, 8), (Lane::Normal, 4), (Lane::Bulk, 1)];

/// Ids looked at with each message; more than one, so that what is too old goes faster than it comes.
const FORGET_STEP: usize = 16;

impl Machine {
    pub(super) fn make_room(
        &mut self,
        bytes: usize,
        lane: Lane,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        loop {
            let Some(limit) = self.full(bytes, lane) else { return Ok(()) };
            let oldest = self.lanes.get_mut(&lane).and_then(VecDeque::pop_front);
            match (self.config.overflow, oldest) {
                (OverflowPolicy::DropOldest, Some(item)) => {
                    let reason = "dropped for a newer message: the buffer is full".to_owned();
                    self.settle(item, Outcome::Rejected { reason }, actions);
                }
                (_, oldest) => {
                    if let Some(item) = oldest {
                        self.lanes.entry(lane).or_default().push_front(item);
                    }
                    return Err(Refusal::Full(limit));
                }
            }
        }
    }

    /// Tells which bound one more message of this size would break.
    pub(crate) fn full(&self, bytes: usize, lane: Lane) -> Option<Limit> {
        let most = |limit: ByteSize| usize::try_from(limit.bytes()).unwrap_or(usize::MAX);
        let mine = self.buffered_bytes + bytes;
        if self.buffered() >= self.config.max_buffered_messages {
            return Some(Limit::Messages);
        }
        // Control is never refused for want of bytes: a cancellation or a goodbye frees more than it takes.
        if lane == Lane::Control {
            return None;
        }
        if mine > most(self.config.max_buffered_bytes) {
            return Some(Limit::Bytes);
        }
        (mine.saturating_add(self.elsewhere) > most(self.config.global_buffered_bytes))
            .then_some(Limit::AllBytes)
    }

    pub(super) fn expire(&mut self, now: Monotonic, actions: &mut Vec<Action>) {
        for lane in [Lane::Control, Lane::Interactive, Lane::Normal, Lane::Bulk] {
            let Some(queue) = self.lanes.get_mut(&lane) else {
                continue;
            };
            let (over, kept) =
                std::mem::take(queue).into_iter().partition(|item| item.deadline <= now);
            *queue = kept;
            let over: VecDeque<Item> = over;
            for item in over {
                self.settle(item, Outcome::Expired, actions);
            }
        }
        let over: Vec<u64> =
            self.in_flight.iter().filter(|(_, item)| item.due() <= now).map(|(s, _)| *s).collect();
        let overdue = |item: &Item| item.answer_by.is_some_and(|by| by <= now);
        let unanswered = over.iter().filter_map(|s| self.in_flight.get(s)).any(overdue);
        for item in over.into_iter().filter_map(|s| self.in_flight.remove(&s)).collect::<Vec<_>>() {
            let outcome = if item.options.idempotent {
                Outcome::Expired
            } else {
                Outcome::Indeterminate { generation: self.generation }
            };
            self.settle(item, outcome, actions);
        }
        if unanswered {
            self.on_unanswered(actions);
        }
    }

    pub(super) fn settle(&mut self, item: Item, outcome: Outcome, actions: &mut Vec<Action>) {
        self.buffered_bytes -= item.bytes;
        if let Some(known) = self.seen.get_mut(&item.message.id) {
            *known = Some(outcome.clone());
        }
        actions.push(Action::Settle { id: item.message.id, outcome });
    }

    /// Writes what may be written: control first, then the other lanes by weight.
    pub(super) fn pump(&mut self, now: Monotonic, actions: &mut Vec<Action>) {
        if !matches!(self.state, ChannelState::Ready | ChannelState::Draining) {
            return;
        }
        while self.in_flight.len() < self.config.max_in_flight {
            if self.write_from(Lane::Control, usize::MAX, now, actions) > 0 {
                continue;
            }
            let written: usize = WEIGHTS
                .iter()
                .map(|(lane, share)| self.write_from(*lane, *share, now, actions))
                .sum();
            if written == 0 {
                return;
            }
        }
    }

    pub(super) fn write_from(
        &mut self,
        lane: Lane,
        share: usize,
        now: Monotonic,
        actions: &mut Vec<Action>,
    ) -> usize {
        let mut written = 0;
        while written < share && self.in_flight.len() < self.config.max_in_flight {
            let Some(mut item) = self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) else {
                break;
            };
            if item.deadline <= now {
                self.settle(item, Outcome::Expired, actions);
                continue;
            }
            if !self.may_write(&item, lane, now) {
                self.lanes.entry(lane).or_default().push_front(item);
                break;
            }
            written += 1;
            let s = self.next_s;
            self.next_s += 1;
            item.attempts += 1;
            item.answer_by = item.options.expect_reply.then(|| now + self.config.request_timeout);
            if item.attempts > 1 {
                item.message.retry_count = item.message.retry_count.saturating_add(1);
            }
            let expect_reply = item.options.expect_reply;
            actions.push(Action::Write { s, message: item.message.clone(), expect_reply });
            if expect_reply || self.acknowledges {
                self.in_flight.insert(s, item);
            } else {
                // The peer says nothing about it, so whether it arrived cannot be known.
                self.settle(item, Outcome::Indeterminate { generation: self.generation }, actions);
            }
        }
        written
    }

    /// Pays for a repetition. Without means the lane waits, so that nothing newer overtakes it; control never waits.
    fn may_write(&mut self, item: &Item, lane: Lane, now: Monotonic) -> bool {
        if item.attempts == 0 {
            self.budget.fresh();
            return true;
        }
        if lane == Lane::Control {
            return true;
        }
        match self.budget.spend(now) {
            Ok(()) => true,
            Err(at) => {
                self.paused = at;
                false
            }
        }
    }

    /// Tells whether a stored message is news; one that was a dead letter and is in the outbox again was put back there.
    pub(crate) fn admits(&mut self, id: Uuid) -> bool {
        if matches!(self.seen.get(&id), Some(Some(Outcome::DeadLettered { .. }))) {
            self.seen.remove(&id);
        }
        !self.seen.contains_key(&id)
    }

    /// Forgets ids that are too old or too many; one whose message has not ended yet takes its place anew at the end.
    pub(super) fn forget_seen(&mut self, now: Monotonic) {
        for _ in 0..FORGET_STEP {
            let over = self.seen_order.len() > self.config.dedupe_max;
            match self.seen_order.front() {
                Some((at, _)) if over || now.since(*at) >= self.config.dedupe_window => {}
                _ => return,
            }
            let Some((_, id)) = self.seen_order.pop_front() else { return };
            if self.seen.get(&id).is_some_and(Option::is_none) {
                self.seen_order.push_back((now, id));
            } else {
                self.seen.remove(&id);
            }
        }
    }
}
