//! The numbers of MCP recovery.

use std::time::Duration;

use supervisor_core::config::RecoveryConfig;

/// How an MCP session is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpOptions {
    /// Bounds, deadlines and the heartbeat. Used are `max_buffered_messages` and `max_buffered_bytes` (requests that
    /// are unanswered or wait), `max_in_flight` (unanswered requests of the server), `max_attempts`,
    /// `request_timeout` (how long a request may wait for a server) and `handshake_timeout`, both twice as long as the
    /// slowest start so far took, at most 300 s, if that is more, `heartbeat`, and `breaker`
    /// for the pause before a client's request makes another start be tried.
    pub recovery: RecoveryConfig,
    /// Silence after which a server that was asked something is replaced, 60 s by default (sourcekit-lsp).
    pub silence: Duration,
    /// The same while it runs a tool or uses the processor, 300 s by default (sourcekit-lsp): tools that block the
    /// whole server are common.
    pub busy_silence: Duration,
    /// Silence after which a server with nothing to do is asked for a sign of life, 30 s by default, because each
    /// one wakes a process up.
    pub quiet: Duration,
}

impl McpOptions {
    /// Makes everything that tells a silent server from a dead one follow `silence`, in the proportions of the
    /// defaults: a sign of life is asked for after a twelfth of it, or after half of it when the server owes nothing,
    /// and one that works has five times as long.
    #[must_use]
    pub fn judging_silence_by(mut self, silence: Duration) -> Self {
        self.recovery.heartbeat.idle = silence / 12;
        Self { silence, busy_silence: silence.saturating_mul(5), quiet: silence / 2, ..self }
    }
}

impl Default for McpOptions {
    fn default() -> Self {
        Self {
            recovery: RecoveryConfig::default(),
            silence: Duration::from_secs(60),
            busy_silence: Duration::from_secs(300),
            quiet: Duration::from_secs(30),
        }
    }
}
