//! What becomes of everything when a server is lost.

use serde_json::json;
use supervisor_core::{Generation, Monotonic};

use super::failure::Fate;
use super::flight::Kind;
use super::restore::Restore;
use super::{Leaving, Link, McpRelay};
use crate::relay::{BLAME_MAX, Letter, Loss, NOTHING_WAITS, Output, notification};

impl McpRelay {
    pub(super) fn server_lost(
        &mut self,
        generation: Generation,
        loss: &Loss,
        last_stderr: Vec<String>,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) {
        match self.link.generation() {
            _ if self.link == Link::Closed => {}
            Some(current) if current == generation => {
                if self.leaving == Leaving::No {
                    self.incident.lost(loss.to_string(), generation, last_stderr, now);
                }
                self.judge_calls(generation, loss, now, out);
                self.take_questions_back(out);
                self.restore = Restore::default();
                self.link = Link::Down;
                if self.leaving != Leaving::No {
                    self.close("the client left", out);
                }
            }
            Some(_) => {}
            None => {
                self.incident.lost(loss.to_string(), generation, last_stderr, now);
                self.incident.not_started();
            }
        }
    }

    /// Decides about every call the lost server had.
    fn judge_calls(
        &mut self,
        generation: Generation,
        loss: &Loss,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) {
        let written = self.flight.written();
        let newest_call = written.iter().map(|(_, order)| *order).max().filter(|order| *order > 0);
        let newest = newest_call.max(self.restore.newest());
        if newest > newest_call {
            let number = self.letters + 1;
            let (quarantine, weight) = (&mut self.quarantine, loss.weight());
            if let Some(letter) = self.restore.blame(quarantine, weight, generation, number) {
                self.letters = number;
                out.push(Output::DeadLetter(Box::new(letter)));
            }
        }
        let reason = format!("generation {generation} was lost: {loss}");
        for (seq, order) in written {
            // What was not its last word is not what it died of.
            let weight = if Some(order) == newest { Some(loss.weight()) } else { None };
            match self.fate(seq, weight, now) {
                Some(fate) => {
                    if fate == Fate::DeadLettered {
                        self.bury(seq, loss, out);
                    }
                    self.fail(seq, fate, &reason, out);
                }
                None => self.flight.wait_again(seq, weight),
            }
        }
    }

    /// Says of a call what is kept of it.
    fn bury(&mut self, seq: u64, loss: &Loss, out: &mut Vec<Output>) {
        let Some(call) = self.flight.call(seq) else { return };
        self.letters += 1;
        let subject = call.subject();
        let letter = Letter {
            number: self.letters,
            method: subject.method.to_owned(),
            about: match subject.tool {
                Some(tool) => json!({ "tool": tool }),
                None => json!({}),
            },
            cause: format!(
                "{} servers in a row died before they answered it; the last: {loss}",
                call.given_to.len()
            ),
            generations: call.given_to.clone(),
            over: Some(NOTHING_WAITS),
        };
        out.push(Output::DeadLetter(Box::new(letter)));
    }

    /// How a call the lost server had ends, or nothing if the next one gets it.
    fn fate(&self, seq: u64, weight: Option<u8>, now: Monotonic) -> Option<Fate> {
        let call = self.flight.call(seq)?;
        let recovery = &self.options.recovery;
        let greets = matches!(call.kind, Kind::Initialize { .. });
        if (greets || call.stands()) && call.can_repeat() {
            return None;
        }
        if !call.can_repeat() {
            return Some(Fate::Indeterminate);
        }
        let blamed = weight.is_some_and(|weight| call.blame + weight >= BLAME_MAX);
        if blamed || call.writes >= recovery.max_attempts {
            return Some(Fate::DeadLettered);
        }
        (now.since(self.flight.since(seq)) >= self.patience()).then_some(Fate::Expired)
    }

    /// Tells the client to forget what the lost server asked.
    fn take_questions_back(&mut self, out: &mut Vec<Output>) {
        for id in self.asks.lost() {
            let params =
                format!(r#"{{"requestId":{id},"reason":"the server that asked is gone"}}"#);
            let message = notification("notifications/cancelled", params.as_bytes());
            out.push(Output::ToClient(message));
        }
    }

    /// Ends what has waited too long.
    pub(super) fn expire_waiting(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        let limit = self.patience();
        for seq in self.flight.waiting_calls() {
            if now.since(self.flight.since(seq)) >= limit {
                let reason = format!("no server was ready for {} s", limit.as_secs_f64());
                self.fail(seq, Fate::Expired, &reason, out);
            }
        }
    }

    /// Ends everything that waits.
    pub(super) fn fail_waiting(&mut self, reason: &str, out: &mut Vec<Output>) {
        for seq in self.flight.waiting_calls() {
            let sent = self.flight.call(seq).is_some_and(|call| call.last_written.is_some());
            let fate = if sent { Fate::Indeterminate } else { Fate::NotSent };
            self.fail(seq, fate, reason, out);
        }
        for _ in 0..self.flight.drop_notes() {
            self.incident.count(|messages| &mut messages.dropped);
        }
    }
}
