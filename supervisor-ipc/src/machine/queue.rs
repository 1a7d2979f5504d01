//! What waits, in which order it is written, and when it is given up.

use std::collections::VecDeque;
use std::sync::Arc;

use supervisor_core::Monotonic;
use supervisor_core::config::OverflowPolicy;
use supervisor_core::message::{ChannelState, Lane, Outcome};
use supervisor_core::text::ByteSize;

use uuid::Uuid;

use super::{Action, Item, Limit, Machine, Refusal, SendOptions};

/// Weights of the lanes below control: so many of each are written in one round.
const WEIGHTS: [(Lane, usize); 3] = [(Lane::Interactive, 8), (Lane::Normal, 4), (Lane::Bulk, 1)];

/// Messages that control may hold beyond the bound of all lanes.
pub(super) const CONTROL_RESERVE: usize = 64;

impl Machine {
    pub(super) fn push_back(&mut self, item: Item) {
        self.in_lanes += 1;
        self.lanes[item.options.lane as usize].push_back(item);
    }

    pub(super) fn push_front(&mut self, item: Item) {
        self.in_lanes += 1;
        self.lanes[item.options.lane as usize].push_front(item);
    }

    fn pop_front(&mut self, lane: Lane) -> Option<Item> {
        let item = self.lanes[lane as usize].pop_front()?;
        self.in_lanes -= 1;
        Some(item)
    }

    /// Notes that some message is due then.
    pub(super) fn expires(&mut self, at: Monotonic) {
        self.expiry = Some(self.expiry.map_or(at, |known| known.min(at)));
    }

    /// Ends the message whose place this one takes.
    pub(super) fn supersede(&mut self, options: SendOptions, actions: &mut Vec<Action>) {
        let Some(key) = options.replaces else { return };
        let lane = &mut self.lanes[options.lane as usize];
        let same = |item: &Item| {
            item.options.replaces == Some(key) && item.attempts == 0 && !item.options.durable
        };
        if let Some(item) = lane.iter().position(same).and_then(|at| lane.remove(at)) {
            self.in_lanes -= 1;
            self.settle(item, Outcome::Superseded, actions);
        }
    }

    pub(super) fn make_room(
        &mut self,
        bytes: usize,
        lane: Lane,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        while let Some(limit) = self.full(bytes, lane) {
            let oldest = (self.config.overflow == OverflowPolicy::DropOldest)
                .then(|| self.oldest_to_drop(lane))
                .flatten();
            let Some(item) = oldest else { return Err(Refusal::Full(limit)) };
            let outcome = Outcome::Rejected {
                reason: "dropped for a newer message: the buffer is full".to_owned(),
            };
            self.drop_item(item, outcome, actions);
        }
        Ok(())
    }

    /// Takes the oldest message that may go for one of this lane: of the lowest lane there is, down from which no lane is
    /// above this one. Control and what is stored never go.
    fn oldest_to_drop(&mut self, lane: Lane) -> Option<Item> {
        let lowest_first = WEIGHTS.into_iter().rev().map(|(other, _)| other);
        for from in lowest_first.filter(|other| *other >= lane) {
            let queue = &mut self.lanes[from as usize];
            if let Some(at) = queue.iter().position(|item| !item.options.durable) {
                self.in_lanes -= 1;
                return queue.remove(at);
            }
        }
        None
    }

    /// Tells which bound one more message of this size would break.
    pub(crate) fn full(&self, bytes: usize, lane: Lane) -> Option<Limit> {
        let most = |limit: ByteSize| usize::try_from(limit.bytes()).unwrap_or(usize::MAX);
        let mine = self.buffered_bytes + bytes;
        let reserve = if lane == Lane::Control { CONTROL_RESERVE } else { 0 };
        if self.buffered() >= self.config.max_buffered_messages + reserve {
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

    /// Ends what is due, and finds out when the next one is.
    pub(super) fn expire(&mut self, actions: &mut Vec<Action>) {
        let now = self.now;
        if self.expiry.is_none_or(|at| at > now) {
            return;
        }
        let mut over = Vec::new();
        for lane in &mut self.lanes {
            let (due, kept): (VecDeque<Item>, _) =
                std::mem::take(lane).into_iter().partition(|item| item.deadline <= now);
            *lane = kept;
            self.in_lanes -= due.len();
            over.extend(due);
        }
        for item in over {
            self.drop_item(item, Outcome::Expired, actions);
        }
        let written = std::mem::take(&mut self.in_flight);
        let (over, kept): (VecDeque<Item>, _) =
            written.into_iter().partition(|item| item.due() <= now);
        self.in_flight = kept;
        let unanswered = over.iter().any(|item| item.answer_by.is_some_and(|by| by <= now));
        for item in over {
            let outcome = if item.options.idempotent {
                Outcome::Expired
            } else {
                Outcome::Indeterminate { generation: self.generation }
            };
            self.drop_item(item, outcome, actions);
        }
        let waiting = self.lanes.iter().flatten().map(|item| item.deadline);
        self.expiry = waiting.chain(self.in_flight.iter().map(Item::due)).min();
        if unanswered {
            self.on_unanswered(actions);
        }
    }

    /// Ends a message that reached nobody, and says so to whoever watches.
    fn drop_item(&mut self, item: Item, outcome: Outcome, actions: &mut Vec<Action>) {
        let (id, lane) = (item.message.id, item.options.lane);
        actions.push(Action::Dropped { id, lane, outcome: outcome.clone() });
        self.settle(item, outcome, actions);
    }

    pub(super) fn settle(&mut self, item: Item, outcome: Outcome, actions: &mut Vec<Action>) {
        self.buffered_bytes -= item.bytes;
        self.delivered += u64::from(outcome.delivered());
        self.outcomes.count(&outcome);
        let id = item.message.id;
        // Its id is known for as long as it has not ended, and with it who waits for that.
        if let Some(promise) = self.seen.settle(id, item.place, &outcome) {
            actions.push(Action::Settle { id, promise, outcome });
        }
    }

    /// Ends what the peer says it had handled before the connection broke; it need not be written again.
    pub(super) fn settle_handled(&mut self, handled: u64, actions: &mut Vec<Action>) {
        let generation = self.generation;
        let done = |item: &Item| {
            !item.options.expect_reply && item.written.is_some_and(|(s, _)| s <= handled)
        };
        for at in 0..self.lanes.len() {
            // What was written stands before what was not.
            while self.lanes[at].front().is_some_and(done) {
                if let Some(item) = self.lanes[at].pop_front() {
                    self.in_lanes -= 1;
                    let outcome = Outcome::Acked { generation, duplicate: true };
                    self.settle(item, outcome, actions);
                }
            }
            // Their numbers say nothing any more: what is handled from now on may have passed them by.
            for item in &mut self.lanes[at] {
                item.written = None;
            }
        }
    }

    /// Writes what may be written: control first, then the other lanes by weight.
    pub(super) fn pump(&mut self, actions: &mut Vec<Action>) {
        if !matches!(self.state, ChannelState::Ready | ChannelState::Draining) {
            return;
        }
        while self.may_go_on() {
            if self.write_from(Lane::Control, usize::MAX, actions) > 0 {
                continue;
            }
            let written: usize =
                WEIGHTS.iter().map(|(lane, share)| self.write_from(*lane, *share, actions)).sum();
            if written == 0 {
                return;
            }
        }
    }

    /// Whether anything may be written now: there is room on the way, and nobody under suspicion is alone on it.
    fn may_go_on(&self) -> bool {
        self.in_lanes > 0 && self.has_room()
    }

    pub(super) fn has_room(&self) -> bool {
        self.writable
            && self.in_flight.len() < self.config.max_in_flight
            && !(self.in_flight.len() == 1 && self.in_flight.iter().all(Item::suspected))
    }

    fn write_from(&mut self, lane: Lane, share: usize, actions: &mut Vec<Action>) -> usize {
        let mut written = 0;
        while written < share && self.may_go_on() {
            let Some(item) = self.pop_front(lane) else { break };
            if item.deadline <= self.now {
                self.drop_item(item, Outcome::Expired, actions);
                continue;
            }
            let must_be_alone = item.suspected() && !self.in_flight.is_empty();
            if must_be_alone || !self.may_write(&item, lane) {
                self.push_front(item);
                break;
            }
            written += 1;
            self.write(item, actions);
        }
        written
    }

    pub(super) fn write(&mut self, mut item: Item, actions: &mut Vec<Action>) {
        let s = self.next_s;
        self.next_s += 1;
        item.attempts += 1;
        item.written = Some((s, self.now));
        if item.options.expect_reply {
            let by = self.now + self.config.request_timeout;
            item.answer_by = Some(by);
            self.expires(by);
        }
        if item.attempts > 1 {
            let message = Arc::make_mut(&mut item.message);
            message.retry_count = message.retry_count.saturating_add(1);
        }
        let expect_reply = item.options.expect_reply;
        actions.push(Action::Write { s, message: Arc::clone(&item.message), expect_reply });
        if expect_reply || self.acknowledges {
            self.in_flight.push_back(item);
        } else {
            // The peer says nothing about it, so whether it arrived cannot be known.
            self.settle(item, Outcome::Indeterminate { generation: self.generation }, actions);
        }
    }

    /// Pays for a repetition. Without means the lane waits, so that nothing newer overtakes it; control never waits.
    fn may_write(&mut self, item: &Item, lane: Lane) -> bool {
        if item.attempts == 0 {
            self.budget.fresh();
            return true;
        }
        if lane == Lane::Control {
            return true;
        }
        match self.budget.spend(self.now) {
            Ok(()) => true,
            Err(at) => {
                self.paused = at;
                false
            }
        }
    }

    pub(crate) fn admits(&mut self, id: Uuid) -> bool {
        self.seen.admits(id)
    }
}
