//! Messages on a channel, what became of them, and how channels are.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Generation, Sequence};

/// One message on a channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IpcMessage {
    /// Names the message; the same id within the dedupe window is the same message.
    pub id: Uuid,
    /// What kind of message it is, for the receiver.
    pub message_type: String,
    /// The content.
    pub payload: serde_json::Value,
    /// When the sender made it; data only, never used for expiry.
    pub timestamp: DateTime<Utc>,
    /// Times it was written to a connection; the caller's value is the start, only the engine raises it.
    pub retry_count: u32,
}

/// How an accepted message ended; every accepted message gets exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The peer answered.
    Answered {
        /// The answer's content.
        reply: serde_json::Value,
        /// The generation it came in.
        generation: Generation,
    },
    /// The peer acknowledged.
    Acked {
        /// The generation it came in.
        generation: Generation,
        /// Whether the peer had seen the message before.
        duplicate: bool,
    },
    /// Provably never written.
    NotSent {
        /// Why.
        reason: String,
    },
    /// Some of it may have been written, and no answer came.
    Indeterminate {
        /// The generation it was written in.
        generation: Generation,
    },
    /// Its time was up before it could be delivered.
    Expired,
    /// A bound or a rule refused it.
    Rejected {
        /// Why.
        reason: String,
    },
    /// A newer message of the same kind took its place.
    Superseded,
    /// It failed too often and lies with the dead letters.
    DeadLettered {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// Tells whether the peer certainly has the message.
    #[must_use]
    pub const fn delivered(&self) -> bool {
        matches!(self, Self::Answered { .. } | Self::Acked { .. })
    }

    /// Gives the word of the vocabulary, such as `NotSent`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Answered { .. } => "Answered",
            Self::Acked { .. } => "Acked",
            Self::NotSent { .. } => "NotSent",
            Self::Indeterminate { .. } => "Indeterminate",
            Self::Expired => "Expired",
            Self::Rejected { .. } => "Rejected",
            Self::Superseded => "Superseded",
            Self::DeadLettered { .. } => "DeadLettered",
        }
    }
}

/// Which queue a message waits in; strict for `Control`, weighted 8:4:1 for the rest.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Handshakes, heartbeats, cancellation; never dropped.
    Control,
    /// A person waits for it.
    Interactive,
    /// Everything else.
    #[default]
    Normal,
    /// Telemetry, indexing.
    Bulk,
}

/// Health of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelState {
    /// Trying to reach the peer.
    #[default]
    Connecting,
    /// Connected; the peer's state is being restored, nothing else flows.
    Syncing,
    /// Usable.
    Ready,
    /// Connected, but the peer gives no sign of life.
    Suspect,
    /// Waiting before the next attempt to connect.
    Backoff,
    /// Taking no new messages, finishing what was accepted.
    Draining,
    /// The circuit is open after too many failures; a half-open probe follows.
    Open,
    /// Closed for good.
    Closed,
}

impl ChannelState {
    /// Gives the word used in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Syncing => "syncing",
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Backoff => "backoff",
            Self::Draining => "draining",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for ChannelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One channel as `status` and `channels` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// The channel.
    pub name: String,
    /// Its health.
    pub state: ChannelState,
    /// Successful connections so far.
    pub generation: Generation,
    /// Messages waiting, those in flight included.
    pub buffered: u64,
    /// Bytes they hold, as the limits count them.
    #[serde(default)]
    pub buffered_bytes: u64,
    /// Of them, written and not answered yet.
    #[serde(default)]
    pub in_flight: u64,
    /// Messages that failed for good and are kept.
    pub dead_letters: u64,
    /// Why it is in this state, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Messages that have ended, by outcome, as [`Outcome::name`] spells it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outcomes: BTreeMap<String, u64>,
    /// How the last loss was recovered from, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_recovery: Option<ChannelRecovery>,
}

/// What one loss of a channel cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRecovery {
    /// Why the connection was lost.
    pub cause: String,
    /// Microseconds from the loss to being ready.
    pub took_us: u64,
    /// Of those, waiting before attempts, an open circuit included.
    pub waited_us: u64,
    /// Of those, connecting: until the peer was there again.
    pub connecting_us: u64,
    /// Of those, restoring the peer's state.
    pub syncing_us: u64,
    /// Attempts to connect.
    pub attempts: u32,
    /// Messages written again.
    pub redelivered: u64,
    /// Messages that ended meanwhile, by outcome.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outcomes: BTreeMap<String, u64>,
}

/// A message that failed for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The channel it was for.
    pub channel: String,
    /// The message.
    pub message: IpcMessage,
    /// When it was given up.
    pub at: DateTime<Utc>,
    /// Why.
    pub cause: String,
    /// The generations it was written in.
    pub generations: Vec<Generation>,
    /// Why it is kept to be looked at only and not sent again on request, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_because: Option<String>,
}

/// A message in the durable outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// Its place in the order of its channel.
    pub sequence: Sequence,
    /// The channel it is for.
    pub channel: String,
    /// The message, with the id it was accepted with.
    pub message: IpcMessage,
    /// When it expires, if it does.
    pub expires_at: Option<DateTime<Utc>>,
}
