//! What happens to a message before the machine has it: it is stored, or its sender waits for room.

use std::time::Duration;

use supervisor_core::config::OverflowPolicy;
use supervisor_core::error::IpcError;
use supervisor_core::message::{ChannelState, IpcMessage, Lane, OutboxEntry, Outcome};
use supervisor_core::{Monotonic, Sequence};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::Task;
use crate::durable::{self, Durable, NO_END};
use crate::machine::{Refusal, SendOptions};
use crate::message::size;
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
        answer: oneshot::Sender<Receipt>,
    ) {
        let policy = self.options.config.overflow;
        let full = self.machine.full(size(&message), options.lane).is_some();
        let receipt = if options.durable {
            match self.unstorable(&message, options) {
                None => return self.store(message, options, answer),
                Some(error) => Receipt::refused(message.id, error),
            }
        } else if policy == OverflowPolicy::Spill
            && (full || self.durable.as_ref().is_some_and(Durable::behind))
            && self.unstorable(&message, options).is_none()
        {
            let ttl = options.ttl.unwrap_or(self.options.config.message_ttl);
            return self.store(message, SendOptions { ttl: Some(ttl), ..options }, answer);
        } else if policy == OverflowPolicy::Block
            && (full || !self.blocked.is_empty())
            && self.blocked.len() < BLOCKED_MAX
            && options.lane != Lane::Control
        {
            let until = self.now() + self.options.config.block_timeout;
            self.blocked.push_back(Blocked { message, options, answer, until });
            return;
        } else {
            self.accept(message, options)
        };
        // The sender does not wait any more; the message goes its way.
        drop(answer.send(receipt));
    }

    /// Lets senders in that wait for room, in their order, and refuses those whose time is over.
    pub(super) fn unblock(&mut self) {
        while let Some(front) = self.blocked.front() {
            let full = self.machine.full(size(&front.message), front.options.lane).is_some();
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

    pub(super) fn store(
        &mut self,
        message: IpcMessage,
        options: SendOptions,
        answer: oneshot::Sender<Receipt>,
    ) {
        let now = self.world.clock.wall();
        if let Some(durable) = &mut self.durable {
            durable.store(message, options, now, answer);
        }
    }

    pub(super) fn on_stored(&mut self, done: durable::Done) {
        let now = self.now();
        let Some(durable) = &mut self.durable else { return };
        match done {
            durable::Done::Stored { message, options, answer, result } => {
                let id = message.id;
                let receipt = match result {
                    Ok(sequence) => self.accept_stored(sequence, message, options),
                    Err(source) => {
                        let channel = self.name.to_string();
                        Receipt::refused(id, IpcError::Outbox { channel, source })
                    }
                };
                drop(answer.send(receipt));
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
        let full = self.machine.full(size(&message), options.lane).is_some();
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
        let outcome =
            self.waiting.entry(id).or_insert_with(|| watch::Sender::new(None)).subscribe();
        Receipt::new(id, Acceptance::Buffered, outcome)
    }

    /// Puts a message that was read back into the machine; false when there is no room.
    pub(super) fn accept_loaded(&mut self, entry: OutboxEntry, left: Option<Duration>) -> bool {
        let id = entry.message.id;
        if left.is_some_and(|left| left.is_zero()) {
            self.settle(id, Outcome::Expired);
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
        if self.machine.full(size(&entry.message), options.lane).is_some() {
            if let Some(durable) = &mut self.durable {
                durable.leave(entry.sequence);
            }
            return false;
        }
        // Before the machine acts, as it may end in the very step that accepts it.
        if self.machine.admits(id) {
            self.hold(id);
        }
        let now = self.now();
        let mut actions = Vec::new();
        let accepted = self.machine.accept(now, entry.message, options, &mut actions);
        self.carry_out(actions);
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

    pub(super) fn drive_outbox(&mut self) {
        let now = self.now();
        let room = self.machine.buffered() <= self.options.config.max_buffered_messages / 2
            && !matches!(self.machine.state, ChannelState::Closed | ChannelState::Draining);
        if let Some(durable) = &mut self.durable {
            durable.step(now, room);
        }
    }
}
