//! Every history: edits, opens, closes, questions, crashes and late answers in any order, against strict servers.
//!
//! A failing case is printed with its steps and is kept by proptest; `PROPTEST_CASES` raises their number.

mod notebook;

use std::collections::{BTreeMap, HashMap, VecDeque};

use proptest::prelude::*;

use super::super::text::{Encoding, position};
use super::*;

#[derive(Debug, Clone)]
enum Step {
    Open(u8, String),
    Edit(u8, usize, usize, String),
    Close(u8),
    Hover(u8),
    Command,
    /// A notebook with cells of these texts.
    OpenNotebook(Vec<String>),
    /// Cells from here, so many, give way to cells of these texts.
    Cells(usize, usize, Vec<String>),
    EditCell(usize, usize, usize, String),
    CloseNotebook,
    Cancel(usize),
    /// The server takes so many messages, and what it says stays on its way.
    Serve(usize),
    /// The client's side gets so many messages.
    Deliver(usize),
    /// The server dies now; what it has not taken is lost, what it said may still come (late) or not.
    Crash(bool),
    Start,
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let text = prop::collection::vec(
        prop::sample::select(vec!["a", "bc", "\n", "\r\n", "\r", "é", "\u{1F600}", "字"]),
        0..8,
    )
    .prop_map(|parts| parts.concat());
    let texts = prop::collection::vec(text.clone(), 0..4);
    let step = prop_oneof![
        1 => texts.clone().prop_map(Step::OpenNotebook),
        2 => (0..5_usize, 0..3_usize, texts)
            .prop_map(|(start, count, texts)| Step::Cells(start, count, texts)),
        3 => (any::<usize>(), any::<usize>(), any::<usize>(), text.clone())
            .prop_map(|(cell, from, to, text)| Step::EditCell(cell, from, to, text)),
        1 => Just(Step::CloseNotebook),
        2 => (0..4_u8, text.clone()).prop_map(|(document, text)| Step::Open(document, text)),
        6 => (0..4_u8, any::<usize>(), any::<usize>(), text)
            .prop_map(|(document, from, to, text)| Step::Edit(document, from, to, text)),
        1 => (0..4_u8).prop_map(Step::Close),
        3 => (0..4_u8).prop_map(Step::Hover),
        1 => Just(Step::Command),
        1 => any::<usize>().prop_map(Step::Cancel),
        6 => (0..6_usize).prop_map(Step::Serve),
        6 => (0..6_usize).prop_map(Step::Deliver),
        2 => any::<bool>().prop_map(Step::Crash),
        3 => Just(Step::Start),
        1 => (0..3000_u16).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

/// A server that forgives nothing.
#[derive(Debug, Default)]
struct Strict {
    initialized: bool,
    greeted: bool,
    documents: BTreeMap<String, (i64, String)>,
    notebook: Option<Cells>,
}

/// A notebook: its version, and the names of its cells in order.
type Cells = (i64, Vec<String>);

impl Strict {
    fn open(&mut self, document: &Value) {
        let uri = document["uri"].as_str().unwrap().to_owned();
        let text = document["text"].as_str().unwrap().to_owned();
        let value = (document["version"].as_i64().unwrap(), text);
        assert!(self.documents.insert(uri, value).is_none(), "opened twice");
    }

    fn close(&mut self, document: &Value) {
        let known = self.documents.remove(document["uri"].as_str().unwrap());
        assert!(known.is_some(), "closed and not open: {document}");
    }
}

#[derive(Debug, Default)]
struct World {
    relay: Option<LspRelay>,
    encoding: Encoding,
    now: Monotonic,
    generation: Generation,
    up: bool,
    server: Strict,
    to_server: VecDeque<Value>,
    /// The relay wants to know when the server has taken all of it.
    telling: bool,
    from_server: VecDeque<(Generation, Value)>,
    ready: bool,
    documents: BTreeMap<String, (i64, String)>,
    notebook: Option<Cells>,
    cells: u64,
    versions: HashMap<String, i64>,
    /// Requests of the client and how often each was answered.
    asked: BTreeMap<u64, u32>,
    /// How often each command reached a server.
    commands: HashMap<u64, u32>,
    next: u64,
}

impl World {
    fn new(encoding: Encoding, restore_bytes: usize) -> Self {
        let options = LspOptions { restore_bytes, ..LspOptions::default() };
        let relay = Some(LspRelay::new(options));
        let mut world = Self { relay, encoding, ..Self::default() };
        world.start();
        world.ask("initialize", &json!({ "capabilities": {} }));
        world.drain();
        world.client(&tell("initialized", &json!({})));
        world
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.relay.as_mut().unwrap().handle(input, self.now, &mut out);
        for output in out {
            match output {
                Output::ToClient(message) => {
                    let message: Value = serde_json::from_slice(&message).unwrap();
                    if message["method"].is_null() {
                        self.answered(&message);
                    }
                }
                Output::ToServer { generation, message } => {
                    assert_eq!(generation, self.generation, "written to another generation");
                    assert!(self.up, "written to nobody");
                    self.to_server.push_back(serde_json::from_slice(&message).unwrap());
                }
                Output::Ready { generation } => self.ready = generation == self.generation,
                Output::TellWhenTaken { generation } => {
                    assert_eq!(generation, self.generation, "asked about another generation");
                    self.telling = true;
                }
                Output::RestartServer { reason } => panic!("restarted: {reason}"),
                _ => {}
            }
        }
    }

    fn answered(&mut self, message: &Value) {
        let id = message["id"].as_u64().unwrap();
        let count = self.asked.get_mut(&id).unwrap_or_else(|| panic!("nobody asked {message}"));
        *count += 1;
        assert_eq!(*count, 1, "answered twice: {message}");
        if let Some(by) = message["result"]["generation"].as_u64() {
            assert_eq!(by, self.generation.get(), "an answer crossed generations");
        }
    }

    fn client(&mut self, message: &Value) {
        self.input(Input::FromClient(message.to_string().into()));
    }

    fn ask(&mut self, method: &str, params: &Value) -> u64 {
        self.next += 1;
        self.asked.insert(self.next, 0);
        self.client(&ask(self.next, method, params));
        self.next
    }

    fn start(&mut self) {
        if self.up {
            return;
        }
        self.generation = self.generation.next();
        (self.up, self.ready, self.server) = (true, false, Strict::default());
        self.input(Input::ServerStarted { generation: self.generation });
    }

    fn crash(&mut self, late: bool) {
        if !self.up {
            return;
        }
        self.to_server.clear();
        if !late {
            self.from_server.clear();
        }
        (self.up, self.ready, self.telling) = (false, false, false);
        let loss = Loss::Exited(ExitStatus::Signal(9));
        self.input(Input::ServerLost {
            generation: self.generation,
            loss,
            last_stderr: Vec::new(),
        });
    }

    fn say(&mut self, message: Value) {
        self.from_server.push_back((self.generation, message));
    }

    /// The server takes one message.
    fn serve(&mut self) {
        self.take();
        if self.to_server.is_empty() && std::mem::take(&mut self.telling) {
            self.input(Input::Taken { generation: self.generation });
        }
    }

    fn take(&mut self) {
        let Some(message) = self.to_server.pop_front().filter(|_| self.up) else {
            return;
        };
        let (method, params) =
            (message["method"].as_str().unwrap_or("").to_owned(), &message["params"]);
        let server = &mut self.server;
        assert!(server.greeted || method == "initialize", "{method} before the handshake");
        assert!(
            server.initialized || ["initialize", "initialized"].contains(&method.as_str()),
            "{method} too early"
        );
        let uri = || params["textDocument"]["uri"].as_str().unwrap().to_owned();
        match method.as_str() {
            "initialize" => {
                assert!(!std::mem::replace(&mut server.greeted, true), "greeted twice");
                let result = json!({ "capabilities": {
                    "textDocumentSync": 2, "notebookDocumentSync": {}, "positionEncoding": self.encoding.name(),
                } });
                self.say(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }));
            }
            "initialized" => assert!(!std::mem::replace(&mut server.initialized, true), "twice"),
            "textDocument/didOpen" => {
                let document = &params["textDocument"];
                let value = (
                    document["version"].as_i64().unwrap(),
                    document["text"].as_str().unwrap().to_owned(),
                );
                assert!(server.documents.insert(uri(), value).is_none(), "opened twice");
            }
            "textDocument/didChange" => {
                let (version, text) =
                    server.documents.get_mut(&uri()).expect("changed and not open");
                let next = params["textDocument"]["version"].as_i64().unwrap();
                assert!(next > *version, "{next} after {version}");
                *version = next;
                let changes = serde_json::from_value(params["contentChanges"].clone()).unwrap();
                super::super::text::apply(text, changes, self.encoding);
            }
            "textDocument/didClose" => {
                assert!(server.documents.remove(&uri()).is_some(), "closed and not open");
            }
            method if method.starts_with("notebookDocument/") => {
                server.take_notebook(method, params, self.encoding);
            }
            "workspace/executeCommand" => {
                let count = self.commands.entry(params["number"].as_u64().unwrap()).or_default();
                *count += 1;
                assert_eq!(*count, 1, "carried out twice");
                self.reply(&message);
            }
            _ if message["id"].is_null() => {}
            _ => self.reply(&message),
        }
    }

    fn reply(&mut self, message: &Value) {
        let result = json!({ "generation": self.generation.get() });
        self.say(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }));
    }

    fn deliver(&mut self) {
        if let Some((generation, message)) = self.from_server.pop_front() {
            self.input(Input::FromServer { generation, message: message.to_string().into() });
        }
    }

    fn drain(&mut self) {
        while !self.to_server.is_empty() || !self.from_server.is_empty() || self.telling {
            self.serve();
            self.deliver();
        }
    }

    fn uri(document: u8) -> String {
        format!("file:///{document}.x")
    }

    fn edit(&mut self, document: u8, from: usize, to: usize, new: &str) {
        let uri = Self::uri(document);
        if let Some((version, range)) = self.change(&uri, from, to, new) {
            let params = json!({
                "textDocument": { "uri": uri, "version": version },
                "contentChanges": [{ "range": range, "text": new }],
            });
            self.client(&tell("textDocument/didChange", &params));
        }
    }

    /// Changes the client's text and says how.
    fn change(&mut self, uri: &str, from: usize, to: usize, new: &str) -> Option<(i64, Value)> {
        let (version, text) = self.documents.get_mut(uri)?;
        let places: Vec<_> = (0..=text.len())
            .filter(|at| text.is_char_boundary(*at))
            // Between the two bytes of a line end there is no position.
            .filter(|at| !(text[..*at].ends_with('\r') && text[*at..].starts_with('\n')))
            .collect();
        let (from, to) = (places[from % places.len()], places[to % places.len()]);
        let (from, to) = (from.min(to), from.max(to));
        let place = |at| {
            let found = position(text, at, self.encoding);
            json!({ "line": found.line, "character": found.character })
        };
        let range = json!({ "start": place(from), "end": place(to) });
        text.replace_range(from..to, new);
        *version += 1;
        self.versions.insert(uri.to_owned(), *version);
        Some((*version, range))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Open(document, text) => {
                let uri = Self::uri(document);
                if self.documents.contains_key(&uri) {
                    return;
                }
                let version = self.versions.get(&uri).copied().unwrap_or(0) + 1;
                self.documents.insert(uri.clone(), (version, text.clone()));
                let params = json!({ "textDocument": { "uri": uri, "languageId": "x", "version": version, "text": text } });
                self.client(&tell("textDocument/didOpen", &params));
            }
            Step::Edit(document, from, to, text) => self.edit(document, from, to, &text),
            Step::Close(document) => {
                let uri = Self::uri(document);
                if self.documents.remove(&uri).is_some() {
                    self.client(&tell(
                        "textDocument/didClose",
                        &json!({ "textDocument": { "uri": uri } }),
                    ));
                }
            }
            Step::Hover(document) => {
                let uri = Self::uri(document);
                if self.documents.contains_key(&uri) {
                    let zero = json!({ "line": 0, "character": 0 });
                    self.ask(
                        "textDocument/hover",
                        &json!({ "textDocument": { "uri": uri }, "position": zero }),
                    );
                }
            }
            step @ (Step::OpenNotebook(_)
            | Step::Cells(..)
            | Step::EditCell(..)
            | Step::CloseNotebook) => self.step_notebook(step),
            Step::Command => {
                let number = self.next;
                self.ask("workspace/executeCommand", &json!({ "number": number }));
            }
            Step::Cancel(which) => {
                let ids: Vec<_> =
                    self.asked.iter().filter(|(_, n)| **n == 0).map(|(id, _)| *id).collect();
                if !ids.is_empty() {
                    let id = ids[which % ids.len()];
                    self.client(&tell("$/cancelRequest", &json!({ "id": id })));
                }
            }
            Step::Serve(count) => (0..count).for_each(|_| self.serve()),
            Step::Deliver(count) => (0..count).for_each(|_| self.deliver()),
            Step::Crash(late) => self.crash(late),
            Step::Start => self.start(),
            Step::Wait(millis) => {
                self.now = self.now + Duration::from_millis(millis.into());
                if self.relay.as_ref().unwrap().deadline().is_some_and(|due| due <= self.now) {
                    self.input(Input::Tick);
                }
            }
        }
    }

    /// Lets everything come to rest and checks what must be true then.
    fn settle(&mut self) {
        self.start();
        self.drain();
        assert!(self.ready, "at rest and not ready");
        assert_eq!(self.server.documents, self.documents, "the server has other texts");
        assert_eq!(self.server.notebook, self.notebook, "the server has another notebook");
        let open: Vec<_> = self.asked.iter().filter(|(_, count)| **count != 1).collect();
        assert!(open.is_empty(), "not answered: {open:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400), max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_server_has_the_clients_texts_whenever_it_is_ready_and_quiet_and_every_request_has_one_answer(
        encoding in prop::sample::select(vec![Encoding::Utf8, Encoding::Utf16, Encoding::Utf32]),
        // One document at a time, a few, or all at once.
        restore_bytes in prop::sample::select(vec![1, 300, 1 << 20]),
        steps in steps(),
    ) {
        let mut world = World::new(encoding, restore_bytes);
        for step in steps {
            world.step(step);
        }
        world.settle();
    }
}
