//! The client's open documents, as it sees them.

use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use supervisor_core::Generation;

use super::text::{Change, Encoding, apply};
use super::uri::UriKey;
use crate::relay::notification;

/// Blame at which a text is held back: two crashes over it, or four kills, of which any may be somebody else's.
const BLAME_MAX: u8 = 4;
/// What a crash over a text adds to its blame.
pub(crate) const CRASH: u8 = 2;
/// What a kill over a text adds to its blame.
pub(crate) const KILL: u8 = 1;

/// One open document.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// As the client spelled it when it opened it.
    pub(crate) uri: String,
    pub(crate) language: String,
    pub(crate) version: i64,
    pub(crate) text: String,
    /// When it was touched last, on a counter; the newest is restored first.
    pub(crate) touched: u64,
    /// The generation it is open in.
    pub(crate) open_in: Option<Generation>,
    /// It was saved while no server could be told.
    pub(crate) saved: bool,
    /// How much this text is blamed for deaths in a row.
    pub(crate) blame: u8,
}

impl Document {
    /// Tells whether it is held back until its text changes.
    pub(crate) const fn quarantined(&self) -> bool {
        self.blame >= BLAME_MAX
    }

    pub(crate) fn blamed(&mut self, by: u8) {
        self.blame = self.blame.saturating_add(by).min(BLAME_MAX);
    }

    /// Writes the message that opens it with its newest text.
    pub(crate) fn open_message(&self) -> Bytes {
        let params = json!({ "textDocument": {
            "uri": self.uri, "languageId": self.language, "version": self.version, "text": self.text,
        } });
        notification("textDocument/didOpen", params.to_string().as_bytes())
    }

    /// Writes a change to the whole newest text, which is legal under every kind of synchronisation.
    pub(crate) fn whole_change(&self) -> Bytes {
        let params = json!({
            "textDocument": { "uri": self.uri, "version": self.version },
            "contentChanges": [{ "text": self.text }],
        });
        notification("textDocument/didChange", params.to_string().as_bytes())
    }
}

#[derive(Debug, Deserialize)]
struct Opened {
    #[serde(rename = "textDocument")]
    document: OpenedDocument,
}

#[derive(Debug, Deserialize)]
struct OpenedDocument {
    uri: String,
    #[serde(rename = "languageId", default)]
    language: String,
    #[serde(default)]
    version: i64,
    text: String,
}

#[derive(Debug, Deserialize)]
struct Changed {
    #[serde(rename = "textDocument")]
    document: Versioned,
    #[serde(rename = "contentChanges")]
    changes: Vec<Change>,
}

#[derive(Debug, Deserialize)]
struct Versioned {
    uri: String,
    #[serde(default)]
    version: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct About {
    #[serde(rename = "textDocument")]
    document: Named,
}

#[derive(Debug, Deserialize)]
struct Named {
    uri: String,
}

/// Reads which document a message is about.
pub(crate) fn subject(params: Option<&str>) -> Option<UriKey> {
    let about: About = serde_json::from_str(params?).ok()?;
    Some(UriKey::new(&about.document.uri))
}

/// Every open document. Their texts are the one thing here that is as large as the client makes it.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    open: HashMap<UriKey, Document>,
    touches: u64,
}

impl Documents {
    pub(crate) fn get(&self, key: &UriKey) -> Option<&Document> {
        self.open.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &UriKey) -> Option<&mut Document> {
        self.open.get_mut(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&UriKey, &Document)> {
        self.open.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&UriKey, &mut Document)> {
        self.open.iter_mut()
    }

    /// Takes in a `didOpen`. What cannot be read opens nothing.
    pub(crate) fn opened(&mut self, params: Option<&str>) -> Option<UriKey> {
        let Opened { document } = serde_json::from_str(params?).ok()?;
        let key = UriKey::new(&document.uri);
        self.touches += 1;
        let document = Document {
            uri: document.uri,
            language: document.language,
            version: document.version,
            text: document.text,
            touched: self.touches,
            open_in: None,
            saved: false,
            blame: 0,
        };
        self.open.insert(key.clone(), document);
        Some(key)
    }

    /// Takes in a `didChange`; a document that was held back gets one more chance with its new text.
    pub(crate) fn changed(&mut self, params: Option<&str>, encoding: Encoding) -> Option<UriKey> {
        let Changed { document: named, changes } = serde_json::from_str(params?).ok()?;
        let key = UriKey::new(&named.uri);
        let document = self.open.get_mut(&key)?;
        apply(&mut document.text, changes, encoding);
        document.version = named.version.unwrap_or_else(|| document.version.saturating_add(1));
        self.touches += 1;
        document.touched = self.touches;
        document.blame = document.blame.min(CRASH);
        Some(key)
    }

    /// Takes in a `didClose` and gives what was open.
    pub(crate) fn closed(&mut self, params: Option<&str>) -> Option<Document> {
        self.open.remove(&subject(params)?)
    }

    /// Gives the documents in the order in which they are opened again: blamed ones last, the newest first.
    pub(crate) fn order(&self) -> Vec<UriKey> {
        let mut keys: Vec<_> = self.open.iter().collect();
        keys.sort_by_key(|(_, document)| (document.blame, std::cmp::Reverse(document.touched)));
        keys.into_iter().map(|(key, _)| key.clone()).collect()
    }
}
