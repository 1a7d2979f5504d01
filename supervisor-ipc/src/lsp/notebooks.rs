//! Notebooks: their cells in order, each of which has a text that is a document of its own.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::documents::{Body, Document, Documents, OpenedDocument, Versioned};
use super::text::{Change, Encoding};
use super::uri::UriKey;
use crate::relay::notification;

/// A notebook without its texts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notebook {
    /// What the client said of it besides its version and cells.
    head: Map<String, Value>,
    cells: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct Opened {
    #[serde(rename = "notebookDocument")]
    notebook: OpenedNotebook,
    #[serde(rename = "cellTextDocuments", default)]
    texts: Vec<OpenedDocument>,
}

#[derive(Debug, Deserialize)]
struct OpenedNotebook {
    uri: String,
    #[serde(default)]
    version: i64,
    #[serde(default)]
    cells: Vec<Value>,
    #[serde(flatten)]
    head: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Changed {
    #[serde(rename = "notebookDocument")]
    notebook: Versioned,
    change: NotebookChange,
}

#[derive(Debug, Default, Deserialize)]
struct NotebookChange {
    #[serde(default)]
    metadata: Option<Value>,
    #[serde(default)]
    cells: CellsChange,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CellsChange {
    structure: Option<Structure>,
    data: Vec<Value>,
    text_content: Vec<TextContent>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Structure {
    array: CellArray,
    #[serde(default)]
    did_open: Vec<OpenedDocument>,
    #[serde(default)]
    did_close: Vec<Versioned>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CellArray {
    start: usize,
    delete_count: usize,
    #[serde(default)]
    cells: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct TextContent {
    document: Versioned,
    changes: Vec<Change>,
}

/// Gives the name of a cell's text.
fn text_of(cell: &Value) -> Option<&str> {
    cell.get("document").and_then(Value::as_str)
}

/// Reads which notebook a message is about.
pub(crate) fn notebook(params: Option<&str>) -> Option<UriKey> {
    #[derive(Deserialize)]
    struct About {
        #[serde(rename = "notebookDocument")]
        notebook: Versioned,
    }
    let about: About = serde_json::from_str(params?).ok()?;
    Some(UriKey::of_notebook(&about.notebook.uri))
}

impl Notebook {
    fn change(&mut self, change: &NotebookChange) {
        if let Some(metadata) = &change.metadata {
            self.head.insert("metadata".to_owned(), metadata.clone());
        }
        if let Some(Structure { array, .. }) = &change.cells.structure {
            let start = array.start.min(self.cells.len());
            let end = start.saturating_add(array.delete_count).min(self.cells.len());
            self.cells.splice(start..end, array.cells.iter().cloned());
        }
        for data in &change.cells.data {
            let same =
                |cell: &&mut Value| text_of(cell).is_some() && text_of(cell) == text_of(data);
            if let Some(cell) = self.cells.iter_mut().find(same) {
                cell.clone_from(data);
            }
        }
    }
}

impl Documents {
    /// Takes in a `notebookDocument/didOpen` and its cells' texts. What cannot be read opens nothing.
    pub(crate) fn notebook_opened(&mut self, params: Option<&str>) -> Option<UriKey> {
        let Opened { notebook, texts } = serde_json::from_str(params?).ok()?;
        let key = UriKey::of_notebook(&notebook.uri);
        self.forget_cells(&key);
        let body = Body::Notebook(Notebook { head: notebook.head, cells: notebook.cells });
        let (version, text) = (notebook.version, String::new());
        let document = OpenedDocument { uri: notebook.uri, language: String::new(), version, text };
        self.insert(key.clone(), document, body);
        for text in texts {
            self.insert(UriKey::new(&text.uri), text, Body::Cell(key.clone()));
        }
        Some(key)
    }

    /// Takes in a `notebookDocument/didChange`; a notebook that was held back gets one more chance.
    pub(crate) fn notebook_changed(
        &mut self,
        params: Option<&str>,
        encoding: Encoding,
    ) -> Option<UriKey> {
        let Changed { notebook: named, change } = serde_json::from_str(params?).ok()?;
        let key = UriKey::of_notebook(&named.uri);
        let document = self.get_mut(&key)?;
        let Body::Notebook(notebook) = &mut document.body else { return None };
        notebook.change(&change);
        self.touch(&key, named.version);
        if let Some(structure) = change.cells.structure {
            for closed in structure.did_close {
                self.remove(&UriKey::new(&closed.uri));
            }
            for text in structure.did_open {
                self.insert(UriKey::new(&text.uri), text, Body::Cell(key.clone()));
            }
        }
        for TextContent { document, changes } in change.cells.text_content {
            self.edit(&UriKey::new(&document.uri), document.version, changes, encoding);
        }
        Some(key)
    }

    /// Takes in a `notebookDocument/didClose` and gives what was open.
    pub(crate) fn notebook_closed(&mut self, params: Option<&str>) -> Option<Document> {
        let key = notebook(params)?;
        self.forget_cells(&key);
        self.remove(&key)
    }

    /// Writes the message that opens a notebook as it is now, with the newest texts of its cells.
    pub(super) fn open_notebook(&self, of: &Document, notebook: &Notebook) -> Bytes {
        let texts = notebook.cells.iter().filter_map(text_of).filter_map(|uri| {
            let text = self.get(&UriKey::new(uri))?;
            Some(json!({
                "uri": text.uri, "languageId": text.language, "version": text.version, "text": text.text,
            }))
        });
        let texts: Vec<Value> = texts.collect();
        let mut head = notebook.head.clone();
        head.insert("uri".to_owned(), of.uri.clone().into());
        head.insert("version".to_owned(), of.version.into());
        head.insert("cells".to_owned(), notebook.cells.clone().into());
        let params = json!({ "notebookDocument": head, "cellTextDocuments": texts });
        notification("notebookDocument/didOpen", params.to_string().as_bytes())
    }

    /// Writes the message that closes a notebook as the server knows it, if it has it open.
    pub(crate) fn close_notebook(&self, key: &UriKey) -> Option<Bytes> {
        let document = self.get(key)?;
        let texts = self.iter().filter(|(_, cell)| cell.is_cell_of(key));
        let texts: Vec<_> = texts.map(|(_, cell)| json!({ "uri": cell.uri })).collect();
        let params =
            json!({ "notebookDocument": { "uri": document.uri }, "cellTextDocuments": texts });
        Some(notification("notebookDocument/didClose", params.to_string().as_bytes()))
    }

    /// Rewrites a change so that every text in it is whole, which says nothing in columns.
    pub(crate) fn whole_notebook_change(&self, params: Option<&str>) -> Option<Bytes> {
        let mut params: Value = serde_json::from_str(params?).ok()?;
        let texts = params.pointer_mut("/change/cells/textContent").and_then(Value::as_array_mut);
        for content in texts.into_iter().flatten() {
            let uri = content.pointer("/document/uri").and_then(Value::as_str).unwrap_or_default();
            let text = self.get(&UriKey::new(uri))?.text.clone();
            content["changes"] = json!([{ "text": text }]);
        }
        Some(notification("notebookDocument/didChange", params.to_string().as_bytes()))
    }
}
