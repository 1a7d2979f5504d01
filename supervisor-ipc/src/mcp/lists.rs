//! What a client has read of tools, prompts and resources, as digests, and which tools may be called twice.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

/// Tools whose hints are remembered; what is beyond is never called twice.
const TOOLS_MAX: usize = 10_000;
/// Longest name that is remembered, in bytes.
const NAME_MAX: usize = 128;
/// Longest cursor that is followed, in bytes.
const CURSOR_MAX: usize = 4096;

/// A list a server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum List {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl List {
    pub(super) const ALL: [Self; 4] =
        [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    pub(super) fn of(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|list| list.method() == method)
    }

    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
        }
    }

    const fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// The capability that offers it.
    pub(super) const fn capability(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources | Self::Templates => "resources",
        }
    }

    /// What tells a client to read it again.
    pub(super) const fn changed(self) -> &'static str {
        match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
            Self::Resources | Self::Templates => "notifications/resources/list_changed",
        }
    }

    /// What a listener that wants to be told says.
    pub(super) const fn filter(self) -> &'static str {
        match self {
            Self::Tools => "toolsListChanged",
            Self::Prompts => "promptsListChanged",
            Self::Resources | Self::Templates => "resourcesListChanged",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// Digest of a whole list; the order of its entries does not matter, because some servers have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Digest {
    entries: usize,
    sum: u64,
}

/// A list that is being read page by page.
#[derive(Debug, Default)]
pub(super) struct Reading {
    digest: Digest,
    tools: HashMap<Box<str>, bool>,
    next: Option<String>,
}

impl Reading {
    /// Takes one page; gives whether it was the last.
    pub(super) fn page(&mut self, list: List, result: &Value) -> bool {
        for entry in result.get(list.member()).and_then(Value::as_array).into_iter().flatten() {
            let mut hasher = DefaultHasher::new();
            digest(entry, &mut hasher);
            self.digest.entries += 1;
            self.digest.sum = self.digest.sum.wrapping_add(hasher.finish());
            if list == List::Tools {
                note_tool(&mut self.tools, entry);
            }
        }
        let next = result.get("nextCursor").and_then(Value::as_str);
        self.next = next.filter(|next| next.len() <= CURSOR_MAX).map(str::to_owned);
        next.is_none()
    }

    pub(super) fn next(&self) -> Option<&str> {
        self.next.as_deref()
    }
}

/// What is known of all lists.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// What the client has read to the end.
    read: [Option<Digest>; 4],
    /// What it is reading.
    reading: [Reading; 4],
    /// The tools of the running server, and whether each may be called twice.
    tools: HashMap<Box<str>, bool>,
}

impl Lists {
    /// Takes a page the client was given; `cursor` is what it asked for.
    pub(super) fn client_read(&mut self, list: List, cursor: Option<&str>, result: &Value) {
        let reading = &mut self.reading[list.index()];
        match cursor {
            None => *reading = Reading::default(),
            Some(cursor) if reading.next() == Some(cursor) => {}
            // Not the next page of what was begun: nothing can be said about the whole.
            Some(_) => return,
        }
        let whole = reading.page(list, result);
        if list == List::Tools {
            for (tool, repeatable) in &reading.tools {
                if self.tools.len() < TOOLS_MAX || self.tools.contains_key(tool) {
                    self.tools.insert(tool.clone(), *repeatable);
                }
            }
        }
        if whole {
            self.read[list.index()] = Some(reading.digest);
            let done = std::mem::take(reading);
            if list == List::Tools {
                self.tools = done.tools;
            }
        }
    }

    /// Whether the client has read this list to the end.
    pub(super) fn was_read(&self, list: List) -> bool {
        self.read[list.index()].is_some()
    }

    /// Takes what a new server offers; gives whether it differs from what the client has read.
    pub(super) fn differs(&mut self, list: List, reading: Reading) -> bool {
        if list == List::Tools {
            self.tools = reading.tools;
        }
        self.read[list.index()].is_some_and(|read| read != reading.digest)
    }

    /// Forgets the tools' promises: the new server's are not known.
    pub(super) fn forget_tools(&mut self) {
        self.tools.clear();
    }

    /// Whether the server says that calling this tool twice does no harm.
    pub(super) fn may_repeat(&self, tool: &str) -> bool {
        self.tools.get(tool).copied().unwrap_or(false)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let names = |tools: &HashMap<Box<str>, bool>| tools.keys().map(|n| n.len()).sum::<usize>();
        names(&self.tools) + self.reading.iter().map(|r| names(&r.tools)).sum::<usize>()
    }
}

fn note_tool(tools: &mut HashMap<Box<str>, bool>, entry: &Value) {
    let Some(name) = entry.get("name").and_then(Value::as_str) else { return };
    if name.len() > NAME_MAX || tools.len() >= TOOLS_MAX {
        return;
    }
    let hint = |hint: &str| {
        entry.pointer(&format!("/annotations/{hint}")).and_then(Value::as_bool).unwrap_or(false)
    };
    let repeatable = hint("readOnlyHint") || hint("idempotentHint");
    // Two tools of one name: only what both promise counts.
    tools.entry(name.into()).and_modify(|known| *known &= repeatable).or_insert(repeatable);
}

/// Feeds a value to a hasher so that the order of an object's members does not matter.
fn digest(value: &Value, hasher: &mut impl Hasher) {
    match value {
        Value::Null => 0_u8.hash(hasher),
        Value::Bool(value) => (1_u8, value).hash(hasher),
        Value::Number(value) => (2_u8, value).hash(hasher),
        Value::String(value) => (3_u8, value).hash(hasher),
        Value::Array(values) => {
            (4_u8, values.len()).hash(hasher);
            for value in values {
                digest(value, hasher);
            }
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            (5_u8, members.len()).hash(hasher);
            for (name, value) in members {
                name.hash(hasher);
                digest(value, hasher);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(pages: &[Value]) -> Reading {
        let mut reading = Reading::default();
        for page in pages {
            reading.page(List::Tools, page);
        }
        reading
    }

    #[test]
    fn the_order_of_entries_and_members_is_no_difference_but_every_value_is() {
        let mut lists = Lists::default();
        let old = json!({"tools": [{"name": "a", "x": {"p": 1, "q": [1, 2]}}, {"name": "b"}]});
        lists.client_read(List::Tools, None, &old);
        let same = r#"{"tools": [{"name": "b"}, {"x": {"q": [1, 2], "p": 1}, "name": "a"}]}"#;
        assert!(!lists.differs(List::Tools, read(&[serde_json::from_str(same).unwrap()])));
        for other in [
            json!({"tools": [{"name": "a", "x": {"p": 1, "q": [2, 1]}}, {"name": "b"}]}),
            json!({"tools": [{"name": "b"}]}),
            json!({"tools": []}),
            json!({}),
        ] {
            assert!(lists.differs(List::Tools, read(&[other])));
        }
    }

    #[test]
    fn a_list_is_compared_whole_however_it_is_cut_into_pages() {
        let mut lists = Lists::default();
        lists.client_read(List::Tools, None, &json!({"tools": [{"name": "a"}], "nextCursor": "1"}));
        assert!(!lists.was_read(List::Tools), "half of a list says nothing about the whole");
        lists.client_read(List::Tools, Some("7"), &json!({"tools": [{"name": "x"}]}));
        lists.client_read(List::Tools, Some("1"), &json!({"tools": [{"name": "b"}]}));
        let whole = json!({"tools": [{"name": "a"}, {"name": "b"}]});
        assert!(!lists.differs(List::Tools, read(&[whole])));
    }

    #[test]
    fn only_a_tool_that_promises_it_may_be_called_twice() {
        let mut lists = Lists::default();
        let tools = json!({"tools": [
            {"name": "reads", "annotations": {"readOnlyHint": true}},
            {"name": "sets", "annotations": {"readOnlyHint": false, "idempotentHint": true}},
            {"name": "adds", "annotations": {"destructiveHint": false}},
            {"name": "text", "annotations": {"readOnlyHint": "true"}},
            {"name": "plain"},
            {"name": "twice", "annotations": {"readOnlyHint": true}},
            {"name": "twice"},
        ]});
        lists.client_read(List::Tools, None, &tools);
        let may: Vec<_> = ["reads", "sets", "adds", "text", "plain", "twice", "unknown"]
            .into_iter()
            .filter(|tool| lists.may_repeat(tool))
            .collect();
        assert_eq!(may, ["reads", "sets"]);
    }
}
