//! Losing a server, and giving the next one the client's state.

use std::collections::VecDeque;

use serde_json::Value;
use supervisor_core::{Generation, Monotonic};

use super::asked::Refusal;
use super::documents::Body;
use super::methods::Kind;
use super::uri::UriKey;
use super::vitals::Vitals;
use super::{Incident, Intent, LspRelay, Phase};
use crate::relay::{
    Ending, Id, Loss, Output, RecoveryReport, failure, notification, request, success,
};

/// A method no server knows; the protocol says that it must be answered all the same.
const PROBE: &str = "$/ideSupervisor/alive";

/// A restoration on its way.
#[derive(Debug, Default)]
pub(super) struct Restore {
    /// Documents to be opened one after the other, as the server takes them.
    rest: VecDeque<UriKey>,
    /// Whether some were written that the server has not taken yet.
    filling: bool,
    /// Documents to be opened alone, each after the server has shown that it survived the one before.
    alone: VecDeque<UriKey>,
    /// The document opened alone and not shown to have been survived.
    pub(super) trying: Option<UriKey>,
    /// The sign of life that is waited for, and since when.
    probe: Option<(Id, Monotonic)>,
    released: bool,
}

impl LspRelay {
    pub(super) fn server_started(&mut self, generation: Generation, out: &mut Vec<Output>) {
        self.generation = generation;
        self.vitals = Vitals::default();
        self.gave_up = None;
        self.starts.began(self.now);
        if let Some(incident) = &mut self.incident {
            incident.report.attempts += 1;
            (incident.started_at, incident.greeted_at) = (self.now, self.now);
        }
        match self.session.initialize.clone() {
            None => self.phase = Phase::Fresh,
            Some(_) if self.session.greeted => {
                let id = self.own_id();
                let greeting = self.session.greeting(&id, self.options.process_id);
                self.phase = Phase::Repeating { id, since: self.now };
                self.write(greeting, out);
            }
            Some((message, _)) => {
                self.phase = Phase::Greeting;
                self.write(message, out);
            }
        }
    }

    pub(super) fn server_lost(
        &mut self,
        generation: Generation,
        loss: &Loss,
        last_stderr: Vec<String>,
        out: &mut Vec<Output>,
    ) {
        if generation < self.generation {
            return;
        }
        let blamed = self.blame(generation, loss, out);
        self.generation = generation;
        self.phase = Phase::Down;
        self.vitals = Vitals::default();
        self.settling.clear();
        self.unproven = None;
        if self.intent != Intent::Stay {
            return self.lost_on_leaving(out);
        }
        self.ever_lost |= self.session.greeted;
        if let (Loss::NotStarted(_), Some(incident)) = (loss, &mut self.incident) {
            incident.report.attempts += 1;
        }
        if self.incident.is_none() {
            let report = RecoveryReport::new(loss.to_string(), generation, last_stderr);
            let now = self.now;
            self.incident =
                Some(Incident { report, lost_at: now, started_at: now, greeted_at: now });
        }
        self.fresh.clear();
        self.fresh_tokens.clear();
        self.registrations.lost();
        self.diagnostics.clear_at(self.now + self.options.stale_max);
        for document in self.documents.iter_mut() {
            document.1.open_in = None;
        }
        self.forget_questions(generation, out);
        let weight = (!blamed).then(|| loss.weight());
        self.settle_written(generation, weight, loss, out);
        // After the asks: who asked with a token whose parts went out cannot be answered a second time.
        out.extend(self.progress.end_all().into_iter().map(Output::ToClient));
    }

    /// The client was leaving anyway.
    fn lost_on_leaving(&mut self, out: &mut Vec<Output>) {
        if let Some((id, _)) = self.shutdown.take() {
            out.push(Output::ToClient(success(&id, b"null")));
        }
        let reason = "the session is ending".to_owned();
        for ask in self.asked.take_written().into_iter().chain(self.asked.take_held()) {
            self.refuse(&ask, &Refusal::Absent(reason.clone()), out);
        }
    }

    /// Questions of the dead server need no answer any more.
    fn forget_questions(&mut self, generation: Generation, out: &mut Vec<Output>) {
        for known in self.questions.of(generation) {
            let params = format!("{{\"id\":{known}}}");
            out.push(Output::ToClient(notification("$/cancelRequest", params.as_bytes())));
        }
    }

    pub(super) fn restart_gave_up(&mut self, reason: String, out: &mut Vec<Output>) {
        self.phase = Phase::Down;
        let text = format!("the language server is down: {reason}");
        self.gave_up = Some(text.clone());
        for ask in self.asked.take_held() {
            self.refuse(&ask, &Refusal::Absent(text.clone()), out);
        }
        self.diagnostics.clear_at(self.now);
        out.extend(self.diagnostics.clear(None, self.now).into_iter().map(Output::ToClient));
        if !self.session.greeted {
            self.refuse_greeting(&text, out);
        }
        if !std::mem::replace(&mut self.told_of_giving_up, true) {
            self.tell(&text, out);
        }
        if let Some(mut incident) = self.incident.take() {
            incident.report.ending = Ending::GaveUp(reason);
            incident.report.phases.down = self.now.since(incident.lost_at);
            out.push(Output::Report(Box::new(incident.report)));
        }
    }

    /// Answers the client's handshake when no server will.
    pub(super) fn refuse_greeting(&mut self, reason: &str, out: &mut Vec<Output>) {
        if let Some((_, id)) = self.session.initialize.take() {
            let data = serde_json::json!({ "retry": false });
            out.push(Output::ToClient(failure(
                Some(&id),
                super::methods::REQUEST_FAILED,
                reason,
                Some(&data),
            )));
        }
    }

    /// Tells the new server everything, in the order in which the client would have.
    pub(super) fn restore(&mut self, out: &mut Vec<Output>) {
        self.phase = Phase::Restoring(Restore::default());
        if let Some(incident) = &mut self.incident {
            incident.report.documents = 0;
        }
        let Some(initialized) = self.session.initialized.clone() else {
            // The client had its answer and has not gone on; it does that with this server.
            return self.ready(out);
        };
        self.write(initialized, out);
        let state = [self.session.settings.clone(), self.session.trace.clone()];
        for message in state.into_iter().flatten() {
            self.write(message, out);
        }
        let wanted: Vec<_> =
            self.documents.order().into_iter().filter(|key| self.wants(key)).collect();
        let suspect = |key: &UriKey| {
            self.careful || self.documents.get(key).is_some_and(|document| document.blame > 0)
        };
        let (alone, rest) = wanted.into_iter().partition(suspect);
        self.phase = Phase::Restoring(Restore { alone, rest, ..Restore::default() });
        self.open_rest(out);
    }

    /// Opens what need not be opened alone, so much of it at a time that what waits to be written stays small.
    ///
    /// Each document is written as it is when its turn comes. What the client says of it before that is part of that
    /// text, what it says later follows.
    fn open_rest(&mut self, out: &mut Vec<Output>) {
        let mut bytes = 0;
        while let Phase::Restoring(restore) = &mut self.phase {
            restore.filling = bytes >= self.options.restore_bytes && !restore.rest.is_empty();
            if restore.filling {
                out.push(Output::TellWhenTaken { generation: self.generation });
                return;
            }
            let Some(key) = restore.rest.pop_front() else {
                return self.go_on(out);
            };
            if self.lacks(&key) {
                bytes += self.open_now(&key, out);
            }
        }
    }

    /// The server has taken everything that was written to it.
    pub(super) fn taken(&mut self, generation: Generation, out: &mut Vec<Output>) {
        let waits = matches!(&self.phase, Phase::Restoring(restore) if restore.filling);
        if waits && generation == self.generation {
            self.open_rest(out);
        }
    }

    /// Tells whether the server wants a document it does not have. The client may have closed it meanwhile, or opened it
    /// again, which the server was told at once.
    fn lacks(&self, key: &UriKey) -> bool {
        let open = self.documents.get(key).and_then(|document| document.open_in);
        open != Some(self.generation) && self.wants(key)
    }

    /// Tells whether the server wants to know of a document, and may.
    pub(super) fn wants(&self, key: &UriKey) -> bool {
        let Some(document) = self.documents.get(key) else {
            return false;
        };
        if let Body::Notebook(_) = document.body {
            let taken = self.capabilities.get("notebookDocumentSync").is_some_and(Value::is_object)
                || self.registrations.has("notebookDocument/sync");
            return taken && !document.quarantined();
        }
        let fixed = match self.capabilities.get("textDocumentSync") {
            Some(Value::Number(kind)) => kind.as_u64().unwrap_or(0) > 0,
            Some(Value::Object(sync)) => {
                sync.get("openClose").and_then(Value::as_bool).unwrap_or(false)
            }
            _ => false,
        };
        !document.quarantined()
            && (fixed || self.registrations.selects("textDocument/didOpen", document))
    }

    /// Tells whether the server can be given the client's edits as they are.
    pub(super) fn server_takes_edits(&self) -> bool {
        let kind = |capabilities: &Value| {
            let sync = capabilities.get("textDocumentSync").cloned().unwrap_or_default();
            sync.as_u64().or_else(|| sync.get("change").and_then(Value::as_u64))
        };
        self.server_encoding == self.session.encoding
            && (!self.ever_lost || kind(&self.capabilities) == kind(&self.session.capabilities))
    }

    /// Opens a document with its newest text; from here on the client's edits follow. Gives what that takes, in bytes.
    pub(super) fn open_now(&mut self, key: &UriKey, out: &mut Vec<Output>) -> usize {
        self.documents.opened_in(key, self.generation);
        let Some(message) = self.documents.open_message(key) else {
            return 0;
        };
        let Some(document) = self.documents.get_mut(key) else {
            return 0;
        };
        let bytes = message.len();
        let saved = std::mem::take(&mut document.saved).then(|| document.saved_message());
        let save = match document.body {
            Body::Notebook(_) => "/notebookDocumentSync/save",
            _ => "/textDocumentSync/save",
        };
        if document.blame > 0 {
            self.settling.push((key.clone(), self.now + self.options.settle));
        }
        self.unproven = Some(key.clone());
        self.write(message, out);
        if let Some(incident) = &mut self.incident {
            incident.report.documents += 1;
        }
        let save = self.capabilities.pointer(save);
        if let Some(saved) = saved.filter(|_| save.is_some_and(|save| *save != Value::Bool(false)))
        {
            self.write(saved, out);
        }
        bytes
    }

    /// Opens whatever the server wants and does not have.
    pub(super) fn open_missing(&mut self, out: &mut Vec<Output>) {
        let missing: Vec<_> =
            self.documents.order().into_iter().filter(|key| self.lacks(key)).collect();
        if let Phase::Restoring(restore) = &mut self.phase
            && restore.filling
        {
            // They are opened in their turn, and what is asked about them waits.
            let alone = &restore.alone;
            restore.rest = missing.into_iter().filter(|key| !alone.contains(key)).collect();
            return;
        }
        for key in missing {
            self.open_now(&key, out);
        }
        self.release(out);
    }

    /// Takes the next step of a restoration: the next document that goes alone, or the last sign of life.
    fn go_on(&mut self, out: &mut Vec<Output>) {
        let Phase::Restoring(restore) = &mut self.phase else {
            return;
        };
        if restore.probe.is_some() {
            return;
        }
        // Everything that cannot kill it is open; the others must not wait for what might.
        let release = !self.careful && !std::mem::replace(&mut restore.released, true);
        restore.trying = restore.alone.pop_front();
        let trying = restore.trying.clone();
        if release {
            self.release(out);
        }
        if let Some(key) = trying
            && self.lacks(&key)
        {
            self.open_now(&key, out);
        }
        let id = self.own_id();
        if let Phase::Restoring(restore) = &mut self.phase {
            restore.probe = Some((id.clone(), self.now));
        }
        self.write(request(&id, PROBE, b"{}"), out);
    }

    /// Takes the answer to a sign of life of a restoration.
    pub(super) fn restored_by(&mut self, id: &Id, out: &mut Vec<Output>) -> bool {
        let Phase::Restoring(restore) = &mut self.phase else {
            return false;
        };
        if restore.probe.as_ref().is_none_or(|(probe, _)| probe != id) {
            return false;
        }
        restore.probe = None;
        let tried = restore.trying.take();
        self.unproven = None;
        if let Some(document) = tried.and_then(|key| self.documents.get_mut(&key)) {
            document.survived_opening();
        }
        let more = matches!(&self.phase, Phase::Restoring(restore) if !restore.alone.is_empty());
        if !more {
            self.ready(out);
        } else {
            self.go_on(out);
        }
        true
    }

    fn ready(&mut self, out: &mut Vec<Output>) {
        self.phase = Phase::Ready;
        self.starts.done(self.now);
        self.careful = false;
        self.told_of_giving_up = false;
        self.diagnostics.clear_at(self.now + self.options.stale);
        self.forget_registrations_at =
            self.registrations.any_old().then(|| self.now + self.options.registrations);
        if self.registrations.has("workspace/didChangeWatchedFiles")
            && let Some(events) = self.watched.take()
        {
            self.write(events, out);
        }
        self.release(out);
        out.push(Output::Ready { generation: self.generation });
        self.over(out);
        for method in self.session.refreshes(&self.capabilities) {
            // Its answer is nobody's, and is dropped as such.
            self.numbers += 1;
            let id = Id::text(&format!("ide-supervisor:{}", self.numbers));
            out.push(Output::ToClient(request(&id, method, b"")));
        }
    }

    /// Closes the report of the incident, if there is one.
    pub(super) fn over(&mut self, out: &mut Vec<Output>) {
        let Some(incident) = self.incident.take() else {
            return;
        };
        let mut report = incident.report;
        report.ending = Ending::Recovered;
        report.recovered = Some(self.generation);
        report.phases.down = incident.started_at.since(incident.lost_at);
        report.phases.handshake = incident.greeted_at.since(incident.started_at);
        report.phases.restore = self.now.since(incident.greeted_at);
        let held_back =
            self.documents.iter().filter(|(_, document)| document.quarantined()).count();
        report.quarantined = u32::try_from(held_back).unwrap_or(u32::MAX);
        out.push(Output::Report(Box::new(report)));
    }

    /// Sends what waited, in its order. What may change something waits until the server has shown that it survived
    /// its restoration. What is about a document that is not open yet goes on waiting; what is about
    /// one that changed since is answered with that.
    pub(super) fn release(&mut self, out: &mut Vec<Output>) {
        for mut ask in self.asked.take_held() {
            ask.alone = ask.suspect();
            let document = ask.about.as_ref().and_then(|(key, _)| self.documents.get(key));
            let open = document.is_none_or(|document| document.open_in == Some(self.generation));
            let held_back =
                ask.about.as_ref().is_some_and(|(key, _)| self.documents.held_back(key));
            if held_back {
                self.refuse(&ask, &Refusal::HeldBack, out);
            } else if !ask.still_holds(&self.documents) {
                self.refuse(&ask, &Refusal::Changed, out);
            } else if matches!(self.phase, Phase::Restoring(_)) && (!open || ask.kind != Kind::Read)
                || self.must_wait(&ask)
            {
                self.asked.hold(ask);
            } else if let Some(message) = ask.message.clone() {
                self.write_request(ask, &message, out);
            }
        }
    }

    /// Asks the running server for a sign of life.
    pub(super) fn probe(&mut self, out: &mut Vec<Output>) {
        let id = self.own_id();
        self.vitals.probing(id.clone());
        self.write(request(&id, PROBE, b"{}"), out);
    }

    /// Gives when the handshake or restoration on its way began to wait.
    pub(super) fn waiting_since(&self) -> Option<Monotonic> {
        match &self.phase {
            Phase::Repeating { since, .. } => Some(*since),
            Phase::Restoring(restore) => restore.probe.as_ref().map(|(_, since)| *since),
            _ => None,
        }
    }
}
