//! The recovery of one channel as a pure machine: no task, no clock, no bytes.
//!
//! **Invariant:** every accepted message ends in exactly one outcome, and waits in exactly one place until then: a
//! lane, or in flight.
//! **Invariant:** nothing that belongs to one generation can complete a message of another.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use supervisor_core::config::{OverflowPolicy, RecoveryConfig};
use supervisor_core::message::{ChannelState, IpcMessage, Lane, Outcome};
use supervisor_core::policy::{SplitMix, jittered};
use supervisor_core::{Generation, Monotonic};
use uuid::Uuid;

/// How one message is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendOptions {
    /// Which queue it waits in.
    pub lane: Lane,
    /// Whether it may be written again after the connection broke; if not, its outcome is `Indeterminate` then.
    pub idempotent: bool,
    /// How long it may wait for its outcome; the channel's `message_ttl` when absent.
    pub ttl: Option<Duration>,
    /// Whether the peer answers it; if not, an acknowledgement is its outcome.
    pub expect_reply: bool,
}

impl Default for SendOptions {
    /// Normal lane, may be repeated, the channel's time to live, acknowledged.
    fn default() -> Self {
        Self {
            lane: Lane::Normal,
            idempotent: true,
            ttl: None,
            expect_reply: false,
        }
    }
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    pub(crate) message: IpcMessage,
    pub(crate) options: SendOptions,
    bytes: usize,
    deadline: Monotonic,
    attempts: u32,
}

/// What happens to a channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// There is something to connect over.
    Attached,
    Connected,
    ConnectFailed {
        reason: String,
        permanent: bool,
    },
    Synced,
    Lost {
        reason: String,
    },
    /// Something came from the peer.
    Alive,
    Acked {
        s: u64,
        duplicate: bool,
    },
    Replied {
        s: u64,
        reply: serde_json::Value,
    },
    RetryNow,
    Drain,
    Close,
    Tick,
}

/// What the machine asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Connect,
    Disconnect,
    Synchronize {
        generation: Generation,
    },
    Write {
        s: u64,
        message: IpcMessage,
        expect_reply: bool,
    },
    Ping {
        s: u64,
    },
    Settle {
        id: Uuid,
        outcome: Outcome,
    },
    Bury {
        message: IpcMessage,
        cause: String,
    },
    State {
        from: ChannelState,
        to: ChannelState,
        reason: String,
    },
    Recovered {
        took: Duration,
        cause: String,
        redelivered: u64,
        lost: u64,
    },
}

/// Weights of the lanes below control: so many of each are written in one round.
const WEIGHTS: [(Lane, usize); 3] = [(Lane::Interactive, 8), (Lane::Normal, 4), (Lane::Bulk, 1)];

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
    random: SplitMix,
    pub(crate) delivered: u64,
}

impl Machine {
    pub(crate) fn new(config: RecoveryConfig, acknowledges: bool, seed: u64) -> Self {
        Self {
            config,
            acknowledges,
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
        let item = Item {
            message,
            options,
            bytes,
            deadline,
            attempts: 0,
        };
        self.lanes.entry(options.lane).or_default().push_back(item);
        let ready = self.state == ChannelState::Ready;
        self.pump(now, actions);
        Ok(if ready {
            Accepted::Sent
        } else {
            Accepted::Buffered
        })
    }

    fn make_room(
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
            Event::Alive => self.on_alive(now, &mut actions),
            Event::Acked { s, duplicate } => {
                self.on_alive(now, &mut actions);
                let waits_for_reply = self
                    .in_flight
                    .get(&s)
                    .is_some_and(|item| item.options.expect_reply);
                if !waits_for_reply && let Some(item) = self.in_flight.remove(&s) {
                    self.delivered += 1;
                    self.settle(
                        item,
                        Outcome::Acked {
                            generation: self.generation,
                            duplicate,
                        },
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
                        Outcome::Answered {
                            reply,
                            generation: self.generation,
                        },
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
                    self.enter(
                        ChannelState::Draining,
                        "finishing what was accepted",
                        &mut actions,
                    );
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
            .chain(self.in_flight.values())
            .map(|item| item.deadline)
            .min();
        let heartbeat = matches!(
            self.state,
            ChannelState::Ready | ChannelState::Suspect | ChannelState::Draining
        )
        .then(|| self.last_heard + self.config.heartbeat.idle * (self.pings + 1));
        [self.timer, waiting, heartbeat, self.stable_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn enter(&mut self, state: ChannelState, reason: &str, actions: &mut Vec<Action>) {
        let from = std::mem::replace(&mut self.state, state);
        reason.clone_into(&mut self.reason);
        if from != state {
            actions.push(Action::State {
                from,
                to: state,
                reason: reason.to_owned(),
            });
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
        actions.push(Action::Synchronize {
            generation: self.generation,
        });
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
            let (redelivered, lost) = (
                std::mem::take(&mut self.redelivered),
                std::mem::take(&mut self.lost),
            );
            actions.push(Action::Recovered {
                took: now.since(at),
                cause,
                redelivered,
                lost,
            });
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
        for (_, item) in std::mem::take(&mut self.in_flight).into_iter().rev() {
            if !item.options.idempotent {
                self.lost += 1;
                self.settle(item, Outcome::Indeterminate { generation }, actions);
            } else if item.attempts >= self.config.max_attempts {
                let cause = format!(
                    "written {} times, the connection broke each time",
                    item.attempts
                );
                actions.push(Action::Bury {
                    message: item.message.clone(),
                    cause: cause.clone(),
                });
                self.settle(item, Outcome::DeadLettered { reason: cause }, actions);
            } else {
                self.redelivered += 1;
                self.lanes
                    .entry(item.options.lane)
                    .or_default()
                    .push_front(item);
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
        if matches!(
            self.state,
            ChannelState::Closed | ChannelState::Backoff | ChannelState::Open
        ) {
            return;
        }
        self.stable_at = None;
        self.failures.push_back(now);
        while self
            .failures
            .front()
            .is_some_and(|at| now.since(*at) >= self.config.breaker.window)
        {
            self.failures.pop_front();
        }
        let threshold = self.config.breaker.failure_threshold as usize;
        if permanent || self.failures.len() >= threshold.max(1) {
            let breaker = &self.config.breaker;
            let pause = breaker
                .open_base
                .saturating_mul(1 << self.opened.min(20))
                .min(breaker.open_max);
            self.opened = self.opened.saturating_add(1);
            self.failures.clear();
            self.timer = Some(now + pause);
            let text = format!("{reason}; tried again in {pause:?}, or at once on request");
            self.enter(ChannelState::Open, &text, actions);
            return;
        }
        let backoff = &self.config.reconnect;
        let full = backoff
            .base_delay
            .saturating_mul(1_u32.checked_shl(self.attempt).unwrap_or(u32::MAX));
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
            self.enter(
                ChannelState::Ready,
                "the peer gives signs of life again",
                actions,
            );
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
        self.pings += 1;
        let s = self.next_s;
        self.next_s += 1;
        actions.push(Action::Ping { s });
        if self.pings > 1 && self.state == ChannelState::Ready {
            self.enter(ChannelState::Suspect, "a sign of life is overdue", actions);
        }
    }

    fn expire(&mut self, now: Monotonic, actions: &mut Vec<Action>) {
        for lane in [Lane::Control, Lane::Interactive, Lane::Normal, Lane::Bulk] {
            let Some(queue) = self.lanes.get_mut(&lane) else {
                continue;
            };
            let (over, kept) = std::mem::take(queue)
                .into_iter()
                .partition(|item| item.deadline <= now);
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
        for item in over
            .into_iter()
            .filter_map(|s| self.in_flight.remove(&s))
            .collect::<Vec<_>>()
        {
            let outcome = if item.options.idempotent {
                Outcome::Expired
            } else {
                Outcome::Indeterminate {
                    generation: self.generation,
                }
            };
            self.settle(item, outcome, actions);
        }
    }

    fn settle(&mut self, item: Item, outcome: Outcome, actions: &mut Vec<Action>) {
        self.buffered_bytes -= item.bytes;
        if let Some(known) = self.seen.get_mut(&item.message.id) {
            *known = Some(outcome.clone());
        }
        actions.push(Action::Settle {
            id: item.message.id,
            outcome,
        });
    }

    /// Writes what may be written: control first, then the other lanes by weight.
    fn pump(&mut self, now: Monotonic, actions: &mut Vec<Action>) {
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

    fn write_from(
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
            actions.push(Action::Write {
                s,
                message: item.message.clone(),
                expect_reply,
            });
            if expect_reply || self.acknowledges {
                self.in_flight.insert(s, item);
            } else {
                // The peer says nothing about it, so whether it arrived cannot be known.
                self.settle(
                    item,
                    Outcome::Indeterminate {
                        generation: self.generation,
                    },
                    actions,
                );
            }
        }
        written
    }

    fn forget_seen(&mut self, now: Monotonic) {
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

/// How a message was taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Accepted {
    Sent,
    Buffered,
    Duplicate(Option<Outcome>),
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Closed,
    Draining,
    TooLarge(usize),
    /// At the bound of messages (true) or bytes (false).
    Full(bool),
}

/// What a message costs in memory and on the wire, near enough to bound both.
fn size(message: &IpcMessage) -> usize {
    fn value(of: &serde_json::Value) -> usize {
        match of {
            serde_json::Value::String(text) => text.len() + 16,
            serde_json::Value::Array(items) => 16 + items.iter().map(value).sum::<usize>(),
            serde_json::Value::Object(fields) => {
                16 + fields
                    .iter()
                    .map(|(name, of)| name.len() + 16 + value(of))
                    .sum::<usize>()
            }
            _ => 16,
        }
    }
    96 + message.message_type.len() + value(&message.payload)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
