//! The TypeScript types in `guest-js/types.ts` against what Rust really writes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::DateTime;
use serde::Serialize;
use serde_json::{Value, json};
use supervisor_core::checkpoint::{Checkpoint, CheckpointHealth, CheckpointSummary, RejectedRung};
use supervisor_core::error::ErrorReport;
use supervisor_core::event::{EventKind, SupervisorEvent};
use supervisor_core::exit::ExitReason;
use supervisor_core::journal::{Actor, AuditAction, AuditEntry, AuditRecord};
use supervisor_core::message::{ChannelRecovery, ChannelState, ChannelStatus};
use supervisor_core::ports::RestoreSummary;
use supervisor_core::state::Phase;
use supervisor_core::status::{
    DroppedOutput, LastExit, LogLine, OutputStream, ResourceUsage, ServiceStatus, StatusReport,
    SupervisorPhase, SupervisorStatus,
};
use supervisor_core::{CheckpointId, Generation, Incarnation, Sequence, ServiceId};
use supervisor_tauri::{EventBatch, InitOutcome, Snapshot, SupervisorHealth};
use uuid::Uuid;

const AT: DateTime<chrono::Utc> = DateTime::UNIX_EPOCH;
const ID: CheckpointId = CheckpointId(Uuid::nil());

fn guest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-js")
}

/// Reads the field names of every interface.
fn interfaces(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for part in text.split("export interface ").skip(1) {
        let (name, rest) = part.split_once(" {").unwrap();
        let body = rest.split_once("\n}").unwrap().0;
        let fields = body
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with(['/', '*', '[']))
            .filter_map(|line| line.split_once(':'))
            .map(|(field, _)| field.trim_end_matches('?').to_owned())
            .collect();
        found.insert(name.to_owned(), fields);
    }
    found
}

/// Reads the words of one union.
fn union(text: &str, name: &str) -> BTreeSet<String> {
    let rest = text.split_once(&format!("export type {name} =")).unwrap().1;
    let body = rest.split_once(';').unwrap().0;
    body.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn written(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn service() -> ServiceStatus {
    ServiceStatus {
        id: ServiceId::new("lsp").unwrap(),
        name: "lsp".to_owned(),
        phase: Phase::Backoff,
        ready: false,
        pid: Some(1),
        incarnation: Incarnation(1),
        restarts: 1,
        critical: false,
        since: AT,
        last_exit: Some(exit()),
        next_restart_at: Some(AT),
        reason: "crash".to_owned(),
        usage: Some(ResourceUsage::default()),
        dropped: Some(DroppedOutput::default()),
    }
}

const fn exit() -> LastExit {
    LastExit { code: None, signal: Some(9), reason: ExitReason::Crash }
}

fn channel() -> ChannelStatus {
    ChannelStatus {
        name: "lsp".to_owned(),
        state: ChannelState::Ready,
        generation: Generation(1),
        buffered: 0,
        buffered_bytes: 0,
        in_flight: 0,
        dead_letters: 0,
        reason: "why".to_owned(),
        outcomes: [("Acked".to_owned(), 1)].into(),
        last_recovery: Some(recovery()),
    }
}

fn recovery() -> ChannelRecovery {
    ChannelRecovery { outcomes: [("Acked".to_owned(), 1)].into(), ..ChannelRecovery::default() }
}

fn status() -> StatusReport {
    StatusReport {
        version: 1,
        supervisor: supervisor(),
        services: vec![service()],
        channels: vec![channel()],
    }
}

fn supervisor() -> SupervisorStatus {
    SupervisorStatus {
        pid: 1,
        started_at: AT,
        state: SupervisorPhase::Running,
        mode: "normal".to_owned(),
        database: "supervisor.db".to_owned(),
        last_checkpoint: Some(ID),
        containment: Vec::new(),
    }
}

fn event() -> SupervisorEvent {
    SupervisorEvent {
        version: 1,
        id: Uuid::nil(),
        sequence: Sequence(1),
        at: AT,
        kind: EventKind::EventsDropped { missed: 1 },
    }
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        id: ID,
        schema: 1,
        created_at: AT,
        sequence: Sequence(1),
        services: [].into(),
        pending_operations: Vec::new(),
        channels: [].into(),
    }
}

fn rejected() -> RejectedRung {
    RejectedRung { source: "checkpoint".to_owned(), reason: "hash".to_owned() }
}

fn stored() -> BTreeMap<&'static str, Value> {
    let snapshot = Snapshot { revision: 1, status: status() };
    BTreeMap::from([
        (
            "AuditEntry",
            written(AuditEntry {
                sequence: Sequence(1),
                at: AT,
                record: AuditRecord {
                    actor: Actor::Page,
                    action: AuditAction::Checkpoint,
                    subject: "lsp".to_owned(),
                    detail: "taken".to_owned(),
                },
                hash: "00".to_owned(),
            }),
        ),
        (
            "CheckpointSummary",
            written(CheckpointSummary {
                id: ID,
                created_at: AT,
                sequence: Sequence(1),
                services: 1,
                pending_operations: 0,
                bytes: 1,
                health: CheckpointHealth::Verified,
            }),
        ),
        ("RejectedRung", written(rejected())),
        ("Checkpoint", written(checkpoint())),
        (
            "RestoreSummary",
            written(RestoreSummary {
                checkpoint: checkpoint(),
                source: "checkpoint".to_owned(),
                rejected: vec![rejected()],
            }),
        ),
        (
            "EventBatch",
            written(EventBatch {
                version: 1,
                revision: 1,
                events: vec![event()],
                missed: 0,
                closed: false,
            }),
        ),
        ("SupervisorHealth", written(SupervisorHealth::from(&snapshot))),
        ("Snapshot", written(snapshot)),
        ("InitOutcome", written(InitOutcome { created: true })),
        (
            "ErrorReport",
            written(ErrorReport {
                code: "busy".to_owned(),
                message: "busy".to_owned(),
                retryable: true,
                correlation_id: Uuid::nil(),
            }),
        ),
    ])
}

fn live() -> BTreeMap<&'static str, Value> {
    let mut event = written(event());
    // Beside the five common fields an event has those of its kind; the interface lists the common ones.
    event.as_object_mut().unwrap().remove("missed");
    BTreeMap::from([
        ("StatusReport", written(status())),
        ("SupervisorStatus", written(supervisor())),
        ("ServiceStatus", written(service())),
        ("LastExit", written(exit())),
        ("ResourceUsage", written(ResourceUsage::default())),
        ("DroppedOutput", written(DroppedOutput::default())),
        ("ChannelStatus", written(channel())),
        ("ChannelRecovery", written(recovery())),
        (
            "LogLine",
            written(LogLine { at: AT, stream: OutputStream::Stdout, text: "text".to_owned() }),
        ),
        ("SupervisorEvent", event),
    ])
}

#[test]
fn every_interface_has_the_fields_that_rust_writes() {
    let text = std::fs::read_to_string(guest().join("types.ts")).unwrap();
    let mut declared = interfaces(&text);
    for (name, value) in stored().into_iter().chain(live()) {
        let fields: BTreeSet<String> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(declared.remove(name), Some(fields), "interface {name}");
    }
    assert!(declared.is_empty(), "nothing in Rust stands behind {:?}", declared.keys());
}

#[test]
fn every_union_has_the_words_that_rust_writes() {
    let text = std::fs::read_to_string(guest().join("types.ts")).unwrap();
    let phases = Phase::ALL.map(|phase| phase.as_str().to_owned());
    assert_eq!(union(&text, "Phase"), BTreeSet::from(phases));
    // These enums list their variants nowhere; that every word is read back as a variant is checked, and that
    // no variant is missing is left to the reviewer of a new one.
    for word in union(&text, "ChannelState") {
        serde_json::from_value::<ChannelState>(json!(word)).unwrap();
    }
    for word in union(&text, "SupervisorPhase") {
        serde_json::from_value::<SupervisorPhase>(json!(word)).unwrap();
    }
    for word in union(&text, "OutputStream") {
        serde_json::from_value::<OutputStream>(json!(word)).unwrap();
    }
}

#[test]
fn the_guest_package_calls_every_command_of_the_plugin() {
    let text = std::fs::read_to_string(guest().join("index.ts")).unwrap();
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    let build = std::fs::read_to_string(build).unwrap();
    let list = build.split_once("= &[").unwrap().1;
    let commands: Vec<&str> =
        list.split_once("];").unwrap().0.split('"').skip(1).step_by(2).collect();
    assert_eq!(commands.len(), 16, "{commands:?}");
    for command in commands {
        assert!(text.contains(&format!("(\"{command}\"")), "{command}");
    }
}
