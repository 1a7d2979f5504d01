//! The relay between a client and servers that exist only here.

mod letters;
mod model;
mod patience;
mod places;
mod scenarios;
mod window;

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use supervisor_core::{Generation, Monotonic};

use super::{LspOptions, LspRelay};
use crate::relay::{Input, Letter, Loss, Output, RecoveryReport, Relay as _};
use supervisor_core::exit::ExitStatus;

/// A relay, the time, and what it decided so far.
struct Bench {
    relay: LspRelay,
    now: Monotonic,
    generation: Generation,
    to_client: Vec<Value>,
    to_server: Vec<Value>,
    reports: Vec<RecoveryReport>,
    notices: Vec<String>,
    letters: Vec<Letter>,
    orders: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        Self {
            relay: LspRelay::new(LspOptions { process_id: Some(42), ..LspOptions::default() }),
            now: Monotonic::ZERO,
            generation: Generation::ZERO,
            to_client: Vec::new(),
            to_server: Vec::new(),
            reports: Vec::new(),
            notices: Vec::new(),
            letters: Vec::new(),
            orders: Vec::new(),
        }
    }

    /// A session whose client was greeted by a first server with these capabilities.
    fn greeted(capabilities: &Value) -> Self {
        let mut bench = Self::new();
        bench.start();
        bench.client(&json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "processId": 7, "workspaceFolders": [], "capabilities": {
                "general": { "positionEncodings": ["utf-8", "utf-16"] },
                "workspace": { "semanticTokens": { "refreshSupport": true } },
            },
        } }));
        bench.greet(1, capabilities);
        bench.client(&json!({ "jsonrpc": "2.0", "method": "initialized", "params": {} }));
        bench.pass(11 * SECOND);
        bench.answer_probes();
        bench.clear();
        bench
    }

    /// Answers a handshake.
    fn greet(&mut self, id: u64, capabilities: &Value) {
        let result = json!({ "capabilities": capabilities });
        self.server(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    }

    fn clear(&mut self) {
        self.to_client.clear();
        self.to_server.clear();
        self.orders.clear();
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.relay.handle(input, self.now, &mut out);
        let read = |bytes: &Bytes| serde_json::from_slice(bytes).unwrap();
        for output in out {
            match output {
                Output::ToClient(message) => self.to_client.push(read(&message)),
                Output::ToServer { generation, message } => {
                    assert_eq!(generation, self.generation);
                    self.to_server.push(read(&message));
                }
                Output::Report(report) => self.reports.push(*report),
                Output::DeadLetter(letter) => self.letters.push(*letter),
                Output::Notice(text) => self.notices.push(text),
                Output::RestartServer { reason } => self.orders.push(format!("restart: {reason}")),
                other => self.orders.push(format!("{other:?}")),
            }
        }
    }

    fn client(&mut self, message: &Value) {
        self.input(Input::FromClient(message.to_string().into()));
    }

    fn server(&mut self, message: &Value) {
        let generation = self.generation;
        self.input(Input::FromServer { generation, message: message.to_string().into() });
    }

    fn start(&mut self) {
        self.generation = self.generation.next();
        self.input(Input::ServerStarted { generation: self.generation });
    }

    fn lose(&mut self, loss: Loss) {
        self.input(Input::ServerLost {
            generation: self.generation,
            loss,
            last_stderr: Vec::new(),
        });
    }

    fn crash(&mut self) {
        self.lose(Loss::Exited(ExitStatus::Signal(11)));
    }

    /// Lets time pass, with every tick that is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.relay.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.input(Input::Tick);
        }
        self.now = end;
    }

    /// The one message to the server of this method, and its id.
    fn asked(&self, method: &str) -> (u64, Value) {
        let mut of = self.to_server.iter().filter(|message| message["method"] == method);
        let found = of.next().unwrap_or_else(|| panic!("no {method} in {:?}", self.to_server));
        assert!(of.next().is_none(), "{method} twice");
        (found["id"].as_u64().unwrap_or(0), found.clone())
    }

    /// Starts another server, greets with these capabilities, and answers every sign of life until it is ready.
    fn recover(&mut self, capabilities: &Value) {
        self.start();
        let (id, _) = self.asked("initialize");
        self.greet(id, capabilities);
        self.answer_probes();
    }

    fn answer_probes(&mut self) {
        let mut answered = Vec::new();
        loop {
            let probes = self.to_server.iter().filter(|message| {
                message["method"]
                    .as_str()
                    .is_some_and(|method| method.starts_with("$/ideSupervisor"))
            });
            let next = probes.map(|probe| probe["id"].clone()).find(|id| !answered.contains(id));
            let Some(id) = next else {
                return;
            };
            answered.push(id.clone());
            let error = json!({ "code": -32601, "message": "unknown" });
            self.server(&json!({ "jsonrpc": "2.0", "id": id, "error": error }));
        }
    }

    fn told(&self, method: &str) -> Vec<&Value> {
        self.to_client.iter().filter(|message| message["method"] == method).collect()
    }

    fn reply(&self, id: u64) -> &Value {
        let mut of = self.to_client.iter().filter(|m| m["id"] == id && m["method"].is_null());
        let found = of.next().unwrap_or_else(|| panic!("no answer to {id}: {:?}", self.to_client));
        assert!(of.next().is_none(), "{id} was answered twice");
        found
    }
}

fn open(uri: &str, text: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "textDocument/didOpen", "params": { "textDocument": {
        "uri": uri, "languageId": "x", "version": 1, "text": text,
    } } })
}

fn ask(id: u64, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn tell(method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}

const SECOND: Duration = Duration::from_secs(1);
