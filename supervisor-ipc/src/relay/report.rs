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
    /// The last lines of the lost server's standard error, oldest first, at most 20; where it wrote none, the first line
    /// it wrote to its output that was no message.
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
        let told = |last: &&str| matches!(&self.ending, Ending::GaveUp(why) if why.contains(*last));
        if let Some(last) = telling(&self.last_stderr).filter(|last| !told(last)) {
            write!(f, "; it said last: {last}")?;
        }
        Ok(())
    }
}

/// Gives the line of a dead server's last ones that says most: the last that is no part of a stack or of a dump, which
/// runtimes write behind the message, nor the runtime's name. The very last if all are.
#[must_use]
pub fn telling(last_stderr: &[String]) -> Option<&str> {
    let tells = |line: &&String| {
        line.starts_with(|first: char| !first.is_whitespace())
            && line.contains(char::is_alphabetic)
            && !line.starts_with("Node.js v")
            && !line.starts_with("note: run with `RUST_BACKTRACE")
    };
    last_stderr.iter().rev().find(tells).or(last_stderr.last()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_why_a_server_died_is_shown_and_not_what_its_runtime_wrote_behind() {
        for (lines, shown) in [
            (
                &["Error: no stream", "    at main.js:1:2", "", "Node.js v20.20.2"][..],
                Some("Error: no stream"),
            ),
            (
                &["Error: Cannot find module 'x'", "  code: 'M',", "}", "", "Node.js v20.20.2"],
                Some("Error: Cannot find module 'x'"),
            ),
            (
                &["  File \"a.py\", line 1", "ModuleNotFoundError: x"],
                Some("ModuleNotFoundError: x"),
            ),
            (&["    at a", "    at b"], Some("    at b")),
            (&[], None),
        ] {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(telling(&lines), shown);
            let report = RecoveryReport::new("why".to_owned(), Generation(1), lines);
            let said = report.to_string();
            assert_eq!(said.split_once("it said last: ").map(|(_, last)| last), shown, "{said}");
        }
    }
}
