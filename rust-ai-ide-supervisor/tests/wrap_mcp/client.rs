//! An MCP host: starts `ide-supervisor wrap` the way a real one would.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use serde_json::{Value, json};

use crate::plumbing::{self, PATIENCE, Place, within};

impl Place {
    /// How often servers were told to do this, by method or tool.
    pub(crate) fn count(&self, word: &str) -> usize {
        let all = self.seen().into_iter();
        all.filter(|(_, got)| got["method"] == word || got["params"]["name"] == word).count()
    }
}

/// One session.
pub(crate) struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    inbox: Receiver<String>,
    /// What came and was not what was waited for.
    pub(crate) aside: Vec<Value>,
    next_id: i64,
    stderr: PathBuf,
}

impl Client {
    /// Starts a session with the scripted server.
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_with(place, &[])
    }

    pub(crate) fn start_with(place: &Place, options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ide-supervisor"));
        command.args(["wrap", "--protocol", "mcp"]).args(options).arg("--").args(Place::command());
        let (mut child, stdout, stderr) = plumbing::start(place, command);
        let (sender, inbox) = sync_channel(100_000);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, inbox, aside: Vec::new(), next_id: 0, stderr }
    }

    /// Starts a session and does what belongs to its beginning.
    pub(crate) fn in_session(place: &Place) -> Self {
        Self::in_session_with(place, &[])
    }

    pub(crate) fn in_session_with(place: &Place, options: &[&str]) -> Self {
        let mut client = Self::start_with(place, options);
        client.initialize();
        client.call("tools/list", json!({}));
        client
    }

    /// What was said on standard error so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        // A program that has ended reads nothing; the test sees that elsewhere.
        if let Some(stdin) = &mut self.stdin {
            drop(stdin.write_all(bytes).and_then(|()| stdin.flush()));
        }
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.raw(format!("{message}\n").as_bytes());
    }

    pub(crate) fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Asks and does not wait.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> i64 {
        self.next_id += 1;
        self.send(
            &json!({"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}),
        );
        self.next_id
    }

    pub(crate) fn tool(&mut self, name: &str) -> i64 {
        self.ask("tools/call", json!({"name": name, "arguments": {}}))
    }

    pub(crate) fn answer(&mut self, id: i64) -> Value {
        self.wait(|message| message["id"] == id && message.get("method").is_none())
            .unwrap_or_else(|| panic!("no answer to {id}; stderr: {}", self.said()))
    }

    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params);
        self.answer(id)
    }

    /// What the running server believes its session to be.
    pub(crate) fn state(&mut self) -> Value {
        let id = self.tool("state");
        self.answer(id)["result"].clone()
    }

    pub(crate) fn wait(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Option<Value> {
        if let Some(at) = self.aside.iter().position(&mut wanted) {
            return Some(self.aside.remove(at));
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let line = self.line(end)?;
            let message: Value = serde_json::from_str(&line).expect("the client gets only JSON");
            if wanted(&message) {
                return Some(message);
            }
            self.aside.push(message);
        }
    }

    fn line(&self, end: Instant) -> Option<String> {
        self.inbox.recv_timeout(end.saturating_duration_since(Instant::now())).ok()
    }

    /// The next line, byte for byte.
    pub(crate) fn next_line(&self) -> String {
        self.line(Instant::now() + PATIENCE)
            .unwrap_or_else(|| panic!("nothing came; {}", self.said()))
    }

    pub(crate) fn initialize(&mut self) -> Value {
        let answer = self.call(
            "initialize",
            json!({"protocolVersion": "2025-06-18", "capabilities": {"roots": {}}, "clientInfo": {"name": "c", "version": "1"}}),
        );
        self.notify("notifications/initialized", json!({}));
        answer
    }

    /// Waits until this was said on standard error.
    pub(crate) fn hears(&self, text: &str) {
        assert!(within(|| self.said().contains(text)), "never said: {text}; but: {}", self.said());
    }

    /// Closes the input, as a host does that leaves, and gives the exit code.
    pub(crate) fn leave(&mut self) -> Option<i32> {
        self.stdin = None;
        self.ended()
    }

    /// Waits for the end of the program and gives its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let child = &mut self.child;
        let mut status = None;
        assert!(
            within(|| {
                status = child.try_wait().unwrap();
                status.is_some()
            }),
            "it does not end"
        );
        status.and_then(|status| status.code())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
