//! What the server sends.

use bytes::Bytes;
use supervisor_core::Monotonic;

use super::batch::Passage;
use super::failure::REJECTED;
use super::fields::{self, Fields, replaced};
use super::flight::{Call, Kind};
use super::lists::Lists;
use super::session::Offer;
use super::{ID_MAX, Link, McpRelay, OWN_PREFIX};
use crate::relay::{Envelope, INVALID_REQUEST, Malformed, Output, Shape, failure, with_id};

/// Bytes of junk that are shown.
const JUNK_SHOWN: usize = 80;

impl McpRelay {
    pub(super) fn server_says(&mut self, message: &Bytes, now: Monotonic, out: &mut Vec<Output>) {
        self.health.heard(now);
        let unanswered = self.flight.in_flight();
        match Envelope::read(message) {
            Ok(envelope) => match self.server_message(message, &envelope, now, out) {
                Passage::AsItCame => out.push(Output::ToClient(message.clone())),
                Passage::Instead(message) => out.push(Output::ToClient(message)),
                Passage::Taken => {}
            },
            Err(Malformed::Batch) => self.server_batch(message, now, out),
            Err(error) => self.server_junk(message, error, out),
        }
        if matches!(self.link, Link::Live(_)) {
            let works = self.flight.in_flight() < unanswered;
            self.pump(now, out);
            if works && !self.is_ready {
                self.ready(now, out);
            }
        }
    }

    /// Keeps what is no message from the client: servers print to the wrong stream, and not every client survives it.
    pub(super) fn server_junk(&mut self, message: &[u8], error: Malformed, out: &mut Vec<Output>) {
        let shown = String::from_utf8_lossy(&message[..message.len().min(JUNK_SHOWN)]);
        let hint = if message.starts_with(b"Content-Length:") {
            "; it speaks the framing of language servers: use --protocol lsp"
        } else {
            ""
        };
        let text = format!(
            "the server wrote something that is no message ({error}); such lines are kept from the client: {}{hint}",
            shown.escape_debug()
        );
        self.notice_once(|told| &mut told.server_junk, text, out);
    }

    pub(super) fn server_message(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) -> Passage {
        match envelope.shape() {
            Shape::Response => self.server_answer(message, envelope, now, out),
            Shape::Request => self.server_request(message, envelope, out),
            Shape::Notification => self.server_notification(message, envelope, now),
        }
    }

    fn server_answer(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) -> Passage {
        // It could not read something; whose it was nobody knows.
        let Some(id) = envelope.id() else { return Passage::AsItCame };
        if self.health.answered(&id) || self.restore_answered(&id, envelope, now, out) {
            return Passage::Taken;
        }
        let Some(call) = self.flight.answered(&id) else {
            let ours = id.as_str().strip_prefix('"').is_some_and(|id| id.starts_with(OWN_PREFIX));
            if !ours {
                let text = "the server answered something nobody asked or that was answered or \
                            taken back before; such answers are kept from the client";
                self.notice_once(|told| &mut told.unasked, text.to_owned(), out);
            }
            return Passage::Taken;
        };
        let passage = if call.wire == call.id {
            Passage::AsItCame
        } else {
            Passage::Instead(with_id(message, &call.id))
        };
        self.learn(call, envelope, out);
        passage
    }

    /// Remembers what an answer changed about the session.
    fn learn(&mut self, call: Call, envelope: &Envelope<'_>, out: &mut Vec<Output>) {
        if let (Kind::Initialize { .. }, Link::Greeting(generation)) = (&call.kind, &self.link) {
            self.link = Link::Live(*generation);
        }
        let Some(result) = envelope.result() else { return };
        match call.kind {
            Kind::Initialize { params } => {
                if let Some(offer) = Offer::read(result) {
                    self.session.agree(params, offer);
                    self.lists = Lists::default();
                } else {
                    let text = "the server's answer to initialize is too large or cannot be read: \
                                the session is not restored after a crash";
                    self.notice_once(|told| &mut told.greeting, text.to_owned(), out);
                }
            }
            Kind::SetLevel { level, params } => self.session.set_level(level, params),
            Kind::Subscribe { uri, params } => {
                if !self.session.subscribe(uri, params) {
                    let text =
                        "too many subscriptions: those beyond are not restored after a crash";
                    self.notice_once(|told| &mut told.subscriptions, text.to_owned(), out);
                }
            }
            Kind::Unsubscribe { uri } => self.session.unsubscribe(&uri),
            Kind::List { list, cursor } => {
                if let Ok(result) = serde_json::from_str(result) {
                    self.lists.client_read(list, cursor.as_deref(), &result);
                }
            }
            Kind::Ping | Kind::Read | Kind::Listen { .. } | Kind::Tool { .. } | Kind::Other => {}
        }
    }

    fn server_request(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        out: &mut Vec<Output>,
    ) -> Passage {
        let (Some(id), Some(generation)) = (envelope.id(), self.link.generation()) else {
            return Passage::Taken;
        };
        if self.link == Link::Ending(generation) {
            return Passage::Taken;
        }
        let max = self.options.recovery.max_in_flight;
        if id.as_str().len() > ID_MAX {
            let text = "the id is too long";
            self.to_server(failure(None, INVALID_REQUEST, text, None), out);
            return Passage::Taken;
        }
        if self.asks.is_asked(&id) {
            let text = "a request with this id is unanswered";
            self.to_server(failure(Some(&id), INVALID_REQUEST, text, None), out);
            return Passage::Taken;
        }
        if self.asks.len() >= max {
            let text = format!("{max} requests are unanswered already");
            self.to_server(failure(Some(&id), REJECTED, &text, None), out);
            return Passage::Taken;
        }
        let fields = Fields::read(envelope.params());
        self.asks.ask(generation, id, message, &fields).map_or(Passage::AsItCame, Passage::Instead)
    }

    fn server_notification(
        &mut self,
        message: &Bytes,
        envelope: &Envelope<'_>,
        now: Monotonic,
    ) -> Passage {
        let method = envelope.method();
        let restoring = matches!(self.link, Link::Restoring(_));
        match method.as_ref() {
            "notifications/progress" => {
                let fields = Fields::read(envelope.params());
                let token = fields.token.and_then(fields::id);
                let told = token
                    .is_none_or(|token| self.flight.progressed(&token, fields.progress(), now));
                if told { Passage::AsItCame } else { Passage::Taken }
            }
            "notifications/cancelled" => self.server_takes_back(message, envelope),
            "notifications/subscriptions/acknowledged" => {
                let listener = Fields::read(envelope.params()).subscription();
                let news = listener.is_none_or(|listener| self.flight.acknowledged(&listener));
                if news { Passage::AsItCame } else { Passage::Taken }
            }
            "notifications/message" if restoring && self.is_too_quiet(envelope) => Passage::Taken,
            method if restoring && self.restore.changes_itself(method) => Passage::Taken,
            _ => Passage::AsItCame,
        }
    }

    fn server_takes_back(&mut self, message: &Bytes, envelope: &Envelope<'_>) -> Passage {
        let fields = Fields::read(envelope.params());
        let Some(id) = fields.request_id() else { return Passage::AsItCame };
        match (self.asks.taken_back(&id), fields.request) {
            (Some(client), Some(raw)) if client != id => {
                Passage::Instead(replaced(message, raw, client.as_str()))
            }
            (Some(_), _) => Passage::AsItCame,
            (None, _) if self.asks.has_past() => Passage::Taken,
            (None, _) => Passage::AsItCame,
        }
    }

    /// Whether a log message is below the level the client set and this server does not know yet.
    fn is_too_quiet(&self, envelope: &Envelope<'_>) -> bool {
        const LEVELS: [&str; 8] =
            ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
        let place = |level: &str| LEVELS.iter().position(|known| *known == level);
        let wanted = self.session.level().and_then(|(level, _)| place(level));
        let level = Fields::read(envelope.params()).level();
        let level = level.as_deref().and_then(place);
        matches!((level, wanted), (Some(level), Some(wanted)) if level < wanted)
    }
}
