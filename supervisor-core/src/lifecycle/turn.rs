//! One step's effects, collected by kind so that they come out in the order of the contract.

use super::{CommandFailure, Effect, Lifecycle, Now};
use crate::CommandId;
use crate::event::EventKind;
use crate::exit::ExitReport;
use crate::journal::Transition;
use crate::state::Phase;

/// What one step does: store, act, publish, reply.
pub(super) struct Turn {
    pub(super) now: Now,
    from: Phase,
    was_ready: bool,
    cause: Option<&'static str>,
    exit: Option<ExitReport>,
    acts: Vec<Effect>,
    events: Vec<EventKind>,
    replies: Vec<Effect>,
}

impl Turn {
    pub(super) const fn begin(now: Now, from: Phase, was_ready: bool) -> Self {
        Self {
            now,
            from,
            was_ready,
            cause: None,
            exit: None,
            acts: Vec::new(),
            events: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// Stores the state this step ends in; the first cause given names the journal row.
    pub(super) const fn persist(&mut self, cause: &'static str) {
        if self.cause.is_none() {
            self.cause = Some(cause);
        }
    }

    pub(super) fn act(&mut self, effect: Effect) {
        self.acts.push(effect);
    }

    pub(super) fn publish(&mut self, event: EventKind) {
        self.events.push(event);
    }

    pub(super) fn reply(&mut self, id: CommandId, result: Result<(), CommandFailure>) {
        self.replies.push(Effect::Reply { id, result });
    }

    /// Attaches the end of a run to the state change this step publishes.
    pub(super) fn ended(&mut self, report: &ExitReport) {
        self.exit = Some(report.clone());
    }

    pub(super) fn finish(self, machine: &Lifecycle) -> Vec<Effect> {
        let mut effects =
            Vec::with_capacity(self.acts.len() + self.events.len() + self.replies.len() + 2);
        let changed = machine.phase != self.from || machine.ready != self.was_ready;
        if let Some(cause) = self.cause {
            let transition =
                Transition { state: machine.state(), from: self.from, cause: cause.to_owned() };
            effects.push(Effect::Persist(Box::new(transition)));
        }
        effects.extend(self.acts);
        if changed {
            effects.push(Effect::Publish(EventKind::ServiceStateChanged {
                service: machine.id.clone(),
                incarnation: machine.incarnation,
                from: self.from,
                to: machine.phase,
                ready: machine.ready,
                pid: machine.identity.as_ref().map(|identity| identity.pid),
                reason: machine.reason.clone(),
                exit: self.exit,
            }));
        }
        effects.extend(self.events.into_iter().map(Effect::Publish));
        effects.extend(self.replies);
        effects
    }
}
