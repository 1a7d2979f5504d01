//! What one incident took and did.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use supervisor_core::Generation;

/// How an incident ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// A new server has the whole state and answers.
    Recovered,
    /// No further start is tried by itself.
    GaveUp(String),
    /// The client left, or ended the session, before a new server was ready.
    Abandoned,
}

/// Where the time of an incident went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// From the loss to the start of the server that recovered, delays and failed starts included.
    pub down: Duration,
    /// From that start to its answer to the handshake.
    pub handshake: Duration,
    /// From there until the state was restored and one probe was answered.
    pub restore: Duration,
}

impl PhaseTimes {
    /// Gives the whole time.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.down.saturating_add(self.handshake).saturating_add(self.restore)
    }
}

/// What became of the messages an incident touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageCounts {
    /// Requests that were unanswered and were asked again, because that changes nothing.
    pub asked_again: u32,
    /// Requests that came while no server was ready and waited for one.
    pub held: u32,
    /// Requests failed with a typed error although they were provably never written.
    pub failed_unsent: u32,
    /// Requests failed with a typed error that says the old server may have carried them out.
    pub failed_maybe_done: u32,
    /// Notifications folded into the state that is restored.
    pub folded: u32,
    /// Notifications dropped because they meant nothing to a new server.
    pub dropped: u32,
}

/// One incident: from the loss of a server until another one is ready, or none will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryReport {
    /// Why the server was lost.
    pub cause: String,
    /// The generation that was lost first.
    pub lost: Generation,
    /// The generation that recovered, if one did.
    pub recovered: Option<Generation>,
    /// Starts it took, failed ones included.
    pub attempts: u32,
    /// How it ended.
    pub ending: Ending,
    /// Where the time went.
    pub phases: PhaseTimes,
    /// What became of the messages.
    pub messages: MessageCounts,
    /// Documents opened again.
    pub documents: u32,
    /// Documents held back, because the server died of them twice.
    pub quarantined: u32,
    /// Subscriptions, watchers and similar standing orders given again.
    pub subscriptions: u32,
    /// What the new server offers differently, one entry a capability.
    pub changed: Vec<String>,
    /// The last lines of the lost server's standard error, oldest first, at most 20.
    pub last_stderr: Vec<String>,
}

impl RecoveryReport {
    /// Begins the report of an incident.
    #[must_use]
    pub fn new(cause: String, lost: Generation, last_stderr: Vec<String>) -> Self {
        Self {
            cause,
            lost,
            recovered: None,
            attempts: 0,
            ending: Ending::Abandoned,
            phases: PhaseTimes::default(),
            messages: MessageCounts::default(),
            documents: 0,
            quarantined: 0,
            subscriptions: 0,
            changed: Vec::new(),
            last_stderr,
        }
    }
}

impl fmt::Display for RecoveryReport {
    /// One line; what is zero is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} lost: {}; ", self.lost, self.cause)?;
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        match &self.ending {
            Ending::Recovered => write!(
                f,
                "recovered in {:.1} ms (down {:.1}, handshake {:.1}, restore {:.1})",
                ms(self.phases.total()),
                ms(self.phases.down),
                ms(self.phases.handshake),
                ms(self.phases.restore),
            )?,
            Ending::GaveUp(reason) => write!(f, "gave up: {reason}")?,
            Ending::Abandoned => f.write_str("the client left first")?,
        }
        let messages = &self.messages;
        for (count, what) in [
            (self.attempts.saturating_sub(1), "failed starts"),
            (self.documents, "documents restored"),
            (self.quarantined, "documents held back"),
            (self.subscriptions, "subscriptions restored"),
            (messages.asked_again, "requests asked again"),
            (messages.held, "requests held"),
            (messages.failed_unsent, "requests failed unsent"),
            (messages.failed_maybe_done, "requests failed that may have been carried out"),
            (messages.folded, "notifications folded"),
            (messages.dropped, "notifications dropped"),
        ] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        if !self.changed.is_empty() {
            write!(f, "; changed: {}", self.changed.join(", "))?;
        }
        if let Some(last) = self.last_stderr.last() {
            write!(f, "; it said last: {last}")?;
        }
        Ok(())
    }
}
