//! Giving a new server the session its client believes in.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use supervisor_core::{Generation, Monotonic};

use super::fields::{Fields, replaced};
use super::lists::{List, Reading};
use super::session::Offer;
use super::{Link, McpRelay};
use crate::relay::{BLAME_MAX, Envelope, Id, Letter, Output, notification, request, shown_uri};

/// How long the client waits for lists to be compared; after that they count as changed.
const LISTS_MAX: Duration = Duration::from_secs(5);
/// Pages of a list that are read.
const PAGES_MAX: u32 = 100;

/// One thing that is restored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Item {
    Level,
    Subscription(Box<str>),
    List(List),
}

impl Item {
    const fn method(&self) -> &'static str {
        match self {
            Self::Level => "logging/setLevel",
            Self::Subscription(_) => "resources/subscribe",
            Self::List(list) => list.method(),
        }
    }
}

/// What servers in a row may have died of.
#[derive(Debug)]
struct Suspect {
    item: Item,
    blame: u8,
    deaths: Vec<Generation>,
}

/// What is not given to a server again, because two in a row died of it, or eight were killed over it.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    /// The last thing a server may have died of.
    suspect: Option<Suspect>,
    /// Each with the number of the letter about it.
    items: Vec<(Item, u64)>,
}

impl Quarantine {
    /// Servers' killers that are remembered; beyond, the oldest is tried again.
    const MAX: usize = 64;

    /// Blames a thing for the death of a server; gives what is to be said if that is enough.
    fn blame(&mut self, item: Item, by: u8, death: Generation, number: u64) -> Option<Letter> {
        let known = self.suspect.take().filter(|suspect| suspect.item == item);
        let mut suspect = known.unwrap_or(Suspect { item, blame: 0, deaths: Vec::new() });
        suspect.blame += by;
        suspect.deaths.push(death);
        if suspect.blame < BLAME_MAX {
            self.suspect = Some(suspect);
            return None;
        }
        let Suspect { item, deaths, .. } = suspect;
        let about = match &item {
            Item::Subscription(uri) => json!({ "uri": shown_uri(uri) }),
            Item::Level | Item::List(_) => json!({}),
        };
        let letter = Letter {
            number,
            method: item.method().to_owned(),
            about,
            cause: format!(
                "{} servers in a row died of it while the session was restored",
                deaths.len()
            ),
            generations: deaths,
            over: None,
        };
        if self.items.len() >= Self::MAX {
            self.items.remove(0);
        }
        self.items.push((item, number));
        Some(letter)
    }

    fn holds(&self, item: &Item) -> bool {
        self.items.iter().any(|(held, _)| held == item)
    }

    /// Lets the next server have a thing again; gives its method.
    pub(super) fn release(&mut self, number: u64) -> Option<&'static str> {
        let at = self.items.iter().position(|(_, letter)| *letter == number)?;
        Some(self.items.remove(at).0.method())
    }
}

#[derive(Debug)]
struct Pending {
    item: Item,
    order: u64,
}

/// Where the restoring of one server stands.
#[derive(Debug, Default)]
pub(super) struct Restore {
    /// The greeting, until it is answered.
    greeting: Option<Id>,
    pending: HashMap<Id, Pending>,
    reading: HashMap<List, (Reading, u32)>,
    /// Lists the client has to read again.
    changed: BTreeSet<List>,
    subscriptions: u32,
    /// When it last got further.
    since: Monotonic,
}

impl Restore {
    pub(super) fn forgive(&mut self, late: Duration) {
        self.since = self.since + late;
    }

    /// The place of its newest unanswered request among everything written.
    pub(super) fn newest(&self) -> Option<u64> {
        self.pending.values().map(|pending| pending.order).max()
    }

    pub(super) fn blame(
        &self,
        quarantine: &mut Quarantine,
        by: u8,
        death: Generation,
        number: u64,
    ) -> Option<Letter> {
        let newest = self.pending.values().max_by_key(|pending| pending.order)?;
        quarantine.blame(newest.item.clone(), by, death, number)
    }

    /// Takes what a server says about its own lists while they are being compared anyway.
    pub(super) fn changes_itself(&mut self, method: &str) -> bool {
        let list = List::ALL.into_iter().find(|list| list.changed() == method);
        list.map(|list| self.changed.insert(list)).is_some()
    }

    fn waits_for_lists_only(&self) -> bool {
        self.greeting.is_none()
            && self.pending.values().all(|pending| matches!(pending.item, Item::List(_)))
    }

    pub(super) fn deadline(&self, handshake: Duration) -> Monotonic {
        self.since + if self.waits_for_lists_only() { LISTS_MAX.min(handshake) } else { handshake }
    }
}

impl McpRelay {
    pub(super) fn begin_restore(
        &mut self,
        generation: Generation,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) {
        let Some(agreed) = self.session.agreed() else { return };
        let params = with_revision(&agreed.params, &agreed.revision);
        let id = self.own_id(generation);
        self.link = Link::Restoring(generation);
        self.starts.began(now);
        self.restore = Restore { greeting: Some(id.clone()), since: now, ..Restore::default() };
        self.to_server(request(&id, "initialize", &params), out);
    }

    /// Begins with a server that is greeted by nobody: every request says by itself who asks.
    pub(super) fn begin_without_greeting(
        &mut self,
        generation: Generation,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) {
        // Nothing else is for a server that may still be starting: dying then, it has died of nothing it was given.
        let id = self.own_id(generation);
        let (method, params) = self.sign_of_life();
        self.link = Link::Restoring(generation);
        self.starts.began(now);
        self.restore = Restore { greeting: Some(id.clone()), since: now, ..Restore::default() };
        self.to_server(request(&id, method, &params), out);
    }

    /// The parameters of a request of ours.
    fn params(&self, cursor: Option<&str>) -> Vec<u8> {
        let envelope = self.session.envelope().filter(|_| self.session.agreed().is_none());
        let meta = envelope.map(|envelope| [br#""_meta":"#, &envelope[..]].concat());
        let cursor = cursor.map(|cursor| format!("\"cursor\":{}", json!(cursor)).into_bytes());
        let members: Vec<Vec<u8>> = [meta, cursor].into_iter().flatten().collect();
        [b"{", members.join(&b',').as_slice(), b"}"].concat()
    }

    /// Takes an answer if it belongs to the restoring.
    pub(super) fn restore_answered(
        &mut self,
        id: &Id,
        envelope: &Envelope<'_>,
        now: Monotonic,
        out: &mut Vec<Output>,
    ) -> bool {
        if !matches!(self.link, Link::Restoring(_)) {
            return false;
        }
        if self.restore.greeting.as_ref() == Some(id) {
            self.restore.greeting = None;
            self.restore.since = now;
            self.greeted(envelope, now, out);
        } else if let Some(pending) = self.restore.pending.remove(id) {
            self.restore.since = now;
            self.restored(pending.item, envelope, out);
        } else {
            return false;
        }
        if matches!(self.link, Link::Restoring(_)) && self.restore.pending.is_empty() {
            self.open_gate(now, out);
        }
        true
    }

    fn greeted(&mut self, envelope: &Envelope<'_>, now: Monotonic, out: &mut Vec<Output>) {
        if self.session.agreed().is_none() {
            // Whatever it says, it listens.
            self.incident.greeted(now);
            self.read_lists(None, out);
            return;
        }
        let Some(offer) = envelope.result().and_then(Offer::read) else {
            let error = envelope.error().unwrap_or("its answer cannot be read");
            let error: String = error.chars().take(200).collect();
            self.replace_server(format!("the new server refuses the session: {error}"), out);
            return;
        };
        let agreed =
            self.session.agreed().map(|agreed| agreed.revision.clone()).unwrap_or_default();
        if offer.revision != agreed {
            let found: String = offer.revision.chars().take(40).collect();
            self.replace_server(
                format!("the new server speaks revision {found}, the session is in {agreed}"),
                out,
            );
            return;
        }
        self.incident.greeted(now);
        self.incident.changed(self.session.changes(&offer));
        if self.session.initialized {
            self.to_server(notification("notifications/initialized", b"{}"), out);
            self.restore_settings(&offer, out);
            self.read_lists(Some(&offer), out);
        }
    }

    fn restore_settings(&mut self, offer: &Offer, out: &mut Vec<Output>) {
        let level = self.session.level().map(|(_, params)| params.clone());
        if let Some(params) = level.filter(|_| offer.has("logging")) {
            self.give(Item::Level, "logging/setLevel", &params, out);
        }
        if offer.has_subscriptions() {
            for (uri, params) in self.session.subscriptions() {
                self.give(Item::Subscription(uri), "resources/subscribe", &params, out);
            }
        }
    }

    fn read_lists(&mut self, offer: Option<&Offer>, out: &mut Vec<Output>) {
        let params = self.params(None);
        for list in List::ALL {
            if !self.lists.was_read(list) {
                continue;
            }
            if offer.is_none_or(|offer| offer.has(list.capability())) {
                if self.give(Item::List(list), list.method(), &params, out) {
                    self.restore.reading.insert(list, (Reading::default(), 1));
                } else {
                    self.unknown(list);
                }
            } else if self.lists.differs(list, Reading::default()) {
                self.restore.changed.insert(list);
            }
        }
        if !self.lists.was_read(List::Tools) {
            self.lists.forget_tools();
        }
    }

    /// Asks the new server for something of the session; gives false if that killed two servers before.
    fn give(&mut self, item: Item, method: &str, params: &[u8], out: &mut Vec<Output>) -> bool {
        let Some(generation) = self.link.generation() else { return false };
        if self.quarantine.holds(&item) {
            self.incident.quarantined(method);
            return false;
        }
        let id = self.own_id(generation);
        let order = self.flight.next_order();
        self.restore.pending.insert(id.clone(), Pending { item, order });
        self.to_server(request(&id, method, params), out);
        true
    }

    fn restored(&mut self, item: Item, envelope: &Envelope<'_>, out: &mut Vec<Output>) {
        let result = envelope.result();
        match item {
            Item::Subscription(_) if result.is_some() => self.restore.subscriptions += 1,
            Item::Subscription(_) => {
                self.incident.also_changed("a subscription was refused".to_owned());
            }
            Item::Level if result.is_some() => {}
            Item::Level => self.incident.also_changed("the log level was refused".to_owned()),
            Item::List(list) => {
                let page = result.and_then(|result| serde_json::from_str(result).ok());
                self.list_page(list, page.as_ref(), out);
            }
        }
    }

    fn list_page(&mut self, list: List, page: Option<&Value>, out: &mut Vec<Output>) {
        let Some((mut reading, pages)) = self.restore.reading.remove(&list) else { return };
        let Some(page) = page else {
            self.unknown(list);
            return;
        };
        if reading.page(list, page) {
            if self.lists.differs(list, reading) {
                self.restore.changed.insert(list);
            }
            return;
        }
        let params = reading.next().map(|cursor| self.params(Some(cursor)));
        match params {
            Some(params) if pages < PAGES_MAX => {
                self.restore.reading.insert(list, (reading, pages + 1));
                self.give(Item::List(list), list.method(), &params, out);
            }
            _ => self.unknown(list),
        }
    }

    /// Nobody knows what the new server offers: the client has to look, and no tool is called twice.
    fn unknown(&mut self, list: List) {
        self.restore.changed.insert(list);
        if list == List::Tools {
            self.lists.forget_tools();
        }
    }

    /// The session is restored: what waits may flow.
    fn open_gate(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        let Some(generation) = self.link.generation() else { return };
        let restore = std::mem::take(&mut self.restore);
        self.quarantine.suspect = None;
        self.link = Link::Live(generation);
        self.incident.subscriptions(restore.subscriptions);
        self.announce(&restore.changed, out);
        self.pump(now, out);
        self.ready(now, out);
    }

    /// Tells the client what may be different now, as far as it was promised to be told.
    fn announce(&mut self, changed: &BTreeSet<List>, out: &mut Vec<Output>) {
        if self.session.agreed().is_none() {
            self.tell_listeners(changed, out);
            return;
        }
        let mut told = BTreeSet::new();
        for list in changed {
            if !told.insert(list.changed()) {
                continue;
            }
            if self.session.expects_changes(*list) {
                out.push(Output::ToClient(notification(list.changed(), b"{}")));
                self.incident.also_changed(format!("{} differs", list.method()));
            } else {
                self.incident.also_changed(format!(
                    "{} differs, but the client was never promised to be told",
                    list.method()
                ));
            }
        }
        // What changed while no server was there to notice is not known: the client has to look.
        for (uri, _) in self.session.subscriptions() {
            let params = json!({ "uri": uri }).to_string();
            let message = notification("notifications/resources/updated", params.as_bytes());
            out.push(Output::ToClient(message));
        }
    }

    /// Tells those who listen for changes, each by the id of its request and only what it listens for.
    fn tell_listeners(&mut self, changed: &BTreeSet<List>, out: &mut Vec<Output>) {
        for list in changed {
            self.incident.also_changed(format!("{} differs", list.method()));
        }
        let listeners = self.flight.standing();
        self.incident.subscriptions(u32::try_from(listeners.len()).unwrap_or(u32::MAX));
        for (id, filter) in listeners {
            let Ok(filter) = serde_json::from_slice::<Value>(&filter) else { continue };
            let meta = format!(r#""_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#);
            let mut told = BTreeSet::new();
            for list in changed {
                let wanted = filter.get(list.filter()) == Some(&Value::Bool(true));
                if wanted && told.insert(list.changed()) {
                    let params = format!("{{{meta}}}");
                    out.push(Output::ToClient(notification(list.changed(), params.as_bytes())));
                }
            }
            let uris = filter.get("resourceSubscriptions").and_then(Value::as_array);
            for uri in uris.into_iter().flatten() {
                let params = format!("{{{meta},\"uri\":{uri}}}");
                let message = notification("notifications/resources/updated", params.as_bytes());
                out.push(Output::ToClient(message));
            }
        }
    }

    pub(super) fn restore_tick(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        if self.restore.deadline(self.handshake()) > now {
            return;
        }
        if self.restore.waits_for_lists_only() {
            let late: Vec<List> = self.restore.reading.keys().copied().collect();
            for list in late {
                self.unknown(list);
            }
            self.open_gate(now, out);
            return;
        }
        let what = if self.restore.greeting.is_some() {
            "the handshake"
        } else {
            "the restoring of its session"
        };
        let seconds = self.handshake().as_secs_f64();
        self.replace_server(format!("the new server did not answer {what} for {seconds} s"), out);
    }
}

/// The client's own greeting, asking for the revision the session is in.
fn with_revision(params: &Bytes, revision: &str) -> Bytes {
    let text = std::str::from_utf8(params).ok();
    match Fields::read(text).revision {
        Some(raw) => replaced(params, raw, &json!(revision).to_string()),
        None => params.clone(),
    }
}
