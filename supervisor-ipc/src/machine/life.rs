//! Telling silence from death: heartbeat, the oldest unanswered message, and bytes that the peer does not take.

use std::time::Duration;

use supervisor_core::Monotonic;
use supervisor_core::message::ChannelState;

use super::{Action, Machine};

/// A deadline noticed so much too late means that we stood still ourselves.
const STOOD_STILL: Duration = Duration::from_secs(2);

/// How long the answer may take whether there is a reason for the peer's silence; without one there is none.
const WEIGH_MAX: Duration = Duration::from_secs(10);
/// Silence that no reason excuses (sourcekit-lsp ends its server after five minutes without an answer).
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// What is known about the peer's life. Three clocks that do not know of each other.
#[derive(Debug, Default)]
pub(super) struct Life {
    pub(super) last_heard: Monotonic,
    pub(super) pings: u32,
    /// Messages up to this number were asked about already.
    pub(super) asked: u64,
    /// Since when the peer has taken nothing of what is to be written.
    pub(super) stalled: Option<Monotonic>,
    /// What the peer would be given up for, while is asked whether there is a reason that speaks for it.
    weighing: Option<String>,
    /// Nobody judges the peer before this: its silence is being weighed, or has its reason.
    pub(super) patience: Option<Monotonic>,
}

impl Life {
    pub(super) fn forget_doubt(&mut self) {
        self.weighing = None;
        self.patience = None;
    }
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
        for item in self.lanes.iter_mut().flatten().chain(&mut self.in_flight) {
            item.deadline = item.deadline + late;
            item.answer_by = item.answer_by.map(|by| by + late);
            item.written = item.written.map(|(s, at)| (s, at + late));
        }
        self.expiry = self.expiry.map(|at| at + late);
        self.life.stalled = self.life.stalled.map(|at| at + late);
        self.link.forgive(self.state, late);
        self.life.forget_doubt();
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
        let next = [Some(heartbeat), stall, self.oldest_unanswered()];
        let next = next.into_iter().flatten().min().unwrap_or(heartbeat);
        self.life.patience.map_or(next, |patience| patience.max(next))
    }

    /// When the oldest message in flight has waited long enough to ask about it; once for each.
    fn oldest_unanswered(&self) -> Option<Monotonic> {
        let asked = self.life.asked;
        let first = self.in_flight.front()?;
        let item = if first.s() > asked {
            first
        } else {
            self.in_flight.get(self.in_flight.partition_point(|item| item.s() <= asked))?
        };
        item.written.map(|(_, at)| at + self.config.request_timeout)
    }

    pub(super) fn on_alive(&mut self, actions: &mut Vec<Action>) {
        self.life.last_heard = self.now;
        self.life.pings = 0;
        self.life.forget_doubt();
        if self.state == ChannelState::Suspect {
            self.enter(ChannelState::Ready, "the peer gives signs of life again", actions);
        }
        // Nothing is written to a suspect, so something may wait.
        self.pump(actions);
    }

    pub(super) fn look_for_life(&mut self, actions: &mut Vec<Action>) {
        let now = self.now;
        if !self.connected() || self.life.patience.is_some_and(|until| now < until) {
            return;
        }
        if self.life.stalled.is_some_and(|at| at + self.config.write_deadline <= now) {
            let text = format!("the peer took nothing for {:?}", self.config.write_deadline);
            self.on_silence(text, actions);
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
            self.on_silence("the peer gives no sign of life".to_owned(), actions);
            return;
        }
        self.ping(actions);
        if self.life.pings > 1 && self.state == ChannelState::Ready {
            self.enter(ChannelState::Suspect, "a sign of life is overdue", actions);
        }
    }

    /// How long the peer has said nothing, or taken nothing.
    fn silence(&self) -> Duration {
        let since = self.life.stalled.unwrap_or(self.life.last_heard).min(self.life.last_heard);
        self.now.since(since)
    }

    /// The peer would be given up now; if somebody runs it, that one is asked first what it does meanwhile.
    pub(super) fn on_silence(&mut self, text: String, actions: &mut Vec<Action>) {
        let asked = self.life.weighing.is_some();
        if !self.weighs || asked || self.silence() >= SILENCE_MAX {
            // Asked and not answered is as good as no reason.
            return self.on_lost(&text, true, actions);
        }
        self.wait_for(WEIGH_MAX);
        self.life.weighing = Some(text);
        actions.push(Action::Weigh { generation: self.generation });
    }

    pub(super) fn on_weighed(&mut self, excuse: Option<String>, actions: &mut Vec<Action>) {
        // It may have spoken meanwhile.
        let Some(text) = self.life.weighing.take() else { return };
        let Some(excuse) = excuse else { return self.on_lost(&text, true, actions) };
        self.wait_for(self.config.heartbeat.idle);
        let doubted = format!("{text}, but {excuse}; asked again");
        match self.state {
            ChannelState::Ready | ChannelState::Suspect => {
                self.enter(ChannelState::Suspect, &doubted, actions);
            }
            _ => self.reason = doubted.into(),
        }
    }

    fn wait_for(&mut self, time: Duration) {
        let until = self.now + time;
        if self.state == ChannelState::Syncing {
            self.link.timer = Some(until);
        } else {
            self.life.patience = Some(until);
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
