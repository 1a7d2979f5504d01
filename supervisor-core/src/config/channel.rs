//! How a service's channel is reached.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::RecoveryConfig;
use super::probe::is_host_port;
use super::validate::PATH_LEN_MAX;
use crate::error::ConfigError;

/// Longest address, in bytes: the longest name there can be, and a port.
const ADDRESS_LEN_MAX: usize = 260;

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
    /// How it buffers, retries and reconnects; the defaults otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Box<RecoveryConfig>>,
}

impl ChannelBinding {
    /// Makes a binding without path and address, which only standard input and output can do without.
    #[must_use]
    pub const fn new(transport: TransportKind, framing: FramingKind) -> Self {
        Self { transport, framing, path: None, address: None, recovery: None }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if let Some(recovery) = &self.recovery {
            recovery.validate().map_err(|error| error.within("channel.recovery"))?;
        }
        let wants_path = matches!(self.transport, TransportKind::Unix | TransportKind::Pipe);
        let path = self.path.as_ref().map(|path| path.to_string_lossy());
        let path = path.as_deref();
        let path_ok = match path {
            Some(path) => {
                wants_path
                    && !path.is_empty()
                    && path.len() <= PATH_LEN_MAX
                    && !path.contains(char::is_control)
            }
            None => !wants_path,
        };
        if !path_ok {
            let expected = if wants_path {
                "the path of the socket or pipe the service listens on, at most 4095 bytes without control characters"
            } else {
                "nothing, or transport unix or pipe"
            };
            return Err(ConfigError::invalid("channel.path", path.unwrap_or_default(), expected));
        }
        let wants_address = self.transport == TransportKind::Tcp;
        let address = self.address.as_deref();
        let good = |address: &str| address.len() <= ADDRESS_LEN_MAX && is_host_port(address);
        if address.map_or(wants_address, |address| !wants_address || !good(address)) {
            let expected = if wants_address {
                "\"host:port\" the service listens on"
            } else {
                "nothing, or transport tcp"
            };
            let given = address.unwrap_or_default();
            return Err(ConfigError::invalid("channel.address", given, expected));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_how_a_channel_recovers_is_named_by_its_path() {
        let with = |max_attempts| {
            let recovery = RecoveryConfig { max_attempts, ..RecoveryConfig::default() };
            let binding = ChannelBinding::new(TransportKind::Stdio, FramingKind::Lsp);
            ChannelBinding { recovery: Some(Box::new(recovery)), ..binding }.validate()
        };
        assert_eq!(with(100), Ok(()));
        assert_eq!(with(101).unwrap_err().field(), "channel.recovery.max_attempts");
    }
}
