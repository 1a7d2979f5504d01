//! Requests of the client that are not answered yet, and questions of the server that are not.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use serde_json::json;
use supervisor_core::{Generation, Monotonic};

use super::documents::Documents;
use super::methods::{CONTENT_MODIFIED, Kind, REQUEST_CANCELLED, REQUEST_FAILED, SERVER_CANCELLED};
use super::uri::UriKey;
use crate::relay::{BLAME_MAX, Id, failure};

/// One request of the client.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// The client's own id.
    pub(crate) caller: Id,
    pub(crate) method: Box<str>,
    pub(crate) kind: Kind,
    /// The document it is about, and that document's version when it was asked.
    pub(crate) about: Option<(UriKey, i64)>,
    /// When it may wait no longer.
    pub(crate) deadline: Monotonic,
    /// The message as it came, if it may be sent later or again.
    pub(crate) message: Option<Bytes>,
    pub(crate) cancelled: bool,
    /// The token under which parts of the answer may go out, as JSON.
    pub(crate) partial: Option<Box<str>>,
    /// Its place among all requests.
    pub(crate) order: u64,
    /// How much it is blamed for deaths in a row.
    pub(crate) blame: u8,
    /// The servers that died over it.
    pub(crate) deaths: Vec<Generation>,
    /// It was asked as the only one of those that are blamed so much.
    pub(crate) alone: bool,
}

/// Blame from which on a request is asked again alone, to see whether it was that one.
const ALONE: u8 = BLAME_MAX - 1;

/// Why a request is not answered by a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its server died over it; it was written.
    Died(Generation),
    /// No server is there, and it may not wait or has waited too long.
    Absent(String),
    /// Its document is another by now.
    Changed,
    /// The server died of its document, which is held back.
    HeldBack,
    /// Servers in a row died over it, the last one this.
    Deadly(Generation),
    /// It was answered, with places that would mean others to the client.
    Misplaced(String),
    /// Too much waits already.
    Full,
}

impl Ask {
    /// Blames it for a death; `proven` when nothing else can be to blame.
    pub(crate) fn blamed(&mut self, by: u8, proven: bool, generation: Generation) {
        let most = if proven { BLAME_MAX } else { ALONE };
        self.blame = self.blame.saturating_add(by).min(most);
        self.alone = false;
        self.deaths.push(generation);
    }

    /// Tells whether no server is given it any more.
    pub(crate) const fn deadly(&self) -> bool {
        self.blame >= BLAME_MAX
    }

    /// Tells whether it is asked again only while no other of its kind is.
    pub(crate) const fn suspect(&self) -> bool {
        self.blame >= ALONE
    }

    /// Tells whether the document it is about is still the one it was asked about.
    pub(crate) fn still_holds(&self, documents: &Documents) -> bool {
        self.about.as_ref().is_none_or(|(key, version)| {
            documents.get(key).is_some_and(|document| document.version == *version)
        })
    }

    /// Writes the typed error that answers it.
    pub(crate) fn refused(&self, why: &Refusal) -> Bytes {
        if self.cancelled {
            return failure(Some(&self.caller), REQUEST_CANCELLED, "cancelled", None);
        }
        let pull = self.method.ends_with("/diagnostic") || self.method.contains("/semanticTokens/");
        let (code, text, mut data) = match why {
            Refusal::Died(generation) if self.kind == Kind::Effect => (
                REQUEST_FAILED,
                "the server died while it worked on this; it may have been carried out and was not repeated".to_owned(),
                json!({ "wasSent": true, "generation": generation.get() }),
            ),
            Refusal::Died(generation) => (
                if pull { SERVER_CANCELLED } else { CONTENT_MODIFIED },
                "the server died while it worked on this; ask again".to_owned(),
                json!({ "wasSent": true, "generation": generation.get() }),
            ),
            Refusal::Changed => (
                CONTENT_MODIFIED,
                "the content changed while the server was restarted".to_owned(),
                json!({ "wasSent": false }),
            ),
            Refusal::Absent(reason) => (REQUEST_FAILED, reason.clone(), json!({ "wasSent": false })),
            Refusal::Deadly(generation) => (
                REQUEST_FAILED,
                "servers died over this again and again; it was given up".to_owned(),
                json!({ "wasSent": true, "generation": generation.get() }),
            ),
            Refusal::Misplaced(reason) => {
                (REQUEST_FAILED, reason.clone(), json!({ "wasSent": true }))
            }
            Refusal::HeldBack => (
                REQUEST_FAILED,
                "the server dies of this document; it is held back until its text changes".to_owned(),
                json!({ "wasSent": false }),
            ),
            Refusal::Full => (
                REQUEST_FAILED,
                "too many requests wait for the server".to_owned(),
                json!({ "wasSent": false }),
            ),
        };
        if code == SERVER_CANCELLED && self.method.ends_with("/diagnostic") {
            data["retriggerRequest"] = true.into();
        }
        failure(Some(&self.caller), code, &text, Some(&data))
    }
}

/// Every request of the client that is not answered yet: written and waiting for its answer, or held for a server.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    written: HashMap<Id, Ask>,
    held: VecDeque<Ask>,
    bytes: usize,
    orders: u64,
}

impl Asked {
    pub(crate) fn written(&self) -> usize {
        self.written.len()
    }

    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tells whether a request the server has is blamed for a death.
    pub(crate) fn any_blamed(&self) -> bool {
        self.written.values().any(|ask| ask.blame > 0)
    }

    /// Tells whether the server has a request that was asked alone.
    pub(crate) fn any_alone(&self) -> bool {
        self.written.values().any(|ask| ask.alone)
    }

    pub(crate) fn next_order(&mut self) -> u64 {
        self.orders += 1;
        self.orders
    }

    pub(crate) fn is_written(&self, wire: &Id) -> bool {
        self.written.contains_key(wire)
    }

    fn size(ask: &Ask) -> usize {
        ask.message.as_ref().map_or(0, Bytes::len)
    }

    pub(crate) fn write(&mut self, wire: Id, ask: Ask) {
        self.bytes += Self::size(&ask);
        self.written.insert(wire, ask);
    }

    pub(crate) fn hold(&mut self, ask: Ask) {
        self.bytes += Self::size(&ask);
        self.held.push_back(ask);
    }

    pub(crate) fn answer(&mut self, wire: &Id) -> Option<Ask> {
        let ask = self.written.remove(wire)?;
        self.bytes -= Self::size(&ask);
        Some(ask)
    }

    /// Takes everything that was written, in the order in which it was asked.
    pub(crate) fn take_written(&mut self) -> Vec<Ask> {
        let mut asks: Vec<_> = self.written.drain().map(|(_, ask)| ask).collect();
        self.bytes -= asks.iter().map(Self::size).sum::<usize>();
        asks.sort_unstable_by_key(|ask| ask.order);
        asks
    }

    pub(crate) fn take_held(&mut self) -> Vec<Ask> {
        let mut asks: Vec<_> = self.held.drain(..).collect();
        self.bytes -= asks.iter().map(Self::size).sum::<usize>();
        asks.sort_by_key(|ask| ask.order);
        asks
    }

    /// Takes the held requests whose time is over.
    pub(crate) fn take_expired(&mut self, now: Monotonic) -> Vec<Ask> {
        let all = std::mem::take(&mut self.held);
        let (over, held): (Vec<_>, Vec<_>) = all.into_iter().partition(|ask| ask.deadline <= now);
        self.held = held.into();
        self.bytes -= over.iter().map(Self::size).sum::<usize>();
        over
    }

    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        self.held.iter().map(|ask| ask.deadline).min()
    }

    /// Takes a held request the client cancels.
    pub(crate) fn cancel_held(&mut self, caller: &Id) -> Option<Ask> {
        let at = self.held.iter().position(|ask| ask.caller == *caller)?;
        let mut ask = self.held.remove(at)?;
        self.bytes -= Self::size(&ask);
        ask.cancelled = true;
        Some(ask)
    }

    /// Marks a written request as cancelled and gives the id it was written under.
    pub(crate) fn cancel_written(&mut self, caller: &Id) -> Option<Id> {
        if let Some(ask) = self.written.get_mut(caller).filter(|ask| ask.caller == *caller) {
            ask.cancelled = true;
            return Some(caller.clone());
        }
        let (wire, ask) = self.written.iter_mut().find(|(_, ask)| ask.caller == *caller)?;
        ask.cancelled = true;
        Some(wire.clone())
    }
}

/// Questions open at the client; more are refused.
const QUESTIONS_MAX: usize = 4096;

/// Questions of servers the client has not answered yet, by the id the client knows.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    open: HashMap<Id, (Generation, Id)>,
}

impl Questions {
    /// Notes a question; gives the id the client gets it under, or nothing when too many are open.
    pub(crate) fn ask(
        &mut self,
        generation: Generation,
        id: &Id,
        mut fresh: impl FnMut() -> Id,
    ) -> Option<Id> {
        if self.open.len() >= QUESTIONS_MAX {
            return None;
        }
        let mut known = id.clone();
        while self.open.contains_key(&known) {
            known = fresh();
        }
        self.open.insert(known.clone(), (generation, id.clone()));
        Some(known)
    }

    /// Takes the question the client answers.
    pub(crate) fn answer(&mut self, known: &Id) -> Option<(Generation, Id)> {
        self.open.remove(known)
    }

    /// Gives the id under which the client knows a question.
    pub(crate) fn known(&self, generation: Generation, id: &Id) -> Option<Id> {
        if self.open.get(id).is_some_and(|(of, own)| *of == generation && own == id) {
            return Some(id.clone());
        }
        let found = self.open.iter().find(|(_, (of, own))| *of == generation && own == id);
        found.map(|(known, _)| known.clone())
    }

    /// Gives the questions of a dead generation; their answers are still awaited and then dropped.
    pub(crate) fn of(&self, generation: Generation) -> Vec<Id> {
        let of = self.open.iter().filter(|(_, (asked_by, _))| *asked_by == generation);
        let mut ids: Vec<_> = of.map(|(known, _)| known.clone()).collect();
        ids.sort_unstable();
        ids
    }
}
