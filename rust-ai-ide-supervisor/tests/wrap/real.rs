//! Real language servers, killed at random moments of a session of editing.
//!
//! `WRAP_KILLS` sets the number of kills for all of them, `WRAP_SEED` repeats a run. The ordinary run kills ruff 100 times,
//! and the slower ones less often, so that it stays short; all of them pass with `WRAP_KILLS=100`, clangd and
//! rust-analyzer in a minute.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Client, children_of};
use crate::plumbing::{Place, kill, pause, within};

/// A server and what is asked of it.
struct Server {
    command: Vec<String>,
    language: &'static str,
    extension: &'static str,
    /// What its folder holds beside the document; a server with none of it is given a folder that is not there.
    files: &'static [(&'static str, &'static str)],
    options: Value,
    begin: &'static str,
    /// Typed in turn at the end of the document.
    lines: &'static [&'static str],
    /// Requests that only read, sent while typing and compared at the end.
    reads: &'static [&'static str],
    /// Where in the first line they are about.
    column: u64,
    /// Stands in the answer to the last of them once a server has read its folder.
    read_in: Option<&'static str>,
    /// Whether diagnostics are asked for instead of being sent.
    pulls: bool,
    kills: u32,
    /// Longest pause between two kills, in milliseconds: some hit the handshake, some the restoration, some typing.
    pause: u64,
}

/// One session of typing.
struct Session {
    client: Client,
    uri: String,
    text: String,
    version: i64,
    asked: Vec<(i64, &'static str)>,
}

impl Session {
    fn begin(server: &Server, wrapped: bool, place: &Place) -> Self {
        let mut command = Command::new(if wrapped {
            env!("CARGO_BIN_EXE_ide-supervisor")
        } else {
            &server.command[0]
        });
        if wrapped {
            command.args(["wrap", "--protocol", "lsp", "--"]).args(&server.command);
        } else {
            command.args(&server.command[1..]);
        }
        // Nothing of this machine decides what they say.
        let path = place.dir.path().join(format!("session.{}", server.extension));
        command.current_dir(place.dir.path());
        for (name, text) in server.files {
            std::fs::write(place.dir.path().join(name), text).unwrap();
        }
        let mut client = Client::spawn(place, command);
        if server.files.is_empty() {
            client.initialize();
        } else {
            let folder = format!("file://{}", place.dir.path().display());
            client.initialize_in(&folder, &server.options);
        }
        let uri = format!("file://{}", path.display());
        let begin = server.begin;
        client.notify("textDocument/didOpen", json!({ "textDocument": { "uri": uri, "languageId": server.language, "version": 1, "text": begin } }));
        Self { client, uri, text: begin.to_owned(), version: 1, asked: Vec::new() }
    }

    /// Types at the end of the document.
    fn type_in(&mut self, text: &str) {
        let line = self.text.matches('\n').count();
        let end = json!({ "line": line, "character": self.text[self.text.rfind('\n').map_or(0, |at| at + 1)..].encode_utf16().count() });
        self.version += 1;
        self.text.push_str(text);
        self.client.notify(
            "textDocument/didChange",
            json!({
                "textDocument": { "uri": self.uri, "version": self.version },
                "contentChanges": [{ "range": { "start": end, "end": end }, "text": text }],
            }),
        );
    }

    fn read(&mut self, server: &Server, method: &'static str) -> i64 {
        let place = json!({ "line": 0, "character": server.column });
        let id = self.client.ask(
            method,
            json!({
                "textDocument": { "uri": self.uri }, "position": place,
                "options": { "tabSize": 4, "insertSpaces": true }, "context": { "triggerKind": 1 },
            }),
        );
        self.asked.push((id, method));
        id
    }

    /// What the session looks like to its user once it is quiet.
    fn outcome(&mut self, server: &Server) -> Value {
        for (id, method) in std::mem::take(&mut self.asked) {
            let answer = self.client.answer(id);
            let code = &answer["error"]["code"];
            let quiet = code.is_null() || *code == -32801 || *code == -32802;
            assert!(quiet, "{method}: {answer}; {}", self.client.said());
        }
        if let (Some(text), Some(method)) = (server.read_in, server.reads.last()) {
            let read_in = within(|| {
                let id = self.read(server, method);
                self.client.answer(id).to_string().contains(text)
            });
            assert!(read_in, "never read in: {}", self.client.said());
        }
        let diagnostics = if server.pulls {
            Value::Null
        } else {
            let (uri, version) = (self.uri.clone(), self.version);
            let found = self.client.wait(|message| {
                message["method"] == "textDocument/publishDiagnostics"
                    && message["params"]["uri"] == uri.as_str()
                    && message["params"]["version"] == version
            });
            found.unwrap_or_else(|| {
                panic!("no diagnostics of version {version}: {}", self.client.said())
            })["params"]["diagnostics"]
                .clone()
        };
        let reads: Vec<_> = server
            .reads
            .iter()
            .map(|method| {
                let id = self.read(server, method);
                let answer = self.client.answer(id);
                assert!(answer["error"].is_null(), "{method}: {answer}");
                sorted(answer["result"].clone())
            })
            .collect();
        self.asked.clear();
        json!({ "diagnostics": sorted(diagnostics), "reads": reads })
    }
}

/// A result without what two runs of one server may say differently: the order of proposals, and ids.
fn sorted(mut result: Value) -> Value {
    if let Some(members) = result.as_object_mut() {
        members.remove("resultId");
    }
    let list = if result.is_array() {
        result.as_array_mut()
    } else {
        result.get_mut("items").and_then(Value::as_array_mut)
    };
    if let Some(list) = list {
        for item in list.iter_mut() {
            if let Some(members) = item.as_object_mut() {
                members.retain(|name, _| !["score", "sortText", "data"].contains(&name.as_str()));
            }
        }
        list.sort_by_key(ToString::to_string);
    }
    result
}

/// Types the same twice, once with the server being killed, and compares.
fn killed_and_not(server: &Server) {
    let seed = std::env::var("WRAP_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    let kills = std::env::var("WRAP_KILLS")
        .ok()
        .and_then(|kills| kills.parse().ok())
        .unwrap_or(server.kills);
    println!("{}: {kills} kills, WRAP_SEED={seed}", server.command.join(" "));
    let mut random = fastrand::Rng::with_seed(seed);
    // One directory, because its name stands in what servers say.
    let place = Place::new(&json!([]));
    let mut session = Session::begin(server, true, &place);
    let (mut typed, mut killed) = (0, 0);
    while killed < kills {
        for _ in 0..random.u32(0..4) {
            session.type_in(server.lines[typed % server.lines.len()]);
            typed += 1;
            if random.bool() {
                session.read(server, server.reads[typed % server.reads.len()]);
            }
        }
        // poll: the random moment of the kill; `Server::pause` at most.
        pause(random.u64(0..server.pause));
        if let Some(pid) = session.client.servers().first() {
            kill(*pid);
            killed += 1;
        }
        if typed % 40 == 39 {
            // A document of a thousand lines says nothing more, and takes ever longer.
            let whole = server.begin;
            session.version += 1;
            session.text = whole.to_owned();
            session.client.notify("textDocument/didChange", json!({
                "textDocument": { "uri": session.uri, "version": session.version }, "contentChanges": [{ "text": whole }],
            }));
            typed += 1;
        }
    }
    // A change that only the server after the last kill was told of: what it says of that version is its own.
    session.type_in("\n");
    let survived = session.outcome(server);
    assert!(session.client.said().contains("recovered in"), "{}", session.client.said());
    let (text, wrapped) = (session.text.clone(), session.client.pid());
    assert_eq!(session.client.leave(), Some(0));
    assert!(within(|| children_of(wrapped).is_empty()));

    let mut calm = Session::begin(server, false, &place);
    calm.type_in(&text[server.begin.len()..]);
    let expected = calm.outcome(server);
    calm.client.leave();
    assert_eq!(survived, expected, "WRAP_SEED={seed}");
}

/// Finds a program of the tests' tools or of the system, one that runs: version managers leave stubs behind.
fn find(program: &str) -> Option<String> {
    let tools = tools().join("venv/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::iter::once(tools).chain(std::env::split_paths(&path));
    let runs = |program: &PathBuf| {
        program.is_file()
            && Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success())
    };
    let found = places.find_map(|place| Some(place.join(program)).filter(runs));
    if found.is_none() {
        println!("LEFT OUT: {program} is not there; cargo xtask setup --tools installs it");
    }
    found.map(|program| program.display().to_string())
}

fn tools() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools")
}

#[test]
fn ruff_killed_a_hundred_times_at_random_moments_ends_as_if_it_never_was() {
    let Some(ruff) = find("ruff") else { return };
    killed_and_not(&Server {
        command: vec![ruff, "server".into(), "--isolated".into()],
        language: "python",
        extension: "py",
        files: &[],
        options: Value::Null,
        begin: "import os\n",
        lines: &[
            "import sys\n",
            "x = '\u{1F600}é'\n",
            "def f(a, b):\n    return  a\n",
            "print( x )\n",
        ],
        reads: &["textDocument/diagnostic", "textDocument/formatting"],
        column: 1,
        read_in: None,
        pulls: true,
        kills: 100,
        pause: 120,
    });
}

#[test]
fn clangd_killed_at_random_moments_ends_as_if_it_never_was() {
    let Some(clangd) = find("clangd") else { return };
    killed_and_not(&Server {
        command: vec![clangd, "--background-index=0".into(), "--log=error".into()],
        language: "cpp",
        extension: "cpp",
        files: &[],
        options: Value::Null,
        begin: "int main() { return 0; }\n",
        lines: &[
            "int wrong = \"text\";\n",
            "struct S { int m; };\n",
            "// \u{1F600}é\n",
            "void unknown(T t);\n",
        ],
        reads: &["textDocument/completion", "textDocument/documentSymbol", "textDocument/hover"],
        column: 1,
        read_in: None,
        pulls: false,
        kills: 20,
        pause: 250,
    });
}

#[test]
fn rust_analyzer_killed_at_random_moments_ends_as_if_it_never_was() {
    let Some(analyzer) = find("rust-analyzer") else { return };
    killed_and_not(&Server {
        command: vec![analyzer],
        language: "rust",
        extension: "rs",
        files: &[(
            "Cargo.toml",
            "[package]\nname = \"killed\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
             [[bin]]\nname = \"killed\"\npath = \"session.rs\"\n[workspace]\n",
        )],
        // Neither the standard library nor what cargo check says: both take long and are the same in every session.
        options: json!({
            "cachePriming": { "enable": false }, "checkOnSave": false, "procMacro": { "enable": false },
            "cargo": { "buildScripts": { "enable": false }, "sysroot": null },
        }),
        begin: "mod m { fn x() { let _: u8 = \"text\"; } }\n",
        lines: &[
            "fn f(x: u8) -> u8 { x }\n",
            "struct S { m: u8 }\n",
            "// \u{1F600}é\n",
            "fn g() { f(S) }\n",
            "fn broken( {\n",
        ],
        reads: &[
            "textDocument/completion",
            "textDocument/documentSymbol",
            "textDocument/diagnostic",
            "textDocument/hover",
        ],
        column: 4,
        read_in: Some("killed"),
        pulls: true,
        kills: 20,
        pause: 400,
    });
}

#[test]
fn bash_language_server_killed_at_random_moments_ends_as_if_it_never_was() {
    let Some(node) = find("node") else { return };
    let script = tools().join("node/node_modules/bash-language-server/out/cli.js");
    if !script.is_file() {
        println!(
            "LEFT OUT: bash-language-server is not there; cargo xtask setup --tools installs it"
        );
        return;
    }
    killed_and_not(&Server {
        command: vec![node, script.display().to_string(), "start".into()],
        language: "shellscript",
        extension: "sh",
        files: &[],
        options: Value::Null,
        begin: "echo one\n",
        lines: &["f() { echo '\u{1F600}é'; }\n", "X=1\n", "f \"$X\"\n"],
        reads: &["textDocument/completion", "textDocument/documentSymbol", "textDocument/hover"],
        column: 1,
        read_in: None,
        pulls: true,
        kills: 5,
        pause: 2500,
    });
}
