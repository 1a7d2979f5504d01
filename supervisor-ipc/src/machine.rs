//! The recovery of one channel as a pure machine: no task, no clock, no bytes.
//!
//! **Invariant:** every accepted message ends in exactly one outcome, and waits in exactly one place until then: a
//! lane, or in flight.
//! **Invariant:** nothing that belongs to one generation can complete a message of another.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use supervisor_core::config::RecoveryConfig;
use supervisor_core::message::{ChannelState, IpcMessage, Lane, Outcome};
use supervisor_core::policy::{SplitMix, jittered};
use supervisor_core::{Generation, Monotonic};
use uuid::Uuid;

pub use crate::message::SendOptions;
use crate::message::size;
pub(crate) use crate::message::{Accepted, Action, Event, Item, Limit, Refusal};
use budget::RetryBudget;

/// One channel.
#[derive(Debug)]
pub(crate) struct Machine {
    config: RecoveryConfig,
    acknowledges: bool,
    pub(crate) state: ChannelState,
    pub(crate) reason: String,
    pub(crate) generation: Generation,
    attached: bool,
    lanes: BTreeMap<Lane, VecDeque<Item>>,
    pub(crate) buffered_bytes: usize,
    in_flight: BTreeMap<u64, Item>,
    next_s: u64,
    /// Ids accepted lately with how they ended, if they have; bounded by count and age.
    seen: HashMap<Uuid, Option<Outcome>>,
    seen_order: VecDeque<(Monotonic, Uuid)>,
    attempt: u32,
    failures: VecDeque<Monotonic>,
    opened: u32,
    timer: Option<Monotonic>,
    last_heard: Monotonic,
    pings: u32,
    lost_at: Option<(Monotonic, String)>,
    redelivered: u64,
    lost: u64,
    stable_at: Option<Monotonic>,
    budget: RetryBudget,
    /// When repetitions may go on, while the budget has nothing left.
    paused: Option<Monotonic>,
    /// Bytes that the other channels of the monitor hold.
    pub(crate) elsewhere: usize,
    random: SplitMix,
    pub(crate) delivered: u64,
}

impl Machine {
    pub(crate) fn new(config: RecoveryConfig, acknowledges: bool, seed: u64) -> Self {
        let budget = RetryBudget::new(
            config.retry_budget_percent,
            config.retry_budget_floor,
            config.max_in_flight,
        );
        Self {
            config,
            acknowledges,
            budget,
            paused: None,
            elsewhere: 0,
            state: ChannelState::Connecting,
            reason: "nothing to connect over yet".to_owned(),
            generation: Generation::ZERO,
            attached: false,
            lanes: BTreeMap::new(),
            buffered_bytes: 0,
            in_flight: BTreeMap::new(),
            next_s: 1,
            seen: HashMap::new(),
            seen_order: VecDeque::new(),
            attempt: 0,
            failures: VecDeque::new(),
            opened: 0,
            timer: None,
            last_heard: Monotonic::ZERO,
            pings: 0,
            lost_at: None,
            redelivered: 0,
            lost: 0,
            stable_at: None,
            random: SplitMix::new(seed),
            delivered: 0,
        }
    }

    pub(crate) fn buffered(&self) -> usize {
        self.lanes.values().map(VecDeque::len).sum::<usize>() + self.in_flight.len()
    }

    pub(crate) fn last_sent(&self) -> u64 {
        self.next_s - 1
    }

    /// Takes a message, or says why not. A refused message leaves no trace.
    pub(crate) fn accept(
        &mut self,
        now: Monotonic,
        message: IpcMessage,
        options: SendOptions,
        actions: &mut Vec<Action>,
    ) -> Result<Accepted, Refusal> {
        self.forget_seen(now);
        if let Some(known) = self.seen.get(&message.id) {
            return Ok(Accepted::Duplicate(known.clone()));
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
        self.make_room(bytes, options.lane, actions)?;
        let deadline = now + options.ttl.unwrap_or(self.config.message_ttl);
        self.seen.insert(message.id, None);
        self.seen_order.push_back((now, message.id));
        self.buffered_bytes += bytes;
        let item = Item { message, options, bytes, deadline, answer_by: None, attempts: 0 };
        self.lanes.entry(options.lane).or_default().push_back(item);
        let ready = self.state == ChannelState::Ready;
        self.pump(now, actions);
        Ok(if ready { Accepted::Sent } else { Accepted::Buffered })
    }

    pub(crate) fn step(&mut self, now: Monotonic, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Attached => {
                self.attached = true;
                if matches!(
                    self.state,
                    ChannelState::Connecting | ChannelState::Backoff | ChannelState::Open
                ) {
                    self.attempt = 0;
                    self.connect("connecting", &mut actions);
                }
            }
            Event::Connected => self.on_connected(now, &mut actions),
            Event::ConnectFailed { reason, permanent } => {
                self.on_failure(now, &reason, permanent, &mut actions);
            }
            Event::Synced => self.on_synced(now, &mut actions),
            Event::Lost { reason } => self.on_lost(now, &reason, &mut actions),
            Event::Alive => {
                self.on_alive(now, &mut actions);
                // Nothing is written to a suspect, so something may wait.
                self.pump(now, &mut actions);
            }
            Event::Acked { s, duplicate } => {
                self.on_alive(now, &mut actions);
                let waits_for_reply =
                    self.in_flight.get(&s).is_some_and(|item| item.options.expect_reply);
                if !waits_for_reply && let Some(item) = self.in_flight.remove(&s) {
                    self.delivered += 1;
                    self.settle(
                        item,
                        Outcome::Acked { generation: self.generation, duplicate },
                        &mut actions,
                    );
                }
                self.pump(now, &mut actions);
            }
            Event::Replied { s, reply } => {
                self.on_alive(now, &mut actions);
                if let Some(item) = self.in_flight.remove(&s) {
                    self.delivered += 1;
                    self.settle(
                        item,
                        Outcome::Answered { reply, generation: self.generation },
                        &mut actions,
                    );
                }
                self.pump(now, &mut actions);
            }
            Event::RetryNow => {
                if self.attached && matches!(self.state, ChannelState::Backoff | ChannelState::Open)
                {
                    self.failures.clear();
                    self.attempt = 0;
                    self.opened = 0;
                    self.connect("asked to try now", &mut actions);
                }
            }
            Event::Drain => {
                if self.state != ChannelState::Closed
                    && self.buffered() > 0
                    && self.state == ChannelState::Ready
                {
                    self.enter(ChannelState::Draining, "finishing what was accepted", &mut actions);
                }
            }
            Event::Close => self.on_close(&mut actions),
            Event::Tick => self.on_tick(now, &mut actions),
        }
        actions
    }

    /// Gives the time of the next deadline.
    pub(crate) fn next_deadline(&self) -> Option<Monotonic> {
        let waiting = self
            .lanes
            .values()
            .flatten()
            .map(|item| item.deadline)
            .chain(self.in_flight.values().map(Item::due))
            .min();
        let heartbeat = matches!(
            self.state,
            ChannelState::Ready | ChannelState::Suspect | ChannelState::Draining
        )
        .then(|| self.last_heard + self.config.heartbeat.idle * (self.pings + 1));
        [self.timer, waiting, heartbeat, self.stable_at, self.paused].into_iter().flatten().min()
    }

    fn enter(&mut self, state: ChannelState, reason: &str, actions: &mut Vec<Action>) {
        let from = std::mem::replace(&mut self.state, state);
        reason.clone_into(&mut self.reason);
        if from != state {
            actions.push(Action::State { from, to: state, reason: reason.to_owned() });
        }
    }

    fn connect(&mut self, reason: &str, actions: &mut Vec<Action>) {
        self.timer = None;
        self.enter(ChannelState::Connecting, reason, actions);
        actions.push(Action::Connect);
    }

    fn on_connected(&mut self, now: Monotonic, actions: &mut Vec<Action>) {
        if self.state != ChannelState::Connecting {
            actions.push(Action::Disconnect);
            return;
        }
        self.generation = self.generation.next();
        self.last_heard = now;
        self.pings = 0;
        self.timer = Some(now + self.config.handshake_timeout);
        self.enter(ChannelState::Syncing, "restoring the peer's state", actions);
        actions.push(Action::Synchronize { generation: self.generation });
    }

    fn on_synced(&mut self, now: Monotonic, actions: &mut Vec<Action>) {
        if self.state != ChannelState::Syncing {
            return;
        }
        self.timer = None;
        self.last_heard = now;
        self.stable_at = Some(now + self.config.reconnect.reset_after);
        self.enter(ChannelState::Ready, "connected", actions);
        if let Some((at, cause)) = self.lost_at.take() {
            let (redelivered, lost) =
                (std::mem::take(&mut self.redelivered), std::mem::take(&mut self.lost));
            actions.push(Action::Recovered { took: now.since(at), cause, redelivered, lost });
        }
        self.pump(now, actions);
    }

    /// The connection broke: what was in flight goes back to the front in its order, or ends as unknown.
    fn on_lost(&mut self, now: Monotonic, reason: &str, actions: &mut Vec<Action>) {
        let live = matches!(
            self.state,
            ChannelState::Syncing
                | ChannelState::Ready
                | ChannelState::Suspect
                | ChannelState::Draining
        );
        if !live {
            return;
        }
        if self.lost_at.is_none() {
            self.lost_at = Some((now, reason.to_owned()));
        }
        let generation = self.generation;
        for (_, mut item) in std::mem::take(&mut self.in_flight).into_iter().rev() {
            item.answer_by = None;
            if !item.options.idempotent {
                self.lost += 1;
                self.settle(item, Outcome::Indeterminate { generation }, actions);
            } else if item.attempts >= self.config.max_attempts {
                let cause =
                    format!("written {} times, the connection broke each time", item.attempts);
                actions.push(Action::Bury { message: item.message.clone(), cause: cause.clone() });
                self.settle(item, Outcome::DeadLettered { reason: cause }, actions);
            } else {
                self.redelivered += 1;
                self.lanes.entry(item.options.lane).or_default().push_front(item);
            }
        }
        actions.push(Action::Disconnect);
        self.on_failure(now, reason, false, actions);
    }

    fn on_failure(
        &mut self,
        now: Monotonic,
        reason: &str,
        permanent: bool,
        actions: &mut Vec<Action>,
    ) {
        if matches!(self.state, ChannelState::Closed | ChannelState::Backoff | ChannelState::Open) {
            return;
        }
        self.stable_at = None;
        self.paused = None;
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|at| now.since(*at) >= self.config.breaker.window) {
            self.failures.pop_front();
        }
        let threshold = self.config.breaker.failure_threshold as usize;
        if permanent || self.failures.len() >= threshold.max(1) {
            let breaker = &self.config.breaker;
            let pause =
                breaker.open_base.saturating_mul(1 << self.opened.min(20)).min(breaker.open_max);
            self.opened = self.opened.saturating_add(1);
            self.failures.clear();
            self.timer = Some(now + pause);
            let text = format!("{reason}; tried again in {pause:?}, or at once on request");
            self.enter(ChannelState::Open, &text, actions);
            return;
        }
        let backoff = &self.config.reconnect;
        let full =
            backoff.base_delay.saturating_mul(1_u32.checked_shl(self.attempt).unwrap_or(u32::MAX));
        // The first try is at once: a service that was restarted is usually there already.
        let delay = if self.attempt == 0 {
            Duration::ZERO
        } else {
            jittered(full.min(backoff.max_delay), 1.0, self.random.next_u64())
        };
        self.attempt = self.attempt.saturating_add(1);
        self.timer = Some(now + delay);
        self.enter(ChannelState::Backoff, reason, actions);
    }

    fn on_alive(&mut self, now: Monotonic, actions: &mut Vec<Action>) {
        self.last_heard = now;
        self.pings = 0;
        if self.state == ChannelState::Suspect {
            self.enter(ChannelState::Ready, "the peer gives signs of life again", actions);
        }
    }

    fn on_close(&mut self, actions: &mut Vec<Action>) {
        if self.state == ChannelState::Closed {
            return;
        }
        let generation = self.generation;
        for (_, item) in std::mem::take(&mut self.in_flight) {
            self.settle(item, Outcome::Indeterminate { generation }, actions);
        }
        for item in std::mem::take(&mut self.lanes).into_values().flatten() {
            let reason = "the channel was closed".to_owned();
            let outcome = if item.attempts > 0 {
                Outcome::Indeterminate { generation }
            } else {
                Outcome::NotSent { reason }
            };
            self.settle(item, outcome, actions);
        }
        self.timer = None;
        self.stable_at = None;
        self.paused = None;
        actions.push(Action::Disconnect);
        self.enter(ChannelState::Closed, "closed", actions);
    }

    fn on_tick(&mut self, now: Monotonic, actions: &mut Vec<Action>) {
        self.expire(now, actions);
        self.forget_seen(now);
        if self.stable_at.is_some_and(|at| at <= now) {
            self.stable_at = None;
            self.attempt = 0;
            self.opened = 0;
            self.failures.clear();
        }
        if self.timer.is_some_and(|at| at <= now) {
            self.timer = None;
            match self.state {
                ChannelState::Backoff => self.connect("reconnecting", actions),
                ChannelState::Open => self.connect("half-open: one try", actions),
                ChannelState::Syncing => {
                    self.on_lost(now, "the peer's state was not restored in time", actions);
                }
                _ => {}
            }
        }
        if self.paused.is_some_and(|at| at <= now) {
            self.paused = None;
            self.pump(now, actions);
        }
        self.look_for_life(now, actions);
    }

    fn look_for_life(&mut self, now: Monotonic, actions: &mut Vec<Action>) {
        let connected = matches!(
            self.state,
            ChannelState::Ready | ChannelState::Suspect | ChannelState::Draining
        );
        let due = self.last_heard + self.config.heartbeat.idle * (self.pings + 1);
        if !connected || now < due {
            return;
        }
        // Far too late means that we stood still ourselves: the peer gets a fresh interval.
        if now.since(due) > self.config.heartbeat.idle {
            self.last_heard = now;
            self.pings = 0;
            return;
        }
        if self.pings >= self.config.heartbeat.misses {
            self.on_lost(now, "the peer gives no sign of life", actions);
            return;
        }
        self.ping(actions);
        if self.pings > 1 && self.state == ChannelState::Ready {
            self.enter(ChannelState::Suspect, "a sign of life is overdue", actions);
        }
    }

    fn ping(&mut self, actions: &mut Vec<Action>) {
        self.pings += 1;
        let s = self.next_s;
        self.next_s += 1;
        actions.push(Action::Ping { s });
    }

    /// A request got no answer in its time: the second sign of a hang, which a question for life settles.
    fn on_unanswered(&mut self, actions: &mut Vec<Action>) {
        if self.state == ChannelState::Ready {
            self.enter(ChannelState::Suspect, "a request went unanswered for too long", actions);
            self.ping(actions);
        }
    }
}

mod budget;
mod queue;
#[cfg(test)]
mod tests;
