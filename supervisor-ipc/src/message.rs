//! What happens to a channel, what is asked for, and what a message is while it is on its way.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use supervisor_core::config::RecoveryConfig;
use supervisor_core::error::IpcError;
use supervisor_core::message::{ChannelState, IpcMessage, Lane, Outcome};
use supervisor_core::{Generation, Monotonic};
use uuid::Uuid;

use crate::receipt::Promise;
use crate::recent::Place;

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
    /// Whether it is stored before it is accepted, and sent again by the next process if this one dies first. Needs
    /// a monitor with an [outbox](crate::IpcMonitorBuilder::outbox) and `idempotent`; without `ttl` it never expires.
    pub durable: bool,
    /// What state it tells, if it tells one: it takes the place of an earlier message of its lane with the same key
    /// that was not written yet, whose outcome is `Superseded`. Never replaces a durable message.
    pub replaces: Option<u64>,
}

impl Default for SendOptions {
    /// Normal lane, may be repeated, the channel's time to live, acknowledged.
    fn default() -> Self {
        Self {
            lane: Lane::Normal,
            idempotent: true,
            ttl: None,
            expect_reply: false,
            durable: false,
            replaces: None,
        }
    }
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) message: Arc<IpcMessage>,
    /// Where its id is remembered, with who waits for its outcome.
    pub(crate) place: Place,
    pub(crate) options: SendOptions,
    pub(crate) bytes: usize,
    pub(crate) deadline: Monotonic,
    /// When its answer is overdue, once it was written and if it gets one.
    pub(crate) answer_by: Option<Monotonic>,
    /// Its number when it was written last, and when that was.
    pub(crate) written: Option<(u64, Monotonic)>,
    pub(crate) attempts: u32,
    /// Connections that broke while it was unanswered.
    pub(crate) broke: Vec<Generation>,
    /// How many of them broke while nothing else was unanswered.
    pub(crate) alone: u32,
}

impl Item {
    /// When it is given up, waiting or in flight.
    pub(crate) fn due(&self) -> Monotonic {
        self.answer_by.map_or(self.deadline, |by| by.min(self.deadline))
    }

    /// Its number when it was written last; 0 when it was not.
    pub(crate) fn s(&self) -> u64 {
        self.written.map_or(0, |(s, _)| s)
    }

    /// Whether it was there too often when a connection broke to be written beside others.
    pub(crate) fn suspected(&self) -> bool {
        self.broke.len() >= 2
    }
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
    /// The peer's state is restored; of what was sent before it has handled everything up to this number.
    Synced {
        handled: u64,
    },
    Lost {
        reason: String,
    },
    /// Why the peer may be silent without being dead, if somebody knows a reason.
    Weighed {
        excuse: Option<String>,
    },
    /// Something came from the peer.
    Alive,
    /// The peer has everything up to `s`; `duplicate` says that it had seen `s` itself before.
    Acked {
        s: u64,
        duplicate: bool,
    },
    Replied {
        s: u64,
        reply: Value,
    },
    /// The peer took bytes, or all there were.
    Wrote {
        pending: bool,
    },
    RetryNow,
    Drain,
    Close,
    Tick,
}

/// What the machine asks for.
#[derive(Debug)]
pub(crate) enum Action {
    Connect,
    Disconnect,
    Synchronize {
        generation: Generation,
    },
    Write {
        s: u64,
        message: Arc<IpcMessage>,
        expect_reply: bool,
    },
    Ping {
        s: u64,
    },
    Settle {
        id: Uuid,
        /// Who waits for it.
        promise: Promise,
        outcome: Outcome,
    },
    Bury {
        message: Arc<IpcMessage>,
        cause: String,
        generations: Vec<Generation>,
    },
    Dropped {
        id: Uuid,
        lane: Lane,
        outcome: Outcome,
    },
    State {
        from: ChannelState,
        to: ChannelState,
        reason: Arc<str>,
    },
    Recovered(Box<Incident>),
    /// Ask whoever runs the peer why it is silent; answered by `Weighed`.
    Weigh {
        generation: Generation,
    },
    /// The connection was given up, `silent` for want of a sign of life.
    Lost {
        silent: bool,
        reason: Arc<str>,
    },
}

/// How one loss was recovered from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Incident {
    pub(crate) cause: Arc<str>,
    pub(crate) took: Duration,
    /// Of that, waiting before attempts, with an open circuit included.
    pub(crate) waited: Duration,
    pub(crate) connecting: Duration,
    pub(crate) syncing: Duration,
    /// Attempts to connect.
    pub(crate) attempts: u32,
    pub(crate) redelivered: u64,
    /// Messages that ended meanwhile, by outcome.
    pub(crate) outcomes: Tally,
}

/// How many messages ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally(pub(crate) [u64; 8]);

/// The outcomes in the order in which they are counted.
pub(crate) const OUTCOMES: [&str; 8] = [
    "Answered",
    "Acked",
    "NotSent",
    "Indeterminate",
    "Expired",
    "Rejected",
    "Superseded",
    "DeadLettered",
];

impl Tally {
    pub(crate) fn count(&mut self, outcome: &Outcome) {
        let at = match outcome {
            Outcome::Answered { .. } => 0,
            Outcome::Acked { .. } => 1,
            Outcome::NotSent { .. } => 2,
            Outcome::Indeterminate { .. } => 3,
            Outcome::Expired => 4,
            Outcome::Rejected { .. } => 5,
            Outcome::Superseded => 6,
            Outcome::DeadLettered { .. } => 7,
        };
        self.0[at] += 1;
    }

    /// Gives what was counted since.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] - earlier.0[at]))
    }

    /// Gives each outcome that occurred with its number.
    pub(crate) fn named(self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
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
    Full(Limit),
}

impl Refusal {
    /// Says so to the sender.
    pub(crate) fn error(self, channel: &str, id: Uuid, config: &RecoveryConfig) -> IpcError {
        let channel = channel.to_owned();
        match self {
            Self::Closed | Self::Draining => IpcError::Closed { channel },
            Self::TooLarge(bytes) => {
                let reason =
                    format!("{bytes} bytes exceed the largest frame, {}", config.max_frame);
                IpcError::Unsendable { channel, id, reason }
            }
            Self::Full(limit) => {
                let limit = match limit {
                    Limit::Messages => format!("{} messages", config.max_buffered_messages),
                    Limit::Bytes => config.max_buffered_bytes.to_string(),
                    Limit::AllBytes => {
                        format!("{} over all channels", config.global_buffered_bytes)
                    }
                };
                IpcError::BufferFull { channel, limit }
            }
        }
    }
}

/// The bound that a full buffer has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Messages,
    Bytes,
    /// Bytes over all channels of the monitor.
    AllBytes,
}

/// What a message costs on the wire, near enough to bound it.
pub(crate) fn size(message: &IpcMessage) -> usize {
    fn value(of: &Value) -> usize {
        match of {
            Value::String(text) => text.len() + 16,
            Value::Array(items) => 16 + items.iter().map(value).sum::<usize>(),
            Value::Object(fields) => {
                16 + fields.iter().map(|(name, of)| name.len() + 16 + value(of)).sum::<usize>()
            }
            _ => 16,
        }
    }
    96 + message.message_type.len() + value(&message.payload)
}

/// What a message costs in memory while it is buffered, its receipt and all that is noted about it included; near enough
/// to bound it (`channel_memory` among the benchmarks measures how near).
pub(crate) fn held(message: &IpcMessage) -> usize {
    /// The message, its place in a lane, its outcome to be, and its id where ids are remembered; tables that grow by
    /// doubling are half empty at times.
    const EACH: usize = 640;
    /// What the allocator takes for one piece beside it.
    const PIECE: usize = 16;
    /// A node of the tree that an object is, and how many members it holds at least where there are several.
    const NODE: usize = 11 * (size_of::<String>() + size_of::<Value>()) + 24;
    const NODE_MEMBERS: usize = 5;

    /// Bytes beside the value itself.
    fn beside(of: &Value) -> usize {
        match of {
            Value::String(text) => PIECE + text.len(),
            Value::Array(items) => {
                PIECE + items.iter().map(|item| size_of::<Value>() + beside(item)).sum::<usize>()
            }
            Value::Object(fields) => {
                let members = fields.iter().map(|(name, of)| PIECE + name.len() + beside(of));
                (PIECE + NODE) * fields.len().div_ceil(NODE_MEMBERS) + members.sum::<usize>()
            }
            _ => 0,
        }
    }
    EACH + PIECE + message.message_type.len() + beside(&message.payload)
}
