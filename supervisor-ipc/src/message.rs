//! What happens to a channel, what is asked for, and what a message is while it is on its way.

use std::time::Duration;

use supervisor_core::message::{ChannelState, IpcMessage, Lane, Outcome};
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
    /// Whether it is stored before it is accepted, and sent again by the next process if this one dies first. Needs
    /// a monitor with an [outbox](crate::IpcMonitorBuilder::outbox) and `idempotent`; without `ttl` it never expires.
    pub durable: bool,
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
        }
    }
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    pub(crate) message: IpcMessage,
    pub(crate) options: SendOptions,
    pub(crate) bytes: usize,
    pub(crate) deadline: Monotonic,
    /// When its answer is overdue, once it was written and if it gets one.
    pub(crate) answer_by: Option<Monotonic>,
    pub(crate) attempts: u32,
}

impl Item {
    /// When it is given up, waiting or in flight.
    pub(crate) fn due(&self) -> Monotonic {
        self.answer_by.map_or(self.deadline, |by| by.min(self.deadline))
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
    Synchronize { generation: Generation },
    Write { s: u64, message: IpcMessage, expect_reply: bool },
    Ping { s: u64 },
    Settle { id: Uuid, outcome: Outcome },
    Bury { message: IpcMessage, cause: String },
    State { from: ChannelState, to: ChannelState, reason: String },
    Recovered { took: Duration, cause: String, redelivered: u64, lost: u64 },
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

/// The bound that a full buffer has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Messages,
    Bytes,
    /// Bytes over all channels of the monitor.
    AllBytes,
}

/// What a message costs in memory and on the wire, near enough to bound both.
pub(crate) fn size(message: &IpcMessage) -> usize {
    fn value(of: &serde_json::Value) -> usize {
        match of {
            serde_json::Value::String(text) => text.len() + 16,
            serde_json::Value::Array(items) => 16 + items.iter().map(value).sum::<usize>(),
            serde_json::Value::Object(fields) => {
                16 + fields.iter().map(|(name, of)| name.len() + 16 + value(of)).sum::<usize>()
            }
            _ => 16,
        }
    }
    96 + message.message_type.len() + value(&message.payload)
}
