//! How a channel buffers, retries and reconnects.
//!
//! Each default is the number of a system whose users live with it; the field says which.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check_duration;
use crate::error::ConfigError;
use crate::text::{ByteSize, duration_text};

/// What a full buffer does with one more message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OverflowPolicy {
    /// Refuses it, and the sender learns at once (NATS Go, gRPC).
    #[default]
    Reject,
    /// Drops the oldest; for telemetry and progress.
    DropOldest,
    /// Drops the new one; for sampling.
    DropNewest,
    /// Makes the sender wait, for at most [`RecoveryConfig::block_timeout`].
    Block,
    /// Moves it to the durable outbox, if there is one and the message may be repeated, else refuses it.
    Spill,
}

/// Delays between attempts to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BackoffConfig {
    /// First delay.
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub base_delay: Duration,
    /// Longest delay.
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub max_delay: Duration,
    /// Stable time after which the next failure starts from `base_delay` again (gRPC resets on protocol evidence, Finagle after 30 s).
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub reset_after: Duration,
}

impl Default for BackoffConfig {
    /// 100 ms doubling to 10 s with full jitter (redis-rs, gRPC, ZeroMQ), reset after 30 s.
    fn default() -> Self {
        Self {
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(10),
            reset_after: Duration::from_secs(30),
        }
    }
}

/// When connecting stops for a while, and how it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Connections lost in the window that open the circuit, 1 to 1000 (the LSP text says 5 in 180 s). A peer that nobody could
    /// connect to for `handshake_timeout` opens it too: it was never there, or takes too long to start.
    pub failure_threshold: u32,
    /// The window.
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub window: Duration,
    /// First pause before a half-open probe (Finagle, Envoy); doubles to `open_max`.
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub open_base: Duration,
    /// Longest pause before a half-open probe.
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub open_max: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            window: Duration::from_secs(180),
            open_base: Duration::from_secs(60),
            open_max: Duration::from_secs(300),
        }
    }
}

/// How silence is told from death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct HeartbeatConfig {
    /// Silence after which the peer is asked for a sign of life (ZeroMQ, NATS).
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub idle: Duration,
    /// Unanswered signs after which the connection counts as dead, 1 to 100.
    pub misses: u32,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { idle: Duration::from_secs(5), misses: 3 }
    }
}

/// How one channel buffers, retries and reconnects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RecoveryConfig {
    /// Messages buffered per channel, 1 to 10 million (ZeroMQ's high-water mark).
    pub max_buffered_messages: usize,
    /// Bytes buffered per channel (NATS Go).
    pub max_buffered_bytes: ByteSize,
    /// Bytes buffered over all channels of one monitor.
    pub global_buffered_bytes: ByteSize,
    /// What a full buffer does with one more message.
    pub overflow: OverflowPolicy,
    /// How long a sender waits under [`OverflowPolicy::Block`]; a user interface cannot wait Kafka's 60 s.
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub block_timeout: Duration,
    /// How long a message may wait for its outcome.
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub message_ttl: Duration,
    /// Times one message is written, 1 to 100 (gRPC's cap).
    pub max_attempts: u32,
    /// How long a message's id is remembered (JetStream).
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub dedupe_window: Duration,
    /// How many ids are remembered, whichever ends first.
    pub dedupe_max: usize,
    /// Delays between attempts to connect.
    pub reconnect: BackoffConfig,
    /// How long one attempt to connect may take (async-nats).
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub connect_timeout: Duration,
    /// How long the handshake and state synchronisation may take (eglot).
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub handshake_timeout: Duration,
    /// When connecting stops for a while.
    pub breaker: BreakerConfig,
    /// How silence is told from death.
    pub heartbeat: HeartbeatConfig,
    /// How long a request may go unanswered (Helix 20 s, lsp-mode 10 s, Zed 120 s).
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub request_timeout: Duration,
    /// How long one write may block; a full pipe is the sign of a hang (rumqttc).
    #[serde(with = "duration_text")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::text::DurationText"))]
    pub write_deadline: Duration,
    /// Retries allowed as a share of fresh messages, in percent, 0 to 1000 (Finagle, tower).
    pub retry_budget_percent: u32,
    /// Retries always allowed per second.
    pub retry_budget_floor: u32,
    /// Requests that may be unanswered at once, 1 to 65,536 (jsonrpsee).
    pub max_in_flight: usize,
    /// Largest frame, checked before anything is allocated.
    pub max_frame: ByteSize,
    /// Junk skipped before a frame where the framing can resynchronise.
    pub max_junk: ByteSize,
    /// Channels of one monitor that may reconnect at once, 1 to 1000.
    pub concurrent_reconnects: usize,
    /// Dead letters kept per channel, the oldest dropped beyond, 1 to 100,000.
    pub max_dead_letters: usize,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self {
            max_buffered_messages: 1000,
            max_buffered_bytes: ByteSize::mib(8),
            global_buffered_bytes: ByteSize::mib(64),
            overflow: OverflowPolicy::Reject,
            block_timeout: Duration::from_millis(250),
            message_ttl: Duration::from_secs(30),
            max_attempts: 5,
            dedupe_window: Duration::from_secs(120),
            dedupe_max: 16_384,
            reconnect: BackoffConfig::default(),
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(30),
            breaker: BreakerConfig::default(),
            heartbeat: HeartbeatConfig::default(),
            request_timeout: Duration::from_secs(30),
            write_deadline: Duration::from_secs(5),
            retry_budget_percent: 20,
            retry_budget_floor: 10,
            max_in_flight: 256,
            max_frame: ByteSize::mib(64),
            max_junk: ByteSize::kib(64),
            concurrent_reconnects: 4,
            max_dead_letters: 256,
        }
    }
}

fn check_count(field: &str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::invalid(field, value.to_string(), format!("{min} to {max}")))
}

impl RecoveryConfig {
    /// Checks every field and how they fit together.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming the field. A retry does not help.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const GIB: u64 = 1 << 30;
        check_count("max_buffered_messages", self.max_buffered_messages as u64, 1, 10_000_000)?;
        check_count("max_buffered_bytes", self.max_buffered_bytes.bytes(), 1, 1024 * GIB)?;
        check_count(
            "global_buffered_bytes",
            self.global_buffered_bytes.bytes(),
            self.max_buffered_bytes.bytes(),
            1024 * GIB,
        )?;
        check_count("max_attempts", u64::from(self.max_attempts), 1, 100)?;
        check_count("dedupe_max", self.dedupe_max as u64, 1, 100_000_000)?;
        check_count(
            "breaker.failure_threshold",
            u64::from(self.breaker.failure_threshold),
            1,
            1000,
        )?;
        check_count("heartbeat.misses", u64::from(self.heartbeat.misses), 1, 100)?;
        check_count("retry_budget_percent", u64::from(self.retry_budget_percent), 0, 1000)?;
        check_count("max_in_flight", self.max_in_flight as u64, 1, 65_536)?;
        check_count("max_frame", self.max_frame.bytes(), 64, 4 * GIB - 1)?;
        check_count("max_junk", self.max_junk.bytes(), 0, self.max_frame.bytes())?;
        check_count("concurrent_reconnects", self.concurrent_reconnects as u64, 1, 1000)?;
        check_count("max_dead_letters", self.max_dead_letters as u64, 1, 100_000)?;
        let least = Duration::from_millis(1);
        check_duration("block_timeout", self.block_timeout, Duration::ZERO)?;
        check_duration("message_ttl", self.message_ttl, least)?;
        check_duration("dedupe_window", self.dedupe_window, self.message_ttl)?;
        check_duration("reconnect.base_delay", self.reconnect.base_delay, least)?;
        check_duration("reconnect.max_delay", self.reconnect.max_delay, self.reconnect.base_delay)?;
        check_duration("reconnect.reset_after", self.reconnect.reset_after, Duration::ZERO)?;
        check_duration("connect_timeout", self.connect_timeout, least)?;
        check_duration("handshake_timeout", self.handshake_timeout, least)?;
        check_duration("breaker.window", self.breaker.window, least)?;
        check_duration("breaker.open_base", self.breaker.open_base, least)?;
        check_duration("breaker.open_max", self.breaker.open_max, self.breaker.open_base)?;
        check_duration("heartbeat.idle", self.heartbeat.idle, least)?;
        check_duration("request_timeout", self.request_timeout, least)?;
        check_duration("write_deadline", self.write_deadline, least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_survive_being_written_and_read() {
        let config = RecoveryConfig::default();
        config.validate().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<RecoveryConfig>(&text).unwrap(), config);
    }

    #[test]
    fn a_wrong_combination_names_its_field() {
        let config =
            RecoveryConfig { dedupe_window: Duration::from_secs(1), ..RecoveryConfig::default() };
        assert_eq!(config.validate().unwrap_err().field(), "dedupe_window");
        let config = RecoveryConfig { max_buffered_messages: 0, ..RecoveryConfig::default() };
        assert_eq!(config.validate().unwrap_err().field(), "max_buffered_messages");
    }
}
