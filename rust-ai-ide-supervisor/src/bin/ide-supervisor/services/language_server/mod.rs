//! A language server over standard input and output: completion, hover and diagnostics from the open documents.
//!
//! It knows words, not a language, but it knows them for real: what it answers depends on every edit it was sent,
//! so a session that was not restored after a crash gives answers that are visibly wrong.

mod analysis;
mod document;
mod framing;

use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use self::document::Document;
use super::fault::Fault;
use super::{notify_ready, say};

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const NOT_INITIALIZED: i64 = -32002;

/// Most documents open at once; one more is refused with a message to the user and is not known.
const DOCUMENTS_MAX: usize = 1000;

/// Serves standard input until `exit` or its end.
pub(super) fn run() -> ExitCode {
    notify_ready();
    let input = BufReader::new(io::stdin().lock());
    let output = BufWriter::new(io::stdout().lock());
    let mut server = Server::new(output);
    match server.serve(input) {
        // The protocol: 0 if `shutdown` came first, else 1.
        Ok(()) if server.state == State::ShutDown => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("the connection is unusable: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Initialized,
    ShutDown,
}

struct Server<W> {
    output: W,
    state: State,
    documents: BTreeMap<String, Document>,
}

/// An answer that is an error: its code and its text.
type Refusal = (i64, String);

impl<W: Write> Server<W> {
    fn new(output: W) -> Self {
        Self { output, state: State::Fresh, documents: BTreeMap::new() }
    }

    fn serve(&mut self, mut input: impl io::BufRead) -> io::Result<()> {
        while let Some(body) = framing::read(&mut input)? {
            let Ok(message) = serde_json::from_slice::<Value>(&body) else {
                self.refuse(&Value::Null, PARSE_ERROR, "not JSON")?;
                continue;
            };
            let id = message.get("id").cloned();
            let params = &message["params"];
            match (message["method"].as_str(), id) {
                (Some("exit"), None) => return Ok(()),
                (Some(method), Some(id)) => {
                    let answered = self.request(method, params);
                    match answered {
                        Ok(result) => {
                            self.send(&json!({ "jsonrpc": "2.0", "id": id, "result": result }))?;
                        }
                        Err((code, text)) => self.refuse(&id, code, &text)?,
                    }
                }
                (Some(method), None) => self.notification(method, params)?,
                // An answer to a request: this server makes none, so it is nobody's.
                (None, Some(_))
                    if message.get("result").is_some() || message.get("error").is_some() => {}
                (None, id) => {
                    self.refuse(&id.unwrap_or(Value::Null), INVALID_REQUEST, "no method")?;
                }
            }
        }
        Ok(())
    }

    fn request(&mut self, method: &str, params: &Value) -> Result<Value, Refusal> {
        match (self.state, method) {
            (State::Fresh, "initialize") => {
                self.state = State::Initialized;
                return Ok(capabilities());
            }
            (State::Fresh, _) => {
                return Err((NOT_INITIALIZED, "initialize comes first".to_owned()));
            }
            (State::ShutDown, _) => {
                return Err((INVALID_REQUEST, "the server is shut down".to_owned()));
            }
            (State::Initialized, _) => {}
        }
        match method {
            "initialize" => Err((INVALID_REQUEST, "initialized already".to_owned())),
            "shutdown" => {
                self.state = State::ShutDown;
                Ok(Value::Null)
            }
            "textDocument/completion" => {
                let (document, at) = self.position(params)?;
                let prefix = document.word_before(at);
                Ok(analysis::completion(&self.documents, document, prefix))
            }
            "textDocument/hover" => {
                let (document, at) = self.position(params)?;
                Ok(analysis::hover(&self.documents, document, at))
            }
            // What a client needs to see that this server has the documents it should have.
            "ideSupervisor/documents" => Ok(self
                .documents
                .values()
                .map(|document| {
                    json!({ "uri": document.uri, "version": document.version, "text": document.text })
                })
                .collect()),
            other => Err((METHOD_NOT_FOUND, format!("unknown method {other:?}"))),
        }
    }

    fn position(&self, params: &Value) -> Result<(&Document, usize), Refusal> {
        let uri = params["textDocument"]["uri"].as_str().unwrap_or_default();
        let document = self
            .documents
            .get(uri)
            .ok_or_else(|| (INVALID_PARAMS, format!("{uri:?} is not open")))?;
        let at = document
            .offset(&params["position"])
            .ok_or_else(|| (INVALID_PARAMS, "position needs a line and a character".to_owned()))?;
        Ok((document, at))
    }

    fn notification(&mut self, method: &str, params: &Value) -> io::Result<()> {
        if self.state != State::Initialized {
            return Ok(());
        }
        match method {
            "textDocument/didOpen" => self.open(&params["textDocument"]),
            "textDocument/didChange" => self.change(params),
            "textDocument/didClose" => {
                let uri = params["textDocument"]["uri"].as_str().unwrap_or_default();
                self.documents.remove(uri);
                self.publish(uri, &Value::Null, Value::Array(Vec::new()))
            }
            "$/fault" => {
                match params["kind"].as_str().and_then(Fault::parse) {
                    Some(fault) => fault.commit(),
                    None => say("$/fault needs a kind: hang, crash, leak or flood"),
                }
                Ok(())
            }
            // Unknown notifications are ignored, as the protocol says.
            _ => Ok(()),
        }
    }

    fn open(&mut self, item: &Value) -> io::Result<()> {
        let Some(document) = Document::open(item) else {
            return self.complain("didOpen without uri, version or text");
        };
        if self.documents.len() >= DOCUMENTS_MAX && !self.documents.contains_key(&document.uri) {
            return self.complain("too many open documents; this one is not known");
        }
        let uri = document.uri.clone();
        self.documents.insert(uri.clone(), document);
        self.diagnose(&uri)
    }

    fn change(&mut self, params: &Value) -> io::Result<()> {
        let uri = params["textDocument"]["uri"].as_str().unwrap_or_default();
        let Some(document) = self.documents.get_mut(uri) else {
            return self.complain("didChange of a document that is not open");
        };
        let changes = params["contentChanges"].as_array();
        let applied = changes.into_iter().flatten().all(|change| document.change(change));
        if let Some(version) = params["textDocument"]["version"].as_i64() {
            document.version = version;
        }
        if !applied {
            return self.complain("a change could not be applied; the document is out of step");
        }
        self.diagnose(uri)
    }

    fn diagnose(&mut self, uri: &str) -> io::Result<()> {
        let Some(document) = self.documents.get(uri) else {
            return Ok(());
        };
        let (version, found) = (document.version, analysis::diagnostics(document));
        self.publish(uri, &Value::from(version), Value::Array(found))
    }

    fn publish(&mut self, uri: &str, version: &Value, diagnostics: Value) -> io::Result<()> {
        let mut params = json!({ "uri": uri, "diagnostics": diagnostics });
        if !version.is_null() {
            params["version"] = version.clone();
        }
        self.notify("textDocument/publishDiagnostics", &params)
    }

    /// Shows a message of type Warning in the client's log.
    fn complain(&mut self, text: &str) -> io::Result<()> {
        self.notify("window/logMessage", &json!({ "type": 2, "message": text }))
    }

    fn notify(&mut self, method: &str, params: &Value) -> io::Result<()> {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
    }

    fn refuse(&mut self, id: &Value, code: i64, text: &str) -> io::Result<()> {
        let error = json!({ "code": code, "message": text });
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "error": error }))
    }

    fn send(&mut self, message: &Value) -> io::Result<()> {
        framing::write(&mut self.output, message)
    }
}

fn capabilities() -> Value {
    json!({
        "capabilities": {
            "positionEncoding": "utf-16",
            "textDocumentSync": { "openClose": true, "change": 2 },
            "completionProvider": {},
            "hoverProvider": true,
        },
        "serverInfo": {
            "name": "ide-supervisor demo language server",
            "version": env!("CARGO_PKG_VERSION"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends the messages to a fresh server and gives everything it wrote.
    fn talk(messages: &[Value]) -> Vec<Value> {
        let mut input = Vec::new();
        for message in messages {
            framing::write(&mut input, message).unwrap();
        }
        let mut server = Server::new(Vec::new());
        server.serve(&input[..]).unwrap();
        let mut output = &server.output[..];
        let mut said = Vec::new();
        while let Some(body) = framing::read(&mut output).unwrap() {
            said.push(serde_json::from_slice(&body).unwrap());
        }
        said
    }

    fn request(id: u64, method: &str, params: Value) -> Value {
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
    }

    fn notice(method: &str, params: Value) -> Value {
        json!({ "jsonrpc": "2.0", "method": method, "params": params })
    }

    fn open(text: &str) -> Value {
        notice(
            "textDocument/didOpen",
            json!({ "textDocument": { "uri": "file:///a", "languageId": "x", "version": 1, "text": text } }),
        )
    }

    fn at(line: u32, character: u32) -> Value {
        json!({ "textDocument": { "uri": "file:///a" }, "position": { "line": line, "character": character } })
    }

    #[test]
    fn nothing_is_answered_before_initialize_or_after_shutdown() {
        let said = talk(&[
            request(1, "textDocument/hover", at(0, 0)),
            request(2, "initialize", json!({})),
            request(3, "shutdown", Value::Null),
            request(4, "textDocument/hover", at(0, 0)),
        ]);
        assert_eq!(said[0]["error"]["code"], NOT_INITIALIZED);
        assert_eq!(said[1]["result"]["capabilities"]["hoverProvider"], true);
        assert_eq!(said[2]["result"], Value::Null);
        assert_eq!(said[3]["error"]["code"], INVALID_REQUEST);
    }

    #[test]
    fn an_unknown_request_is_refused_and_an_unknown_notification_ignored() {
        let said = talk(&[
            request(1, "initialize", json!({})),
            notice("$/unknown", json!({})),
            request(2, "$/unknown", json!({})),
        ]);
        assert_eq!(said.len(), 2);
        assert_eq!(said[1]["error"]["code"], METHOD_NOT_FOUND);
    }

    #[test]
    fn answers_follow_incremental_edits() {
        let edit = notice(
            "textDocument/didChange",
            json!({
                "textDocument": { "uri": "file:///a", "version": 2 },
                "contentChanges": [
                    // After the emoji, which is two UTF-16 units wide.
                    { "range": { "start": { "line": 0, "character": 5 }, "end": { "line": 0, "character": 8 } }, "text": "renamed" },
                ],
            }),
        );
        let said = talk(&[
            request(1, "initialize", json!({})),
            open("\u{1f600} = old; old2\n"),
            edit,
            request(2, "ideSupervisor/documents", Value::Null),
            request(3, "textDocument/completion", at(0, 7)),
        ]);
        let documents = said.iter().find(|m| m["id"] == 2).unwrap();
        assert_eq!(documents["result"][0]["text"], "\u{1f600} = renamed; old2\n");
        assert_eq!(documents["result"][0]["version"], 2);
        let completion = said.iter().find(|m| m["id"] == 3).unwrap();
        assert_eq!(completion["result"]["items"][0]["label"], "renamed");
    }

    #[test]
    fn a_closed_document_is_forgotten_and_its_diagnostics_cleared() {
        let said = talk(&[
            request(1, "initialize", json!({})),
            open("TODO: more (\n"),
            notice("textDocument/didClose", json!({ "textDocument": { "uri": "file:///a" } })),
            request(2, "textDocument/hover", at(0, 0)),
        ]);
        assert_eq!(said[1]["params"]["diagnostics"].as_array().unwrap().len(), 2);
        assert_eq!(said[2]["params"]["diagnostics"], json!([]));
        assert_eq!(said[3]["error"]["code"], INVALID_PARAMS);
    }

    #[test]
    fn a_body_that_is_not_json_is_refused_and_the_next_message_served() {
        let mut input = b"Content-Length: 3\r\n\r\n{{{".to_vec();
        framing::write(&mut input, &request(1, "initialize", json!({}))).unwrap();
        let mut server = Server::new(Vec::new());
        server.serve(&input[..]).unwrap();
        let text = String::from_utf8(server.output).unwrap();
        assert!(text.contains("-32700") && text.contains("capabilities"), "{text}");
    }
}
