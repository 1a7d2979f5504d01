//! An editor's side of the language server: opens documents, and asks about them again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rust_ai_ide_supervisor::{Channel, IpcMessage, Outcome, Supervisor};
use serde_json::{Value, json};
use supervisor_core::error::IpcError;
use supervisor_core::message::Lane;
use supervisor_core::ports::{OwnedSyncSession, StateSynchronizer};
use supervisor_ipc::SendOptions;
use uuid::Uuid;

use super::super::up;
use crate::exit_code::{Exit, Failure};
use crate::output::Output;

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(300);
/// The documents an editor has open.
const DOCUMENTS: [(&str, &str); 2] = [
    (
        "file:///demo/main.rs",
        "fn main() {\n    let supervisor = Supervisor::new();\n    supervisor.start();\n}\n",
    ),
    (
        "file:///demo/notes.md",
        "# Notes\nTODO: restart the language server without losing this text\n",
    ),
];

/// Restores the session after each restart of the server: handshake, then every open document with its latest text.
#[derive(Debug)]
struct OpenDocuments;

#[async_trait]
impl StateSynchronizer for OpenDocuments {
    async fn synchronize(&self, session: &mut OwnedSyncSession) -> Result<(), IpcError> {
        let initialize = json!({
            "jsonrpc": "2.0", "id": "initialize", "method": "initialize",
            "params": { "processId": std::process::id(), "rootUri": null, "capabilities": {} }
        });
        session.send(initialize.to_string().into_bytes()).await?;
        // Whatever else the server says first, its answer to this question is what is waited for.
        loop {
            let frame: Value =
                serde_json::from_slice(&session.receive().await?).unwrap_or_default();
            if frame["id"] == "initialize" {
                break;
            }
        }
        session
            .send(
                json!({ "jsonrpc": "2.0", "method": "initialized", "params": {} })
                    .to_string()
                    .into_bytes(),
            )
            .await?;
        for (uri, text) in DOCUMENTS {
            let open = json!({
                "jsonrpc": "2.0", "method": "textDocument/didOpen",
                "params": { "textDocument": { "uri": uri, "languageId": "text", "version": 1, "text": text } }
            });
            session.send(open.to_string().into_bytes()).await?;
        }
        Ok(())
    }
}

/// Sets the session up before the server is first started, and asks until the supervisor ends.
pub(super) async fn attach(supervisor: &Supervisor, output: Output) -> Result<(), Failure> {
    let ipc = supervisor.ipc().await.map_err(|error| up::failure(&error))?;
    let missing = || Failure::new(Exit::Failed, "the demo's language server has no channel");
    let channel = ipc.channel("language_server").ok_or_else(missing)?;
    let set = channel.set_synchronizer(Arc::new(OpenDocuments)).await;
    set.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    tokio::spawn(ask_for_ever(channel, output));
    Ok(())
}

async fn ask_for_ever(channel: Channel, output: Output) {
    loop {
        for (method, wanted) in
            [("textDocument/completion", "items"), ("textDocument/hover", "contents")]
        {
            let began = Instant::now();
            let options = SendOptions {
                lane: Lane::Interactive,
                expect_reply: true,
                ..SendOptions::default()
            };
            let outcome = channel.send_with(question(method), options).await.await;
            if matches!(outcome, Outcome::Rejected { .. } | Outcome::NotSent { .. }) {
                // The supervisor is ending.
                return;
            }
            let line = report(method, wanted, &outcome, began.elapsed());
            if output.json(&line).is_err() {
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn question(method: &str) -> IpcMessage {
    IpcMessage {
        id: Uuid::now_v7(),
        message_type: method.to_owned(),
        payload: json!({ "textDocument": { "uri": DOCUMENTS[0].0 }, "position": { "line": 2, "character": 9 } }),
        timestamp: chrono::Utc::now(),
        retry_count: 0,
    }
}

/// One answer as a line for the demo.
fn report(method: &str, wanted: &str, outcome: &Outcome, took: Duration) -> Value {
    let (answered, generation, items) = match outcome {
        Outcome::Answered { reply, generation } => {
            let result = &reply["result"];
            let items =
                result["items"].as_array().or_else(|| result.as_array()).map_or(0, Vec::len);
            let answered = !result[wanted].is_null() || result.is_array();
            (answered, generation.get(), items)
        }
        _ => (false, 0, 0),
    };
    json!({
        "demo": "language_answer", "method": method, "answered": answered, "outcome": outcome.name(),
        "generation": generation, "items": items, "took_us": u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
    })
}
