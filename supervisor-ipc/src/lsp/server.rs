//! What the server sends.

use bytes::Bytes;
use serde_json::{Value, json};

use super::asked::Ask;
use super::methods::renews;
use super::registrations::unregister_message;
use super::session::{differences, encoding_of};
use super::uri::UriKey;
use super::{LspRelay, Phase, Tokens};
use crate::relay::{
    Envelope, INTERNAL_ERROR, Id, Output, Shape, failure, notification, request, success, with_id,
};

/// Registrations that make a server want documents to be opened.
const OPENING: [&str; 2] = ["textDocument/didOpen", "notebookDocument/sync"];

impl LspRelay {
    pub(super) fn server_message(&mut self, message: Bytes, out: &mut Vec<Output>) {
        let envelope = match Envelope::read(&message) {
            Ok(envelope) => envelope,
            Err(error) => {
                out.push(Output::Notice(format!(
                    "a message of the server was not passed on: {error}"
                )));
                return;
            }
        };
        self.vitals.heard();
        match (envelope.shape(), envelope.id()) {
            (Shape::Response, Some(id)) => self.server_answer(&message, &envelope, &id, out),
            (Shape::Notification, _) => self.server_notification(&message, &envelope, out),
            (Shape::Request, Some(id)) => self.server_request(&message, &envelope, &id, out),
            // It could not read something of ours and cannot say what.
            (Shape::Response, None) | (Shape::Request, None) => {
                out.push(Output::Notice("the server sent a message without an id".to_owned()));
            }
        }
        let handshake =
            matches!(self.phase, Phase::Greeting | Phase::Repeating { .. } | Phase::Restoring(_));
        if handshake || self.asked.written() > 0 {
            self.vitals.written(self.now, &self.options);
        }
    }

    fn server_answer(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        id: &Id,
        out: &mut Vec<Output>,
    ) {
        if self.vitals.answered(id) || self.restored_by(id, out) {
            return;
        }
        match &self.phase {
            Phase::Greeting => {
                if let Some((_, caller)) = &self.session.initialize
                    && caller == id
                {
                    self.greeted(message, envelope, out);
                    return;
                }
            }
            Phase::Repeating { id: ours, .. } if ours == id => {
                return self.repeated(envelope, out);
            }
            _ => {}
        }
        if self.shutdown.as_ref().is_some_and(|(caller, _)| caller == id) {
            self.shutdown = None;
            return out.push(Output::ToClient(message.clone()));
        }
        // Nobody asked, or has been answered already.
        let Some(ask) = self.asked.answer(id) else {
            return;
        };
        let next = ask.alone && self.asked.held() > 0;
        self.answer(ask, message, envelope, id, out);
        if next {
            self.release(out);
        }
    }

    /// Passes the answer to a request on.
    fn answer(
        &mut self,
        ask: Ask,
        message: &Bytes,
        envelope: &Envelope<'_>,
        id: &Id,
        out: &mut Vec<Output>,
    ) {
        self.unproven = None;
        if let Some(token) = &ask.partial {
            self.progress.answered(token);
        }
        if self.ever_lost && envelope.error().is_none() {
            self.fresh.extend(renews(&ask.method));
            let tokens = match ask.method.as_ref() {
                "textDocument/semanticTokens/full" | "textDocument/semanticTokens/full/delta" => {
                    Some(Tokens::Semantic)
                }
                "textDocument/diagnostic" => Some(Tokens::Pull),
                "workspace/diagnostic" => Some(Tokens::PullAll),
                _ => None,
            };
            let key = ask.about.as_ref().map(|(key, _)| key.clone());
            if let Some(tokens) = tokens {
                let key = key.unwrap_or_else(|| UriKey::new(""));
                self.fresh_tokens.insert((tokens, key));
            }
        }
        if self.keeps_back(&ask, envelope.result(), out) {
            return;
        }
        let message =
            if ask.caller == *id { message.clone() } else { with_id(message, &ask.caller) };
        out.push(Output::ToClient(message));
    }

    /// The client's own handshake is answered.
    fn greeted(&mut self, message: &Bytes, envelope: &Envelope<'_>, out: &mut Vec<Output>) {
        self.phase = Phase::Ready;
        self.starts.done(self.now);
        match envelope.result() {
            Some(result) => {
                self.session.answered(result);
                self.capabilities = self.session.capabilities.clone();
                self.server_encoding = self.session.encoding;
            }
            // Refused; the client may try again with another one.
            None => {
                self.session.initialize = None;
                self.phase = Phase::Fresh;
            }
        }
        out.push(Output::ToClient(message.clone()));
        if matches!(self.phase, Phase::Ready) {
            out.push(Output::Ready { generation: self.generation });
            self.over(out);
            self.release(out);
        }
    }

    /// Our repetition of the handshake is answered.
    fn repeated(&mut self, envelope: &Envelope<'_>, out: &mut Vec<Output>) {
        let Some(result) = envelope.result() else {
            let text: Value =
                envelope.error().and_then(|e| serde_json::from_str(e).ok()).unwrap_or_default();
            let text = text.get("message").and_then(Value::as_str).unwrap_or("no reason given");
            let text: String = text.chars().take(200).collect();
            out.push(Output::RestartServer {
                reason: format!("the server refused the handshake: {text}"),
            });
            return;
        };
        let answer: Value = serde_json::from_str(result).unwrap_or_default();
        self.capabilities = answer.get("capabilities").cloned().unwrap_or_default();
        self.server_encoding = encoding_of(&self.capabilities);
        let changed = differences(&self.session.capabilities, &self.capabilities);
        if !changed.is_empty() {
            self.tell(
                &format!(
                    "the language server offers other things since it was restarted: {}",
                    changed.join(", ")
                ),
                out,
            );
        }
        if let Some(incident) = &mut self.incident {
            incident.greeted_at = self.now;
            incident.report.changed = changed;
        }
        self.restore(out);
    }

    fn server_notification(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        out: &mut Vec<Output>,
    ) {
        match envelope.method().as_ref() {
            "textDocument/publishDiagnostics" if self.misplaces(envelope.params()) => return,
            "textDocument/publishDiagnostics" => {
                self.diagnostics.published(envelope.params(), self.generation);
                self.unproven = None;
            }
            "$/progress" => self.progress.seen(envelope.params()),
            "$/cancelRequest" => {
                let params: Value = envelope.read_params().unwrap_or_default();
                let id = params.get("id").and_then(|id| Id::parse(&id.to_string()));
                match id.and_then(|id| Some((self.questions.known(self.generation, &id)?, id))) {
                    Some((known, id)) if known == id => {}
                    Some((known, _)) => {
                        let params = format!("{{\"id\":{known}}}");
                        out.push(Output::ToClient(notification(
                            "$/cancelRequest",
                            params.as_bytes(),
                        )));
                        return;
                    }
                    None => return,
                }
            }
            _ => {}
        }
        out.push(Output::ToClient(message.clone()));
    }

    /// Passes a question of the server to the client; also while its state is being restored, for it may need the
    /// answer before it can answer us.
    fn server_request(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        id: &Id,
        out: &mut Vec<Output>,
    ) {
        match envelope.method().as_ref() {
            "client/registerCapability" => self.register(message, envelope, id, out),
            "client/unregisterCapability" => {
                let params: Value = envelope.read_params().unwrap_or_default();
                let told = self.registrations.unregister(&params).map(|told| {
                    request(id, "client/unregisterCapability", told.to_string().as_bytes())
                });
                self.ask_client(&told.unwrap_or_else(|| message.clone()), id, out);
            }
            _ if self.refuses_places(envelope, id, out) => {}
            "workspace/applyEdit" if self.edits_another_version(envelope) => {
                let answer = json!({
                    "applied": false,
                    "failureReason": "a document is at another version by now",
                });
                self.write(success(id, answer.to_string().as_bytes()), out);
            }
            _ => self.ask_client(message, id, out),
        }
    }

    pub(super) fn ask_client(&mut self, message: &Bytes, id: &Id, out: &mut Vec<Output>) {
        let (mut numbers, generation) = (self.numbers, self.generation);
        let fresh = || {
            numbers += 1;
            Id::text(&format!("ide-supervisor:{numbers}"))
        };
        let known = self.questions.ask(generation, id, fresh);
        self.numbers = numbers;
        match known {
            Some(known) if known == *id => out.push(Output::ToClient(message.clone())),
            Some(known) => out.push(Output::ToClient(with_id(message, &known))),
            None => {
                let text = "too many questions are open at the client";
                self.write(failure(Some(id), INTERNAL_ERROR, text, None), out);
            }
        }
    }

    /// A server started again registers what its predecessor had registered; the client is told only of the rest.
    fn register(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        id: &Id,
        out: &mut Vec<Output>,
    ) {
        let params: Value = envelope.read_params().unwrap_or_default();
        let asked = self.registrations.register(&params);
        if let Some(incident) = &mut self.incident {
            incident.report.subscriptions += asked.known;
        }
        self.unregister(&asked.replaced, out);
        match asked.news {
            Some(_) if asked.untouched => self.ask_client(message, id, out),
            Some(news) => {
                let message = request(id, "client/registerCapability", news.to_string().as_bytes());
                self.ask_client(&message, id, out);
            }
            None => self.write(success(id, b"null"), out),
        }
        if !self.live() {
            return;
        }
        if asked.methods.iter().any(|method| method == "workspace/didChangeWatchedFiles")
            && let Some(events) = self.watched.take()
        {
            self.write(events, out);
        }
        // The client opens what it is told of now; what it was told of before, nobody but we can open.
        if self.ever_lost
            && asked.known > 0
            && asked.methods.iter().any(|method| OPENING.contains(&method.as_str()))
        {
            self.open_missing(out);
        }
    }

    pub(super) fn unregister(&mut self, old: &[(String, String)], out: &mut Vec<Output>) {
        if old.is_empty() {
            return;
        }
        self.numbers += 1;
        // Its answer is nobody's, and is dropped as such.
        let id = Id::text(&format!("ide-supervisor:{}", self.numbers));
        out.push(Output::ToClient(unregister_message(&id, old)));
    }

    /// Tells whether an edit was made for a version of an open document that is not the newest.
    fn edits_another_version(&self, envelope: &Envelope<'_>) -> bool {
        let params: Value = envelope.read_params().unwrap_or_default();
        let changes = params.pointer("/edit/documentChanges").and_then(Value::as_array);
        changes.into_iter().flatten().any(|change| {
            let document = change.get("textDocument");
            let uri = document.and_then(|document| document.get("uri")).and_then(Value::as_str);
            let version =
                document.and_then(|document| document.get("version")).and_then(Value::as_i64);
            let open = uri.and_then(|uri| self.documents.get(&UriKey::new(uri)));
            matches!((open, version), (Some(open), Some(version)) if open.version != version)
        })
    }
}
