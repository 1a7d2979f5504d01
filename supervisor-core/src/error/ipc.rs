//! What can go wrong on a channel.

use std::time::Duration;

use uuid::Uuid;

use super::{Cause, Classified, ErrorClass};
use crate::Generation;

/// An error of a channel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpcError {
    /// No channel of that name was registered.
    #[error("channel {channel:?} is not registered")]
    UnknownChannel {
        /// The name asked for.
        channel: String,
    },
    /// The name is registered already, with another configuration.
    #[error("channel {channel:?} is registered already with another configuration")]
    AlreadyRegistered {
        /// The name.
        channel: String,
    },
    /// The transport could not connect.
    #[error("channel {channel:?}: cannot connect over {transport}")]
    Connect {
        /// The channel.
        channel: String,
        /// What carries its bytes.
        transport: String,
        /// Whether trying again may help.
        class: ErrorClass,
        /// What the system said.
        #[source]
        source: Cause,
    },
    /// The connection broke; the message's outcome says whether it had been written.
    #[error("channel {channel:?} lost generation {generation}")]
    Lost {
        /// The channel.
        channel: String,
        /// The generation that ended.
        generation: Generation,
        /// Whether any byte of the message was written before that.
        was_written: bool,
    },
    /// A buffer is full and its policy refuses more.
    #[error("channel {channel:?}: buffer full at {limit}")]
    BufferFull {
        /// The channel.
        channel: String,
        /// The limit that was reached, with its unit.
        limit: String,
    },
    /// A frame is larger than allowed, or cannot be encoded.
    #[error("channel {channel:?}: message {id}: {reason}")]
    Unsendable {
        /// The channel.
        channel: String,
        /// The message.
        id: Uuid,
        /// What is wrong with it.
        reason: String,
    },
    /// The peer broke the framing or the protocol.
    #[error("channel {channel:?}: the peer broke the protocol: {reason}")]
    Protocol {
        /// The channel.
        channel: String,
        /// What was seen.
        reason: String,
    },
    /// No answer came in time.
    #[error("channel {channel:?}: no answer within {limit:?}")]
    TimedOut {
        /// The channel.
        channel: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// The peer speaks another version.
    #[error("channel {channel:?}: the peer speaks version {found}, this side {supported}")]
    Incompatible {
        /// The channel.
        channel: String,
        /// The peer's version.
        found: String,
        /// The versions known here.
        supported: String,
    },
    /// The peer's state could not be restored after a reconnect.
    #[error("channel {channel:?}: state synchronisation failed: {reason}")]
    Synchronize {
        /// The channel.
        channel: String,
        /// What happened.
        reason: String,
    },
    /// The circuit is open after too many failures; a manual retry always works.
    #[error("channel {channel:?} is open after repeated failures: {reason}")]
    CircuitOpen {
        /// The channel.
        channel: String,
        /// The last failure.
        reason: String,
    },
    /// The channel was closed.
    #[error("channel {channel:?} is closed")]
    Closed {
        /// The channel.
        channel: String,
    },
    /// A durable message could not be stored, so it was not accepted.
    #[error("channel {channel:?}: the message could not be stored")]
    Outbox {
        /// The channel.
        channel: String,
        /// What the database said; its class says whether a retry may help. The same id again is the same message.
        #[source]
        source: super::DatabaseError,
    },
    /// The configuration of the channel was refused.
    #[error("channel configuration refused")]
    Config(#[from] super::ConfigError),
}

impl Classified for IpcError {
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownChannel { .. } => "ipc_unknown_channel",
            Self::AlreadyRegistered { .. } => "ipc_already_registered",
            Self::Connect { .. } => "ipc_connect",
            Self::Lost { .. } => "ipc_lost",
            Self::BufferFull { .. } => "ipc_buffer_full",
            Self::Unsendable { .. } => "ipc_unsendable",
            Self::Protocol { .. } => "ipc_protocol",
            Self::TimedOut { .. } => "ipc_timed_out",
            Self::Incompatible { .. } => "ipc_incompatible",
            Self::Synchronize { .. } => "ipc_synchronize",
            Self::CircuitOpen { .. } => "ipc_circuit_open",
            Self::Closed { .. } => "ipc_closed",
            Self::Outbox { .. } => "ipc_outbox",
            Self::Config(error) => error.code(),
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Connect { class, .. } => *class,
            Self::Outbox { source, .. } => source.class(),
            Self::Lost { .. }
            | Self::BufferFull { .. }
            | Self::Protocol { .. }
            | Self::TimedOut { .. }
            | Self::Synchronize { .. }
            | Self::CircuitOpen { .. } => ErrorClass::Transient,
            Self::UnknownChannel { .. }
            | Self::AlreadyRegistered { .. }
            | Self::Unsendable { .. }
            | Self::Closed { .. }
            | Self::Config(_) => ErrorClass::Permanent,
            Self::Incompatible { .. } => ErrorClass::Incompatible,
        }
    }
}
