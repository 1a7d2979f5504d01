//! The report of what happens between the loss of a server and the next one that is ready.

use supervisor_core::{Generation, Monotonic};

use crate::relay::{Ending, MessageCounts, RecoveryReport};

#[derive(Debug)]
struct Open {
    report: RecoveryReport,
    lost_at: Monotonic,
    started_at: Monotonic,
    greeted_at: Option<Monotonic>,
}

/// The incident that is going on, if one is.
#[derive(Debug, Default)]
pub(super) struct Incident(Option<Box<Open>>);

impl Incident {
    /// A server was lost; what happens until another is ready belongs to one incident.
    pub(super) fn lost(
        &mut self,
        cause: String,
        generation: Generation,
        last_stderr: Vec<String>,
        now: Monotonic,
    ) {
        if self.0.is_none() {
            let report = RecoveryReport::new(cause, generation, last_stderr);
            let open = Open { report, lost_at: now, started_at: now, greeted_at: None };
            self.0 = Some(Box::new(open));
        }
    }

    pub(super) fn attempt(&mut self, now: Monotonic) {
        if let Some(open) = &mut self.0 {
            open.report.attempts += 1;
            open.started_at = now;
            open.greeted_at = None;
        }
    }

    pub(super) fn not_started(&mut self) {
        if let Some(open) = &mut self.0 {
            open.report.attempts += 1;
        }
    }

    pub(super) fn greeted(&mut self, now: Monotonic) {
        if let Some(open) = &mut self.0 {
            open.greeted_at = Some(now);
        }
    }

    pub(super) fn changed(&mut self, changes: Vec<String>) {
        if let Some(open) = &mut self.0 {
            open.report.changed = changes;
        }
    }

    pub(super) fn also_changed(&mut self, change: String) {
        if let Some(open) = &mut self.0
            && open.report.changed.len() < 64
        {
            open.report.changed.push(change);
        }
    }

    pub(super) fn quarantined(&mut self, method: &str) {
        self.also_changed(format!("{method} was left out: two servers in a row died of it"));
    }

    pub(super) fn subscriptions(&mut self, count: u32) {
        if let Some(open) = &mut self.0 {
            open.report.subscriptions = count;
        }
    }

    /// Counts a message, if an incident is going on.
    pub(super) fn count(&mut self, what: fn(&mut MessageCounts) -> &mut u32) {
        if let Some(open) = &mut self.0 {
            let count = what(&mut open.report.messages);
            *count = count.saturating_add(1);
        }
    }

    pub(super) fn recovered(
        &mut self,
        generation: Generation,
        now: Monotonic,
    ) -> Option<RecoveryReport> {
        let mut open = self.0.take()?;
        let greeted = open.greeted_at.unwrap_or(now);
        open.report.recovered = Some(generation);
        open.report.ending = Ending::Recovered;
        open.report.phases.down = open.started_at.since(open.lost_at);
        open.report.phases.handshake = greeted.since(open.started_at);
        open.report.phases.restore = now.since(greeted);
        Some(open.report)
    }

    pub(super) fn gave_up(&mut self, reason: String) -> Option<RecoveryReport> {
        let mut open = self.0.take()?;
        open.report.ending = Ending::GaveUp(reason);
        Some(open.report)
    }

    pub(super) fn abandoned(&mut self) -> Option<RecoveryReport> {
        self.0.take().map(|open| open.report)
    }
}
