//! How a service's channel is reached.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// What carries the bytes of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TransportKind {
    /// The service's standard input and output.
    Stdio,
    /// A Unix socket the service listens on.
    Unix,
    /// A Windows named pipe the service listens on.
    Pipe,
    /// A TCP port the service listens on.
    Tcp,
}

/// How messages are cut out of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FramingKind {
    /// `Content-Length` headers (LSP, DAP).
    Lsp,
    /// One JSON document a line (MCP, ACP).
    Mcp,
    /// A length before each message.
    Length,
}

/// The channel of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChannelBinding {
    /// What carries the bytes.
    pub transport: TransportKind,
    /// How messages are cut.
    pub framing: FramingKind,
    /// Socket path for `unix`, pipe name for `pipe`; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// `host:port` for `tcp`; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl ChannelBinding {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        match self.transport {
            TransportKind::Unix | TransportKind::Pipe if self.path.is_none() => {
                Err(ConfigError::invalid(
                    "channel.path",
                    "",
                    "the path of the socket or pipe the service listens on",
                ))
            }
            TransportKind::Tcp if self.address.is_none() => Err(ConfigError::invalid(
                "channel.address",
                "",
                "\"host:port\" the service listens on",
            )),
            _ => Ok(()),
        }
    }
}
