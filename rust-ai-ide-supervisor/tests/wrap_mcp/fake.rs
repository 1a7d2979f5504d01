//! A scripted MCP server.
//!
//! It is this test program itself, started again: `sh` moves the connection to descriptor 3, because the test harness
//! writes to standard output. What it does is a JSON script, one entry for each start, the last one for all that follow.
//! It writes every message it gets to a file, so that tests assert on what the *server* saw.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::plumbing::pause;

/// Names the directory of the script; without it this is no server.
pub(crate) const DIRECTORY: &str = "FAKE_MCP_SERVER";

/// What one start of the server does besides serving.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Script {
    /// Dies before it answers this method, or this tool.
    crash_on: Option<String>,
    /// Dies after it answered this method, or this tool.
    crash_after: Option<String>,
    /// Never answers this method, or this tool.
    mute_on: Option<String>,
    /// Answers nothing any more from this method on.
    mute_from: Option<String>,
    /// Burns a processor for so long before it answers this method, or this tool.
    busy_on: Option<String>,
    busy_ms: u64,
    /// Answers this method only so many milliseconds later.
    late_on: Option<String>,
    late_ms: u64,
    /// Stops itself with SIGSTOP on this method.
    stop_on: Option<String>,
    /// Writes these lines before it answers this method.
    lines_on: Option<String>,
    lines: Vec<String>,
    /// Writes a line of so many bytes before it answers this method.
    huge_on: Option<String>,
    huge: usize,
    /// Asks this of the client when this tool is called, and answers with what it got.
    ask: Option<String>,
    tools: Option<Value>,
    revision: Option<String>,
    /// Closes its output on this method and lives on.
    close_output_on: Option<String>,
    /// Starts a process that holds the output open.
    grandchild: bool,
}

struct Server {
    script: Script,
    run: usize,
    log: File,
    out: File,
    level: Value,
    subscriptions: BTreeSet<String>,
    initialized: bool,
    asked: Option<Value>,
    muted: bool,
}

/// Serves until its input ends, if this process was started as a server.
pub(crate) fn serve() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let mut log = append(&directory.join("log.jsonl"));
    let starts = std::fs::read_to_string(directory.join("log.jsonl")).unwrap_or_default();
    let run = starts.lines().filter(|line| line.contains("\"started\"")).count();
    let scripts = std::fs::read(directory.join("script.json")).unwrap();
    let scripts: Vec<Script> = serde_json::from_slice(&scripts).unwrap();
    let script = scripts.get(run).or(scripts.last()).cloned().unwrap_or_default();
    writeln!(log, "{}", json!({"run": run, "got": {"started": std::process::id()}})).unwrap();
    let mut grandchild = None;
    if script.grandchild {
        // It inherits descriptor 3.
        let mut command = std::process::Command::new("sleep");
        let child = command.arg("600").stdin(std::process::Stdio::null()).spawn().unwrap();
        writeln!(log, "{}", json!({"run": run, "got": {"grandchild": child.id()}})).unwrap();
        // Nobody waits for it: it outlives this process, if it is let.
        grandchild = Some(child);
    }
    let out = OpenOptions::new().write(true).open("/proc/self/fd/3").unwrap();
    let mut server = Server {
        script,
        run,
        log,
        out,
        level: Value::Null,
        subscriptions: BTreeSet::new(),
        initialized: false,
        asked: None,
        muted: false,
    };
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(Value::Array(messages)) => messages.iter().for_each(|message| server.take(message)),
            Ok(message) => server.take(&message),
            Err(_) => server.note(&json!({"junk": line.chars().take(80).collect::<String>()})),
        }
    }
    drop(grandchild);
    leave()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this process is a server that dies; nothing is to be tidied up"
)]
fn leave() -> ! {
    std::process::exit(0)
}

fn append(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

fn is(word: Option<&String>, method: &str, tool: &str) -> bool {
    word.is_some_and(|word| word == method || word == tool)
}

impl Server {
    fn note(&mut self, got: &Value) {
        writeln!(self.log, "{}", json!({"run": self.run, "got": got})).unwrap();
    }

    fn say(&mut self, line: &str) {
        // A client that has left hears nothing.
        drop(self.out.write_all(format!("{line}\n").as_bytes()));
    }

    /// A crash of its own: a SIGKILL would be somebody else's doing, and counts for less.
    fn die() -> ! {
        std::process::abort()
    }

    fn take(&mut self, message: &Value) {
        self.note(message);
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        let tool = message["params"]["name"].as_str().unwrap_or("-").to_owned();
        if is(self.script.crash_on.as_ref(), &method, &tool) {
            Self::die();
        }
        if is(self.script.stop_on.as_ref(), &method, &tool) {
            _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::STOP,
            );
            // poll: the stop comes a moment after its signal, and nothing is to be answered in between.
            pause(100);
        }
        if is(self.script.close_output_on.as_ref(), &method, &tool) {
            // Another program in this process: it has the input and not the output.
            let error =
                std::process::Command::new("sh").args(["-c", "exec sleep 1000 3>&-"]).exec();
            panic!("{error}");
        }
        self.muted |= is(self.script.mute_from.as_ref(), &method, &tool);
        if self.muted || is(self.script.mute_on.as_ref(), &method, &tool) {
            return;
        }
        if is(self.script.busy_on.as_ref(), &method, &tool) {
            let end = Instant::now() + Duration::from_millis(self.script.busy_ms);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
        }
        if is(self.script.late_on.as_ref(), &method, &tool) {
            // poll: being late is what is scripted; as long as the script says.
            pause(self.script.late_ms);
        }
        if is(self.script.lines_on.as_ref(), &method, &tool) {
            for line in self.script.lines.clone() {
                self.say(&line);
            }
        }
        if is(self.script.huge_on.as_ref(), &method, &tool) {
            let line = "x".repeat(self.script.huge);
            self.say(&line);
        }
        self.serve_one(message, &method, &tool);
        if is(self.script.crash_after.as_ref(), &method, &tool) {
            Self::die();
        }
    }

    fn serve_one(&mut self, message: &Value, method: &str, tool: &str) {
        let id = message["id"].clone();
        if method.is_empty() {
            if let Some(asked) = self.asked.take() {
                self.say(
                    &json!({"jsonrpc": "2.0", "id": asked, "result": message["result"]})
                        .to_string(),
                );
            }
            return;
        }
        if method == "tools/call"
            && let Some(ask) = self.script.ask.clone()
        {
            self.asked = Some(id);
            self.say(&json!({"jsonrpc": "2.0", "id": 0, "method": ask, "params": {}}).to_string());
            return;
        }
        if id.is_null() {
            self.initialized |= method == "notifications/initialized";
            return;
        }
        let params = &message["params"];
        if let Some(token) = params["_meta"].get("progressToken") {
            let told = json!({"progressToken": token, "progress": 1, "total": 2});
            self.say(
                &json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": told})
                    .to_string(),
            );
        }
        let result = match method {
            "initialize" => json!({
                "protocolVersion": self.script.revision.as_deref().unwrap_or("2025-06-18"),
                "capabilities": {"tools": {"listChanged": true}, "logging": {},
                    "resources": {"subscribe": true, "listChanged": true}},
                "serverInfo": {"name": "fake", "version": "1"}, "run": self.run,
            }),
            "tools/list" => json!({"tools": self.script.tools.clone().unwrap_or_else(|| json!([
                {"name": "look", "annotations": {"readOnlyHint": true}},
                {"name": "add"},
                {"name": "state", "annotations": {"readOnlyHint": true}},
            ]))}),
            "logging/setLevel" => {
                self.level = params["level"].clone();
                json!({})
            }
            "resources/subscribe" => {
                self.subscriptions.insert(params["uri"].as_str().unwrap_or_default().to_owned());
                json!({})
            }
            "resources/unsubscribe" => {
                self.subscriptions.remove(params["uri"].as_str().unwrap_or_default());
                json!({})
            }
            "tools/call" if tool == "state" => json!({
                "run": self.run, "level": self.level, "initialized": self.initialized,
                "subscriptions": self.subscriptions,
            }),
            _ => json!({"run": self.run}),
        };
        self.say(&json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string());
    }
}
