//! What waits, in which order it is written, and when it is given up.

use std::collections::VecDeque;

use supervisor_core::Monotonic;
use supervisor_core::config::OverflowPolicy;
use supervisor_core::message::{ChannelState, Lane, Outcome};

use super::{Action, Item, Machine, Refusal};

/// Weights of the lanes below control: so many of each are written in one round.
const WEIGHTS: [(Lane, usize); 3] = [(Lane::Interactive, 8), (Lane::Normal, 4), (Lane::Bulk, 1)];

impl Machine {
    pub(super) fn make_room(
        &mut self,
        bytes: usize,
        lane: Lane,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let limit = usize::try_from(self.config.max_buffered_bytes.bytes()).unwrap_or(usize::MAX);
        loop {
            let full_count = self.buffered() >= self.config.max_buffered_messages;
            if !full_count && self.buffered_bytes + bytes <= limit {
                return Ok(());
            }
            // Control is never refused for want of room: a cancellation or a goodbye frees more than it takes.
            if lane == Lane::Control && !full_count {
                return Ok(());
            }
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
                    return Err(Refusal::Full(full_count));
                }
            }
        }
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
        let over: Vec<u64> = self
            .in_flight
            .iter()
            .filter(|(_, item)| item.deadline <= now)
            .map(|(s, _)| *s)
            .collect();
        for item in over.into_iter().filter_map(|s| self.in_flight.remove(&s)).collect::<Vec<_>>() {
            let outcome = if item.options.idempotent {
                Outcome::Expired
            } else {
                Outcome::Indeterminate { generation: self.generation }
            };
            self.settle(item, outcome, actions);
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
            written += 1;
            let s = self.next_s;
            self.next_s += 1;
            item.attempts += 1;
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

    pub(super) fn forget_seen(&mut self, now: Monotonic) {
        while let Some((at, id)) = self.seen_order.front() {
            let old = now.since(*at) >= self.config.dedupe_window
                || self.seen_order.len() > self.config.dedupe_max;
            // A message that has not ended yet is remembered until it has.
            if !old || self.seen.get(id).is_some_and(Option::is_none) {
                return;
            }
            self.seen.remove(id);
            self.seen_order.pop_front();
        }
    }
}
