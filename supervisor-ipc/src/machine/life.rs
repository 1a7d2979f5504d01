//! Telling silence from death: heartbeat, the oldest unanswered message, and bytes that the peer does not take.

use std::time::Duration;

use supervisor_core::Monotonic;
use supervisor_core::message::ChannelState;

use super::{Action, Machine};

/// A deadline noticed so much too late means that we stood still ourselves.
const STOOD_STILL: Duration = Duration::from_secs(2);

/// What is known about the peer's life. Three clocks that do not know of each other.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) last_heard: Monotonic,
    pub(super) pings: u32,
    /// Messages up to this number were asked about already.
    pub(super) asked: u64,
    /// Since when the peer has taken nothing of what is to be written.
    pub(super) stalled: Option<Monotonic>,
}

impl Machine {
    /// Takes the time, and forgives an interval in which this process stood still: nobody could answer us, and
    /// nothing is older for it.
    pub(super) fn wake_up(&mut self, now: Monotonic, actions: &mut Vec<Action>) {
        let late = self.next_deadline().map_or(Duration::ZERO, |due| now.since(due));
        self.now = now;
        if late <= STOOD_STILL {
            return;
        }
        for item in self.lanes.iter_mut().flatten().chain(self.in_flight.values_mut()) {
            item.deadline = item.deadline + late;
            item.answer_by = item.answer_by.map(|by| by + late);
            item.written = item.written.map(|(s, at)| (s, at + late));
        }
        self.expiry = self.expiry.map(|at| at + late);
        self.life.stalled = self.life.stalled.map(|at| at + late);
        self.link.forgive(self.state, late);
        if self.connected() {
            // It gets a fresh interval, and one question at once.
            self.life.last_heard = now;
            self.life.pings = 0;
            self.ping(actions);
        }
    }

    /// Whether the peer is known not to take what is to be written.
    pub(crate) const fn stalls(&self) -> bool {
        self.life.stalled.is_some()
    }

    /// When the next of the three clocks runs out.
    pub(super) fn next_sign(&self) -> Monotonic {
        let heartbeat = self.life.last_heard + self.config.heartbeat.idle * (self.life.pings + 1);
        let stall = self.life.stalled.map(|at| at + self.config.write_deadline);
        [Some(heartbeat), stall, self.oldest_unanswered()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(heartbeat)
    }

    /// When the oldest message in flight has waited long enough to ask about it; once for each.
    fn oldest_unanswered(&self) -> Option<Monotonic> {
        let (s, item) = self.in_flight.range(self.life.asked + 1..).next()?;
        let (_, at) = item.written.filter(|(written, _)| written == s)?;
        Some(at + self.config.request_timeout)
    }

    pub(super) fn on_alive(&mut self, actions: &mut Vec<Action>) {
        self.life.last_heard = self.now;
        self.life.pings = 0;
        if self.state == ChannelState::Suspect {
            self.enter(ChannelState::Ready, "the peer gives signs of life again", actions);
        }
        // Nothing is written to a suspect, so something may wait.
        self.pump(actions);
    }

    pub(super) fn look_for_life(&mut self, actions: &mut Vec<Action>) {
        if !self.connected() {
            return;
        }
        let now = self.now;
        if self.life.stalled.is_some_and(|at| at + self.config.write_deadline <= now) {
            let text = format!("the peer took nothing for {:?}", self.config.write_deadline);
            self.on_lost(&text, actions);
            return;
        }
        if self.oldest_unanswered().is_some_and(|at| at <= now) {
            self.on_unanswered(actions);
        }
        let due = self.life.last_heard + self.config.heartbeat.idle * (self.life.pings + 1);
        if now < due {
            return;
        }
        if self.life.pings >= self.config.heartbeat.misses {
            self.on_lost("the peer gives no sign of life", actions);
            return;
        }
        self.ping(actions);
        if self.life.pings > 1 && self.state == ChannelState::Ready {
            self.enter(ChannelState::Suspect, "a sign of life is overdue", actions);
        }
    }

    pub(super) fn ping(&mut self, actions: &mut Vec<Action>) {
        self.life.pings += 1;
        let s = self.next_s;
        self.next_s += 1;
        actions.push(Action::Ping { s });
    }

    /// A message got no answer in its time: the second sign of a hang, which a question for life settles.
    pub(super) fn on_unanswered(&mut self, actions: &mut Vec<Action>) {
        self.life.asked = self.next_s - 1;
        if self.state == ChannelState::Ready {
            self.enter(ChannelState::Suspect, "a message went unanswered for too long", actions);
            self.ping(actions);
        }
    }
}
