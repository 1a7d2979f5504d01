//! The client's requests: which are unanswered, which wait, and what each may suffer.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use supervisor_core::{Generation, Monotonic};

use super::failure::Subject;
use super::lists::List;
use crate::relay::Id;

/// What a call costs beside its bytes.
const CALL_COST: usize = 256;

/// An unanswered request older than this is forgotten first when there are too many: nobody waits for it any more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// What a request means to the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Initialize {
        params: Bytes,
    },
    Ping,
    List {
        list: List,
        cursor: Option<Box<str>>,
    },
    SetLevel {
        level: Box<str>,
        params: Bytes,
    },
    Subscribe {
        uri: Box<str>,
        params: Bytes,
    },
    Unsubscribe {
        uri: Box<str>,
    },
    /// Asks for something and changes nothing.
    Read,
    /// Asks to be told of changes (revision 2026-07-28); stays unanswered until it ends.
    Listen {
        filter: Bytes,
        acknowledged: bool,
    },
    Tool {
        name: Box<str>,
        repeatable: bool,
    },
    /// Whatever else; nobody knows what it does.
    Other,
}

/// One request of the client.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: Id,
    pub(super) method: Box<str>,
    pub(super) kind: Kind,
    /// As the client sent it; gone when it is written and cannot be repeated, or too much is kept.
    message: Option<Bytes>,
    /// Where its progress is told.
    token: Option<Id>,
    /// Last progress the client was told; it must only grow.
    progress: Option<f64>,
    /// When it came, or last made progress.
    since: Monotonic,
    /// The id it goes by at the server that has it.
    pub(super) wire: Id,
    /// The server that has it.
    pub(super) written: Option<Generation>,
    /// The server that had it last.
    pub(super) last_written: Option<Generation>,
    /// Every server that had it, when it may be repeated; at most as many as there are attempts.
    pub(super) given_to: Vec<Generation>,
    /// Its place among everything that was written.
    order: u64,
    pub(super) writes: u32,
    /// How much it is blamed for the deaths of servers in a row of which it was the last word.
    pub(super) blame: u8,
}

impl Kind {
    /// Whether giving it to a second server does no harm.
    const fn repeatable(&self) -> bool {
        match self {
            Self::Tool { repeatable, .. } => *repeatable,
            Self::Other => false,
            _ => true,
        }
    }

    fn tool(&self) -> Option<&str> {
        match self {
            Self::Tool { name, .. } => Some(name),
            _ => None,
        }
    }
}

impl Call {
    pub(super) const fn repeatable(&self) -> bool {
        self.kind.repeatable()
    }

    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            id: &self.id,
            method: &self.method,
            tool: self.kind.tool(),
            sent: self.last_written,
            repeatable: self.repeatable(),
        }
    }

    /// Whether it is a standing order, to which no answer is owed any more.
    pub(super) const fn stands(&self) -> bool {
        matches!(self.kind, Kind::Listen { acknowledged: true, .. })
    }

    /// Whether it can be given to a second server.
    pub(super) const fn can_repeat(&self) -> bool {
        self.repeatable() && self.message.is_some()
    }

    fn kept(&self) -> usize {
        CALL_COST
            + self.message.as_ref().map_or(0, Bytes::len)
            + self.method.len()
            + self.id.as_str().len()
            + self.token.as_ref().map_or(0, |token| token.as_str().len())
            + match &self.kind {
                Kind::Initialize { params } | Kind::SetLevel { params, .. } => params.len(),
                Kind::Subscribe { uri, params } => uri.len() + params.len(),
                Kind::Unsubscribe { uri } => uri.len(),
                Kind::Tool { name, .. } => name.len(),
                Kind::Listen { filter, .. } => filter.len(),
                Kind::List { cursor, .. } => cursor.as_ref().map_or(0, |cursor| cursor.len()),
                Kind::Ping | Kind::Read | Kind::Other => 0,
            }
    }
}

/// A request before it has a place.
#[derive(Debug)]
pub(super) struct NewCall {
    pub(super) id: Id,
    pub(super) method: Box<str>,
    pub(super) kind: Kind,
    pub(super) token: Option<Id>,
}

impl NewCall {
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            id: &self.id,
            method: &self.method,
            tool: self.kind.tool(),
            sent: None,
            repeatable: self.kind.repeatable(),
        }
    }
}

/// What waits for a server.
#[derive(Debug)]
pub(super) enum Waiting {
    Call(u64),
    Note { message: Bytes, initialized: bool },
}

/// All requests of the client that have no answer yet, and the notifications that wait among them.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// By the order in which they came.
    calls: BTreeMap<u64, Call>,
    waiting: BTreeMap<u64, Waiting>,
    by_id: HashMap<Id, u64>,
    /// Those a server has, by the id they go by there.
    by_wire: HashMap<Id, u64>,
    by_token: HashMap<Id, u64>,
    /// How many of the tools' calls a server has.
    tools: usize,
    /// How many of the standing orders a server has acknowledged.
    standing: usize,
    notes: usize,
    bytes: usize,
    last: u64,
    order: u64,
}

impl Flight {
    pub(super) fn len(&self) -> usize {
        self.calls.len() + self.notes
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many wait for a server.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many a server has.
    pub(super) fn in_flight(&self) -> usize {
        self.by_wire.len()
    }

    /// How many of them it owes an answer.
    pub(super) fn owed(&self) -> usize {
        self.by_wire.len() - self.standing
    }

    pub(super) const fn runs_tool(&self) -> bool {
        self.tools > 0
    }

    pub(super) fn is_used(&self, id: &Id) -> bool {
        self.by_id.contains_key(id)
    }

    /// Makes room if every place is taken by what nobody waits for; gives whether there is room.
    pub(super) fn has_room(&mut self, max: usize, now: Monotonic) -> bool {
        if self.len() < max {
            return true;
        }
        let old = self
            .calls
            .iter()
            .find(|(_, call)| !call.stands() && now.since(call.since) >= ABANDONED);
        let Some(seq) = old.map(|(seq, _)| *seq) else { return false };
        self.remove(seq).is_some()
    }

    /// Takes a request in; it waits until it is written.
    pub(super) fn admit(&mut self, new: NewCall, message: Bytes, now: Monotonic) -> u64 {
        self.last += 1;
        let seq = self.last;
        let call = Call {
            wire: new.id.clone(),
            id: new.id,
            method: new.method,
            kind: new.kind,
            message: Some(message),
            token: new.token,
            progress: None,
            since: now,
            written: None,
            last_written: None,
            given_to: Vec::new(),
            order: 0,
            writes: 0,
            blame: 0,
        };
        self.bytes += call.kept();
        self.by_id.insert(call.id.clone(), seq);
        if let Some(token) = &call.token {
            self.by_token.insert(token.clone(), seq);
        }
        self.waiting.insert(seq, Waiting::Call(seq));
        self.calls.insert(seq, call);
        seq
    }

    /// Lets a notification wait.
    pub(super) fn hold(&mut self, message: Bytes, initialized: bool) {
        self.last += 1;
        self.notes += 1;
        self.bytes += CALL_COST + message.len();
        self.waiting.insert(self.last, Waiting::Note { message, initialized });
    }

    /// Takes out what has waited longest; a call stays known.
    pub(super) fn next_waiting(&mut self) -> Option<Waiting> {
        let (_, waiting) = self.waiting.pop_first()?;
        if let Waiting::Note { message, .. } = &waiting {
            self.notes -= 1;
            self.bytes -= CALL_COST + message.len();
        }
        Some(waiting)
    }

    pub(super) fn call(&self, seq: u64) -> Option<&Call> {
        self.calls.get(&seq)
    }

    /// Gives a call's message and notes that `generation` has it under the name `wire`, or its own.
    ///
    /// What is not needed again is forgotten: a message that cannot be repeated, or one beyond `max_bytes`.
    pub(super) fn write(
        &mut self,
        seq: u64,
        generation: Generation,
        wire: Option<Id>,
        max_bytes: usize,
    ) -> Option<Bytes> {
        self.waiting.remove(&seq);
        self.order += 1;
        let call = self.calls.get_mut(&seq)?;
        let message = call.message.clone()?;
        let before = call.kept();
        call.wire = wire.unwrap_or_else(|| call.id.clone());
        call.written = Some(generation);
        call.last_written = Some(generation);
        if call.repeatable() && !call.stands() {
            call.given_to.push(generation);
        }
        call.order = self.order;
        call.writes += 1;
        if !call.repeatable() || self.bytes > max_bytes {
            call.message = None;
        }
        self.bytes = self.bytes - before + call.kept();
        self.tools += usize::from(call.kind.tool().is_some());
        self.standing += usize::from(call.stands());
        self.by_wire.insert(call.wire.clone(), seq);
        Some(message)
    }

    /// Gives the next number in the order of everything written, for what is no call.
    pub(super) const fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Takes out the call that goes by `wire` at the server that has it.
    pub(super) fn answered(&mut self, wire: &Id) -> Option<Call> {
        let seq = *self.by_wire.get(wire)?;
        self.remove(seq)
    }

    /// Takes out the call the client knows as `id`, answered or not.
    pub(super) fn cancelled(&mut self, id: &Id) -> Option<Call> {
        let seq = *self.by_id.get(id)?;
        self.remove(seq)
    }

    pub(super) fn by_id(&self, id: &Id) -> Option<&Call> {
        self.calls.get(self.by_id.get(id)?)
    }

    /// A server took a standing order; gives whether the client was not yet told.
    pub(super) fn acknowledged(&mut self, id: &Id) -> bool {
        let call = self.by_id.get(id).and_then(|seq| self.calls.get_mut(seq));
        let Some(Call { kind: Kind::Listen { acknowledged, .. }, written, .. }) = call else {
            return true;
        };
        let first = !std::mem::replace(acknowledged, true);
        self.standing += usize::from(first && written.is_some());
        first
    }

    /// The standing orders the client believes in: their ids and what they ask for.
    pub(super) fn standing(&self) -> Vec<(Id, Bytes)> {
        let all = self.calls.values().filter(|call| call.stands());
        all.filter_map(|call| match &call.kind {
            Kind::Listen { filter, .. } => Some((call.id.clone(), filter.clone())),
            _ => None,
        })
        .collect()
    }

    /// Notes progress; gives whether the client may be told, because it is more than it was told before.
    pub(super) fn progressed(&mut self, token: &Id, progress: Option<f64>, now: Monotonic) -> bool {
        let call = self.by_token.get(token).and_then(|seq| self.calls.get_mut(seq));
        let (Some(call), Some(progress)) = (call, progress) else { return true };
        call.since = now;
        let grows = call.progress.is_none_or(|told| progress > told);
        // Until it was repeated, what the server says is its own business.
        if grows || call.writes < 2 {
            call.progress = Some(progress);
            return true;
        }
        false
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Call> {
        let call = self.calls.remove(&seq)?;
        self.bytes -= call.kept();
        self.waiting.remove(&seq);
        self.by_id.remove(&call.id);
        if call.written.is_some() {
            self.tools -= usize::from(call.kind.tool().is_some());
            self.standing -= usize::from(call.stands());
            self.by_wire.remove(&call.wire);
        }
        if let Some(token) = &call.token
            && self.by_token.get(token) == Some(&seq)
        {
            self.by_token.remove(token);
        }
        Some(call)
    }

    /// The calls a server has, oldest first, with their places in what was written.
    ///
    /// What stands has no place: a server cannot have died of what it took long ago.
    pub(super) fn written(&self) -> Vec<(u64, u64)> {
        let written = self.calls.iter().filter(|(_, call)| call.written.is_some());
        written.map(|(seq, call)| (*seq, if call.stands() { 0 } else { call.order })).collect()
    }

    /// Lets a call wait again in its old place; `weight` says how much it is to blame for that, if it may be.
    pub(super) fn wait_again(&mut self, seq: u64, weight: Option<u8>) {
        let Some(call) = self.calls.get_mut(&seq) else { return };
        self.tools -= usize::from(call.written.is_some() && call.kind.tool().is_some());
        self.standing -= usize::from(call.written.is_some() && call.stands());
        self.by_wire.remove(&call.wire);
        call.written = None;
        call.blame = weight.map_or(0, |weight| call.blame.saturating_add(weight));
        self.waiting.insert(seq, Waiting::Call(seq));
    }

    /// The calls that wait, oldest first.
    pub(super) fn waiting_calls(&self) -> Vec<u64> {
        let call = |waiting: &Waiting| match waiting {
            Waiting::Call(seq) => Some(*seq),
            Waiting::Note { .. } => None,
        };
        self.waiting.values().filter_map(call).collect()
    }

    /// Drops the notifications that wait; gives their number.
    pub(super) fn drop_notes(&mut self) -> usize {
        let before = self.waiting.len();
        let bytes = &mut self.bytes;
        self.waiting.retain(|_, waiting| match waiting {
            Waiting::Call(_) => true,
            Waiting::Note { message, .. } => {
                *bytes -= CALL_COST + message.len();
                false
            }
        });
        self.notes = 0;
        before - self.waiting.len()
    }

    pub(super) fn since(&self, seq: u64) -> Monotonic {
        let call = self.calls.get(&seq).filter(|call| !call.stands());
        call.map_or(Monotonic::MAX, |call| call.since)
    }

    /// When the first of what waits has waited for `limit`.
    pub(super) fn first_expiry(&self, limit: Duration) -> Option<Monotonic> {
        let waiting = self.waiting.values().filter_map(|waiting| match waiting {
            Waiting::Call(seq) => {
                self.calls.get(seq).filter(|call| !call.stands()).map(|call| call.since + limit)
            }
            Waiting::Note { .. } => None,
        });
        waiting.min()
    }

    /// Charges nobody for time in which we stood still.
    pub(super) fn forgive(&mut self, late: Duration) {
        for call in self.calls.values_mut() {
            call.since = call.since + late;
        }
    }
}
