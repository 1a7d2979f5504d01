//! Connecting: when, how often, and when to stop for a while.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::Monotonic;
use supervisor_core::message::{ChannelState, Outcome};
use supervisor_core::policy::jittered;

use super::{Action, Incident, Item, Machine, Tally};

/// Generations in which a message must have been the only unanswered one before it is blamed for their end.
const BLAMED_AFTER: u32 = 2;

/// Where the connection stands.
#[derive(Debug, Default)]
pub(super) struct Link {
    attempt: u32,
    /// When connections were lost.
    losses: VecDeque<Monotonic>,
    /// Since when nobody could be connected to.
    absent: Option<Monotonic>,
    /// Times the circuit opened without a stable connection since.
    opened: u32,
    /// The one try of an open circuit is under way: its failure opens the circuit again at once.
    half_open: bool,
    pub(super) timer: Option<Monotonic>,
    pub(super) stable_at: Option<Monotonic>,
    incident: Option<Ongoing>,
}

/// A loss that is not recovered from yet.
#[derive(Debug)]
struct Ongoing {
    began: Monotonic,
    since: Monotonic,
    cause: Arc<str>,
    waited: Duration,
    connecting: Duration,
    syncing: Duration,
    attempts: u32,
    redelivered: u64,
    outcomes: Tally,
}

impl Link {
    pub(super) fn stable(&mut self) {
        *self = Self { timer: self.timer, ..Self::default() };
    }

    pub(super) const fn rest(&mut self) {
        self.timer = None;
        self.stable_at = None;
    }

    /// Moves what measures the peer's time by an interval in which we stood still.
    pub(super) fn forgive(&mut self, state: ChannelState, late: Duration) {
        if state == ChannelState::Syncing {
            self.timer = self.timer.map(|at| at + late);
        }
        self.stable_at = self.stable_at.map(|at| at + late);
    }

    /// Adds the time since the last change to the state that was left.
    pub(super) fn spent(&mut self, state: ChannelState, now: Monotonic) {
        let Some(ongoing) = &mut self.incident else { return };
        let time = now.since(ongoing.since);
        ongoing.since = now;
        match state {
            ChannelState::Backoff | ChannelState::Open => ongoing.waited += time,
            ChannelState::Connecting => ongoing.connecting += time,
            ChannelState::Syncing => ongoing.syncing += time,
            _ => {}
        }
    }
}

impl Machine {
    fn connect(&mut self, reason: &str, actions: &mut Vec<Action>) {
        self.link.timer = None;
        if let Some(ongoing) = &mut self.link.incident {
            ongoing.attempts += 1;
        }
        self.enter(ChannelState::Connecting, reason, actions);
        actions.push(Action::Connect);
    }

    pub(super) fn on_attached(&mut self, actions: &mut Vec<Action>) {
        self.attached = true;
        if matches!(
            self.state,
            ChannelState::Connecting | ChannelState::Backoff | ChannelState::Open
        ) {
            self.link.attempt = 0;
            self.link.absent = None;
            self.connect("connecting", actions);
        }
    }

    /// Works whatever backoff and circuit say.
    pub(super) fn on_retry(&mut self, actions: &mut Vec<Action>) {
        if self.attached && matches!(self.state, ChannelState::Backoff | ChannelState::Open) {
            self.link = Link { incident: self.link.incident.take(), ..Link::default() };
            self.connect("asked to try now", actions);
        }
    }

    pub(super) fn on_connected(&mut self, actions: &mut Vec<Action>) {
        if self.state != ChannelState::Connecting {
            actions.push(Action::Disconnect);
            return;
        }
        self.generation = self.generation.next();
        self.link.absent = None;
        self.life.last_heard = self.now;
        self.life.pings = 0;
        self.life.stalled = None;
        self.life.forget_doubt();
        self.writable = true;
        self.link.timer = Some(self.now + self.config.handshake_timeout);
        self.enter(ChannelState::Syncing, "restoring the peer's state", actions);
        actions.push(Action::Synchronize { generation: self.generation });
    }

    pub(super) fn on_synced(&mut self, handled: u64, actions: &mut Vec<Action>) {
        if self.state != ChannelState::Syncing {
            return;
        }
        if self.never_given(handled) {
            return self.on_liar("it says to have handled", handled, actions);
        }
        self.link.timer = None;
        self.life.last_heard = self.now;
        self.life.asked = self.next_s - 1;
        self.link.stable_at = Some(self.now + self.config.reconnect.reset_after);
        self.enter(ChannelState::Ready, "connected", actions);
        self.settle_handled(handled, actions);
        if let Some(ongoing) = self.link.incident.take() {
            actions.push(Action::Recovered(Box::new(Incident {
                took: self.now.since(ongoing.began),
                cause: ongoing.cause,
                waited: ongoing.waited,
                connecting: ongoing.connecting,
                syncing: ongoing.syncing,
                attempts: ongoing.attempts,
                redelivered: ongoing.redelivered,
                outcomes: self.outcomes.since(ongoing.outcomes),
            })));
        }
        self.pump(actions);
    }

    /// The connection broke: what was in flight goes back to the front in its order, or ends as unknown.
    pub(super) fn on_lost(&mut self, reason: &str, silent: bool, actions: &mut Vec<Action>) {
        if !(self.connected() || self.state == ChannelState::Syncing) {
            return;
        }
        if self.state == ChannelState::Draining {
            // Nobody is left to finish it with; a drain never waits for a peer that would have to come back.
            return self.on_close(reason, actions);
        }
        if self.link.incident.is_none() {
            self.link.incident = Some(Ongoing {
                began: self.now,
                since: self.now,
                cause: reason.into(),
                waited: Duration::ZERO,
                connecting: Duration::ZERO,
                syncing: Duration::ZERO,
                attempts: 0,
                redelivered: 0,
                outcomes: self.outcomes,
            });
        }
        let alone = u32::from(self.in_flight.len() == 1);
        for item in std::mem::take(&mut self.in_flight).into_iter().rev() {
            self.take_back(item, alone, actions);
        }
        self.life.stalled = None;
        self.life.forget_doubt();
        actions.push(Action::Lost { silent, reason: reason.into() });
        actions.push(Action::Disconnect);
        let now = self.now;
        self.link.losses.push_back(now);
        let window = self.config.breaker.window;
        while self.link.losses.front().is_some_and(|at| now.since(*at) >= window) {
            self.link.losses.pop_front();
        }
        let looping = self.link.losses.len() >= self.config.breaker.failure_threshold as usize;
        // A run whose pipes nobody took would stand still as soon as they are full, however rightly it was started.
        self.on_failure(reason, looping && !self.paced, actions);
    }

    /// Nobody is there. That is no crash: who is started may take as long to listen as it may take for its handshake.
    pub(super) fn on_absent(&mut self, reason: &str, permanent: bool, actions: &mut Vec<Action>) {
        let since = *self.link.absent.get_or_insert(self.now);
        let given_up = self.now.since(since) >= self.config.handshake_timeout;
        self.on_failure(reason, permanent || (given_up && !self.paced), actions);
    }

    fn take_back(&mut self, mut item: Item, alone: u32, actions: &mut Vec<Action>) {
        item.answer_by = None;
        if !item.options.idempotent {
            let generation = self.generation;
            return self.settle(item, Outcome::Indeterminate { generation }, actions);
        }
        item.broke.push(self.generation);
        item.alone += alone;
        let cause = if self.blames && item.alone >= BLAMED_AFTER {
            format!(
                "the only unanswered message when the connection broke, {BLAMED_AFTER} times in a row"
            )
        } else if item.attempts >= self.config.max_attempts {
            format!("written {} times, the connection broke each time", item.attempts)
        } else {
            if let Some(ongoing) = &mut self.link.incident {
                ongoing.redelivered += 1;
            }
            return self.push_front(item);
        };
        actions.push(Action::Bury {
            message: Arc::clone(&item.message),
            cause: cause.clone(),
            generations: item.broke.clone(),
        });
        self.settle(item, Outcome::DeadLettered { reason: cause }, actions);
    }

    /// Tries again after a pause, or after a long one.
    fn on_failure(&mut self, reason: &str, open: bool, actions: &mut Vec<Action>) {
        if matches!(self.state, ChannelState::Closed | ChannelState::Backoff | ChannelState::Open) {
            return;
        }
        let now = self.now;
        self.link.stable_at = None;
        self.paused = None;
        if open || (self.link.half_open && !self.paced) {
            return self.open(reason, actions);
        }
        let backoff = &self.config.reconnect;
        let doubled = 1_u32.checked_shl(self.link.attempt).unwrap_or(u32::MAX);
        let full = backoff.base_delay.saturating_mul(doubled);
        // The first try is at once: a service that was restarted is usually there already.
        let delay = if self.link.attempt == 0 || self.paced {
            Duration::ZERO
        } else {
            jittered(full.min(backoff.max_delay), 1.0, self.random.next_u64())
        };
        self.link.attempt = self.link.attempt.saturating_add(1);
        self.link.timer = Some(now + delay);
        self.enter(ChannelState::Backoff, reason, actions);
    }

    fn open(&mut self, reason: &str, actions: &mut Vec<Action>) {
        let breaker = &self.config.breaker;
        let doubled = 1 << self.link.opened.min(20);
        let pause = breaker.open_base.saturating_mul(doubled).min(breaker.open_max);
        self.link.opened = self.link.opened.saturating_add(1);
        self.link.losses.clear();
        self.link.half_open = false;
        self.link.timer = Some(self.now + pause);
        let text = format!("{reason}; tried again in {pause:?}, or at once on request");
        self.enter(ChannelState::Open, &text, actions);
    }

    pub(super) fn on_timer(&mut self, actions: &mut Vec<Action>) {
        self.link.timer = None;
        match self.state {
            ChannelState::Backoff => self.connect("reconnecting", actions),
            ChannelState::Open => {
                self.link.half_open = true;
                self.connect("half-open: one try", actions);
            }
            ChannelState::Syncing => {
                self.on_silence("the peer's state was not restored in time".to_owned(), actions);
            }
            _ => {}
        }
    }
}
