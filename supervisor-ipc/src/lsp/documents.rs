//! The client's open documents, as it sees them; `notebooks` has those that are made of others.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use supervisor_core::Generation;

use super::notebooks::Notebook;
use super::text::{Change, Encoding, apply};
use super::uri::UriKey;
use crate::relay::{BLAME_MAX, CRASH, member, notification, written};

/// Deaths of which the generation is remembered; the newest, as only those in a row count.
const DEATHS_MAX: usize = 8;

/// What an open document is.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// A text.
    Text,
    /// The text of a cell, which is opened with the notebook of this key.
    Cell(UriKey),
    /// A notebook.
    Notebook(Notebook),
}

/// One open document.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// As the client spelled it when it opened it.
    pub(crate) uri: String,
    pub(crate) language: String,
    pub(crate) version: i64,
    /// Empty for a notebook.
    pub(crate) text: String,
    pub(crate) body: Body,
    /// When it was touched last, on a counter; the newest is restored first.
    pub(crate) touched: u64,
    /// The generation it is open in.
    pub(crate) open_in: Option<Generation>,
    /// It was saved while no server could be told.
    pub(crate) saved: bool,
    /// How much this text is blamed for deaths in a row.
    pub(crate) blame: u8,
    /// Not all of that were kills, which may be somebody else's.
    pub(crate) crashed: bool,
    /// The servers that died while it was blamed, oldest first.
    pub(crate) deaths: Vec<Generation>,
    /// The letter that says so, while it is held back.
    pub(crate) letter: Option<u64>,
}

impl Document {
    /// Tells whether it is held back until its text changes.
    pub(crate) const fn quarantined(&self) -> bool {
        self.blame >= BLAME_MAX
    }

    /// A server died of it, as far as anybody can tell.
    pub(crate) fn blamed(&mut self, by: u8, generation: Generation) {
        self.blame = self.blame.saturating_add(by).min(BLAME_MAX);
        self.crashed |= by >= CRASH;
        self.died(generation);
    }

    /// A server died that may have died of it.
    pub(crate) fn suspected(&mut self, by: u8, generation: Generation) {
        self.blame = self.blame.max(by);
        self.crashed |= by >= CRASH;
        self.died(generation);
    }

    fn died(&mut self, generation: Generation) {
        if self.deaths.len() >= DEATHS_MAX {
            self.deaths.remove(0);
        }
        self.deaths.push(generation);
    }

    /// A server survived it: what is held against this text is forgotten.
    pub(crate) fn survived(&mut self) {
        (self.blame, self.crashed) = (0, false);
        self.deaths.clear();
    }

    /// A server took it and gave a sign of life. One that crashes of it may do so a moment later; the kills before were
    /// somebody else's.
    pub(crate) fn survived_opening(&mut self) {
        if !self.crashed {
            self.survived();
        }
    }

    /// Gives it one more chance, because it is another text by now or somebody asked for that.
    pub(crate) fn another_chance(&mut self) {
        self.blame = self.blame.min(CRASH);
        self.letter = None;
    }

    pub(crate) fn is_cell_of(&self, notebook: &UriKey) -> bool {
        matches!(&self.body, Body::Cell(of) if of == notebook)
    }

    /// Writes the message that says that it was saved.
    pub(crate) fn saved_message(&self) -> Bytes {
        let about = json!({ "uri": self.uri });
        match self.body {
            Body::Notebook(_) => {
                let params = json!({ "notebookDocument": about });
                notification("notebookDocument/didSave", params.to_string().as_bytes())
            }
            _ => {
                let params = json!({ "textDocument": about });
                notification("textDocument/didSave", params.to_string().as_bytes())
            }
        }
    }

    /// Writes the message that opens it with its newest text.
    fn open_message(&self) -> Bytes {
        let params = About {
            document: Shown {
                uri: &self.uri,
                language: Some(&self.language),
                version: self.version,
                text: Some(&self.text),
            },
            changes: None,
        };
        written("textDocument/didOpen", &params, self.text.len())
    }

    /// Writes a change to the whole newest text, which is legal under every kind of synchronisation.
    pub(crate) fn whole_change(&self) -> Bytes {
        let params = About {
            document: Shown { uri: &self.uri, language: None, version: self.version, text: None },
            changes: Some([WholeText { text: &self.text }]),
        };
        written("textDocument/didChange", &params, self.text.len())
    }
}

/// Parameters about a document; its text is written from where it is held, without a copy between.
#[derive(Debug, Serialize)]
struct About<'d> {
    #[serde(rename = "textDocument")]
    document: Shown<'d>,
    #[serde(rename = "contentChanges", skip_serializing_if = "Option::is_none")]
    changes: Option<[WholeText<'d>; 1]>,
}

#[derive(Debug, Serialize)]
struct Shown<'d> {
    uri: &'d str,
    #[serde(rename = "languageId", skip_serializing_if = "Option::is_none")]
    language: Option<&'d str>,
    version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'d str>,
}

#[derive(Debug, Serialize)]
struct WholeText<'d> {
    text: &'d str,
}

#[derive(Debug, Deserialize)]
struct Opened {
    #[serde(rename = "textDocument")]
    document: OpenedDocument,
}

#[derive(Debug, Deserialize)]
pub(super) struct OpenedDocument {
    pub(super) uri: String,
    #[serde(rename = "languageId", default)]
    pub(super) language: String,
    #[serde(default)]
    pub(super) version: i64,
    pub(super) text: String,
}

#[derive(Debug, Deserialize)]
struct Changed {
    #[serde(rename = "textDocument")]
    document: Versioned,
    #[serde(rename = "contentChanges")]
    changes: Vec<Change>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Versioned {
    pub(super) uri: String,
    #[serde(default)]
    pub(super) version: Option<i64>,
}

/// Reads which document a message is about; its content, which may be large, is not looked at.
pub(crate) fn subject(params: Option<&str>) -> Option<UriKey> {
    let uri = member(member(params?, "textDocument")?, "uri")?;
    serde_json::from_str::<String>(uri).ok().map(|uri| UriKey::new(&uri))
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

    /// Gives the document that is held back as the letter of this number says.
    pub(crate) fn of_letter(&self, number: u64) -> Option<&UriKey> {
        self.open.iter().find(|(_, document)| document.letter == Some(number)).map(|(key, _)| key)
    }

    /// Tells whether a document, or the notebook it is a cell of, is held back until it changes.
    pub(crate) fn held_back(&self, key: &UriKey) -> bool {
        self.get(key).is_some_and(|document| match &document.body {
            Body::Cell(notebook) => self.get(notebook).is_some_and(Document::quarantined),
            _ => document.quarantined(),
        })
    }

    /// Says that a server has it open, with its cells if it is a notebook.
    pub(crate) fn opened_in(&mut self, key: &UriKey, generation: Generation) {
        let Some(document) = self.open.get_mut(key) else { return };
        document.open_in = Some(generation);
        if matches!(document.body, Body::Notebook(_)) {
            let cells = self.open.values_mut().filter(|cell| cell.is_cell_of(key));
            cells.for_each(|cell| cell.open_in = Some(generation));
        }
    }

    /// Writes the message that opens a document as it is now.
    pub(crate) fn open_message(&self, key: &UriKey) -> Option<Bytes> {
        let document = self.get(key)?;
        Some(match &document.body {
            Body::Notebook(notebook) => self.open_notebook(document, notebook),
            _ => document.open_message(),
        })
    }

    pub(super) fn insert(&mut self, key: UriKey, document: OpenedDocument, body: Body) {
        self.touches += 1;
        let document = Document {
            uri: document.uri,
            language: document.language,
            version: document.version,
            text: document.text,
            body,
            touched: self.touches,
            open_in: None,
            saved: false,
            blame: 0,
            crashed: false,
            deaths: Vec::new(),
            letter: None,
        };
        self.open.insert(key, document);
    }

    pub(super) fn remove(&mut self, key: &UriKey) -> Option<Document> {
        self.open.remove(key)
    }

    pub(super) fn forget_cells(&mut self, notebook: &UriKey) {
        self.open.retain(|_, document| !document.is_cell_of(notebook));
    }

    /// Takes in a `didOpen`. What cannot be read opens nothing.
    pub(crate) fn opened(&mut self, params: Option<&str>) -> Option<UriKey> {
        let Opened { document } = serde_json::from_str(params?).ok()?;
        let key = UriKey::new(&document.uri);
        self.insert(key.clone(), document, Body::Text);
        Some(key)
    }

    /// Takes in a `didChange`; a document that was held back gets one more chance with its new text.
    pub(crate) fn changed(&mut self, params: Option<&str>, encoding: Encoding) -> Option<UriKey> {
        let Changed { document: named, changes } = serde_json::from_str(params?).ok()?;
        let key = UriKey::new(&named.uri);
        self.edit(&key, named.version, changes, encoding)?;
        Some(key)
    }

    pub(super) fn edit(
        &mut self,
        key: &UriKey,
        version: Option<i64>,
        changes: Vec<Change>,
        encoding: Encoding,
    ) -> Option<()> {
        apply(&mut self.open.get_mut(key)?.text, changes, encoding);
        self.touch(key, version)
    }

    pub(super) fn touch(&mut self, key: &UriKey, version: Option<i64>) -> Option<()> {
        let document = self.open.get_mut(key)?;
        document.version = version.unwrap_or_else(|| document.version.saturating_add(1));
        self.touches += 1;
        document.touched = self.touches;
        document.another_chance();
        Some(())
    }

    /// Takes in a `didClose` and gives what was open.
    pub(crate) fn closed(&mut self, params: Option<&str>) -> Option<Document> {
        self.open.remove(&subject(params)?)
    }

    /// Gives the documents in the order in which they are opened again: blamed ones last, the newest first. Cells go with
    /// their notebook.
    pub(crate) fn order(&self) -> Vec<UriKey> {
        let alone = |(_, document): &(_, &Document)| !matches!(document.body, Body::Cell(_));
        let mut keys: Vec<_> = self.open.iter().filter(alone).collect();
        keys.sort_by_key(|(_, document)| (document.blame, std::cmp::Reverse(document.touched)));
        keys.into_iter().map(|(key, _)| key.clone()).collect()
    }
}
