//! A scripted language server on an independent implementation of the protocol's framing and messages.
//!
//! It is this test program itself, started again: `sh` moves the connection to descriptor 3, because the test harness
//! writes to standard output. What it does is a JSON script, one entry for each start, the last one for all that follow.
//! It writes every message it gets to a file, so that tests assert on what the *server* saw.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lsp_server::{Message, Notification, Request, RequestId, Response};
use serde::Deserialize;
use serde_json::{Value, json};

/// Names the directory of the script; without it this is no server.
pub(crate) const DIRECTORY: &str = "FAKE_LANGUAGE_SERVER";

/// What one start of the server does besides serving.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Script {
    /// Dies before it answers this method (or on this notification).
    crash_on: Option<String>,
    /// Dies after it answered this method.
    crash_after: Option<String>,
    /// Dies on the n-th message.
    crash_on_nth: Option<u64>,
    /// Dies when a text it is given contains this.
    crash_on_text: Option<String>,
    /// `exit` (default), `abort` or `kill`.
    die_by: String,
    /// Never answers this method.
    mute_on: Option<String>,
    /// Answers nothing any more from this method on.
    mute_from: Option<String>,
    /// Answers this method only so many milliseconds later.
    late_on: Option<String>,
    late_ms: u64,
    /// Burns a processor for so long before it answers this method.
    busy_on: Option<String>,
    busy_ms: u64,
    ignore_shutdown: bool,
    /// Starts a process that holds the output open.
    grandchild: bool,
    /// Closes its output on this method and lives on.
    close_output_on: Option<String>,
    /// Writes a line that is no frame before it answers this method.
    junk_on: Option<String>,
    /// Announces more bytes than it writes on this method.
    wrong_length_on: Option<String>,
    /// Announces a huge length on this method.
    huge_length_on: Option<String>,
    /// Registers these after `initialized`.
    register: Option<Value>,
    /// Asks for configuration and waits for it before it answers this method.
    ask_configuration_in: Option<String>,
    encoding: Option<String>,
    /// What it answers to a request for a definition.
    definition: Value,
    /// Other capabilities.
    capabilities: Value,
    /// Begins a progress on this method that never ends.
    progress_on: Option<String>,
    /// Talks without end from this method on.
    flood_on: Option<String>,
    /// Stops itself with SIGSTOP on this method.
    stop_on: Option<String>,
}

struct Server {
    script: Script,
    log: File,
    run: usize,
    out: BufWriter<File>,
    input: BufReader<std::io::Stdin>,
    documents: HashMap<String, (i64, String)>,
    got: u64,
    muted: bool,
    questions: i32,
}

/// Serves until it is told to leave, if this process was started as a server.
pub(crate) fn serve() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let run = count_run(&directory);
    let scripts: Vec<Script> =
        serde_json::from_slice(&std::fs::read(directory.join("script.json")).unwrap()).unwrap();
    let script = scripts.get(run).or(scripts.last()).cloned().unwrap_or_default();
    let log =
        OpenOptions::new().create(true).append(true).open(directory.join("log.jsonl")).unwrap();
    if script.grandchild {
        let output = OpenOptions::new().write(true).open("/proc/self/fd/3").unwrap();
        drop(std::process::Command::new("sleep").arg("1000").stdout(output).spawn().unwrap());
    }
    let out = OpenOptions::new().write(true).open("/proc/self/fd/3").unwrap();
    let mut server = Server {
        script,
        log,
        run,
        out: BufWriter::new(out),
        input: BufReader::new(std::io::stdin()),
        documents: HashMap::new(),
        got: 0,
        muted: false,
        questions: 0,
    };
    server.note(&json!({ "started": std::process::id() }));
    while let Some(message) = Message::read(&mut server.input).unwrap() {
        server.take(message);
    }
    leave(7);
}

/// Ends this process as a server does, whatever the test harness would like to say.
#[expect(
    clippy::disallowed_methods,
    reason = "this process is a server that dies; nothing is to be tidied up"
)]
fn leave(code: i32) -> ! {
    std::process::exit(code)
}

fn count_run(directory: &Path) -> usize {
    let mut file =
        OpenOptions::new().create(true).append(true).open(directory.join("runs")).unwrap();
    file.write_all(b"x").unwrap();
    usize::try_from(file.metadata().unwrap().len()).unwrap() - 1
}

impl Server {
    fn note(&mut self, what: &Value) {
        let line = json!({ "run": self.run, "got": what }).to_string() + "\n";
        self.log.write_all(line.as_bytes()).unwrap();
    }

    fn send(&mut self, message: impl Into<Message>) {
        message.into().write(&mut self.out).unwrap();
        self.out.flush().unwrap();
    }

    fn raw(&mut self, text: &str) {
        self.out.write_all(text.as_bytes()).unwrap();
        self.out.flush().unwrap();
    }

    fn die(&self) -> ! {
        match self.script.die_by.as_str() {
            "abort" => std::process::abort(),
            "kill" => {
                let me = rustix::process::getpid();
                _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
                std::process::abort()
            }
            _ => leave(70),
        }
    }

    fn take(&mut self, message: Message) {
        let mut shown = serde_json::to_value(&message).unwrap();
        if shown["params"]["filling"].is_string() {
            shown["params"] = Value::Null;
        }
        self.note(&shown);
        self.got += 1;
        if self.script.crash_on_nth == Some(self.got) {
            self.die();
        }
        match message {
            Message::Request(request) => self.request(request),
            Message::Notification(notification) => self.notification(notification),
            Message::Response(_) => {}
        }
    }

    fn request(&mut self, request: Request) {
        let method = request.method.clone();
        let is = |wanted: &Option<String>| wanted.as_deref() == Some(method.as_str());
        if is(&self.script.crash_on) {
            self.die();
        }
        self.muted |= is(&self.script.mute_from);
        if is(&self.script.stop_on) {
            let me = rustix::process::getpid();
            _ = rustix::process::kill_process(me, rustix::process::Signal::STOP);
            // poll: the stop comes a moment after its signal, and nothing is to be answered in between.
            crate::plumbing::pause(100);
        }
        if self.muted || is(&self.script.mute_on) {
            return;
        }
        if is(&self.script.late_on) {
            crate::plumbing::pause(self.script.late_ms);
        }
        if is(&self.script.busy_on) {
            let end = std::time::Instant::now() + Duration::from_millis(self.script.busy_ms);
            while std::time::Instant::now() < end {
                std::hint::spin_loop();
            }
        }
        if is(&self.script.close_output_on) {
            // Another program in this process: it has neither descriptor.
            let error =
                std::process::Command::new("sh").args(["-c", "exec sleep 1000 3>&-"]).exec();
            panic!("{error}");
        }
        if is(&self.script.junk_on) {
            self.raw("a line that is no frame\n");
        }
        if is(&self.script.wrong_length_on) {
            self.raw("Content-Length: 5000\r\n\r\n{\"jsonrpc\":\"2.0\"}");
            return;
        }
        if is(&self.script.huge_length_on) {
            self.raw("Content-Length: 9999999999\r\n\r\n{}");
            return;
        }
        if is(&self.script.progress_on) {
            let value = json!({ "token": "t1", "value": { "kind": "begin", "title": "indexing" } });
            self.send(Notification::new("$/progress".into(), value));
        }
        if is(&self.script.ask_configuration_in) {
            self.ask("workspace/configuration", json!({ "items": [{}] }));
        }
        if is(&self.script.flood_on) {
            let line = json!({ "type": 4, "message": "x".repeat(60_000) });
            loop {
                self.send(Notification::new("window/logMessage".into(), line.clone()));
            }
        }
        self.answer(request);
        if is(&self.script.crash_after) {
            self.die();
        }
        if method == "shutdown" && !self.script.ignore_shutdown {
            self.note(&json!("shut down"));
        }
    }

    /// Asks the client something and takes whatever comes until its answer is there.
    fn ask(&mut self, method: &str, params: Value) {
        self.questions += 1;
        let id = RequestId::from(self.questions);
        self.send(Request::new(id.clone(), method.into(), params));
        while let Some(message) = Message::read(&mut self.input).unwrap() {
            let done = matches!(&message, Message::Response(response) if response.id == id);
            self.take(message);
            if done {
                return;
            }
        }
    }

    fn answer(&mut self, request: Request) {
        let result = match request.method.as_str() {
            "initialize" => {
                let mut capabilities = json!({ "textDocumentSync": 2, "hoverProvider": true });
                if let Some(more) = self.script.capabilities.as_object() {
                    capabilities.as_object_mut().unwrap().extend(more.clone());
                }
                if let Some(encoding) = &self.script.encoding {
                    capabilities["positionEncoding"] = encoding.clone().into();
                }
                json!({ "capabilities": capabilities, "run": self.run })
            }
            "shutdown" if self.script.ignore_shutdown => return,
            "workspace/symbol" => {
                let texts: serde_json::Map<_, _> = self
                    .documents
                    .iter()
                    .map(|(uri, (version, text))| (uri.clone(), json!([version, text])))
                    .collect();
                Value::Object(texts)
            }
            "textDocument/hover" => json!({ "contents": format!("run {}", self.run) }),
            "workspace/executeCommand" => json!("done"),
            "textDocument/definition" => self.script.definition.clone(),
            method if method.starts_with("$/") || method == "fake/unknown" => {
                return self.send(Response::new_err(request.id, -32601, "unknown".into()));
            }
            _ => Value::Null,
        };
        self.send(Response::new_ok(request.id, result));
    }

    fn notification(&mut self, notification: Notification) {
        let Notification { method, params } = notification;
        if self.script.crash_on.as_ref() == Some(&method) {
            self.die();
        }
        match method.as_str() {
            "initialized" => {
                if let Some(registrations) = self.script.register.clone() {
                    self.ask(
                        "client/registerCapability",
                        json!({ "registrations": registrations }),
                    );
                }
            }
            "exit" => leave(if self.script.ignore_shutdown { 9 } else { 0 }),
            "textDocument/didOpen" => self.open(&params["textDocument"]),
            "textDocument/didChange" => {
                self.change(&params["textDocument"], &params["contentChanges"]);
            }
            "notebookDocument/didOpen" => {
                let texts = params["cellTextDocuments"].as_array().unwrap();
                texts.iter().for_each(|text| self.open(text));
            }
            "notebookDocument/didChange" => {
                let cells = &params["change"]["cells"];
                for text in cells["structure"]["didOpen"].as_array().into_iter().flatten() {
                    self.open(text);
                }
                for content in cells["textContent"].as_array().into_iter().flatten() {
                    self.change(&content["document"], &content["changes"]);
                }
            }
            "textDocument/didClose" => {
                let uri = params["textDocument"]["uri"].as_str().unwrap();
                assert!(self.documents.remove(uri).is_some(), "closed and not open");
                let none = json!({ "uri": uri, "diagnostics": [] });
                self.send(Notification::new("textDocument/publishDiagnostics".into(), none));
            }
            _ => {}
        }
    }

    fn open(&mut self, document: &Value) {
        let uri = document["uri"].as_str().unwrap().to_owned();
        let text = document["text"].as_str().unwrap().to_owned();
        let version = document["version"].as_i64().unwrap();
        let before = self.documents.insert(uri.clone(), (version, text));
        assert!(before.is_none(), "opened twice: {uri}");
        self.look(&uri);
    }

    fn change(&mut self, document: &Value, changes: &Value) {
        let uri = document["uri"].as_str().unwrap().to_owned();
        let (version, text) = self.documents.get_mut(&uri).expect("changed and not open");
        let next = document["version"].as_i64().unwrap();
        assert!(next > *version, "version {next} after {version}");
        *version = next;
        for change in changes.as_array().unwrap() {
            apply(text, change, self.script.encoding.as_deref());
        }
        self.look(&uri);
    }

    /// Diagnoses a document: one finding whose message is what the server believes the text to be.
    fn look(&mut self, uri: &str) {
        let (version, text) = &self.documents[uri];
        if self.script.crash_on_text.as_ref().is_some_and(|poison| text.contains(poison)) {
            self.die();
        }
        let (version, text) = (*version, text.clone());
        let zero = json!({ "line": 0, "character": 0 });
        let finding = json!({ "range": { "start": zero, "end": zero }, "message": text });
        let findings = json!({ "uri": uri, "version": version, "diagnostics": [finding] });
        self.send(Notification::new("textDocument/publishDiagnostics".into(), findings));
    }
}

/// Applies one change, character by character: another way than the one that is tested.
fn apply(text: &mut String, change: &Value, encoding: Option<&str>) {
    let new = change["text"].as_str().unwrap();
    if change["range"].is_null() {
        new.clone_into(text);
        return;
    }
    let place = |position: &Value| {
        let (line, column) =
            (position["line"].as_u64().unwrap(), position["character"].as_u64().unwrap());
        let (mut at_line, mut at_column) = (0, 0);
        let mut characters = text.char_indices().peekable();
        while let Some((index, character)) = characters.next() {
            if (at_line, at_column) >= (line, column) {
                return index;
            }
            let ends = character == '\n'
                || (character == '\r' && characters.peek().is_none_or(|(_, next)| *next != '\n'));
            if ends && at_line == line {
                return index;
            }
            if character == '\r' && at_line == line {
                return index;
            }
            if ends {
                (at_line, at_column) = (at_line + 1, 0);
            } else {
                at_column += match encoding {
                    Some("utf-8") => character.len_utf8() as u64,
                    Some("utf-32") => 1,
                    _ => character.len_utf16() as u64,
                };
            }
        }
        text.len()
    };
    let (start, end) = (place(&change["range"]["start"]), place(&change["range"]["end"]));
    text.replace_range(start..end, new);
}
