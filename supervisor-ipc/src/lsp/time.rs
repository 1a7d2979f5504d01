//! What is due.

use supervisor_core::Monotonic;

use super::asked::Refusal;
use super::vitals::Verdict;
use super::{Intent, LspRelay, Phase, STOOD_STILL};
use crate::relay::{Output, success};

impl LspRelay {
    pub(super) fn next_deadline(&self) -> Option<Monotonic> {
        let shutdown = self.shutdown.as_ref().map(|(_, at)| *at);
        let settling = self.settling.first().map(|(_, at)| *at);
        let due = [
            self.asked.deadline(),
            self.diagnostics.deadline(),
            self.forget_registrations_at,
            self.vitals.deadline(),
            shutdown,
            settling,
        ];
        due.into_iter().flatten().min()
    }

    pub(super) fn tick(&mut self, out: &mut Vec<Output>) {
        let now = self.now;
        if self.vitals.deadline().is_some_and(|at| now.since(at) > STOOD_STILL) {
            self.vitals.forgive(now, &self.options);
            self.starts.stood_still();
        }
        for ask in self.asked.take_expired(now) {
            let reason = "no server came back in time".to_owned();
            self.refuse(&ask, &Refusal::Absent(reason), out);
        }
        for (key, _) in self.settling.extract_if(.., |(_, at)| *at <= now) {
            if let Some(document) = self.documents.get_mut(&key) {
                document.survived();
            }
        }
        if matches!(self.phase, Phase::Ready) && self.settling.is_empty() && self.asked.held() > 0 {
            self.release(out);
        }
        if self.forget_registrations_at.is_some_and(|at| at <= now) {
            self.forget_registrations_at = None;
            let old = self.registrations.forget_old();
            self.unregister(&old, out);
        }
        let current = (!matches!(self.phase, Phase::Down)).then_some(self.generation);
        out.extend(self.diagnostics.clear(current, now).into_iter().map(Output::ToClient));
        if self.shutdown.as_ref().is_some_and(|(_, at)| *at <= now)
            && let Some((id, _)) = self.shutdown.take()
        {
            out.push(Output::Notice("the server does not answer shutdown".to_owned()));
            out.push(Output::ToClient(success(&id, b"null")));
        }
        self.judge_silence(out);
    }

    fn judge_silence(&mut self, out: &mut Vec<Output>) {
        if self.intent != Intent::Stay {
            return;
        }
        let patient = self.progress.any();
        match self.vitals.look(self.now, patient, &self.options) {
            Verdict::Fine => {}
            Verdict::Dead(silence) => {
                let reason = format!(
                    "the server has been silent for {} s and owes an answer",
                    silence.as_secs()
                );
                out.push(Output::RestartServer { reason });
            }
            Verdict::Probe { look } => {
                out.push(Output::LookAtServer { generation: self.generation });
                let handshake = self.starts.patience(self.options.handshake);
                let waits = self.waiting_since().map(|since| self.now.since(since));
                if look
                    && waits.is_some_and(|waits| waits >= handshake)
                    && !self.vitals.busy()
                    && !patient
                {
                    let reason = format!(
                        "the server did not finish its handshake within {} s",
                        handshake.as_secs()
                    );
                    out.push(Output::RestartServer { reason });
                } else if matches!(
                    self.phase,
                    Phase::Greeting | Phase::Repeating { .. } | Phase::Fresh
                ) {
                    // Before the answer to the handshake nothing may be sent; the handshake itself is the probe.
                    let id = self.own_id();
                    self.vitals.probing(id);
                } else {
                    self.probe(out);
                }
            }
        }
    }
}
