//! Both relays, against a script of what client, server and time do.
//!
//! Each line of an input is one thing that happens: `+` a server starts, `-` it is lost, `c` and `s` a message of the
//! client and of the server, `t` time passes, `!` the client leaves, `x` no further start is tried.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use supervisor_core::{Generation, Monotonic};
use supervisor_ipc::lsp::{LspOptions, LspRelay};
use supervisor_ipc::mcp::{McpOptions, McpRelay};
use supervisor_ipc::relay::{Envelope, Id, Input, Loss, Output, Relay, Shape};

use supervisor_core::testing::fuzz::hash;

/// Things that happen in one script; the rest is not looked at.
const STEPS_MAX: usize = 200;
/// Outputs that may follow from one input beside those that a message in it asks for.
const OUTPUTS_MAX: usize = 2000;

pub(crate) const LSP_WORDS: &[&[u8]] = &[
    b"\n+\n",
    b"\n-\n",
    b"\nt\n",
    b"\n!\n",
    b"\nx\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"capabilities\":{}}}\n",
    b"\ns {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"capabilities\":{\"textDocumentSync\":2}}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"method\":\"initialized\",\"params\":{}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"method\":\"textDocument/didOpen\",\"params\":{\"textDocument\":{\"uri\":\"file:///a\",\"languageId\":\"x\",\"version\":1,\"text\":\"a\\n\\ud83d\\ude00b\"}}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"method\":\"textDocument/didChange\",\"params\":{\"textDocument\":{\"uri\":\"file:///a\",\"version\":2},\"contentChanges\":[{\"range\":{\"start\":{\"line\":0,\"character\":1},\"end\":{\"line\":1,\"character\":2}},\"text\":\"z\"}]}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"method\":\"textDocument/didClose\",\"params\":{\"textDocument\":{\"uri\":\"file:///a\"}}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"textDocument/hover\",\"params\":{\"textDocument\":{\"uri\":\"file:///a\"},\"position\":{\"line\":0,\"character\":0}}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"workspace/executeCommand\",\"params\":{\"command\":\"x\"}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"method\":\"$/cancelRequest\",\"params\":{\"id\":2}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"shutdown\"}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"method\":\"exit\"}\n",
    b"\ns {\"jsonrpc\":\"2.0\",\"id\":2,\"result\":null}\n",
    b"\ns {\"jsonrpc\":\"2.0\",\"id\":\"r\",\"method\":\"client/registerCapability\",\"params\":{\"registrations\":[{\"id\":\"w\",\"method\":\"workspace/didChangeWatchedFiles\"}]}}\n",
    b"\ns {\"jsonrpc\":\"2.0\",\"method\":\"$/progress\",\"params\":{\"token\":1,\"value\":{\"kind\":\"begin\"}}}\n",
    b"\ns {\"jsonrpc\":\"2.0\",\"method\":\"textDocument/publishDiagnostics\",\"params\":{\"uri\":\"file:///a\",\"diagnostics\":[]}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"id\":\"r\",\"result\":null}\n",
    b"\"id\":2",
    b"\"character\":4294967295",
    b"\"version\":-1",
    b"null",
];

pub(crate) const MCP_WORDS: &[&[u8]] = &[
    b"\n+\n",
    b"\n-\n",
    b"\nt\n",
    b"\n!\n",
    b"\nx\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{},\"clientInfo\":{\"name\":\"c\",\"version\":\"1\"}}}\n",
    b"\ns {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"tools\":{\"listChanged\":true},\"resources\":{\"subscribe\":true},\"logging\":{}},\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"}}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/list\"}\n",
    b"\ns {\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"tools\":[{\"name\":\"a\",\"inputSchema\":{},\"annotations\":{\"readOnlyHint\":true}}]}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"tools/call\",\"params\":{\"name\":\"a\",\"_meta\":{\"progressToken\":7}}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"resources/subscribe\",\"params\":{\"uri\":\"x:y\"}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"logging/setLevel\",\"params\":{\"level\":\"debug\"}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":3}}\n",
    b"\ns {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"content\":[]}}\n",
    b"\ns {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":7,\"progress\":1}}\n",
    b"\ns {\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"sampling/createMessage\",\"params\":{}}\n",
    b"\nc {\"jsonrpc\":\"2.0\",\"id\":8,\"result\":{}}\n",
    b"\nc [{\"jsonrpc\":\"2.0\",\"id\":6,\"method\":\"ping\"},{\"jsonrpc\":\"2.0\",\"method\":\"x\"}]\n",
    b"\"id\":3",
    b"null",
];

pub(crate) fn lsp(input: &[u8]) -> u64 {
    Played::new(Box::new(LspRelay::new(LspOptions::default()))).play(input)
}

pub(crate) fn mcp(input: &[u8]) -> u64 {
    Played::new(Box::new(McpRelay::new(McpOptions::default()))).play(input)
}

struct Played {
    relay: Box<dyn Relay>,
    now: Monotonic,
    generation: Generation,
    up: bool,
    there: bool,
    /// How often each id was asked by the client, less the answers.
    asked: HashMap<Id, i64>,
    /// Batches carry requests that are not looked into here.
    batches: bool,
    outcome: Vec<u8>,
}

impl Played {
    fn new(relay: Box<dyn Relay>) -> Self {
        Self {
            relay,
            now: Monotonic::ZERO + Duration::from_secs(1),
            generation: Generation::ZERO,
            up: false,
            there: true,
            asked: HashMap::new(),
            batches: false,
            outcome: Vec::new(),
        }
    }

    fn play(mut self, script: &[u8]) -> u64 {
        for line in script.split(|byte| *byte == b'\n').take(STEPS_MAX) {
            let Some((kind, rest)) = line.split_first() else { continue };
            let message = Bytes::copy_from_slice(rest.trim_ascii());
            match kind {
                b'c' if self.there => {
                    self.note_asked(&message);
                    self.tell(Input::FromClient(message));
                }
                b's' if self.up => {
                    let generation = self.generation;
                    self.tell(Input::FromServer { generation, message });
                }
                b'+' if !self.up => self.start(),
                b'-' if self.up => self.lose(Loss::EndOfOutput),
                b'x' if !self.up => {
                    self.tell(Input::RestartGaveUp { reason: "it gave up".to_owned() });
                }
                b'!' if self.there => {
                    self.there = false;
                    self.tell(Input::ClientGone);
                }
                b't' => self.pass_time(),
                _ => {}
            }
        }
        hash(&(self.outcome, self.relay.state() as u8))
    }

    fn start(&mut self) {
        self.generation = self.generation.next();
        self.up = true;
        let generation = self.generation;
        self.tell(Input::ServerStarted { generation });
    }

    fn lose(&mut self, loss: Loss) {
        self.up = false;
        let generation = self.generation;
        self.tell(Input::ServerLost { generation, loss, last_stderr: vec!["oops".to_owned()] });
    }

    fn pass_time(&mut self) {
        let due = self.relay.deadline().unwrap_or(self.now);
        self.now = due.max(self.now + Duration::from_millis(10));
        self.tell(Input::Tick);
    }

    fn note_asked(&mut self, message: &Bytes) {
        match Envelope::read(message) {
            Ok(envelope) if envelope.shape() == Shape::Request => {
                if let Some(id) = envelope.id() {
                    *self.asked.entry(id).or_default() += 1;
                }
            }
            Ok(_) => {}
            Err(_) => self.batches |= message.starts_with(b"["),
        }
    }

    fn tell(&mut self, input: Input) {
        let mut inputs = vec![input];
        let mut outputs = 0;
        while let Some(input) = inputs.pop() {
            let mut out = Vec::new();
            self.relay.handle(input, self.now, &mut out);
            outputs += out.len();
            assert!(outputs <= OUTPUTS_MAX, "{outputs} outputs of one input");
            for output in out {
                self.carry_out(output, &mut inputs);
            }
        }
    }

    fn carry_out(&mut self, output: Output, inputs: &mut Vec<Input>) {
        let generation = self.generation;
        self.outcome.push(match output {
            Output::ToClient(message) => {
                let envelope = Envelope::read(&message);
                if let Ok(envelope) = &envelope
                    && envelope.shape() == Shape::Response
                    && let Some(id) = envelope.id()
                {
                    let open = self.asked.entry(id.clone()).or_default();
                    *open -= 1;
                    assert!(self.batches || *open >= 0, "{id} is answered more often than asked");
                }
                1
            }
            Output::ToServer { generation, message } => {
                assert!(generation <= self.generation, "a message to a server that never was");
                assert!(Envelope::read(&message).is_ok() || self.batches, "{message:?}");
                2
            }
            Output::RestartServer { .. } if self.up => {
                self.up = false;
                let loss = Loss::Replaced("asked for".to_owned());
                inputs.push(Input::ServerLost { generation, loss, last_stderr: Vec::new() });
                3
            }
            Output::LookAtServer { .. } if self.up => {
                inputs.push(Input::ServerSeen { generation, busy: false, stopped: false });
                4
            }
            Output::TryAgain => 5,
            Output::Ready { .. } => 6,
            Output::EndServer => 7,
            Output::StopServer => 8,
            Output::Report(report) => {
                assert!(!report.to_string().contains('\n'));
                9
            }
            Output::Notice(_) => 10,
            Output::DeadLetter(letter) => {
                assert!(letter.about.to_string().len() < 8192 && letter.generations.len() <= 8);
                12
            }
            Output::RestartServer { .. } | Output::LookAtServer { .. } => 11,
            Output::TellWhenTaken { generation } => {
                inputs.push(Input::Taken { generation });
                12
            }
        });
        // What comes after is told apart no further.
        self.outcome.truncate(24);
    }
}
