//! What the client sends.

use bytes::Bytes;
use serde_json::Value;

use super::asked::{Ask, Refusal};
use super::documents::subject;
use super::methods::{Kind, kind, known_effect};
use super::notebooks::notebook;
use super::places::in_one_piece;
use super::{Intent, LspRelay, Phase, Tokens};
use crate::relay::{
    Envelope, INVALID_REQUEST, Id, Malformed, Output, PARSE_ERROR, Shape, failure, notification,
    request, success, with_id,
};

/// How often a client's request makes one more start be tried after giving up.
const TRY_AGAIN_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// Bytes from which on a message is most of the memory it was read into.
const LARGE: usize = 64 * 1024;

/// Keeps a message for later. A small one is copied, as it would hold the memory of all that was read with it.
fn kept(message: &Bytes) -> Bytes {
    if message.len() >= LARGE { message.clone() } else { Bytes::copy_from_slice(message) }
}

fn mentions(text: &str, name: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), name.as_bytes()).is_some()
}

impl LspRelay {
    pub(super) fn client_message(&mut self, message: Bytes, out: &mut Vec<Output>) {
        let envelope = match Envelope::read(&message) {
            Ok(envelope) => envelope,
            Err(error) => return Self::malformed(error, out),
        };
        match (envelope.shape(), envelope.id()) {
            (Shape::Notification, _) => self.client_notification(&message, &envelope, out),
            (Shape::Request, Some(id)) => self.client_request(&message, &envelope, id, out),
            (Shape::Response, Some(id)) => self.client_answer(&message, &id, out),
            (Shape::Request, None) => {
                out.push(Output::ToClient(failure(
                    None,
                    INVALID_REQUEST,
                    "a request needs an id",
                    None,
                )));
            }
            // An error about a message of the server that the client could not read; it has no address.
            (Shape::Response, None) => {}
        }
    }

    fn malformed(error: Malformed, out: &mut Vec<Output>) {
        let code = if error == Malformed::Object || error == Malformed::Encoding {
            PARSE_ERROR
        } else {
            INVALID_REQUEST
        };
        let text = format!("this message was not passed on: {error}");
        out.push(Output::Notice(format!("a message of the client was not passed on: {error}")));
        out.push(Output::ToClient(failure(None, code, &text, None)));
    }

    fn client_answer(&mut self, message: &Bytes, id: &Id, out: &mut Vec<Output>) {
        // Whoever asked is dead, or nobody asked: the answer means nothing to anybody.
        let Some((generation, own)) = self.questions.answer(id) else {
            return;
        };
        if generation != self.generation || matches!(self.phase, Phase::Down) {
            return;
        }
        let message = if own == *id { message.clone() } else { with_id(message, &own) };
        self.write(message, out);
    }

    fn client_notification(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        out: &mut Vec<Output>,
    ) {
        let params = envelope.params();
        match envelope.method().as_ref() {
            "textDocument/didOpen" => self.did_open(message, params, out),
            "textDocument/didChange" => self.did_change(message, params, out),
            "textDocument/didClose" => self.did_close(message, params, out),
            "textDocument/didSave" => self.did_save(subject(params), message, out),
            "notebookDocument/didOpen" => self.notebook_opened(message, params, out),
            "notebookDocument/didChange" => self.notebook_changed(message, params, out),
            "notebookDocument/didClose" => {
                let known = self.documents.notebook_closed(params);
                self.closed(known, message, out);
            }
            "notebookDocument/didSave" => self.did_save(notebook(params), message, out),
            "$/cancelRequest" => self.cancel(message, params, out),
            "initialized" => self.initialized(message, out),
            "workspace/didChangeConfiguration" => {
                self.session.settings = Some(Bytes::copy_from_slice(message));
                self.state_changed(message, out);
            }
            "$/setTrace" => {
                self.session.trace = Some(Bytes::copy_from_slice(message));
                self.state_changed(message, out);
            }
            "workspace/didChangeWorkspaceFolders" => {
                self.session.folders_changed(params);
                self.state_changed(message, out);
            }
            "workspace/didChangeWatchedFiles" if !self.live() => {
                self.watched.merge(params, self.options.watched_max);
                self.folded();
            }
            "exit" => {
                self.intent = Intent::Left;
                out.push(Output::EndServer);
                if !matches!(self.phase, Phase::Down) {
                    self.write(message.clone(), out);
                }
                out.push(Output::StopServer);
            }
            _ if self.live() || matches!(self.phase, Phase::Fresh) => {
                self.write(message.clone(), out);
            }
            _ => {
                if let Some(incident) = &mut self.incident {
                    incident.report.messages.dropped += 1;
                }
            }
        }
    }

    pub(super) fn folded(&mut self) {
        if let Some(incident) = &mut self.incident {
            incident.report.messages.folded += 1;
        }
    }

    /// Passes on what is part of the state; a server that is not there gets it with the rest.
    pub(super) fn state_changed(&mut self, message: &Bytes, out: &mut Vec<Output>) {
        if self.live() {
            self.write(message.clone(), out);
        } else {
            self.folded();
        }
    }

    fn initialized(&mut self, message: &Bytes, out: &mut Vec<Output>) {
        let first = self.session.initialized.replace(Bytes::copy_from_slice(message)).is_none();
        if !self.live() {
            return self.folded();
        }
        self.write(message.clone(), out);
        // What came too early, or while a server was replaced within its first handshake.
        if first {
            self.open_missing(out);
        }
    }

    fn cancel(&mut self, message: &Bytes, params: Option<&str>, out: &mut Vec<Output>) {
        let id = params
            .and_then(|text| serde_json::from_str::<Value>(text).ok())
            .and_then(|params| params.get("id").map(Value::to_string))
            .and_then(|raw| Id::parse(&raw));
        let Some(id) = id else {
            return;
        };
        if let Some(ask) = self.asked.cancel_held(&id) {
            out.push(Output::ToClient(ask.refused(&Refusal::Changed)));
        } else if let Some(wire) = self.asked.cancel_written(&id) {
            let message = if wire == id {
                message.clone()
            } else {
                notification("$/cancelRequest", format!("{{\"id\":{wire}}}").as_bytes())
            };
            self.write(message, out);
        }
    }

    fn client_request(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        id: Id,
        out: &mut Vec<Output>,
    ) {
        let method = envelope.method();
        match method.as_ref() {
            "initialize" if self.session.initialize.is_none() => {
                self.session.begin(Bytes::copy_from_slice(message), id, envelope.params());
                if matches!(self.phase, Phase::Fresh) {
                    self.phase = Phase::Greeting;
                    self.starts.began(self.now);
                    self.write(message.clone(), out);
                } else if let Some(reason) = self.gave_up.clone() {
                    self.refuse_greeting(&reason, out);
                }
                return;
            }
            "shutdown" => return self.client_shutdown(message, id, out),
            _ => {}
        }
        let params = envelope.params();
        let about = subject(params).and_then(|key| {
            self.documents.get(&key).map(|document| (key.clone(), document.version))
        });
        let partial = params.filter(|text| mentions(text, "partialResultToken")).and_then(|text| {
            let params: Value = serde_json::from_str(text).ok()?;
            params.get("partialResultToken").map(|token| token.to_string().into())
        });
        let kind = kind(&method);
        let ask = Ask {
            caller: id,
            method: method.as_ref().into(),
            kind,
            about,
            deadline: self.now + self.hold(),
            message: None,
            cancelled: false,
            partial,
            order: self.asked.next_order(),
            blame: 0,
            deaths: Vec::new(),
            alone: false,
        };
        match self.phase {
            Phase::Ready | Phase::Restoring(_) | Phase::Fresh => {
                self.pass_request(ask, message, out);
            }
            _ => self.hold_request(ask, message, out),
        }
    }

    /// Answers in place of the server what no server has to be asked for, and passes on the rest.
    fn pass_request(&mut self, ask: Ask, message: &Bytes, out: &mut Vec<Output>) {
        let held_back = |relay: &Self| {
            ask.about.as_ref().and_then(|(key, _)| {
                let document = relay.documents.get(key)?;
                let open = document.open_in == Some(relay.generation);
                Some((relay.documents.held_back(key), open))
            })
        };
        match held_back(self) {
            Some((true, false)) => return self.refuse(&ask, &Refusal::HeldBack, out),
            Some((false, false)) if matches!(self.phase, Phase::Restoring(_)) => {
                return self.hold_request(ask, message, out);
            }
            _ if ask.kind == Kind::Effect && matches!(self.phase, Phase::Restoring(_)) => {
                return self.hold_request(ask, message, out);
            }
            _ => {}
        }
        if let Kind::Bound(family) = ask.kind
            && self.ever_lost
            && !self.fresh.contains(&family)
        {
            return self.answer_bound(&ask, message, out);
        }
        if self.asked.written() >= self.options.unanswered_max {
            return self.refuse(&ask, &Refusal::Full, out);
        }
        self.write_request(ask, message, out);
    }

    /// The data in this request is of a process that is gone: what can be said without it is said.
    fn answer_bound(&mut self, ask: &Ask, message: &Bytes, out: &mut Vec<Output>) {
        let params =
            Envelope::read(message).ok().and_then(|envelope| envelope.params().map(str::to_owned));
        match params {
            // An item that is not resolved any further is a legal answer.
            Some(item) if ask.method.ends_with("/resolve") => {
                out.push(Output::ToClient(success(&ask.caller, item.as_bytes())));
            }
            _ => self.refuse(ask, &Refusal::Changed, out),
        }
    }

    /// Writes a request to the running server, under another id if its own is in use.
    pub(super) fn write_request(&mut self, mut ask: Ask, message: &Bytes, out: &mut Vec<Output>) {
        if let Some(reason) = self.miscounted(&ask) {
            return self.refuse(&ask, &Refusal::Absent(reason), out);
        }
        let room = self.asked.bytes() + message.len() <= self.options.hold_bytes
            && self.asked.written() < self.options.hold_max;
        ask.message =
            (ask.kind == Kind::Read && self.options.ask_again && room).then(|| kept(message));
        let current = if self.ever_lost { self.without_stale_ids(&ask, message) } else { None };
        let current = if ask.partial.is_some() && self.miscounts() {
            in_one_piece(current.as_ref().unwrap_or(message)).or(current)
        } else {
            current
        };
        let message = current.as_ref().unwrap_or(message);
        if self.asked.is_written(&ask.caller) {
            let wire = self.own_id();
            let message = with_id(message, &wire);
            self.asked.write(wire, ask);
            self.write(message, out);
        } else {
            self.asked.write(ask.caller.clone(), ask);
            self.write(message.clone(), out);
        }
    }

    /// Takes ids of results of a dead process out of a request; a new process may have given the same one to another.
    fn without_stale_ids(&self, ask: &Ask, message: &Bytes) -> Option<Bytes> {
        let subject = || ask.about.as_ref().map(|(key, _)| key.clone());
        let known =
            |tokens: Tokens| subject().is_none_or(|key| self.fresh_tokens.contains(&(tokens, key)));
        let params = |member: &str, value: Option<Value>| {
            let text = Envelope::read(message).ok()?.params()?.to_owned();
            let mut params: Value = serde_json::from_str(&text).ok()?;
            let members = params.as_object_mut()?;
            match value {
                Some(value) => drop(members.insert(member.to_owned(), value)),
                None => drop(members.remove(member)?),
            }
            Some(params.to_string())
        };
        match ask.method.as_ref() {
            "textDocument/semanticTokens/full/delta" if !known(Tokens::Semantic) => {
                let params = params("previousResultId", None)?;
                Some(request(&ask.caller, "textDocument/semanticTokens/full", params.as_bytes()))
            }
            "textDocument/diagnostic" if !known(Tokens::Pull) => {
                let params = params("previousResultId", None)?;
                Some(request(&ask.caller, &ask.method, params.as_bytes()))
            }
            "workspace/diagnostic"
                if !self.fresh_tokens.iter().any(|(tokens, _)| *tokens == Tokens::PullAll) =>
            {
                let params = params("previousResultIds", Some(Value::Array(Vec::new())))?;
                Some(request(&ask.caller, &ask.method, params.as_bytes()))
            }
            _ => None,
        }
    }

    /// Lets a request wait for a server, or fails it at once if it may not.
    fn hold_request(&mut self, mut ask: Ask, message: &Bytes, out: &mut Vec<Output>) {
        if let Some(reason) = self.gave_up.clone() {
            self.refuse(&ask, &Refusal::Absent(reason), out);
            let due = self.tried_again.is_none_or(|last| self.now.since(last) >= TRY_AGAIN_EVERY);
            if due && self.intent == Intent::Stay {
                self.tried_again = Some(self.now);
                out.push(Output::TryAgain);
            }
            return;
        }
        if self.intent != Intent::Stay {
            return self.refuse(&ask, &Refusal::Absent("the session is ending".to_owned()), out);
        }
        match ask.kind {
            Kind::Bound(_) if self.ever_lost => return self.answer_bound(&ask, message, out),
            Kind::Effect if self.ever_lost && known_effect(&ask.method) => {
                let reason = "the server is being restarted; this was not sent".to_owned();
                return self.refuse(&ask, &Refusal::Absent(reason), out);
            }
            _ => {}
        }
        if self.asked.held() >= self.options.hold_max
            || self.asked.bytes() + message.len() > self.options.hold_bytes
        {
            return self.refuse(&ask, &Refusal::Full, out);
        }
        if let Some(incident) = &mut self.incident {
            incident.report.messages.held += 1;
        }
        ask.message = Some(kept(message));
        self.asked.hold(ask);
    }

    fn client_shutdown(&mut self, message: &Bytes, id: Id, out: &mut Vec<Output>) {
        self.intent = self.intent.max(Intent::Leave);
        out.push(Output::EndServer);
        for ask in self.asked.take_held() {
            self.refuse(&ask, &Refusal::Absent("the session is ending".to_owned()), out);
        }
        match self.phase {
            Phase::Ready | Phase::Restoring(_) if self.shutdown.is_none() => {
                self.shutdown = Some((id, self.now + self.options.shutdown));
                self.write(message.clone(), out);
            }
            // Nobody is there who could object.
            _ => out.push(Output::ToClient(success(&id, b"null"))),
        }
    }

    pub(super) fn client_gone(&mut self, out: &mut Vec<Output>) {
        self.intent = Intent::Left;
        drop(self.asked.take_held());
        drop(self.asked.take_written());
        self.shutdown = None;
        out.push(Output::EndServer);
        out.push(Output::StopServer);
    }
}
