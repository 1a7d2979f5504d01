//! The JSON forms that others parse: every event kind and the status report, byte for byte.
//!
//! A changed line is a changed contract. Bless an intended change with `BLESS=1 cargo test -p supervisor-core`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use chrono::DateTime;
use supervisor_core::config::{ProbeKind, ProbeRole};
use supervisor_core::event::{EVENT_VERSION, EventKind, SupervisorEvent};
use supervisor_core::exit::{ExitReason, ExitReport, ExitStatus};
use supervisor_core::message::{ChannelRecovery, ChannelState, ChannelStatus, Lane};
use supervisor_core::state::{Phase, ServiceState};
use supervisor_core::status::{
    STATUS_VERSION, ServiceStatus, StatusReport, SupervisorPhase, SupervisorStatus,
};
use supervisor_core::{CheckpointId, Generation, Incarnation, Sequence, ServiceId};
use uuid::Uuid;

fn service() -> ServiceId {
    ServiceId::new("lsp").unwrap()
}

fn exit() -> ExitReport {
    ExitReport {
        status: Some(ExitStatus::Signal(9)),
        reason: ExitReason::Crash,
        last_lines: vec!["bye".into()],
    }
}

fn kinds() -> Vec<EventKind> {
    let incarnation = Incarnation(3);
    let checkpoint = CheckpointId(Uuid::nil());
    vec![
        EventKind::ServiceStateChanged {
            service: service(),
            incarnation,
            from: Phase::Running,
            to: Phase::Backoff,
            ready: false,
            pid: None,
            reason: "crash (signal 9); restarting in 1s".into(),
            exit: Some(exit()),
        },
        EventKind::HealthCheckCompleted {
            service: service(),
            incarnation,
            role: ProbeRole::Readiness,
            kind: ProbeKind::Http,
            passed: true,
            latency_us: 1200,
            detail: "200 OK".into(),
        },
        EventKind::ServiceRestarted {
            service: service(),
            incarnation,
            restarts: 2,
            attempt: 1,
            reason: "crash (signal 9)".into(),
        },
        EventKind::IpcChannelStateChanged {
            channel: "lsp".into(),
            from: ChannelState::Ready,
            to: ChannelState::Backoff,
            generation: Generation(2),
            reason: "end of file".into(),
        },
        EventKind::ServiceGaveUp {
            service: service(),
            critical: true,
            reason: "given up".into(),
            exit: Some(exit()),
        },
        EventKind::ServiceDegraded { service: service(), incarnation, reason: "late".into() },
        EventKind::ServiceUnkillable {
            service: service(),
            incarnation,
            survivors: vec!["42 D".into()],
        },
        EventKind::ChannelRecovered {
            channel: "lsp".into(),
            generation: Generation(3),
            took_us: 5000,
            cause: "end of file".into(),
            redelivered: 2,
            lost: 0,
            waited_us: 1000,
            connecting_us: 3000,
            syncing_us: 1000,
            attempts: 2,
            outcomes: [("Expired".to_owned(), 1)].into(),
        },
        EventKind::IpcMessageDropped {
            channel: "lsp".into(),
            message: Uuid::nil(),
            lane: Lane::Bulk,
            outcome: "Expired".into(),
            reason: "its time was up".into(),
        },
        EventKind::CheckpointCreated { checkpoint, services: 3, pending_operations: 1 },
        EventKind::CheckpointQuarantined {
            source: "checkpoint x".into(),
            reason: "hash mismatch".into(),
        },
        EventKind::Recovered {
            source: "checkpoint x".into(),
            services: 3,
            pending_operations: 1,
            swept: 2,
            rejected: vec!["checkpoint y: hash mismatch".into()],
        },
        EventKind::BackupCompleted { backup: "b".into(), bytes: 4096 },
        EventKind::BackupFailed { reason: "disk full".into() },
        EventKind::ModeChanged { mode: "storage_degraded".into(), reason: "disk full".into() },
        EventKind::ShutdownStarted {
            reason: "critical service lsp".into(),
            culprit: Some(service()),
        },
        EventKind::ShutdownCompleted { clean: true, took_us: 900 },
        EventKind::EventsDropped { missed: 7 },
    ]
}

fn status() -> StatusReport {
    let at = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
    let mut state = ServiceState::registered(service(), at);
    state.last_exit = Some(exit());
    StatusReport {
        version: STATUS_VERSION,
        supervisor: SupervisorStatus {
            pid: 4711,
            started_at: at,
            state: SupervisorPhase::Running,
            mode: "normal".into(),
            database: "supervisor.db".into(),
            last_checkpoint: Some(CheckpointId(Uuid::nil())),
            containment: vec!["process_group".into()],
        },
        services: vec![ServiceStatus::of(&state, "Language server", true)],
        channels: vec![ChannelStatus {
            name: "lsp".into(),
            state: ChannelState::Ready,
            generation: Generation(2),
            buffered: 0,
            buffered_bytes: 0,
            in_flight: 0,
            dead_letters: 0,
            reason: String::new(),
            outcomes: [("Acked".to_owned(), 3)].into(),
            last_recovery: Some(ChannelRecovery {
                cause: "end of file".into(),
                took_us: 5000,
                waited_us: 1000,
                connecting_us: 3000,
                syncing_us: 1000,
                attempts: 2,
                redelivered: 2,
                outcomes: [("Expired".to_owned(), 1)].into(),
            }),
        }],
    }
}

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{name} changed; see the module doc");
}

#[test]
fn events_have_their_golden_json_form_and_read_back() {
    let mut text = String::new();
    for (n, kind) in (1..).zip(kinds()) {
        let event = SupervisorEvent {
            version: EVENT_VERSION,
            id: Uuid::from_u128(n),
            sequence: Sequence(u64::try_from(n).unwrap()),
            at: DateTime::from_timestamp_millis(1_700_000_000_000).unwrap(),
            kind,
        };
        let line = serde_json::to_string(&event).unwrap();
        assert!(line.contains(&format!("\"type\":\"{}\"", event.kind.name())), "{line}");
        assert_eq!(serde_json::from_str::<SupervisorEvent>(&line).unwrap(), event);
        text.push_str(&line);
        text.push('\n');
    }
    compare("events.jsonl", &text);
}

#[test]
fn the_status_report_has_its_golden_json_form_and_reads_back() {
    let text = serde_json::to_string_pretty(&status()).unwrap();
    assert_eq!(serde_json::from_str::<StatusReport>(&text).unwrap(), status());
    compare("status.json", &(text + "\n"));
}

#[test]
fn a_reader_ignores_fields_it_does_not_know() {
    let line = r#"{"version":1,"id":"00000000-0000-0000-0000-000000000001","sequence":1,"at":"2023-11-14T22:13:20Z","type":"BackupFailed","reason":"x","later":true}"#;
    assert!(serde_json::from_str::<SupervisorEvent>(line).is_ok());
}
