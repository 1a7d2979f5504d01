//! How the health of a service is asked for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{check_duration, check_text};
use crate::error::ConfigError;
use crate::text::{duration_text, optional_duration_text};

/// What a probe's answer decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProbeRole {
    /// Whether the service has come up; gates the other two.
    Startup,
    /// Whether it can be used now; never restarts anything.
    Readiness,
    /// Whether it is alive; losing it restarts the service.
    Liveness,
}

/// How a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// The leader exists and is neither a zombie nor suspended.
    Process,
    /// A TCP connection to `target` (`host:port`) is accepted.
    Tcp,
    /// A GET of `target` (`http://host:port/path`) answers 200 to 399.
    Http,
    /// `command` exits with 0; run like a service's program, never through a shell.
    Exec,
    /// The service's channel answers a ping.
    Ipc,
    /// The service reports over the notify socket itself (`READY=1`, `WATCHDOG=1`).
    Heartbeat,
}

/// One probe of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProbeSpec {
    /// What the answer decides.
    pub role: ProbeRole,
    /// How it asks.
    pub kind: ProbeKind,
    /// `host:port` for TCP, `http://host:port/path` for HTTP; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Program and arguments for `exec`; empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Pause between the start (or, for readiness and liveness, the passed startup) and the first probe.
    #[serde(default, with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub initial_delay: Duration,
    /// Time between the starts of two probes; the supervisor's `health_check_interval` when absent.
    #[serde(default, with = "optional_duration_text", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::text::DurationText>"))]
    pub period: Option<Duration>,
    /// How long one probe may take; the smaller of 1 s and the service's `health_check_timeout` when absent.
    #[serde(default, with = "optional_duration_text", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::text::DurationText>"))]
    pub timeout: Option<Duration>,
    /// Passes in a row that make it healthy, 1 to 1000.
    #[serde(default = "one")]
    pub success_threshold: u32,
    /// Failures in a row that make it unhealthy, 1 to 1000.
    #[serde(default = "three")]
    pub failure_threshold: u32,
}

fn one() -> u32 {
    1
}

fn three() -> u32 {
    3
}

/// Probe timeout when none is given, before the service's own `health_check_timeout` caps it (kubelet's default).
pub(crate) const PROBE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

/// Longest target of a TCP or HTTP probe, in bytes.
const TARGET_LEN_MAX: usize = 2048;
/// Most words in the command of an exec probe.
const COMMAND_ITEMS_MAX: usize = 4096;

impl ProbeSpec {
    /// Makes a probe with default timing.
    #[must_use]
    pub fn new(role: ProbeRole, kind: ProbeKind) -> Self {
        Self {
            role,
            kind,
            target: None,
            command: Vec::new(),
            initial_delay: Duration::ZERO,
            period: None,
            timeout: None,
            success_threshold: one(),
            failure_threshold: three(),
        }
    }

    /// Sets the target of a TCP or HTTP probe.
    #[must_use]
    pub fn with_target(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// Gives how long one probe may take for a service with this `health_check_timeout`.
    #[must_use]
    pub fn effective_timeout(&self, health_check_timeout: Duration) -> Duration {
        self.timeout.unwrap_or(PROBE_TIMEOUT_DEFAULT.min(health_check_timeout))
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.validate_target()?;
        check_duration("initial_delay", self.initial_delay, Duration::ZERO)?;
        let least = Duration::from_millis(1);
        if let Some(period) = self.period {
            check_duration("period", period, least)?;
        }
        if let Some(timeout) = self.timeout {
            check_duration("timeout", timeout, least)?;
        }
        for (field, threshold) in [
            ("success_threshold", self.success_threshold),
            ("failure_threshold", self.failure_threshold),
        ] {
            if !(1..=1000).contains(&threshold) {
                return Err(ConfigError::invalid(field, threshold.to_string(), "1 to 1000"));
            }
        }
        Ok(())
    }

    fn validate_target(&self) -> Result<(), ConfigError> {
        let asks_target = matches!(self.kind, ProbeKind::Tcp | ProbeKind::Http);
        if let Some(target) = &self.target
            && (!asks_target || target.len() > TARGET_LEN_MAX)
        {
            return Err(ConfigError::invalid(
                "target",
                target,
                "at most 2048 bytes, for tcp and http only",
            ));
        }
        if self.kind != ProbeKind::Exec && !self.command.is_empty() {
            return Err(ConfigError::invalid("command", &self.command[0], "nothing, or kind exec"));
        }
        match self.kind {
            ProbeKind::Tcp => {
                let target = self.target.as_deref().unwrap_or_default();
                if !is_host_port(target) {
                    return Err(ConfigError::invalid(
                        "target",
                        target,
                        "\"host:port\" such as \"127.0.0.1:8080\"",
                    ));
                }
            }
            ProbeKind::Http => {
                let target = self.target.as_deref().unwrap_or_default();
                let authority = target
                    .strip_prefix("http://")
                    .map(|rest| rest.split('/').next().unwrap_or(rest));
                let valid = authority.is_some_and(|authority| {
                    !authority.is_empty()
                        && !authority.contains('@')
                        && (is_host_port(authority) || !authority.contains(':'))
                });
                if !valid || target.contains(|c: char| c.is_control() || c == ' ') {
                    return Err(ConfigError::invalid(
                        "target",
                        target,
                        "a URL such as \"http://127.0.0.1:8080/health\" (no https, no user info)",
                    ));
                }
            }
            ProbeKind::Exec => {
                let program = self.command.first().map_or("", String::as_str);
                check_text("command", program, super::spec::ARG_LEN_MAX)?;
                let wrong =
                    |text: &String| text.contains('\0') || text.len() > super::spec::ARG_LEN_MAX;
                if self.command.len() > COMMAND_ITEMS_MAX || self.command.iter().any(wrong) {
                    // An argument may hold a secret: only the program is repeated.
                    return Err(ConfigError::invalid(
                        "command",
                        program,
                        "at most 4096 arguments of 128 KiB each, without NUL characters",
                    ));
                }
            }
            ProbeKind::Process | ProbeKind::Ipc | ProbeKind::Heartbeat => {}
        }
        Ok(())
    }
}

/// Tells whether a text is `host:port`, with IPv6 in brackets.
pub(super) fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host_ok = bare.map_or_else(
            || {
                !host.is_empty()
                    && host
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
            },
            |v6| v6.parse::<std::net::Ipv6Addr>().is_ok(),
        );
        host_ok && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}
