//! What a channel tells of itself: events, dead letters, and its state at a glance.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use supervisor_core::Generation;
use supervisor_core::event::EventKind;
use supervisor_core::message::{
    ChannelRecovery, ChannelState, DeadLetter, IpcMessage, Lane, Outcome,
};
use uuid::Uuid;

use super::Task;
use crate::channel::Shown;
use crate::message::{Incident, Tally};

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

pub(crate) fn named(tally: Tally) -> BTreeMap<String, u64> {
    tally.named().map(|(name, count)| (name.to_owned(), count)).collect()
}

impl Task {
    pub(super) fn bury(
        &mut self,
        message: &Arc<IpcMessage>,
        cause: String,
        generations: Vec<Generation>,
    ) {
        let letter = DeadLetter {
            channel: self.name.to_string(),
            message: IpcMessage::clone(message),
            at: self.world.clock.wall(),
            cause,
            generations,
            kept_because: None,
        };
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        if dead.len() >= self.options.config.max_dead_letters {
            dead.pop_front();
        }
        dead.push_back(letter.clone());
        drop(dead);
        if let Some(durable) = &mut self.durable {
            durable.bury(letter, &self.runtime);
            self.attention = true;
        }
    }

    pub(super) fn tell_dropped(&self, id: Uuid, lane: Lane, outcome: &Outcome) {
        let reason = match outcome {
            Outcome::Rejected { reason } => reason.clone(),
            Outcome::Indeterminate { .. } => "no answer came in its time".to_owned(),
            _ => "its time was up".to_owned(),
        };
        self.world.sink.publish(EventKind::IpcMessageDropped {
            channel: self.name.to_string(),
            message: id,
            lane,
            outcome: outcome.name().to_owned(),
            reason,
        });
    }

    pub(super) fn tell_recovered(&mut self, incident: &Incident) {
        let outcomes = named(incident.outcomes);
        let recovery = ChannelRecovery {
            cause: incident.cause.to_string(),
            took_us: micros(incident.took),
            waited_us: micros(incident.waited),
            connecting_us: micros(incident.connecting),
            syncing_us: micros(incident.syncing),
            attempts: incident.attempts,
            redelivered: incident.redelivered,
            outcomes: outcomes.clone(),
        };
        self.world.sink.publish(EventKind::ChannelRecovered {
            channel: self.name.to_string(),
            generation: self.machine.generation,
            took_us: recovery.took_us,
            cause: recovery.cause.clone(),
            redelivered: recovery.redelivered,
            lost: outcomes.get("Indeterminate").copied().unwrap_or_default(),
            waited_us: recovery.waited_us,
            connecting_us: recovery.connecting_us,
            syncing_us: recovery.syncing_us,
            attempts: recovery.attempts,
            outcomes,
        });
        self.last_recovery = Some(Arc::new(recovery));
    }

    /// Tells those who wait for a state, or for a drain to be over, and senders that are too quick.
    pub(super) fn publish(&mut self) {
        self.share.set(self.machine.buffered_bytes);
        let shown = Shown { state: self.machine.state, buffered: self.machine.buffered() };
        let most = self.options.config.max_buffered_messages;
        let behind = shown.state == ChannelState::Ready && shown.buffered > most / 2;
        if self.behind.load(Ordering::Relaxed) != behind {
            self.behind.store(behind, Ordering::Relaxed);
        }
        if shown.state != self.told || shown.state == ChannelState::Draining {
            self.told = shown.state;
            self.shown.send_replace(shown);
        }
    }
}
