//! What a server asked to be told, so that its successor's asking again is not news to the client.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Value, json};

use super::documents::Document;
use crate::relay::{Id, request};

/// Registrations remembered; more are passed on and forgotten.
const REGISTRATIONS_MAX: usize = 4096;

#[derive(Debug, Clone, PartialEq)]
struct Registration {
    /// The id the client knows it under.
    known: String,
    method: String,
    options: Value,
}

/// What became of a `client/registerCapability`.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The part the client has to be told; nothing when it knows everything already.
    pub(crate) news: Option<Value>,
    /// Whether the message can go on as it came.
    pub(crate) untouched: bool,
    /// Older registrations of the client that the new ones replace.
    pub(crate) replaced: Vec<(String, String)>,
    /// Every method registered, known or new.
    pub(crate) methods: Vec<String>,
    /// How many the client knew.
    pub(crate) known: u32,
}

/// Registrations of the running server, and those of dead ones the client still holds.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    current: HashMap<String, Registration>,
    old: Vec<Registration>,
    fresh: u64,
}

impl Registrations {
    /// The server is gone; the client is told nothing yet.
    pub(crate) fn lost(&mut self) {
        self.old.extend(self.current.drain().map(|(_, registration)| registration));
    }

    pub(crate) fn any_old(&self) -> bool {
        !self.old.is_empty()
    }

    pub(crate) fn register(&mut self, params: &Value) -> Asked {
        let mut asked = Asked {
            news: None,
            untouched: true,
            replaced: Vec::new(),
            methods: Vec::new(),
            known: 0,
        };
        let mut news = Vec::new();
        let list = params.get("registrations").and_then(Value::as_array);
        for entry in list.into_iter().flatten() {
            let text =
                |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (id, method) = (text("id"), text("method"));
            let options = entry.get("registerOptions").cloned().unwrap_or_default();
            asked.methods.push(method.clone());
            let same =
                self.old.iter().position(|old| old.method == method && old.options == options);
            if let Some(at) = same {
                asked.known += 1;
                asked.untouched = false;
                let registration = self.old.swap_remove(at);
                self.current.insert(id, registration);
                continue;
            }
            let mut known = id.clone();
            if let Some(at) = self.old.iter().position(|old| old.known == known) {
                let old = self.old.swap_remove(at);
                asked.replaced.push((old.known, old.method));
            }
            while self.current.values().any(|other| other.known == known)
                && !self.current.contains_key(&id)
            {
                self.fresh += 1;
                known = format!("{id}-{}", self.fresh);
            }
            let mut entry = entry.clone();
            if known != id {
                asked.untouched = false;
                entry["id"] = known.clone().into();
            }
            if self.current.len() < REGISTRATIONS_MAX {
                self.current.insert(id, Registration { known, method, options });
            }
            news.push(entry);
        }
        asked.news =
            (!news.is_empty() || asked.known == 0).then(|| json!({ "registrations": news }));
        asked
    }

    /// Takes in a `client/unregisterCapability`; gives the parameters for the client if they differ.
    pub(crate) fn unregister(&mut self, params: &Value) -> Option<Value> {
        let mut told = params.clone();
        let mut differs = false;
        for name in ["unregisterations", "unregistrations"] {
            for entry in told.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten() {
                let id = entry.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
                if let Some(registration) = self.current.remove(&id)
                    && registration.known != id
                {
                    entry["id"] = registration.known.into();
                    differs = true;
                }
            }
        }
        differs.then_some(told)
    }

    /// Takes what no server asked for again, as something the client can be told to forget.
    pub(crate) fn forget_old(&mut self) -> Vec<(String, String)> {
        self.old.drain(..).map(|old| (old.known, old.method)).collect()
    }

    pub(crate) fn has(&self, method: &str) -> bool {
        self.current.values().any(|registration| registration.method == method)
    }

    /// Tells whether the server asked to be told of this document by `method`.
    pub(crate) fn selects(&self, method: &str, document: &Document) -> bool {
        let mut of = self.current.values().filter(|registration| registration.method == method);
        of.any(|registration| selected(registration.options.get("documentSelector"), document))
    }
}

/// Judges a selector by language and scheme. A path pattern counts as matching: the client, which knows the
/// workspace, judged it when it opened the document.
fn selected(selector: Option<&Value>, document: &Document) -> bool {
    let Some(filters) = selector.and_then(Value::as_array) else {
        return true;
    };
    let scheme = document.uri.split(':').next().unwrap_or_default();
    let matches = |filter: &Value, name: &str, value: &str| {
        filter
            .get(name)
            .and_then(Value::as_str)
            .is_none_or(|wanted| wanted == value || wanted == "*")
    };
    filters.iter().any(|filter| match filter {
        Value::String(language) => *language == document.language || language == "*",
        _ => matches(filter, "language", &document.language) && matches(filter, "scheme", scheme),
    })
}

/// Writes the request that makes a client forget registrations.
pub(crate) fn unregister_message(id: &Id, old: &[(String, String)]) -> Bytes {
    let entries: Vec<_> =
        old.iter().map(|(id, method)| json!({ "id": id, "method": method })).collect();
    // The protocol's own spelling.
    let params = json!({ "unregisterations": entries }).to_string();
    request(id, "client/unregisterCapability", params.as_bytes())
}
