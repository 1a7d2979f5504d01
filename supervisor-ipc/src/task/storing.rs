//! What happens to a message before the machine has it: it is stored, or its sender waits for room.

use std::time::Duration;

use supervisor_core::config::OverflowPolicy;
use supervisor_core::error::IpcError;
use supervisor_core::message::{ChannelState, IpcMessage, Lane, OutboxEntry, Outcome};
use supervisor_core::{Monotonic, Sequence};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Task;
use super::driving::Taken;
use crate::durable::{self, Durable, NO_END, Place, STORES_MAX};
use crate::machine::{Refusal, SendOptions};
use crate::message::{held, size};
use crate::receipt::{Acceptance, Receipt};

/// Senders that may wait for room. At the bound the next ones are refused at once.
const BLOCKED_MAX: usize = 256;

/// A sender that waits for room.
#[derive(Debug)]
pub(crate) struct Blocked {
    message: IpcMessage,
    options: SendOptions,
    answer: oneshot::Sender<Receipt>,
    pub(super) until: Monotonic,
}

impl Task {
    pub(super) fn on_send(
        &mut self,
        message: IpcMessage,
        options: SendOptions,
        place: Option<Place>,
    ) -> Taken {
        let policy = self.options.config.overflow;
        let full = self.machine.full(held(&message), options.lane).is_some();
        if options.durable {
            return match self.unstorable(&message, options) {
                None => self.store(message, options, place),
                Some(error) => Taken::Now(Receipt::refused(message.id, error)),
            };
        }
        if policy == OverflowPolicy::Spill
            && (full || self.durable.as_ref().is_some_and(Durable::behind))
            && self.unstorable(&message, options).is_none()
        {
            let ttl = options.ttl.unwrap_or(self.options.config.message_ttl);
            return self.store(message, SendOptions { ttl: Some(ttl), ..options }, place);
        }
        if policy == OverflowPolicy::Block
            && (full || !self.blocked.is_empty())
            && self.blocked.len() < BLOCKED_MAX
            && options.lane != Lane::Control
            && self.machine.state != ChannelState::Closed
        {
            let until = self.now() + self.options.config.block_timeout;
            let (answer, answered) = oneshot::channel();
            self.blocked.push_back(Blocked { message, options, answer, until });
            self.attention = true;
            return Taken::Later(answered);
        }
        Taken::Now(self.accept(message, options))
    }

    /// Lets senders in that wait for room, in their order, and refuses those whose time is over.
    pub(super) fn unblock(&mut self) {
        while let Some(front) = self.blocked.front() {
            let full = self.machine.full(held(&front.message), front.options.lane).is_some();
            if full && self.now() < front.until && self.machine.state != ChannelState::Closed {
                return;
            }
            let Some(Blocked { message, options, answer, .. }) = self.blocked.pop_front() else {
                return;
            };
            // A sender that gave up is not sent for.
            if !answer.is_closed() {
                let receipt = self.accept(message, options);
                drop(answer.send(receipt));
            }
        }
    }

    /// Says why a message cannot go through the outbox.
    pub(super) fn unstorable(
        &self,
        message: &IpcMessage,
        options: SendOptions,
    ) -> Option<IpcError> {
        let bytes = size(message);
        let reason = if !self.protocol.acknowledges() {
            "a durable message needs a peer that acknowledges: our own envelope".to_owned()
        } else if self.durable.is_none() {
            "this monitor has no outbox to store it in".to_owned()
        } else if !options.idempotent {
            "a durable message is sent again until it is acknowledged, so it must be idempotent"
                .to_owned()
        } else if matches!(self.machine.state, ChannelState::Closed | ChannelState::Draining) {
            return Some(IpcError::Closed { channel: self.name.to_string() });
        } else if bytes as u64 > self.options.config.max_frame.bytes() {
            return Some(self.refusal(message.id, Refusal::TooLarge(bytes)));
        } else {
            return None;
        };
        Some(IpcError::Unsendable { channel: self.name.to_string(), id: message.id, reason })
    }

    fn store(&mut self, message: IpcMessage, options: SendOptions, place: Option<Place>) -> Taken {
        let (now, id) = (self.world.clock.wall(), message.id);
        let (answer, answered) = oneshot::channel();
        let Some(durable) = &mut self.durable else {
            return Taken::Now(self.accept(message, options));
        };
        let Some(place) = place.or_else(|| durable.place()) else {
            let limit = format!("{STORES_MAX} messages to be stored");
            let channel = self.name.to_string();
            return Taken::Now(Receipt::refused(id, IpcError::BufferFull { channel, limit }));
        };
        durable.store(message, options, now, answer, place);
        self.attention = true;
        Taken::Later(answered)
    }

    pub(super) fn on_stored(&mut self, done: durable::Done) {
        let now = self.now();
        let Some(durable) = &mut self.durable else { return };
        match done {
            durable::Done::Stored(stored) => {
                durable.stored();
                for (waiting, result) in stored {
                    let durable::Waiting { message, options, answer, .. } = waiting;
                    let receipt = match result {
                        Ok(sequence) => self.accept_stored(sequence, message, options),
                        Err(source) => {
                            let channel = self.name.to_string();
                            Receipt::refused(message.id, IpcError::Outbox { channel, source })
                        }
                    };
                    // The sender does not wait any more; the message goes its way.
                    drop(answer.send(receipt));
                }
            }
            durable::Done::Removed(ids, result) => durable.removed(now, ids, result),
            durable::Done::Buried(result) => {
                if let Err(error) = result {
                    tracing::warn!(channel = %self.name, %error, "a dead letter is kept in memory only");
                }
            }
            durable::Done::Loaded(after, result) => {
                let wall = self.world.clock.wall();
                let mut full = false;
                for entry in durable.loaded(now, after, result) {
                    let left = entry.expires_at.map(|at| (at - wall).to_std().unwrap_or_default());
                    if full {
                        break;
                    }
                    full = !self.accept_loaded(entry, left);
                }
            }
        }
    }

    pub(super) fn accept_stored(
        &mut self,
        sequence: Sequence,
        message: IpcMessage,
        options: SendOptions,
    ) -> Receipt {
        let id = message.id;
        let options = SendOptions { ttl: Some(options.ttl.unwrap_or(NO_END)), ..options };
        let behind = self.durable.as_ref().is_some_and(Durable::behind);
        let full = self.machine.full(held(&message), options.lane).is_some();
        if !behind && !full {
            let receipt = self.accept(message, options);
            if matches!(receipt.accepted(), Ok(Acceptance::Sent | Acceptance::Buffered)) {
                self.hold(id);
            } else if let Some(durable) = &mut self.durable
                && !durable.holds(id)
            {
                // Refused, or a repetition of one that has ended: nothing is to be sent.
                durable.finish(id);
            }
            return receipt;
        }
        if let Some(durable) = &mut self.durable {
            durable.leave(sequence);
        }
        // Bounded by the rows of the outbox; each goes when its message ends.
        let open = self.machine.slot(id);
        let outcome = open.unwrap_or_else(|| self.left.entry(id).or_default().slot());
        Receipt::new(id, Acceptance::Buffered, outcome)
    }

    /// Puts a message that was read back into the machine; false when there is no room.
    pub(super) fn accept_loaded(&mut self, entry: OutboxEntry, left: Option<Duration>) -> bool {
        let id = entry.message.id;
        if left.is_some_and(|left| left.is_zero()) {
            if let Some(promise) = self.left.remove(&id) {
                self.settled.push((promise, Outcome::Expired));
            }
            if let Some(durable) = &mut self.durable {
                durable.finish(id);
            }
            return true;
        }
        let options = SendOptions {
            ttl: Some(left.unwrap_or(NO_END)),
            durable: true,
            ..SendOptions::default()
        };
        if self.machine.full(held(&entry.message), options.lane).is_some() {
            if let Some(durable) = &mut self.durable {
                durable.leave(entry.sequence);
            }
            return false;
        }
        // Before the machine acts, as it may end in the very step that accepts it.
        if self.machine.admits(id) {
            self.hold(id);
        }
        let (accepted, _) = self.admit(entry.message, options);
        if let Err(refusal) = accepted {
            tracing::debug!(channel = %self.name, %id, ?refusal, "a stored message stays in the outbox");
        }
        true
    }

    pub(super) fn hold(&mut self, id: Uuid) {
        if let Some(durable) = &mut self.durable {
            durable.hold(id);
        }
    }

    /// Begins what is due; says whether senders should have a turn first.
    pub(super) fn drive_outbox(&mut self) -> bool {
        if self.durable.is_none() {
            return false;
        }
        let now = self.now();
        let room = self.machine.buffered() <= self.options.config.max_buffered_messages / 2
            && !matches!(self.machine.state, ChannelState::Closed | ChannelState::Draining);
        let Some(durable) = &mut self.durable else { return false };
        if durable.gathers() {
            return true;
        }
        let before = durable.jobs.len();
        durable.step(now, room, &self.runtime);
        // Begun just now, so nobody listens for its end yet.
        self.attention |= durable.jobs.len() > before;
        false
    }
}
