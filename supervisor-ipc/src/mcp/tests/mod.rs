//! The relay driven by hand: every test says what both sides write and looks at what they are given.

mod calls;
mod hang;
mod hostile;
mod model;
mod modern;
mod passing;
mod questions;
mod restoring;

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use supervisor_core::exit::ExitStatus;
use supervisor_core::{Generation, Monotonic};

use super::{McpOptions, McpRelay};
use crate::relay::{Input, Letter, Loss, Output, RecoveryReport, Relay};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{"listChanged":true},"sampling":{}},"clientInfo":{"name":"c","version":"1"},"extra":[1,2]}}"#;
const GREETED: &str = r#"{"protocolVersion":"2025-06-18","capabilities":{"logging":{},"prompts":{},"resources":{"subscribe":true,"listChanged":true},"tools":{"listChanged":true}},"serverInfo":{"name":"s","version":"1"}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const TOOLS: &str = r#"{"tools":[{"name":"look","annotations":{"readOnlyHint":true}},{"name":"set","annotations":{"idempotentHint":true}},{"name":"add"}]}"#;

/// A client and a server who do only what a test says.
struct Desk {
    relay: McpRelay,
    now: Monotonic,
    generation: Generation,
    to_client: Vec<String>,
    to_server: Vec<String>,
    reports: Vec<RecoveryReport>,
    notices: Vec<String>,
    letters: Vec<Letter>,
    /// Everything else, by name.
    orders: Vec<String>,
}

impl Desk {
    fn new() -> Self {
        Self::with(McpOptions::default())
    }

    fn with(options: McpOptions) -> Self {
        Self {
            relay: McpRelay::new(options),
            now: Monotonic::from_origin(Duration::from_secs(1000)),
            generation: Generation::ZERO,
            to_client: Vec::new(),
            to_server: Vec::new(),
            reports: Vec::new(),
            notices: Vec::new(),
            letters: Vec::new(),
            orders: Vec::new(),
        }
    }

    /// A session in which everything was said that belongs to a beginning, and the tools were read.
    fn in_session() -> Self {
        Self::in_session_with(McpOptions::default())
    }

    fn in_session_with(options: McpOptions) -> Self {
        let mut desk = Self::with(options);
        desk.started();
        desk.client(INITIALIZE);
        desk.answer(0, GREETED);
        desk.client(INITIALIZED);
        desk.client(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        desk.answer(1, TOOLS);
        desk.clear();
        desk
    }

    fn clear(&mut self) {
        self.to_client.clear();
        self.to_server.clear();
        self.orders.clear();
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.relay.handle(input, self.now, &mut out);
        for output in out {
            let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
            match output {
                Output::ToClient(message) => self.to_client.push(text(message)),
                Output::ToServer { generation, message } => {
                    assert_eq!(generation, self.generation, "{message:?}");
                    self.to_server.push(text(message));
                }
                Output::Report(report) => self.reports.push(*report),
                Output::Notice(text) => self.notices.push(text),
                Output::RestartServer { reason } => self.orders.push(format!("restart: {reason}")),
                Output::TryAgain => self.orders.push("try again".to_owned()),
                Output::LookAtServer { .. } => self.orders.push("look".to_owned()),
                Output::Ready { .. } => self.orders.push("ready".to_owned()),
                Output::EndServer => self.orders.push("end".to_owned()),
                Output::DeadLetter(letter) => self.letters.push(*letter),
                Output::StopServer => self.orders.push("stop".to_owned()),
                Output::TellWhenTaken { .. } => panic!("nothing here waits for that"),
            }
        }
    }

    fn client(&mut self, message: impl AsRef<[u8]>) {
        self.input(Input::FromClient(Bytes::copy_from_slice(message.as_ref())));
    }

    fn server(&mut self, message: impl AsRef<[u8]>) {
        let message = Bytes::copy_from_slice(message.as_ref());
        self.input(Input::FromServer { generation: self.generation, message });
    }

    /// The server answers a request it knows by `id`.
    fn answer(&mut self, id: impl Into<Value>, result: &str) {
        let id = id.into();
        self.server(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#));
    }

    fn started(&mut self) {
        self.generation = self.generation.next();
        self.input(Input::ServerStarted { generation: self.generation });
    }

    fn lost(&mut self) {
        self.lost_by(Loss::Exited(ExitStatus::Signal(11)));
    }

    /// Somebody kills the server.
    fn killed(&mut self) {
        self.lost_by(Loss::Exited(ExitStatus::Signal(9)));
    }

    fn lost_by(&mut self, loss: Loss) {
        let input =
            Input::ServerLost { generation: self.generation, loss, last_stderr: Vec::new() };
        self.input(input);
    }

    /// A new server runs and answers everything it is asked to restore the session, with the same lists.
    fn recover(&mut self) {
        self.started();
        self.restore_with(TOOLS);
    }

    fn restore_with(&mut self, tools: &str) {
        let mut steps = 0;
        while self.relay.state() == supervisor_core::message::ChannelState::Syncing {
            let mut asked = self.asked();
            asked.retain(|request| request["id"].as_str().is_some_and(|id| id.starts_with("ide-")));
            assert!(!asked.is_empty(), "nothing was asked that leads out of here");
            self.to_server.clear();
            for request in asked {
                let result = match request["method"].as_str().unwrap_or_default() {
                    "initialize" => GREETED,
                    "tools/list" => tools,
                    "resources/list" => r#"{"resources":[]}"#,
                    _ => "{}",
                };
                self.answer(request["id"].clone(), result);
            }
            steps += 1;
            assert!(steps < 100);
        }
    }

    /// The requests the server was given and has not been seen to answer.
    fn asked(&self) -> Vec<Value> {
        let all = self.to_server.iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
        all.filter(|message| message.get("id").is_some() && message.get("method").is_some())
            .collect()
    }

    fn methods(&self) -> Vec<String> {
        let all = self.to_server.iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
        all.filter_map(|message| message["method"].as_str().map(str::to_owned)).collect()
    }

    /// What the client was told, as values.
    fn told(&self) -> Vec<Value> {
        self.to_client.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    /// Lets time pass, with a tick whenever one is wanted.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..10_000 {
            match self.relay.deadline() {
                Some(due) if due <= end => {
                    self.now = self.now.max(due);
                    self.input(Input::Tick);
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the relay asks for ticks without end");
    }

    /// Lets time pass in which nobody was awake.
    fn sleep(&mut self, time: Duration) {
        self.now = self.now + time;
        self.input(Input::Tick);
    }
}

fn call(id: u64, tool: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {}}})
        .to_string()
}

fn read(id: u64) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "resources/read", "params": {"uri": "a:b"}})
        .to_string()
}

const SECOND: Duration = Duration::from_secs(1);
