//! The numbers of LSP recovery.

use std::time::Duration;

/// The numbers of LSP recovery; everything has a default that suits any server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LspOptions {
    /// How long a request may wait for a server to come back; twice as long as the slowest start so far took, at most
    /// 300 s, if that is more.
    pub hold: Duration,
    /// Requests that may wait, and unanswered ones kept so that they can be asked again; beyond, they fail at once.
    pub hold_max: usize,
    /// Bytes of those requests.
    pub hold_bytes: usize,
    /// Unanswered requests; beyond, they fail at once.
    pub unanswered_max: usize,
    /// Whether requests that only read are asked again when their server died over them.
    pub ask_again: bool,
    /// Silence, with something unanswered, after which the server is asked for a sign of life, and again each time.
    pub probe_after: Duration,
    /// Unanswered signs after which it is suspect.
    pub misses: u32,
    /// Silence after which a server that is stopped counts as dead.
    pub silence_stopped: Duration,
    /// Silence after which a server that does nothing counts as dead (two missed probes and some patience).
    pub silence_idle: Duration,
    /// Silence after which one that works, or said that it would take long, counts as dead (sourcekit-lsp: 5 min).
    pub silence_busy: Duration,
    /// How long the handshake may take when the server does nothing meanwhile (eglot); longer as for `hold`.
    pub handshake: Duration,
    /// Bytes of documents given to a new server before it has taken them; one larger document goes alone.
    pub restore_bytes: usize,
    /// How long after a recovery diagnostics of the old server may stand.
    pub stale: Duration,
    /// Longest time diagnostics of a dead server may stand when no new one comes.
    pub stale_max: Duration,
    /// How long after a recovery the new server may take to give its registrations again.
    pub registrations: Duration,
    /// How long a document that may have killed its server is watched after it was opened again.
    pub settle: Duration,
    /// How long an unanswered `shutdown` is waited for before it is answered here.
    pub shutdown: Duration,
    /// File events merged while no server can be told; beyond, they are dropped, for a new server scans.
    pub watched_max: usize,
    /// Our process, which a server started again watches instead of the client's; nothing leaves it as it is.
    pub process_id: Option<u32>,
}

impl LspOptions {
    /// Makes everything that tells a silent server from a dead one follow `silence`, which becomes `silence_idle`, in
    /// the proportions of the defaults: a sign of life is asked for after a sixth of it, a stopped server has half of
    /// it, one that works five times as long.
    #[must_use]
    pub fn judging_silence_by(self, silence: Duration) -> Self {
        Self {
            probe_after: silence / 6,
            silence_stopped: silence / 2,
            silence_idle: silence,
            silence_busy: silence.saturating_mul(5),
            ..self
        }
    }
}

impl Default for LspOptions {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            hold: secs(30),
            hold_max: 1000,
            hold_bytes: 8 << 20,
            unanswered_max: 65_536,
            ask_again: true,
            probe_after: secs(10),
            misses: 2,
            silence_stopped: secs(30),
            silence_idle: secs(60),
            silence_busy: secs(300),
            handshake: secs(30),
            restore_bytes: 1 << 20,
            stale: secs(2),
            stale_max: secs(30),
            registrations: secs(10),
            settle: Duration::from_millis(500),
            shutdown: secs(5),
            watched_max: 10_000,
            process_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::McpOptions;

    #[test]
    fn the_defaults_follow_from_a_silence_of_a_minute() {
        let minute = Duration::from_secs(60);
        let (lsp, mcp) = (LspOptions::default(), McpOptions::default());
        assert_eq!(lsp.clone().judging_silence_by(minute), lsp);
        assert_eq!(mcp.clone().judging_silence_by(minute), mcp);
    }
}
