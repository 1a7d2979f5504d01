//! The services built into the program, each run as the process it is and asked by a real client.
#![cfg(all(feature = "cli", unix))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Generous: a loaded machine must not fail a test that polls.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running service, killed and reaped however its test ends.
struct Service {
    child: Child,
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Service {
    fn start(args: &[&str]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_ide-supervisor")).args(args))
    }

    fn spawn(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env_remove("NOTIFY_SOCKET")
            .spawn()
            .unwrap();
        Self { child }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        until("the service ends", || self.child.try_wait().unwrap())
    }
}

/// Polls until there is something to give.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(found) = ask() {
            return found;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    panic!("waited {PATIENCE:?} until {what}");
}

/// An HTTP service and its port.
struct Http {
    service: Service,
    port: u16,
}

impl Http {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let port_file = dir.join("port");
        drop(fs::remove_file(&port_file));
        let mut all = vec!["demo-service"];
        all.extend(args);
        let file = port_file.to_str().unwrap();
        all.extend(["--port-file", file]);
        let service = Service::start(&all);
        let port = until("the port is written", || fs::read_to_string(&port_file).ok());
        Self { service, port: port.trim().parse().unwrap() }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.try_ask(method, path, body, PATIENCE)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn try_ask(
        &self,
        method: &str,
        path: &str,
        body: &str,
        patience: Duration,
    ) -> std::io::Result<(u16, Value)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        // The service may answer a body that is too large before it has read it.
        drop(stream.write_all(body.as_bytes()));
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let broken = || std::io::Error::other(format!("no HTTP answer: {answer:?}"));
        Ok((status.ok_or_else(broken)?, serde_json::from_str(body).map_err(|_| broken())?))
    }
}

/// A client of the language server.
struct Editor {
    service: Service,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    next: u64,
}

impl Editor {
    fn start() -> Self {
        let mut service = Service::start(&["demo-service", "language-server"]);
        let input = service.child.stdin.take().unwrap();
        let output = BufReader::new(service.child.stdout.take().unwrap());
        let mut editor = Self { service, input, output, next: 1 };
        let answer = editor.request("initialize", json!({ "capabilities": {} }));
        assert_eq!(answer["result"]["capabilities"]["textDocumentSync"]["change"], 2);
        editor.notify("initialized", json!({}));
        editor
    }

    fn send(&mut self, message: &Value) {
        let body = message.to_string();
        write!(self.input, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    }

    fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        loop {
            let message = self.receive();
            if message["id"] == id {
                return message;
            }
        }
    }

    fn receive(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((_, value)) => length = value.parse().unwrap(),
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.output.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }
}

fn at(line: u32, character: u32) -> Value {
    json!({ "textDocument": { "uri": "file:///a.rs" }, "position": { "line": line, "character": character } })
}

#[test]
fn the_language_server_answers_from_the_documents_it_was_sent() {
    let mut editor = Editor::start();
    let text = "fn measure() {}\n// TODO: use it\nmeas";
    editor.notify(
        "textDocument/didOpen",
        json!({ "textDocument": { "uri": "file:///a.rs", "languageId": "rust", "version": 1, "text": text } }),
    );
    let published = editor.receive();
    assert_eq!(published["method"], "textDocument/publishDiagnostics");
    assert_eq!(published["params"]["diagnostics"][0]["range"]["start"]["line"], 1);

    let completion = editor.request("textDocument/completion", at(2, 4));
    assert_eq!(completion["result"]["items"][0]["label"], "measure");
    editor.notify(
        "textDocument/didChange",
        json!({
            "textDocument": { "uri": "file:///a.rs", "version": 2 },
            "contentChanges": [{
                "range": { "start": { "line": 2, "character": 0 }, "end": { "line": 2, "character": 4 } },
                "text": "measure();",
            }],
        }),
    );
    let hover = editor.request("textDocument/hover", at(2, 3));
    let said = hover["result"]["contents"]["value"].as_str().unwrap();
    assert!(said.contains("twice") && said.contains("fn measure() {}"), "{said}");

    assert_eq!(editor.request("$/unknown", json!({}))["error"]["code"], -32601);
    assert_eq!(editor.request("shutdown", Value::Null)["result"], Value::Null);
    editor.notify("exit", Value::Null);
    assert_eq!(editor.service.ended().code(), Some(0));
}

#[test]
fn a_language_server_whose_editor_vanishes_ends_by_itself() {
    let Editor { mut service, input, output, .. } = Editor::start();
    drop((input, output));
    assert_eq!(service.ended().code(), Some(1));
}

#[test]
fn the_language_server_crashes_and_hangs_on_request() {
    let mut editor = Editor::start();
    editor.notify("$/fault", json!({ "kind": "crash" }));
    let abort = rustix::process::Signal::ABORT.as_raw();
    assert_eq!(editor.service.ended().signal(), Some(abort));

    let mut editor = Editor::start();
    editor.notify("$/fault", json!({ "kind": "hang" }));
    editor.send(&json!({ "jsonrpc": "2.0", "id": 9, "method": "shutdown" }));
    editor.notify("exit", Value::Null);
    // It would end at once if it still read.
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_millis(300) {
        assert_eq!(editor.service.child.try_wait().unwrap(), None);
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn the_model_manager_is_unavailable_while_it_loads_and_completes_text_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let mut manager = Http::start(dir.path(), &["model-manager", "--load", "500ms"]);
    let (status, health) = manager.ask("GET", "/health", "");
    assert_eq!((status, &health["status"]), (503, &json!("loading")));
    let question = r#"{"prompt":"The supervisor ","max_tokens":40,"seed":3}"#;
    assert_eq!(manager.ask("POST", "/infer", question).0, 503);

    until("the model is loaded", || (manager.ask("GET", "/health", "").0 == 200).then_some(()));
    let (status, answer) = manager.ask("POST", "/infer", question);
    assert_eq!(status, 200);
    assert!(answer["completion"].as_str().unwrap().contains(' '), "{answer}");
    assert_eq!(manager.ask("POST", "/infer", question).1, answer);

    manager.service.signal(rustix::process::Signal::TERM);
    assert_eq!(manager.service.ended().code(), Some(0));
}

#[test]
fn the_model_manager_refuses_what_it_cannot_use_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Http::start(dir.path(), &["model-manager", "--load", "0s"]);
    until("the model is loaded", || (manager.ask("GET", "/health", "").0 == 200).then_some(()));
    assert_eq!(manager.ask("POST", "/infer", "not json").0, 400);
    assert_eq!(manager.ask("POST", "/infer", r#"{"prompt":1}"#).0, 400);
    assert_eq!(manager.ask("GET", "/infer", "").0, 405);
    assert_eq!(manager.ask("GET", "/nowhere", "").0, 404);
    assert_eq!(manager.ask("POST", "/fault?kind=nonsense", "").0, 400);
    assert_eq!(manager.ask("POST", "/infer", &"x".repeat(300 * 1024)).0, 413);
    assert_eq!(manager.ask("GET", "/health", "").0, 200);
}

#[test]
fn an_acknowledged_hook_survives_a_kill_and_the_port_is_free_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("hooks");
    let store = store.to_str().unwrap();
    let mut receiver = Http::start(dir.path(), &["webhooks", "--store", store]);
    for n in 1..=20 {
        let (status, answer) = receiver.ask("POST", "/hooks/push", &json!({ "n": n }).to_string());
        assert_eq!((status, &answer["id"]), (202, &json!(n)));
    }
    receiver.service.signal(rustix::process::Signal::KILL);
    receiver.service.ended();

    let port = receiver.port.to_string();
    let receiver = Http::start(dir.path(), &["webhooks", "--store", store, "--port", &port]);
    assert_eq!(receiver.port.to_string(), port);
    let (_, list) = receiver.ask("GET", "/hooks?after=18", "");
    let bodies: Vec<&Value> =
        list["hooks"].as_array().unwrap().iter().map(|hook| &hook["body"]["n"]).collect();
    assert_eq!(bodies, [19, 20]);
    assert_eq!(receiver.ask("POST", "/hooks/push", "plain text").1["id"], 21);
    assert_eq!(receiver.ask("GET", "/health", "").1["stored"], 21);
}

#[test]
fn a_hung_service_answers_nobody_and_ignores_the_request_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("hooks");
    let mut receiver = Http::start(dir.path(), &["webhooks", "--store", store.to_str().unwrap()]);
    let short = Duration::from_millis(300);
    // Whether the request that hangs it is still answered is left to chance.
    drop(receiver.try_ask("POST", "/fault?kind=hang", "", short));
    until("it stops answering", || receiver.try_ask("GET", "/health", "", short).err());
    receiver.service.signal(rustix::process::Signal::TERM);
    assert!(receiver.try_ask("GET", "/health", "", short).is_err());
    assert_eq!(receiver.service.child.try_wait().unwrap(), None);
    receiver.service.signal(rustix::process::Signal::KILL);
    assert_eq!(receiver.service.ended().signal(), Some(9));
}

#[cfg(target_os = "linux")]
#[test]
fn a_leak_grows_while_the_service_goes_on_answering() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Http::start(dir.path(), &["model-manager", "--load", "0s"]);
    let statm = format!("/proc/{}/statm", manager.service.child.id());
    let resident_pages = || {
        let text = fs::read_to_string(&statm).unwrap();
        text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap()
    };
    let before = resident_pages();
    assert_eq!(manager.ask("POST", "/fault?kind=leak", "").0, 202);
    // 32 MiB more, in pages of 4 KiB.
    until("memory grows", || (resident_pages() > before + 8192).then_some(()));
    assert_eq!(manager.ask("GET", "/health", "").0, 200);
}

#[test]
fn a_flood_fills_the_log_while_the_service_goes_on_answering() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let store = dir.path().join("hooks");
    let port_file = dir.path().join("port");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ide-supervisor"));
    command
        .args(["demo-service", "webhooks", "--store"])
        .arg(&store)
        .arg("--port-file")
        .arg(&port_file)
        .stderr(fs::File::create(&log).unwrap());
    let service = Service { child: command.spawn().unwrap() };
    let port = until("the port is written", || fs::read_to_string(&port_file).ok());
    let receiver = Http { service, port: port.trim().parse().unwrap() };
    assert_eq!(receiver.ask("POST", "/fault?kind=flood", "").0, 202);
    until("the log is long", || {
        (fs::metadata(&log).unwrap().len() > 20 * 1024 * 1024).then_some(())
    });
    assert_eq!(receiver.ask("GET", "/health", "").0, 200);
}

#[test]
fn a_service_says_that_it_is_ready_to_whoever_asked_to_know() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ide-supervisor"));
    command
        .args(["demo-service", "language-server"])
        .stdin(Stdio::piped())
        .env("NOTIFY_SOCKET", &path);
    let _service = Service { child: command.spawn().unwrap() };
    let mut message = [0; 64];
    let length = socket.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1\n");
}
