//! The notebook of the client and of a strict server.

use serde_json::{Value, json};

use super::super::super::text::{Encoding, apply};
use super::super::tell;
use super::{Step, Strict, World};

impl Strict {
    pub(super) fn take_notebook(&mut self, method: &str, params: &Value, encoding: Encoding) {
        let list =
            |at: &str| params.pointer(at).and_then(Value::as_array).cloned().unwrap_or_default();
        let names = |cells: Vec<Value>| -> Vec<String> {
            cells.iter().map(|cell| cell["document"].as_str().unwrap().to_owned()).collect()
        };
        let version = params["notebookDocument"]["version"].as_i64();
        match method {
            "notebookDocument/didOpen" => {
                assert_eq!(params["notebookDocument"]["notebookType"], "n");
                let cells = names(list("/notebookDocument/cells"));
                assert!(self.notebook.replace((version.unwrap(), cells)).is_none(), "opened twice");
                list("/cellTextDocuments").iter().for_each(|text| self.open(text));
            }
            "notebookDocument/didChange" => {
                let (old, cells) = self.notebook.as_mut().expect("changed and not open");
                let next = version.unwrap();
                assert!(next > *old, "{next} after {old}");
                *old = next;
                if let Some(array) = params.pointer("/change/cells/structure/array") {
                    let start = array["start"].as_u64().unwrap() as usize;
                    let end = start + array["deleteCount"].as_u64().unwrap() as usize;
                    cells.splice(start..end, names(list("/change/cells/structure/array/cells")));
                }
                list("/change/cells/structure/didClose").iter().for_each(|text| self.close(text));
                list("/change/cells/structure/didOpen").iter().for_each(|text| self.open(text));
                for content in list("/change/cells/textContent") {
                    let uri = content["document"]["uri"].as_str().unwrap();
                    let (old, text) = self.documents.get_mut(uri).expect("a cell that is not open");
                    let next = content["document"]["version"].as_i64().unwrap();
                    assert!(next > *old, "{next} after {old}");
                    *old = next;
                    let changes = serde_json::from_value(content["changes"].clone()).unwrap();
                    apply(text, changes, encoding);
                }
            }
            _ => {
                assert!(self.notebook.take().is_some(), "closed and not open");
                list("/cellTextDocuments").iter().for_each(|text| self.close(text));
            }
        }
    }
}

impl World {
    /// Makes cells of these texts; gives what stands in the notebook, and what is opened.
    fn cells(&mut self, texts: Vec<String>) -> (Vec<String>, Vec<Value>) {
        let make = |text: String| {
            self.cells += 1;
            let uri = format!("cell:{}", self.cells);
            let opened = json!({ "uri": uri, "languageId": "x", "version": 1, "text": text });
            self.documents.insert(uri.clone(), (1, text));
            (uri, opened)
        };
        texts.into_iter().map(make).unzip()
    }

    pub(super) fn step_notebook(&mut self, step: Step) {
        let cell = |uri: &String| json!({ "kind": 2, "document": uri });
        let about = |version: i64| json!({ "uri": "file:///0.x", "version": version });
        match (step, self.notebook.take()) {
            (Step::OpenNotebook(texts), None) => {
                let (names, opened) = self.cells(texts);
                let version = self.versions.get("notebook").copied().unwrap_or(0) + 1;
                let mut notebook = about(version);
                notebook["notebookType"] = "n".into();
                notebook["cells"] = names.iter().map(cell).collect();
                let params = json!({ "notebookDocument": notebook, "cellTextDocuments": opened });
                self.notebook = Some((version, names));
                self.client(&tell("notebookDocument/didOpen", &params));
            }
            (Step::Cells(start, count, texts), Some((version, mut names))) => {
                let start = start.min(names.len());
                let end = (start + count).min(names.len());
                let (new, opened) = self.cells(texts);
                let array = json!({ "start": start, "deleteCount": end - start, "cells": new.iter().map(cell).collect::<Vec<_>>() });
                let gone: Vec<String> = names.splice(start..end, new).collect();
                gone.iter().for_each(|uri| drop(self.documents.remove(uri)));
                let closed: Vec<_> = gone.iter().map(|uri| json!({ "uri": uri })).collect();
                let structure = json!({ "array": array, "didOpen": opened, "didClose": closed });
                self.change_notebook(version, names, &json!({ "structure": structure }));
            }
            (Step::EditCell(which, from, to, new), Some((version, names))) if !names.is_empty() => {
                let uri = names[which % names.len()].clone();
                let (of_cell, range) = self.change(&uri, from, to, &new).unwrap();
                let content = json!([{
                    "document": { "uri": uri, "version": of_cell }, "changes": [{ "range": range, "text": new }],
                }]);
                self.change_notebook(version, names, &json!({ "textContent": content }));
            }
            (Step::CloseNotebook, Some((_, names))) => {
                let texts: Vec<_> = names.iter().map(|uri| json!({ "uri": uri })).collect();
                names.iter().for_each(|uri| drop(self.documents.remove(uri)));
                let params = json!({ "notebookDocument": { "uri": "file:///0.x" }, "cellTextDocuments": texts });
                self.client(&tell("notebookDocument/didClose", &params));
            }
            (_, notebook) => self.notebook = notebook,
        }
    }

    fn change_notebook(&mut self, version: i64, names: Vec<String>, cells: &Value) {
        let version = version + 1;
        self.versions.insert("notebook".to_owned(), version);
        self.notebook = Some((version, names));
        let params = json!({
            "notebookDocument": { "uri": "file:///0.x", "version": version }, "change": { "cells": cells },
        });
        self.client(&tell("notebookDocument/didChange", &params));
    }
}
