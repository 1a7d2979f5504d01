//! An editor: starts `ide-supervisor wrap` the way a real one would, and keeps the documents it has open.

use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::plumbing::{self, PATIENCE, Place, within};

impl Place {
    /// The parameters of every message of this method that the servers saw.
    pub(crate) fn seen_of(&self, method: &str) -> Vec<(u64, Value)> {
        let all = self.seen().into_iter();
        all.filter(|(_, got)| got["method"] == method)
            .map(|(run, got)| (run, got["params"].clone()))
            .collect()
    }
}

/// One session.
pub(crate) struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    inbox: Receiver<(String, Value)>,
    last: String,
    /// What came and was not what was waited for.
    pub(crate) aside: Vec<Value>,
    next_id: i64,
    stderr: PathBuf,
}

impl Client {
    /// Starts a session with the scripted server.
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_with(place, &[], &Place::command())
    }

    pub(crate) fn start_with(place: &Place, options: &[&str], server: &[String]) -> Self {
        Self::spawn(place, Self::command(options, server))
    }

    /// The command of a wrapped server.
    pub(crate) fn command(options: &[&str], server: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ide-supervisor"));
        command.args(["wrap", "--protocol", "lsp"]).args(options).arg("--").args(server);
        command
    }

    /// Starts a session with a server of one's own choice, wrapped or not.
    pub(crate) fn spawn(place: &Place, command: Command) -> Self {
        let (mut client, stdout) = Self::spawn_deaf(place, command);
        let (sender, inbox) = sync_channel(100_000);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            while let Some(message) = read(&mut reader) {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        client.inbox = inbox;
        client
    }

    /// Starts a session whose client reads nothing, and gives what it does not read.
    pub(crate) fn spawn_deaf(place: &Place, command: Command) -> (Self, ChildStdout) {
        let (mut child, stdout, stderr) = plumbing::start(place, command);
        let stdin = child.stdin.take();
        let (_, inbox) = sync_channel(0);
        let (last, aside) = (String::new(), Vec::new());
        (Self { child, stdin, inbox, last, aside, next_id: 0, stderr }, stdout)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The servers that run now: what the process that carries the session has started.
    pub(crate) fn servers(&self) -> Vec<u32> {
        children_of(self.pid()).into_iter().flat_map(children_of).collect()
    }

    /// The message that came last, byte for byte.
    pub(crate) fn last_body(&self) -> &str {
        &self.last
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
        let body = message.to_string();
        self.raw(format!("Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    }

    pub(crate) fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// Asks and does not wait.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> i64 {
        self.next_id += 1;
        self.send(
            &json!({ "jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params }),
        );
        self.next_id
    }

    /// Waits for the answer to a question. Questions of the server are answered with null meanwhile.
    pub(crate) fn answer(&mut self, id: i64) -> Value {
        self.wait(|message| message["id"] == id && message.get("method").is_none())
            .unwrap_or_else(|| panic!("no answer to {id}; stderr: {}", self.said()))
    }

    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params);
        self.answer(id)
    }

    /// Waits for a message.
    pub(crate) fn wait(&mut self, wanted: impl FnMut(&Value) -> bool) -> Option<Value> {
        self.wait_for(PATIENCE, wanted)
    }

    pub(crate) fn wait_for(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Option<Value> {
        if let Some(at) = self.aside.iter().position(&mut wanted) {
            return Some(self.aside.remove(at));
        }
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let (body, message) = self.inbox.recv_timeout(left).ok()?;
            self.last = body;
            if message.get("method").is_some() && message.get("id").is_some() {
                let result = match message["method"].as_str() {
                    Some("workspace/configuration") => json!([{ "from": "client" }]),
                    _ => Value::Null,
                };
                self.send(&json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }));
            }
            if wanted(&message) {
                return Some(message);
            }
            self.aside.push(message);
        }
    }

    /// Takes in what has come so far.
    pub(crate) fn catch_up(&mut self) {
        drop(self.wait_for(Duration::ZERO, |_| false));
    }

    pub(crate) fn initialize(&mut self) -> Value {
        self.initialize_in("file:///w", &Value::Null)
    }

    /// Begins the session in a folder, with what this server alone understands.
    pub(crate) fn initialize_in(&mut self, folder: &str, options: &Value) -> Value {
        let answer = self.call(
            "initialize",
            json!({
                "processId": std::process::id(), "rootUri": null, "capabilities": { "general": { "positionEncodings": ["utf-8", "utf-16"] } },
                "workspaceFolders": [{ "uri": folder, "name": "w" }], "initializationOptions": options,
            }),
        );
        self.notify("initialized", json!({}));
        answer
    }

    pub(crate) fn open(&mut self, uri: &str, text: &str) {
        self.notify(
            "textDocument/didOpen",
            json!({ "textDocument": { "uri": uri, "languageId": "x", "version": 1, "text": text } }),
        );
    }

    /// Inserts a text at the beginning of a document.
    pub(crate) fn insert(&mut self, uri: &str, version: i64, text: &str) {
        let zero = json!({ "line": 0, "character": 0 });
        self.notify(
            "textDocument/didChange",
            json!({
                "textDocument": { "uri": uri, "version": version },
                "contentChanges": [{ "range": { "start": zero, "end": zero }, "text": text }],
            }),
        );
    }

    pub(crate) fn close(&mut self, uri: &str) {
        self.notify("textDocument/didClose", json!({ "textDocument": { "uri": uri } }));
    }

    pub(crate) fn hover(&mut self, uri: &str) -> i64 {
        self.ask(
            "textDocument/hover",
            json!({ "textDocument": { "uri": uri }, "position": { "line": 0, "character": 0 } }),
        )
    }

    /// What the server believes its documents to be: version and text by name.
    pub(crate) fn texts(&mut self) -> Value {
        self.call("workspace/symbol", json!({}))["result"].clone()
    }

    /// Waits until this was said on standard error.
    pub(crate) fn hears(&mut self, text: &str) {
        assert!(within(|| self.said().contains(text)), "never said: {text}; but: {}", self.said());
    }

    /// Leaves politely and gives the exit code.
    pub(crate) fn leave(mut self) -> Option<i32> {
        let answer = self.call("shutdown", Value::Null);
        assert!(answer.get("error").is_none(), "{answer}");
        self.notify("exit", Value::Null);
        self.ended()
    }

    /// Closes the connection without a word.
    pub(crate) fn hang_up(&mut self) {
        self.stdin = None;
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

/// Reads one message and what it was, byte for byte.
pub(crate) fn read(reader: &mut impl BufRead) -> Option<(String, Value)> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        length = line.strip_prefix("Content-Length: ")?.parse().ok()?;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    let message = serde_json::from_str(&body).ok()?;
    Some((body, message))
}

/// The children of a process.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let children = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")));
    let text: String = children.map(Result::unwrap_or_default).collect();
    text.split_ascii_whitespace().map(|child| child.parse().unwrap()).collect()
}
