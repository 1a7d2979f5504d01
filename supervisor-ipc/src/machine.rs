//! The recovery of one channel as a pure machine: no task, no clock, no bytes.
//!
//! **Invariant:** every accepted message ends in exactly one outcome, and waits in exactly one place until then: a
//! lane, or in flight.
//! **Invariant:** nothing that belongs to one generation can complete a message of another.

use std::collections::VecDeque;
use std::sync::Arc;

use supervisor_core::config::RecoveryConfig;
use supervisor_core::message::{ChannelState, IpcMessage, Outcome};
use supervisor_core::policy::SplitMix;
use supervisor_core::{Generation, Monotonic};
use uuid::Uuid;

pub use crate::message::SendOptions;
pub(crate) use crate::message::{Accepted, Action, Event, Item, Limit, Refusal, Tally};
use crate::message::{Incident, held, size};
use crate::receipt::{Promise, Slot};
use budget::RetryBudget;
use life::Life;
use link::Link;
use seen::Seen;

/// One channel.
#[derive(Debug)]
pub(crate) struct Machine {
    config: RecoveryConfig,
    acknowledges: bool,
    now: Monotonic,
    pub(crate) state: ChannelState,
    pub(crate) reason: Arc<str>,
    pub(crate) generation: Generation,
    attached: bool,
    lanes: [VecDeque<Item>; 4],
    in_lanes: usize,
    pub(crate) buffered_bytes: usize,
    /// Written and not ended, by their numbers, which only rise.
    in_flight: VecDeque<Item>,
    next_s: u64,
    /// No message is due before this; may be too early, never too late.
    expiry: Option<Monotonic>,
    seen: Seen,
    link: Link,
    life: Life,
    budget: RetryBudget,
    /// When repetitions may go on, while the budget has nothing left.
    paused: Option<Monotonic>,
    /// Whether somebody can be asked why the peer is silent.
    pub(crate) weighs: bool,
    /// Whether each connection is a new run of a service, so that its restart policy says how often there is one.
    pub(crate) paced: bool,
    /// Whether a message is given up because connections broke while it was unanswered alone.
    pub(crate) blames: bool,
    /// Bytes that the other channels of the monitor hold.
    pub(crate) elsewhere: usize,
    /// Whether the connection takes more; what is written beyond waits in its lane instead.
    pub(crate) writable: bool,
    random: SplitMix,
    pub(crate) delivered: u64,
    pub(crate) outcomes: Tally,
}

impl Machine {
    pub(crate) fn new(config: RecoveryConfig, acknowledges: bool, seed: u64) -> Self {
        let budget = RetryBudget::new(
            config.retry_budget_percent,
            config.retry_budget_floor,
            config.max_in_flight,
        );
        Self {
            seen: Seen::new(config.dedupe_window, config.dedupe_max),
            config,
            acknowledges,
            now: Monotonic::ZERO,
            budget,
            paused: None,
            weighs: false,
            paced: false,
            blames: true,
            elsewhere: 0,
            writable: true,
            state: ChannelState::Connecting,
            reason: "nothing to connect over yet".into(),
            generation: Generation::ZERO,
            attached: false,
            lanes: Default::default(),
            in_lanes: 0,
            buffered_bytes: 0,
            in_flight: VecDeque::new(),
            next_s: 1,
            expiry: None,
            link: Link::default(),
            life: Life::default(),
            random: SplitMix::new(seed),
            delivered: 0,
            outcomes: Tally::default(),
        }
    }

    pub(crate) fn buffered(&self) -> usize {
        self.in_lanes + self.in_flight.len()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(crate) const fn last_sent(&self) -> u64 {
        self.next_s - 1
    }

    /// Bounds how many messages may be unanswered at once, from now on.
    pub(crate) const fn limit(&mut self, in_flight: usize) {
        self.config.max_in_flight = in_flight;
    }

    /// Gives a number for a frame that is none of the machine's.
    pub(crate) const fn number(&mut self) -> u64 {
        let s = self.next_s;
        self.next_s += 1;
        s
    }

    /// Ids that were forgotten for want of room before their time: so often the guarantee was weaker than the window.
    pub(crate) const fn forgotten_early(&self) -> u64 {
        self.seen.forgotten_early
    }

    /// Takes a message and the promise of its outcome, or says why not. A refused message leaves no trace, and the promise
    /// of it and of a duplicate stays.
    pub(crate) fn accept(
        &mut self,
        now: Monotonic,
        message: IpcMessage,
        options: SendOptions,
        promise: &mut Option<Promise>,
        actions: &mut Vec<Action>,
    ) -> Result<Accepted, Refusal> {
        self.wake_up(now, actions);
        self.seen.forget(now);
        let key = self.seen.key(message.id);
        if let Some(known) = self.seen.get(key) {
            return Ok(Accepted::Duplicate(known.outcome()));
        }
        match self.state {
            ChannelState::Closed => return Err(Refusal::Closed),
            ChannelState::Draining => return Err(Refusal::Draining),
            _ => {}
        }
        let bytes = size(&message);
        if bytes as u64 > self.config.max_frame.bytes() {
            return Err(Refusal::TooLarge(bytes));
        }
        let bytes = held(&message);
        self.supersede(options, actions);
        self.make_room(bytes, options.lane, actions)?;
        let deadline = now + options.ttl.unwrap_or(self.config.message_ttl);
        self.expires(deadline);
        let place = self.seen.insert(now, key, promise.take().unwrap_or_default());
        self.buffered_bytes += bytes;
        let item = Item {
            message: Arc::new(message),
            place,
            options,
            bytes,
            deadline,
            answer_by: None,
            written: None,
            attempts: 0,
            broke: Vec::new(),
            alone: 0,
        };
        let ready = self.state == ChannelState::Ready;
        if ready && self.in_lanes == 0 && self.has_room() && deadline > now {
            // What would be its turn at once needs no lane.
            self.budget.fresh();
            self.write(item, actions);
        } else {
            self.push_back(item);
            self.pump(actions);
        }
        Ok(if ready { Accepted::Sent } else { Accepted::Buffered })
    }

    /// Gives where the outcome of this message appears, if it has not ended.
    pub(crate) fn slot(&self, id: Uuid) -> Option<Arc<Slot>> {
        self.seen.slot(id)
    }

    /// Takes a message out that was written as number `s` and has not ended.
    fn take_written(&mut self, s: u64) -> Option<Item> {
        if self.in_flight.front()?.s() == s {
            return self.in_flight.pop_front();
        }
        let at = self.in_flight.binary_search_by_key(&s, Item::s).ok()?;
        self.in_flight.remove(at)
    }

    #[cfg(test)]
    pub(crate) fn step(&mut self, now: Monotonic, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.step_into(now, event, &mut actions);
        actions
    }

    pub(crate) fn step_into(&mut self, now: Monotonic, event: Event, actions: &mut Vec<Action>) {
        self.wake_up(now, actions);
        match event {
            Event::Attached => self.on_attached(actions),
            Event::Connected => self.on_connected(actions),
            Event::Weighed { excuse } => self.on_weighed(excuse, actions),
            Event::ConnectFailed { reason, permanent } => {
                self.on_absent(&reason, permanent, actions);
            }
            Event::Synced { handled } => self.on_synced(handled, actions),
            Event::Lost { reason } => self.on_lost(&reason, false, actions),
            Event::Alive => self.on_alive(actions),
            Event::Acked { s, .. } | Event::Replied { s, .. } if self.never_given(s) => {
                self.on_liar("it answered", s, actions);
            }
            Event::Acked { s, duplicate } => {
                self.on_acked(s, duplicate, actions);
                self.on_alive(actions);
            }
            Event::Replied { s, reply } => {
                if let Some(item) = self.take_written(s) {
                    let outcome = Outcome::Answered { reply, generation: self.generation };
                    self.settle(item, outcome, actions);
                }
                self.on_alive(actions);
            }
            Event::Wrote { pending } => {
                self.life.stalled = pending.then_some(now);
                self.pump(actions);
            }
            Event::RetryNow => self.on_retry(actions),
            Event::Drain => {
                if matches!(self.state, ChannelState::Ready | ChannelState::Suspect)
                    && self.buffered() > 0
                {
                    self.enter(ChannelState::Draining, "finishing what was accepted", actions);
                    self.pump(actions);
                }
            }
            Event::Close => self.on_close("closed", actions),
            Event::Tick => self.on_tick(actions),
        }
    }

    /// Gives the time of the next deadline; may be too early, never too late.
    pub(crate) fn next_deadline(&self) -> Option<Monotonic> {
        let expiry = self.expiry.filter(|_| self.buffered() > 0);
        let life = self.connected().then(|| self.next_sign());
        [self.link.timer, expiry, life, self.link.stable_at, self.paused]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether the peer is there and its state restored.
    pub(crate) const fn connected(&self) -> bool {
        matches!(self.state, ChannelState::Ready | ChannelState::Suspect | ChannelState::Draining)
    }

    fn enter(&mut self, state: ChannelState, reason: &str, actions: &mut Vec<Action>) {
        self.link.spent(self.state, self.now);
        let from = std::mem::replace(&mut self.state, state);
        self.reason = reason.into();
        if from != state {
            actions.push(Action::State { from, to: state, reason: Arc::clone(&self.reason) });
        }
    }

    /// Whether this number of a peer of our own is none that it can know.
    const fn never_given(&self, s: u64) -> bool {
        self.acknowledges && s > self.last_sent()
    }

    /// What a peer says about numbers it cannot know says nothing; nor does the rest of what it says.
    fn on_liar(&mut self, what: &str, s: u64, actions: &mut Vec<Action>) {
        let reason =
            format!("the peer broke the protocol: {what} number {s}, which was never given");
        self.on_lost(&reason, false, actions);
    }

    /// Everything up to `s` has arrived there; what waits for an answer goes on waiting for it.
    fn on_acked(&mut self, s: u64, duplicate: bool, actions: &mut Vec<Action>) {
        let generation = self.generation;
        let acked =
            |item: &Item| Outcome::Acked { generation, duplicate: duplicate && item.s() == s };
        let over = |item: &Item| item.s() <= s && !item.options.expect_reply;
        while self.in_flight.front().is_some_and(over)
            && let Some(item) = self.in_flight.pop_front()
        {
            let outcome = acked(&item);
            self.settle(item, outcome, actions);
        }
        // Beyond one that waits for its answer there may be others; rare enough for a second look.
        if self.in_flight.front().is_some_and(|first| first.s() <= s) {
            let all = std::mem::take(&mut self.in_flight);
            let (ended, kept): (VecDeque<_>, _) = all.into_iter().partition(over);
            self.in_flight = kept;
            for item in ended {
                let outcome = acked(&item);
                self.settle(item, outcome, actions);
            }
        }
    }

    fn on_close(&mut self, reason: &str, actions: &mut Vec<Action>) {
        if self.state == ChannelState::Closed {
            return;
        }
        let generation = self.generation;
        for item in std::mem::take(&mut self.in_flight) {
            self.settle(item, Outcome::Indeterminate { generation }, actions);
        }
        self.in_lanes = 0;
        for item in std::mem::take(&mut self.lanes).into_iter().flatten() {
            let outcome = if item.attempts > 0 {
                Outcome::Indeterminate { generation }
            } else {
                Outcome::NotSent { reason: "the channel was closed".to_owned() }
            };
            self.settle(item, outcome, actions);
        }
        self.link.rest();
        self.life.stalled = None;
        self.paused = None;
        actions.push(Action::Disconnect);
        self.enter(ChannelState::Closed, reason, actions);
    }

    fn on_tick(&mut self, actions: &mut Vec<Action>) {
        let now = self.now;
        self.expire(actions);
        self.seen.forget(now);
        if self.link.stable_at.is_some_and(|at| at <= now) {
            self.link.stable();
        }
        if self.link.timer.is_some_and(|at| at <= now) {
            self.on_timer(actions);
        }
        if self.paused.is_some_and(|at| at <= now) {
            self.paused = None;
            self.pump(actions);
        }
        self.look_for_life(actions);
    }
}

mod budget;
mod life;
mod link;
mod queue;
mod seen;
#[cfg(test)]
mod tests;
