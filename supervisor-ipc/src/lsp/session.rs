//! What the client told its server about itself: the handshake, folders, settings, trace.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::text::Encoding;
use super::uri::UriKey;
use crate::relay::{Id, notification, request};

/// The client's side of a session.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// The `initialize` of the client as it came, and its id.
    pub(crate) initialize: Option<(Bytes, Id)>,
    /// Its parameters, with folders as they are now.
    params: Value,
    /// The client has the answer.
    pub(crate) greeted: bool,
    /// The `initialized` of the client as it came.
    pub(crate) initialized: Option<Bytes>,
    /// The newest `workspace/didChangeConfiguration` as it came.
    pub(crate) settings: Option<Bytes>,
    /// The newest `$/setTrace` as it came.
    pub(crate) trace: Option<Bytes>,
    /// What the first server offered, which is what the client goes by.
    pub(crate) capabilities: Value,
    /// What the client's columns count.
    pub(crate) encoding: Encoding,
}

impl Session {
    pub(crate) fn begin(&mut self, message: Bytes, id: Id, params: Option<&str>) {
        self.params = params.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        self.initialize = Some((message, id));
    }

    /// Takes in the answer the client gets.
    pub(crate) fn answered(&mut self, result: &str) {
        self.greeted = true;
        let answer: Value = serde_json::from_str(result).unwrap_or_default();
        self.capabilities = answer.get("capabilities").cloned().unwrap_or_default();
        self.encoding = encoding_of(&self.capabilities);
    }

    /// Writes the handshake for another server: folders as they are now, our process, and the client's own encoding
    /// first, because its columns cannot change any more.
    pub(crate) fn greeting(&self, id: &Id, process_id: Option<u32>) -> Bytes {
        let mut params = self.params.clone();
        if let Some(members) = params.as_object_mut() {
            if let (Some(pid), Some(slot)) = (process_id, members.get_mut("processId"))
                && !slot.is_null()
            {
                *slot = pid.into();
            }
            // A token of the first handshake's progress has long ended.
            members.remove("workDoneToken");
        }
        if let Some(encodings) = params.pointer_mut("/capabilities/general/positionEncodings") {
            *encodings = json!([self.encoding.name()]);
        }
        request(id, "initialize", params.to_string().as_bytes())
    }

    /// Names the requests that make the client ask again for what a new server may see differently.
    pub(crate) fn refreshes(&self, server: &Value) -> Vec<&'static str> {
        const OF: [(&str, &str, &str); 5] = [
            ("diagnostics", "diagnosticProvider", "workspace/diagnostic/refresh"),
            ("semanticTokens", "semanticTokensProvider", "workspace/semanticTokens/refresh"),
            ("inlayHint", "inlayHintProvider", "workspace/inlayHint/refresh"),
            ("codeLens", "codeLensProvider", "workspace/codeLens/refresh"),
            ("inlineValue", "inlineValueProvider", "workspace/inlineValue/refresh"),
        ];
        let supported = |name: &str| {
            let at = format!("/capabilities/workspace/{name}/refreshSupport");
            self.params.pointer(&at).and_then(Value::as_bool).unwrap_or(false)
        };
        OF.into_iter()
            .filter(|(name, provider, _)| server.get(*provider).is_some() && supported(name))
            .map(|(_, _, method)| method)
            .collect()
    }

    /// Takes in `workspace/didChangeWorkspaceFolders`.
    pub(crate) fn folders_changed(&mut self, params: Option<&str>) {
        let Some(params) = params.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
            return;
        };
        let list = |name: &str| {
            params.pointer(&format!("/event/{name}")).and_then(Value::as_array).cloned()
        };
        let name = |folder: &Value| {
            UriKey::new(folder.get("uri").and_then(Value::as_str).unwrap_or_default())
        };
        let Some(members) = self.params.as_object_mut() else {
            return;
        };
        let folders = members.entry("workspaceFolders").or_insert_with(|| json!([]));
        if !folders.is_array() {
            *folders = json!([]);
        }
        let Some(folders) = folders.as_array_mut() else {
            return;
        };
        let removed: Vec<_> = list("removed").unwrap_or_default().iter().map(name).collect();
        folders.retain(|folder| !removed.contains(&name(folder)));
        for added in list("added").unwrap_or_default() {
            if folders.len() < FOLDERS_MAX && !folders.iter().any(|old| name(old) == name(&added)) {
                folders.push(added);
            }
        }
    }
}

/// Workspace folders remembered; more than any client has.
const FOLDERS_MAX: usize = 10_000;

pub(crate) fn encoding_of(capabilities: &Value) -> Encoding {
    Encoding::from_name(capabilities.get("positionEncoding").and_then(Value::as_str))
}

/// Names what two servers offer differently.
pub(crate) fn differences(before: &Value, after: &Value) -> Vec<String> {
    let empty = Map::new();
    let before = before.as_object().unwrap_or(&empty);
    let after = after.as_object().unwrap_or(&empty);
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let same = |name: &str| match (before.get(name), after.get(name)) {
        (Some(before), Some(after)) => means_the_same(before, after),
        _ => false,
    };
    let names = names.into_iter().filter(|name| !same(name));
    names
        .map(|name| match (before.get(name), after.get(name)) {
            (Some(_), None) => format!("{name} is gone"),
            (None, Some(_)) => format!("{name} is new"),
            _ => format!("{name} differs"),
        })
        .collect()
}

/// Compares what two servers offer. Lists are in no order there (trigger characters, commands, kinds of code actions):
/// servers keep them in sets, whose order is another one in each run. Only a legend is read by position.
fn means_the_same(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            before.len() == after.len()
                && before.iter().all(|(name, value)| {
                    after.get(name).is_some_and(|other| {
                        if name == "legend" { value == other } else { means_the_same(value, other) }
                    })
                })
        }
        (Value::Array(before), Value::Array(after)) => {
            before == after || (before.len() == after.len() && in_order(before) == in_order(after))
        }
        _ => before == after,
    }
}

fn in_order(list: &[Value]) -> Vec<String> {
    let mut texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    texts.sort_unstable();
    texts
}

/// File events that wait for a server, merged so that each file has one.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    events: BTreeMap<String, u64>,
    overflowed: bool,
}

const CREATED: u64 = 1;
const CHANGED: u64 = 2;
const DELETED: u64 = 3;

impl Watched {
    /// Takes in `workspace/didChangeWatchedFiles`.
    pub(crate) fn merge(&mut self, params: Option<&str>, max: usize) {
        let params = params.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let changes = params.as_ref().and_then(|params| params.get("changes"));
        for change in changes.and_then(Value::as_array).into_iter().flatten() {
            let (Some(uri), Some(new)) = (
                change.get("uri").and_then(Value::as_str),
                change.get("type").and_then(Value::as_u64),
            ) else {
                continue;
            };
            let merged = match (self.events.get(uri).copied(), new) {
                (Some(CREATED), DELETED) => None,
                (Some(CREATED), CHANGED) => Some(CREATED),
                (Some(DELETED), CREATED) => Some(CHANGED),
                (_, new) => Some(new),
            };
            match merged {
                None => _ = self.events.remove(uri),
                Some(kind) => _ = self.events.insert(uri.to_owned(), kind),
            }
        }
        // Nothing at all is better than a part: a new server scans, and scans everything.
        self.overflowed |= self.events.len() > max;
        if self.overflowed {
            self.events.clear();
        }
    }

    /// Takes the one message that tells everything, if there is something to tell.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        let events = std::mem::take(self).events;
        if events.is_empty() {
            return None;
        }
        let changes: Vec<_> =
            events.iter().map(|(uri, kind)| json!({ "uri": uri, "type": kind })).collect();
        let params = json!({ "changes": changes }).to_string();
        Some(notification("workspace/didChangeWatchedFiles", params.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_events_of_a_gap_become_one_for_each_file() {
        let mut watched = Watched::default();
        for (uri, kind) in
            [("a", 1), ("a", 3), ("b", 1), ("b", 2), ("c", 3), ("c", 1), ("d", 2), ("d", 3)]
        {
            let params = json!({ "changes": [{ "uri": uri, "type": kind }] }).to_string();
            watched.merge(Some(&params), 10);
        }
        let message = String::from_utf8(watched.take().unwrap().to_vec()).unwrap();
        let told: Value = serde_json::from_str(&message).unwrap();
        assert_eq!(
            told["params"]["changes"],
            json!([{ "uri": "b", "type": 1 }, { "uri": "c", "type": 2 }, { "uri": "d", "type": 3 }])
        );
        assert!(watched.take().is_none());
    }

    #[test]
    fn too_many_file_events_are_none_because_a_new_server_scans() {
        let mut watched = Watched::default();
        for uri in 0..5 {
            let params = json!({ "changes": [{ "uri": uri.to_string(), "type": 2 }] }).to_string();
            watched.merge(Some(&params), 3);
        }
        assert!(watched.take().is_none());
    }

    #[test]
    fn what_a_server_keeps_in_a_set_differs_by_no_order_but_a_legend_does() {
        let offer = |triggers: Value, types: Value| {
            json!({
                "completionProvider": { "triggerCharacters": triggers },
                "semanticTokensProvider": { "legend": { "tokenTypes": types } },
            })
        };
        let before = offer(json!([".", ":", "<"]), json!(["a", "b"]));
        let found = |after: &Value| differences(&before, after);
        assert!(found(&offer(json!(["<", ".", ":"]), json!(["a", "b"]))).is_empty());
        let other = found(&offer(json!([".", ":", ":"]), json!(["a", "b"])));
        assert_eq!(other, ["completionProvider differs"]);
        let other = found(&offer(json!([".", ":"]), json!(["b", "a"])));
        assert_eq!(other, ["completionProvider differs", "semanticTokensProvider differs"]);
        let other = found(&json!({ "completionProvider": before["completionProvider"], "x": {} }));
        assert_eq!(other, ["semanticTokensProvider is gone", "x is new"]);
    }

    #[test]
    fn the_handshake_is_repeated_with_the_folders_of_now_and_the_encoding_of_then() {
        let mut session = Session::default();
        let params = json!({
            "processId": 7, "x": 1, "workspaceFolders": [{ "uri": "file:///a" }, { "uri": "file:///b" }],
            "capabilities": { "general": { "positionEncodings": ["utf-8", "utf-16"] } },
        })
        .to_string();
        session.begin(Bytes::new(), Id::number(1), Some(&params));
        session.answered(r#"{"capabilities":{"positionEncoding":"utf-8"}}"#);
        let change = json!({ "event": { "added": [{ "uri": "file:///c" }], "removed": [{ "uri": "file:///%61" }] } });
        session.folders_changed(Some(&change.to_string()));
        let greeting: Value =
            serde_json::from_slice(&session.greeting(&Id::number(5), Some(9))).unwrap();
        assert_eq!(
            greeting["params"],
            json!({
                "processId": 9, "x": 1, "workspaceFolders": [{ "uri": "file:///b" }, { "uri": "file:///c" }],
                "capabilities": { "general": { "positionEncodings": ["utf-8"] } },
            })
        );
    }
}
