//! The clients in other languages under `examples`: one conformance run for all, against the real programs.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says what it skips"
)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use supervisor_core::config::RecoveryConfig;
use supervisor_core::error::{ErrorClass, IpcError};
use supervisor_core::message::{IpcMessage, Outcome};
use supervisor_ipc::{Connection, IpcMonitor, SendOptions, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(60);

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// A client as a command line; nothing when its interpreter is not there.
fn client(program: &str, script: &str) -> Option<(PathBuf, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|place| place.join(program));
    let Some(found) = found.into_iter().find(|candidate| candidate.is_file()) else {
        println!("SKIPPED: {program} is missing, so the client {script} was not driven");
        return None;
    };
    Some((found, examples().join(script)))
}

/// Starts the client anew for each connection, with the same memory.
#[derive(Debug)]
struct Spawning {
    command: (PathBuf, PathBuf),
    memory: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Spawning {
    fn start(&self) -> std::io::Result<Child> {
        Command::new(&self.command.0)
            .arg(&self.command.1)
            .arg(&self.memory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
    }
}

#[async_trait]
impl Transport for Spawning {
    async fn connect(&self) -> Result<Connection, IpcError> {
        let before = self.child.lock().unwrap().take();
        if let Some(mut before) = before {
            drop(before.kill().await);
        }
        let mut child = self.start().map_err(|error| IpcError::Connect {
            channel: String::new(),
            transport: self.describe(),
            class: ErrorClass::Permanent,
            source: error.into(),
        })?;
        let (reader, writer) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        *self.child.lock().unwrap() = Some(child);
        Ok(Connection { reader: Box::new(reader), writer: Box::new(writer) })
    }

    fn describe(&self) -> String {
        format!("{:?}", self.command)
    }
}

fn message(n: u64, kind: &str, payload: Value) -> IpcMessage {
    IpcMessage {
        id: Uuid::from_u128(u128::from(n)),
        message_type: kind.into(),
        payload,
        timestamp: chrono::DateTime::UNIX_EPOCH,
        retry_count: 0,
    }
}

/// Through a channel: answers, acknowledgements, a death in the middle, nothing lost and nothing doubled.
async fn behaves(command: (PathBuf, PathBuf)) {
    let directory = tempfile::tempdir().unwrap();
    let memory = directory.path().join("memory");
    let transport = Arc::new(Spawning { command, memory, child: Mutex::default() });
    let monitor = IpcMonitor::with_config(RecoveryConfig::default());
    let channel = monitor.register_channel("client").await.unwrap();
    channel.attach(Arc::clone(&transport) as Arc<dyn Transport>).await.unwrap();
    let ask = SendOptions { expect_reply: true, ..SendOptions::default() };
    let answer = async |message: IpcMessage| {
        let receipt = channel.send_with(message, ask).await;
        let outcome = tokio::time::timeout(LIMIT, receipt.outcome()).await.unwrap();
        let Outcome::Answered { reply, .. } = outcome else { unreachable!("{outcome:?}") };
        reply
    };
    let nested = json!({"text": "ü \u{1f600} \n \"", "list": [1, 2.5, null, true, [{}]]});
    assert_eq!(answer(message(1, "echo", nested.clone())).await, nested);
    let mut receipts = Vec::new();
    for n in 0..300 {
        receipts.push(channel.send(message(100 + n, "tell", n.into())).await);
        if n == 100 {
            let once = SendOptions { idempotent: false, ..SendOptions::default() };
            let killed = channel.send_with(message(2, "die", Value::Null), once).await;
            let outcome = tokio::time::timeout(LIMIT, killed.outcome()).await.unwrap();
            assert!(matches!(outcome, Outcome::Indeterminate { .. }), "{outcome:?}");
        }
    }
    for receipt in receipts {
        let outcome = tokio::time::timeout(LIMIT, receipt.outcome()).await.unwrap();
        assert!(matches!(outcome, Outcome::Acked { .. }), "{outcome:?}");
    }
    assert_eq!(answer(message(3, "count", Value::Null)).await, 300);
    assert_eq!(channel.status().generation.get(), 2);
    monitor.shutdown(LIMIT).await;
    let child = transport.child.lock().unwrap().take();
    let mut child = child.unwrap();
    let ended = tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "it ends by itself when its peer is gone: {ended}");
}

/// What the client says of its own account, while it dies again and again: nothing lost, nothing doubled, in order.
async fn speaks(command: (PathBuf, PathBuf)) {
    let directory = tempfile::tempdir().unwrap();
    let memory = directory.path().join("memory");
    let transport = Arc::new(Spawning { command, memory, child: Mutex::default() });
    let mut config = RecoveryConfig { max_attempts: 20, ..RecoveryConfig::default() };
    config.breaker.failure_threshold = 100;
    config.reconnect.base_delay = Duration::from_millis(5);
    config.reconnect.max_delay = Duration::from_millis(10);
    let monitor = IpcMonitor::with_config(config);
    let channel = monitor.register_channel("client").await.unwrap();
    let mut incoming = channel.incoming();
    channel.attach(Arc::clone(&transport) as Arc<dyn Transport>).await.unwrap();
    for round in 0..4_u64 {
        let said: Vec<u64> = (round * 100..round * 100 + 100).collect();
        let receipt = channel.send(message(1000 + round, "push", json!(said))).await;
        let outcome = tokio::time::timeout(LIMIT, receipt.outcome()).await.unwrap();
        assert!(outcome.delivered(), "{outcome:?}");
        // In the middle of what it says.
        let once = SendOptions { idempotent: false, ..SendOptions::default() };
        drop(channel.send_with(message(2000 + round, "die", Value::Null), once).await);
    }
    for n in 0..400 {
        let heard = tokio::time::timeout(LIMIT, incoming.recv()).await.unwrap().unwrap();
        assert_eq!((heard.message_type.as_str(), &heard.payload), ("pushed", &json!(n)));
    }
    assert!(incoming.try_recv().is_none());
    let ask = SendOptions { expect_reply: true, ..SendOptions::default() };
    let began = std::time::Instant::now();
    for n in 5000.. {
        let receipt = channel.send_with(message(n, "push", json!([])), ask).await;
        let outcome = tokio::time::timeout(LIMIT, receipt.outcome()).await.unwrap();
        let Outcome::Answered { reply, .. } = outcome else { unreachable!("{outcome:?}") };
        if reply == 0 {
            break;
        }
        assert!(began.elapsed() < LIMIT, "{reply} messages stay unacknowledged");
    }
    assert!(channel.status().generation.get() >= 5, "{}", channel.status().generation);
    assert!(incoming.try_recv().is_none(), "nothing comes twice");
    monitor.shutdown(LIMIT).await;
}

/// A client spoken to byte by byte.
struct Bare(Child);

impl Bare {
    async fn write(&mut self, bytes: &[u8]) {
        let stdin = self.0.stdin.as_mut().unwrap();
        // One that has ended does not read; what it said is looked at by the caller.
        drop(stdin.write_all(bytes).await);
        drop(stdin.flush().await);
    }

    async fn say(&mut self, frame: Value) {
        self.write(&packed(&frame)).await;
    }

    async fn hear(&mut self) -> Option<Value> {
        let stdout = self.0.stdout.as_mut().unwrap();
        let mut head = [0; 4];
        tokio::time::timeout(LIMIT, stdout.read_exact(&mut head)).await.unwrap().ok()?;
        let mut content = vec![0; u32::from_be_bytes(head) as usize];
        stdout.read_exact(&mut content).await.ok()?;
        Some(serde_json::from_slice(&content).unwrap())
    }
}

fn packed(frame: &Value) -> Vec<u8> {
    let content = frame.to_string().into_bytes();
    [u32::try_from(content.len()).unwrap().to_be_bytes().as_slice(), &content].concat()
}

fn numbered(s: u64, id: u64, kind: &str, payload: Value) -> Value {
    json!({"k": "m", "s": s, "m": message(id, kind, payload)})
}

/// Byte by byte: what the protocol says of greetings, duplicates, signs of life and hostile frames.
async fn conforms(command: (PathBuf, PathBuf)) {
    let directory = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let memory = directory.path().join(name);
        let spawning = Spawning { command: command.clone(), memory, child: Mutex::default() };
        Bare(spawning.start().unwrap())
    };
    let session = Uuid::from_u128(7).to_string();
    let hello = json!({"k": "hello", "version": 1, "session": session, "idle": 5000});
    let mut client = start("one");
    client.say(hello.clone()).await;
    let greeting = client.hear().await.unwrap();
    assert_eq!((&greeting["k"], &greeting["version"]), (&json!("hello"), &json!(1)));
    assert_eq!(greeting["session"], session);
    // One acknowledgement stands for all; they are written in one piece and arrive in one or several.
    let three: Vec<u8> = (1..=3).flat_map(|n| packed(&numbered(n, n, "tell", n.into()))).collect();
    client.write(&three).await;
    let mut acknowledged = 0;
    while acknowledged < 3 {
        let frame = client.hear().await.unwrap();
        assert_eq!((&frame["k"], &frame["d"]), (&json!("a"), &json!(false)), "{frame}");
        acknowledged = frame["s"].as_u64().unwrap();
    }
    client.say(numbered(4, 2, "tell", 2.into())).await;
    assert_eq!(client.hear().await.unwrap(), json!({"k": "a", "s": 4, "d": true}));
    client.say(numbered(5, 9, "echo", "once".into())).await;
    assert_eq!(client.hear().await.unwrap(), json!({"k": "r", "s": 5, "p": "once"}));
    client.say(numbered(6, 9, "echo", "twice".into())).await;
    let again = client.hear().await.unwrap();
    assert_eq!(again, json!({"k": "r", "s": 6, "p": "once"}), "the first answer is remembered");
    client.say(json!({"k": "ping", "s": 7})).await;
    assert_eq!(client.hear().await.unwrap(), json!({"k": "pong", "s": 7}));
    // One byte at a time is the same.
    for byte in packed(&numbered(8, 10, "echo", "ü".into())) {
        client.write(&[byte]).await;
    }
    assert_eq!(client.hear().await.unwrap(), json!({"k": "r", "s": 8, "p": "ü"}));
    // What was handled is remembered by the next process.
    drop(client);
    let mut client = start("one");
    client.say(hello.clone()).await;
    client.hear().await.unwrap();
    client.say(numbered(9, 9, "echo", "thrice".into())).await;
    assert_eq!(client.hear().await.unwrap(), json!({"k": "r", "s": 9, "p": "once"}));
    drop(client);
    let greeted = packed(&hello);
    let hostile: [(&str, Vec<u8>, bool); 5] = [
        ("another version", packed(&json!({"k": "hello", "version": 99})), true),
        ("no greeting", packed(&json!({"k": "ping", "s": 1})), false),
        ("four gigabytes", [greeted.as_slice(), &[0xff; 4]].concat(), true),
        ("no JSON", [greeted.as_slice(), &[0, 0, 0, 2, b'{', 0xff]].concat(), true),
        ("an unknown kind", [greeted.as_slice(), &packed(&json!({"k": "x"}))].concat(), true),
    ];
    for (name, bytes, greets) in hostile {
        let mut client = start("hostile");
        client.write(&bytes).await;
        if greets && client.hear().await.is_some() {
            assert_eq!(client.hear().await, None, "{name}: the connection is over");
        }
        let ended = tokio::time::timeout(LIMIT, client.0.wait()).await.unwrap().unwrap();
        assert_eq!(ended.code(), Some(1), "{name}");
    }
}

/// Byte by byte: what the protocol says of what a service says itself.
async fn says(command: (PathBuf, PathBuf)) {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let memory = directory.path().join("memory");
        let spawning = Spawning { command: command.clone(), memory, child: Mutex::default() };
        Bare(spawning.start().unwrap())
    };
    let takes = |session: Option<&Value>, handled: u64| {
        let push = json!({"window": 2, "bytes": 100_000, "session": session, "handled": handled});
        json!({"k": "hello", "version": 1, "push": push})
    };
    // A host that says nothing of it is told nothing.
    let mut client = start();
    client.say(json!({"k": "hello", "version": 1})).await;
    client.hear().await.unwrap();
    client.say(numbered(1, 1, "push", json!(["a", "b", "c"]))).await;
    assert_eq!(client.hear().await.unwrap(), json!({"k": "r", "s": 1, "p": 3}));
    drop(client);
    // What one process kept is said by the next one, as much as the host takes.
    let mut client = start();
    client.say(takes(None, 0)).await;
    let session = client.hear().await.unwrap()["push"]["session"].clone();
    assert!(session.is_string());
    let mut heard = Vec::new();
    for expected in ["a", "b"] {
        let frame = client.hear().await.unwrap();
        assert_eq!((&frame["k"], &frame["m"]["payload"]), (&json!("m"), &json!(expected)));
        heard.push((frame["s"].as_u64().unwrap(), frame["m"]["id"].clone()));
    }
    assert!(heard[1].0 > heard[0].0 && heard[1].1 != heard[0].1);
    client.say(json!({"k": "ping", "s": 2})).await;
    assert_eq!(client.hear().await.unwrap(), json!({"k": "pong", "s": 2}), "and no more");
    client.say(json!({"k": "a", "s": heard[0].0, "d": false})).await;
    assert_eq!(client.hear().await.unwrap()["m"]["payload"], "c");
    drop(client);
    // Only a number of its own session says anything to the next process.
    let mut client = start();
    client.say(takes(Some(&session), 99)).await;
    assert_ne!(client.hear().await.unwrap()["push"]["session"], session);
    let frame = client.hear().await.unwrap();
    assert_eq!((&frame["m"]["payload"], &frame["m"]["id"]), (&json!("b"), &heard[1].1));
    assert_eq!(client.hear().await.unwrap()["m"]["payload"], "c");
    client.say(json!({"k": "a", "s": 99, "d": false})).await;
    assert_eq!(client.hear().await, None, "a number it never gave ends the connection");
    let ended = tokio::time::timeout(LIMIT, client.0.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(1));
}

/// A host is not blamed for a time in which the client itself was stopped, nor for a longer one than it promised.
async fn outlasts_a_standstill(command: (PathBuf, PathBuf)) {
    let directory = tempfile::tempdir().unwrap();
    let memory = directory.path().join("memory");
    let mut client = Bare(Spawning { command, memory, child: Mutex::default() }.start().unwrap());
    client.say(json!({"k": "hello", "version": 1, "idle": 50})).await;
    client.hear().await.unwrap();
    let pid = client.0.id().unwrap().to_string();
    let signal = |name: &str| {
        std::process::Command::new("kill").args([name, &pid]).status().unwrap().success()
    };
    assert!(signal("-STOP"));
    client.say(json!({"k": "ping", "s": 1})).await;
    let stopped = tokio::time::timeout(Duration::from_secs(3), client.hear()).await;
    assert!(stopped.is_err(), "it is stopped for sixty intervals, and more than two seconds");
    assert!(signal("-CONT"));
    assert_eq!(client.hear().await.unwrap(), json!({"k": "pong", "s": 1}));
    client.say(numbered(2, 1, "echo", "on".into())).await;
    assert_eq!(client.hear().await.unwrap(), json!({"k": "r", "s": 2, "p": "on"}));
}

#[tokio::test]
async fn the_python_client_conforms() {
    if let Some(command) = client("python3", "python/endpoint.py") {
        conforms(command.clone()).await;
        says(command.clone()).await;
        speaks(command.clone()).await;
        outlasts_a_standstill(command.clone()).await;
        behaves(command).await;
    }
}

#[tokio::test]
async fn the_typescript_client_conforms() {
    if let Some(command) = client("node", "typescript/endpoint.mjs") {
        conforms(command.clone()).await;
        says(command.clone()).await;
        speaks(command.clone()).await;
        outlasts_a_standstill(command.clone()).await;
        behaves(command).await;
    }
}

#[test]
fn the_typescript_client_that_runs_is_the_one_that_is_written() {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/node/node_modules");
    let compiler = packages.join("typescript/bin/tsc");
    let Some((node, _)) = client("node", "typescript/endpoint.ts") else { return };
    if !compiler.is_file() {
        println!(
            "SKIPPED: typescript is missing (cargo xtask setup --tools), so endpoint.ts was not compiled"
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let source = examples().join("typescript");
    for name in ["endpoint.ts", "tsconfig.json"] {
        std::fs::copy(source.join(name), directory.path().join(name)).unwrap();
    }
    std::os::unix::fs::symlink(
        packages.canonicalize().unwrap(),
        directory.path().join("node_modules"),
    )
    .unwrap();
    let compiled = std::process::Command::new(node)
        .arg(compiler.canonicalize().unwrap())
        .args(["-p", "."])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stdout));
    let fresh = std::fs::read_to_string(directory.path().join("endpoint.js")).unwrap();
    let kept = std::fs::read_to_string(source.join("endpoint.mjs")).unwrap();
    assert_eq!(fresh, kept, "compile endpoint.ts again and copy endpoint.js over endpoint.mjs");
}
