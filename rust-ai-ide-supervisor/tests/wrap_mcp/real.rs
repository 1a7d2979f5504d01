//! The official client with real servers, killed at random moments.
//!
//! Left out, loudly, where the packages are not installed. `IDE_SUPERVISOR_SEED` repeats a run.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

fn tools() -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.join("target/tools/node");
    let has = |name: &str| tools.join("node_modules/@modelcontextprotocol").join(name).is_dir();
    let node = Command::new("node").arg("--version").output().is_ok_and(|out| out.status.success());
    if node && has("sdk") && has("server-memory") && has("server-everything") {
        return Some(tools);
    }
    println!("skipped: no real MCP client and servers; `cargo xtask setup --tools` installs them");
    None
}

fn seed() -> u64 {
    let given = std::env::var("IDE_SUPERVISOR_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        u64::from(std::process::id())
            ^ std::time::UNIX_EPOCH.elapsed().map_or(0, |age| u64::from(age.subsec_nanos()))
    })
}

struct Session<'p> {
    tools: &'p Path,
    plan: &'p str,
    ops: u64,
    kills: u64,
    spread: u64,
    seed: u64,
}

impl Session<'_> {
    /// Runs the session to its end and gives what it saw, and what was said on standard error.
    fn run(&self) -> (Value, String) {
        let dir = tempfile::tempdir().unwrap();
        let server =
            format!("node_modules/@modelcontextprotocol/server-{}/dist/index.js", self.plan);
        let wrap = env!("CARGO_BIN_EXE_ide-supervisor");
        let command = [wrap, "wrap", "--protocol", "mcp", "--", "node"];
        let mut command: Vec<String> = command.map(str::to_owned).into();
        command.push(self.tools.join(server).to_string_lossy().into_owned());
        let config = json!({
            "tools": self.tools, "command": command, "plan": self.plan, "ops": self.ops,
            "env": {"MEMORY_FILE_PATH": dir.path().join("memory.jsonl")},
            "kills": self.kills, "spread": self.spread, "seed": self.seed & 0xffff_ffff,
        });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrap_mcp/session.mjs");
        let output = Command::new("node").arg(script).arg(config.to_string()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = String::from_utf8_lossy(&output.stdout);
        let seen = serde_json::from_str(line.trim());
        (seen.unwrap_or_else(|error| panic!("{error}: {line}\n{said}")), said)
    }
}

/// Runs a session with and without kills and compares what is left.
fn compare(plan: &str, ops: u64, kills: u64, spread: u64) {
    let Some(tools) = tools() else { return };
    let seed = seed();
    println!("IDE_SUPERVISOR_SEED={seed}");
    let session = |kills| Session { tools: &tools, plan, ops, kills, spread, seed }.run();
    let (calm, _) = session(0);
    let (stormy, said) = session(kills);
    assert_eq!(stormy["kills"], kills);
    assert_eq!(stormy["unexpected"], json!([]), "{said}");
    assert_eq!(calm["unexpected"], json!([]));
    for what in ["end", "results", "lists", "again", "closed"] {
        assert_eq!(stormy[what], calm[what], "{what} differs\n{said}");
    }
    let recovered = said.matches("recovered in").count() as u64;
    println!("{kills} kills, {recovered} incidents, {} calls failed by name", stormy["typed"]);
    assert!(recovered > 0 && recovered <= kills);
}

/// Takes a minute: a hundred starts of a real server on node.
#[test]
fn a_hundred_kills_of_a_real_server_with_state_change_nothing_but_calls_that_must_not_be_repeated()
{
    compare("memory", 250, 100, 250);
}

#[test]
fn progress_prompts_questions_and_subscriptions_survive_the_kills_of_a_real_server() {
    compare("everything", 36, 15, 500);
}
