//! What a frame says: our own envelope, or JSON-RPC for language servers and MCP servers.

use std::io;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use supervisor_core::config::FramingKind;
use supervisor_core::message::IpcMessage;
use uuid::Uuid;

/// Version of our own envelope.
pub(crate) const ENVELOPE_VERSION: u32 = 1;

/// One frame of our own envelope; `docs/wire-protocol.md` says what each promises.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", from = "Flat")]
pub(crate) enum Envelope {
    /// The first frame of each side.
    #[serde(rename = "hello")]
    Hello(Hello),
    /// A message, numbered within the sender's session.
    #[serde(rename = "m")]
    Message { s: u64, m: IpcMessage },
    /// Every message up to `s` arrived; `d` when the id of `s` itself had been seen before.
    #[serde(rename = "a")]
    Ack { s: u64, d: bool },
    /// The answer to message `s`.
    #[serde(rename = "r")]
    Reply { s: u64, p: Value },
    /// A question for a sign of life.
    #[serde(rename = "ping")]
    Ping { s: u64 },
    /// The sign of life.
    #[serde(rename = "pong")]
    Pong { s: u64 },
    /// A frame that lacks what its kind needs.
    #[serde(skip)]
    Broken,
}

/// How a side introduces itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: u32,
    /// Names the numbers of the side that sends messages; they go on over its connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<Uuid>,
    /// Of this session everything up to here was handled.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) handled: u64,
    /// The sender says something at least so often, in milliseconds; 0 promises nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) idle: u64,
    /// What the service may say on its own account, or that it does; absent from those who know nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) push: Option<Push>,
}

/// The other direction: what a channel takes, and what a service numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Push {
    /// Names the numbers of the service; from a channel the last ones it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<Uuid>,
    /// Of this session everything up to here was handled.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) handled: u64,
    /// Messages that may be unacknowledged at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) window: u64,
    /// Bytes of them, if there are several.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// The fields of all kinds, so that a frame is read in one pass; a tag that may stand anywhere would cost two.
#[derive(Deserialize)]
struct Flat {
    k: Kind,
    #[serde(default)]
    s: u64,
    #[serde(default)]
    d: bool,
    #[serde(default)]
    version: u32,
    #[serde(default)]
    session: Option<Uuid>,
    #[serde(default)]
    handled: u64,
    #[serde(default)]
    idle: u64,
    #[serde(default)]
    push: Option<Push>,
    #[serde(default)]
    m: Option<IpcMessage>,
    #[serde(default)]
    p: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Hello,
    M,
    A,
    R,
    Ping,
    Pong,
}

impl Envelope {
    /// Reads a frame.
    pub(crate) fn read(frame: &[u8]) -> Result<Self, serde_json::Error> {
        plain::read(frame).map_or_else(|| serde_json::from_slice(frame), Ok)
    }

    pub(crate) fn write(&self, to: &mut impl io::Write) -> io::Result<()> {
        match self {
            Self::Ack { s, d } => plain::write_ack(*s, *d, to),
            Self::Reply { s, p } => plain::write_reply(*s, p, to),
            other => Ok(serde_json::to_writer(to, other)?),
        }
    }
}

impl From<Flat> for Envelope {
    fn from(flat: Flat) -> Self {
        let Flat { k, s, d, version, session, handled, idle, push, m, p } = flat;
        match k {
            Kind::Hello => Self::Hello(Hello { version, session, handled, idle, push }),
            Kind::M => m.map_or(Self::Broken, |m| Self::Message { s, m }),
            Kind::A => Self::Ack { s, d },
            Kind::R => Self::Reply { s, p },
            Kind::Ping => Self::Ping { s },
            Kind::Pong => Self::Pong { s },
        }
    }
}

/// A message frame that borrows its message, as serde writes it.
#[cfg(test)]
#[derive(Serialize)]
struct MessageFrame<'a> {
    k: &'static str,
    s: u64,
    m: &'a IpcMessage,
}

/// A request or notification that borrows its content.
#[derive(Serialize)]
struct RpcFrame<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    #[serde(skip_serializing_if = "Value::is_null")]
    params: &'a Value,
}

/// What a frame from the peer says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    /// Message `s` arrived there.
    Ack { s: u64, duplicate: bool },
    /// The answer to message `s`.
    Reply { s: u64, reply: Value },
    /// A message nobody asked for.
    Message(IpcMessage),
    /// One that is acknowledged as number `s`.
    Pushed { s: u64, message: IpcMessage },
    /// The peer asks something of us and expects this frame back.
    Answer(Bytes, Option<IpcMessage>),
    /// A sign of life.
    Alive,
}

/// How messages are written and read on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Our own envelope: every message is acknowledged.
    Own,
    /// JSON-RPC 2.0: requests are answered, notifications are not.
    JsonRpc,
}

impl Protocol {
    pub(crate) const fn of(framing: FramingKind) -> Self {
        match framing {
            FramingKind::Length => Self::Own,
            FramingKind::Lsp | FramingKind::Mcp => Self::JsonRpc,
        }
    }

    /// Whether the peer says something about a message that expects no reply.
    pub(crate) const fn acknowledges(self) -> bool {
        matches!(self, Self::Own)
    }

    /// Writes a message as number `s`.
    pub(crate) fn write(
        self,
        s: u64,
        message: &IpcMessage,
        expects_reply: bool,
        to: &mut impl io::Write,
    ) -> io::Result<()> {
        match self {
            Self::Own => plain::write_message(s, message, to),
            Self::JsonRpc => Ok(serde_json::to_writer(
                to,
                &RpcFrame {
                    jsonrpc: "2.0",
                    id: expects_reply.then_some(s),
                    method: &message.message_type,
                    params: &message.payload,
                },
            )?),
        }
    }

    /// Writes a question for a sign of life. Every language server must answer a request it does not know whose name
    /// begins with `$/`; an MCP server knows `ping`.
    pub(crate) fn ping(self, s: u64, framing: FramingKind) -> Bytes {
        let object = match (self, framing) {
            (Self::Own, _) => serde_json::to_value(Envelope::Ping { s }).unwrap_or_default(),
            (Self::JsonRpc, FramingKind::Mcp) => {
                serde_json::json!({ "jsonrpc": "2.0", "id": s, "method": "ping" })
            }
            (Self::JsonRpc, _) => {
                serde_json::json!({ "jsonrpc": "2.0", "id": s, "method": "$/supervisor/ping" })
            }
        };
        Bytes::from(object.to_string())
    }

    /// Reads a frame; the time is asked for only where a message comes without one.
    pub(crate) fn decode(
        self,
        frame: &[u8],
        now: impl FnOnce() -> chrono::DateTime<chrono::Utc>,
    ) -> Result<Heard, String> {
        match self {
            Self::Own => decode_own(frame),
            Self::JsonRpc => decode_rpc(frame, now),
        }
    }
}

fn decode_own(frame: &[u8]) -> Result<Heard, String> {
    Ok(match Envelope::read(frame).map_err(|error| error.to_string())? {
        Envelope::Ack { s, d } => Heard::Ack { s, duplicate: d },
        Envelope::Reply { s, p } => Heard::Reply { s, reply: p },
        Envelope::Message { s, m } => Heard::Pushed { s, message: m },
        Envelope::Ping { s } => {
            let pong =
                serde_json::to_vec(&Envelope::Pong { s }).map_err(|error| error.to_string())?;
            Heard::Answer(pong.into(), None)
        }
        Envelope::Pong { .. } | Envelope::Hello(_) => Heard::Alive,
        Envelope::Broken => return Err("a message without content".to_owned()),
    })
}

fn decode_rpc(
    frame: &[u8],
    now: impl FnOnce() -> chrono::DateTime<chrono::Utc>,
) -> Result<Heard, String> {
    let value: Value = serde_json::from_slice(frame).map_err(|error| error.to_string())?;
    let object = value.as_object().ok_or("a message that is no object")?;
    let message = |method: &str| IpcMessage {
        id: Uuid::nil(),
        message_type: method.to_owned(),
        payload: object.get("params").cloned().unwrap_or_default(),
        timestamp: now(),
        retry_count: 0,
    };
    match (object.get("method").and_then(Value::as_str), object.get("id")) {
        (Some(method), Some(id)) => {
            // Answered at once: a server that waits for us while we wait for it would wait for ever.
            let answer = serde_json::json!({
                "jsonrpc": "2.0", "id": id,
                "error": { "code": -32601, "message": "not supported by this client" }
            });
            Ok(Heard::Answer(Bytes::from(answer.to_string()), Some(message(method))))
        }
        (Some(method), None) => Ok(Heard::Message(message(method))),
        (None, Some(id)) => {
            let s = id.as_u64().ok_or("an answer to a number never given")?;
            let reply = match (object.get("result"), object.get("error")) {
                (Some(result), None) => serde_json::json!({ "result": result }),
                (_, Some(error)) => serde_json::json!({ "error": error }),
                (None, None) => return Err("an answer without result and error".to_owned()),
            };
            Ok(Heard::Reply { s, reply })
        }
        (None, None) => Err("a message without method and id".to_owned()),
    }
}

mod plain;
