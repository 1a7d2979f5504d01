//! What the client sends.

use bytes::Bytes;
use supervisor_core::{Generation, Monotonic};

use super::batch::Passage;
use super::failure::{Fate, Subject, failed};
use super::fields::{self, Fields, PARAMS_MAX, replaced};
use super::flight::{Kind, NewCall};
use super::lists::List;
use super::reverse::answer_for;
use super::session::GREETING_MAX;
use super::{ID_MAX, Leaving, Link, McpRelay, OWN_PREFIX};
use crate::relay::{
    Envelope, INVALID_REQUEST, Malformed, Output, PARSE_ERROR, Shape, failure, shortened, with_id,
};

impl McpRelay {
    pub(super) fn client_says(&mut self, message: &Bytes, now: Monotonic, out: &mut Vec<Output>) {
        if self.link == Link::Closed || self.leaving != Leaving::No {
            return;
        }
        match Envelope::read(message) {
            Ok(envelope) => match self.client_message(message, &envelope, now, out) {
                Passage::AsItCame => self.to_server(message.clone(), out),
                Passage::Instead(message) => self.to_server(message, out),
                Passage::Taken => {}
            },
            Err(Malformed::Batch) => self.client_batch(message, now, out),
            Err(error) => self.client_junk(message, error, out),
        }
    }

    /// Answers what is no message in the server's place: not every server survives it.
    pub(super) fn client_junk(&mut self, message: &[u8], error: Malformed, out: &mut Vec<Output>) {
        let code = match error {
            Malformed::Encoding | Malformed::Object | Malformed::Depth => PARSE_ERROR,
            Malformed::Batch | Malformed::Member | Malformed::Shape => INVALID_REQUEST,
        };
        let text = format!("the client sent something that is no message: {error}");
        out.push(Output::ToClient(failure(None, code, &text, None)));
        let hint = if message.starts_with(b"Content-Length:") {
            "; it speaks the framing of language servers: use --protocol lsp"
        } else {
            ""
        };
        self.notice_once(|told| &mut told.client_junk, format!("{text}{hint}"), out);
    }

    pub(super) fn client_message(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) -> Passage {
        match envelope.shape() {
            Shape::Request => self.client_request(message, envelope, now, out),
            Shape::Notification => self.client_notification(message, envelope),
            Shape::Response => self.client_answer(message, envelope),
        }
    }

    fn client_answer(&mut self, message: &Bytes, envelope: &Envelope<'_>) -> Passage {
        let Some(id) = envelope.id() else { return self.pass_if_live() };
        match self.asks.answered(&id) {
            Some(server) => {
                answer_for(envelope, message, &server).map_or(Passage::AsItCame, Passage::Instead)
            }
            // Meant for a server that is gone, or one that took its question back.
            None => self.drop_note(),
        }
    }

    const fn pass_if_live(&self) -> Passage {
        if matches!(self.link, Link::Live(_)) { Passage::AsItCame } else { Passage::Taken }
    }

    fn drop_note(&mut self) -> Passage {
        self.incident.count(|messages| &mut messages.dropped);
        Passage::Taken
    }

    fn client_notification(&mut self, message: &Bytes, envelope: &Envelope<'_>) -> Passage {
        let method = envelope.method();
        match method.as_ref() {
            "notifications/cancelled" => self.client_cancels(message, envelope),
            "notifications/progress" => self.client_progresses(message, envelope),
            _ => {
                let initialized = method == "notifications/initialized";
                if matches!(self.link, Link::Live(_)) {
                    self.session.initialized |= initialized;
                    return Passage::AsItCame;
                }
                self.hold_note(message, initialized, &method)
            }
        }
    }

    fn hold_note(&mut self, message: &Bytes, initialized: bool, method: &str) -> Passage {
        // A new server asks for the roots by itself.
        let stale = method == "notifications/roots/list_changed"
            && self.link == Link::Down
            && self.session.agreed().is_some();
        let room = self.flight.len() < self.options.recovery.max_buffered_messages
            && self.fits(message.len());
        if stale || !room || matches!(self.link, Link::GaveUp { .. }) {
            return self.drop_note();
        }
        self.flight.hold(message.clone(), initialized);
        Passage::Taken
    }

    fn fits(&self, more: usize) -> bool {
        (self.flight.bytes() + more) as u64 <= self.options.recovery.max_buffered_bytes.bytes()
    }

    fn client_cancels(&mut self, message: &Bytes, envelope: &Envelope<'_>) -> Passage {
        let fields = Fields::read(envelope.params());
        let Some(id) = fields.request_id() else { return self.pass_if_live() };
        match self.flight.by_id(&id) {
            None => self.pass_if_live(),
            // May not be taken back; what the server makes of it is its own business.
            Some(call) if matches!(call.kind, Kind::Initialize { .. }) => {
                if call.written.is_some() { Passage::AsItCame } else { Passage::Taken }
            }
            Some(_) => {
                let Some(call) = self.flight.cancelled(&id) else { return Passage::Taken };
                if call.written.is_none() {
                    return Passage::Taken;
                }
                match fields.request {
                    Some(raw) if call.wire != call.id => {
                        Passage::Instead(replaced(message, raw, call.wire.as_str()))
                    }
                    _ => Passage::AsItCame,
                }
            }
        }
    }

    fn client_progresses(&mut self, message: &Bytes, envelope: &Envelope<'_>) -> Passage {
        if self.link.generation().is_none() {
            return self.drop_note();
        }
        if !self.asks.has_past() {
            return Passage::AsItCame;
        }
        let fields = Fields::read(envelope.params());
        let known = fields.token.and_then(fields::id);
        match (fields.token, known.and_then(|known| self.asks.token(&known).cloned())) {
            (Some(raw), Some(server)) => Passage::Instead(replaced(message, raw, server.as_str())),
            _ => self.drop_note(),
        }
    }

    fn client_request(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) -> Passage {
        let Some(id) = envelope.id() else {
            let text = "a request's id must be a number or a text";
            out.push(Output::ToClient(failure(None, INVALID_REQUEST, text, None)));
            return Passage::Taken;
        };
        if id.as_str().len() > ID_MAX {
            out.push(Output::ToClient(failure(None, INVALID_REQUEST, "the id is too long", None)));
            return Passage::Taken;
        }
        if self.flight.is_used(&id) {
            let text = "a request with this id is unanswered";
            out.push(Output::ToClient(failure(Some(&id), INVALID_REQUEST, text, None)));
            return Passage::Taken;
        }
        let fields = Fields::read(envelope.params());
        let method = envelope.method();
        if let Some(envelope) = fields.envelope() {
            self.session.set_envelope(envelope);
        }
        let new = NewCall {
            id,
            kind: self.kind_of(&method, envelope, &fields),
            method: shortened(&method).into(),
            token: fields.wanted_token().and_then(fields::id),
        };
        if let Some(refusal) = self.refusal(&new.subject(), message.len(), now, out) {
            out.push(Output::ToClient(refusal));
            return Passage::Taken;
        }
        let at_once = match self.link {
            Link::Live(generation) => Some(generation),
            Link::Greeting(generation) if new.kind == Kind::Ping => Some(generation),
            _ => None,
        };
        let seq = self.flight.admit(new, message.clone(), now);
        let Some(generation) = at_once else {
            self.incident.count(|messages| &mut messages.held);
            return Passage::Taken;
        };
        match self.write_call(seq, generation, now) {
            Some((_, false)) => Passage::AsItCame,
            Some((renamed, true)) => Passage::Instead(renamed),
            None => Passage::Taken,
        }
    }

    fn kind_of(&self, method: &str, envelope: &Envelope<'_>, fields: &Fields<'_>) -> Kind {
        let text = envelope.params().unwrap_or("{}");
        let params = || Bytes::copy_from_slice(text.as_bytes());
        // Longer ones are asked again when they must, but are no part of the session.
        let short = text.len() <= PARAMS_MAX;
        let uri = || fields.uri().filter(|_| short).map(String::into_boxed_str);
        if let Some(list) = List::of(method).filter(|_| short) {
            let cursor = fields.cursor.and_then(|raw| serde_json::from_str(raw).ok());
            return Kind::List { list, cursor: cursor.map(String::into_boxed_str) };
        }
        let kind = match method {
            "initialize" => {
                (text.len() <= GREETING_MAX).then(|| Kind::Initialize { params: params() })
            }
            "ping" => Some(Kind::Ping),
            "logging/setLevel" => fields
                .level()
                .filter(|_| short)
                .map(|level| Kind::SetLevel { level: level.into(), params: params() }),
            "resources/subscribe" => uri().map(|uri| Kind::Subscribe { uri, params: params() }),
            "resources/unsubscribe" => uri().map(|uri| Kind::Unsubscribe { uri }),
            "tools/call" => {
                let name = fields.name().unwrap_or_default();
                // A call that makes a task makes another one when it is repeated.
                let repeatable = fields.task.is_none() && self.lists.may_repeat(&name);
                Some(Kind::Tool { name: shortened(&name).into(), repeatable })
            }
            "subscriptions/listen" => fields.notifications.filter(|_| short).map(|filter| {
                let filter = Bytes::copy_from_slice(filter.as_bytes());
                Kind::Listen { filter, acknowledged: false }
            }),
            "resources/read"
            | "prompts/get"
            | "completion/complete"
            | "server/discover"
            | "tasks/get"
            | "tasks/result" => None,
            _ if method.ends_with("/list") => None,
            _ => Some(Kind::Other),
        };
        kind.unwrap_or(Kind::Read)
    }

    /// Why a request is refused, as the answer to it.
    fn refusal(
        &mut self,
        subject: &Subject<'_>,
        bytes: usize,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) -> Option<Bytes> {
        if let Link::GaveUp { reason, again } = &self.link {
            if now < *again {
                let wait = again.since(now).as_secs() + 1;
                let reason =
                    format!("{reason}; a request in {wait} s makes another start be tried");
                return Some(failed(subject, Fate::NotSent, &reason));
            }
            self.link = Link::Down;
            out.push(Output::TryAgain);
        }
        let max = self.options.recovery.max_buffered_messages;
        if !self.flight.has_room(max, now) {
            let reason = format!("{max} requests are unanswered already");
            return Some(failed(subject, Fate::Rejected, &reason));
        }
        // What a running server takes at once is not kept when there is no room for it.
        let kept = if matches!(self.link, Link::Live(_)) { 0 } else { bytes };
        (!self.fits(kept)).then(|| {
            failed(subject, Fate::Rejected, "too many bytes of requests are unanswered already")
        })
    }

    /// Gives a call to a server; says whether it goes by another id there.
    fn write_call(
        &mut self,
        seq: u64,
        generation: Generation,
        now: Monotonic,
    ) -> Option<(Bytes, bool)> {
        let call = self.flight.call(seq)?;
        let looks_like_ours =
            call.id.as_str().strip_prefix('"').is_some_and(|id| id.starts_with(OWN_PREFIX));
        let greets = matches!(call.kind, Kind::Initialize { .. });
        // What is told to a listener carries the id of its request: that one must stay.
        let again = call.writes > 0 && !matches!(call.kind, Kind::Listen { .. });
        let wire = (again || looks_like_ours).then(|| self.own_id(generation));
        let max = usize::try_from(self.options.recovery.max_buffered_bytes.bytes());
        let max = max.unwrap_or(usize::MAX);
        let message = self.flight.write(seq, generation, wire.clone(), max)?;
        if greets {
            self.link = Link::Greeting(generation);
            self.starts.began(now);
        }
        self.health.wrote(now);
        Some(match wire {
            Some(wire) => (with_id(&message, &wire), true),
            None => (message, false),
        })
    }

    /// Gives a call that waited to a server, or fails it if this server must not have it.
    pub(super) fn write_waiting(
        &mut self,
        seq: u64,
        generation: Generation,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) {
        let Some(call) = self.flight.call(seq) else { return };
        if call.writes > 0 {
            if let Kind::Tool { name, .. } = &call.kind
                && !self.lists.may_repeat(name)
            {
                let reason = "the new server does not say that it may be repeated";
                self.fail(seq, Fate::Indeterminate, reason, out);
                return;
            }
            self.incident.count(|messages| &mut messages.asked_again);
        }
        if let Some((message, _)) = self.write_call(seq, generation, now) {
            self.to_server(message, out);
        }
    }

    /// Ends a call with an error.
    pub(super) fn fail(&mut self, seq: u64, fate: Fate, reason: &str, out: &mut Vec<Output>) {
        let Some(call) = self.flight.remove(seq) else { return };
        if call.last_written.is_some() {
            self.incident.count(|messages| &mut messages.failed_maybe_done);
        } else {
            self.incident.count(|messages| &mut messages.failed_unsent);
        }
        out.push(Output::ToClient(failed(&call.subject(), fate, reason)));
    }
}
