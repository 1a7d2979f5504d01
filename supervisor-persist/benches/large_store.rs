//! A checkpoint of a thousand services, and a store with a million rows: reopened after a kill, and asked.
//!
//! The store is filled by this program started again, which is then killed in the middle of its work.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints lines and fails by panicking"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use chrono::DateTime;
use supervisor_core::event::{EVENT_VERSION, EventKind, SupervisorEvent};
use supervisor_core::journal::{Actor, AuditAction, AuditRecord, Transition};
use supervisor_core::ports::{AuditLog, EventStore, Journal, StateStore};
use supervisor_core::state::{Phase, ServiceState};
use supervisor_core::{Sequence, ServiceId};
use supervisor_persist::StatePersistence;
use uuid::Uuid;

const ROWS: u64 = 1_000_000;
const BATCH: u64 = 5_000;
const SERVICES: u64 = 50;
const ROUNDS: usize = 20;

fn state(n: u64) -> ServiceState {
    ServiceState::registered(ServiceId::new(format!("service-{n}")).unwrap(), DateTime::UNIX_EPOCH)
}

fn transition(n: u64) -> Transition {
    Transition { state: state(n % SERVICES), from: Phase::Starting, cause: "running".into() }
}

fn event(n: u64) -> SupervisorEvent {
    SupervisorEvent {
        version: EVENT_VERSION,
        id: Uuid::from_u128(n.into()),
        sequence: Sequence(n),
        at: DateTime::UNIX_EPOCH,
        kind: EventKind::BackupFailed { reason: "no space".into() },
    }
}

fn row(n: u64) -> AuditRecord {
    AuditRecord {
        actor: Actor::Supervisor,
        action: AuditAction::ServiceState,
        subject: format!("service-{}", n % SERVICES),
        detail: "starting -> running".into(),
    }
}

async fn open(dir: &Path) -> StatePersistence {
    let builder = StatePersistence::builder(dir.join("s.db"), dir.join("c"));
    builder.keep_rows(2 * ROWS, 2 * ROWS).open().await.unwrap()
}

/// Fills the store, says so, and goes on writing until it is killed.
async fn fill(dir: &Path) {
    let store = open(dir).await;
    for first in (0..ROWS).step_by(usize::try_from(BATCH).unwrap()) {
        store.record((first..first + BATCH).map(transition).collect()).await.unwrap();
        let events = (first + 1..=first + BATCH).map(event).collect();
        EventStore::append(&store, events).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for n in first..first + BATCH {
            let store = store.clone();
            tasks.spawn(async move { AuditLog::append(&store, row(n)).await.unwrap() });
        }
        tasks.join_all().await;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "filled").unwrap();
    out.flush().unwrap();
    for n in 0.. {
        store.record(vec![transition(n)]).await.unwrap();
    }
}

fn line(bench: &str, value: f64, target: f64, note: &str) {
    println!(
        r#"{{"bench":"{bench}","value":{value:.4},"unit":"ms","target":{target},"note":"{note}"}}"#
    );
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

fn millis(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

async fn checkpoints(dir: &Path) {
    let store = open(dir).await;
    let services: HashMap<_, _> =
        (0..1000).map(state).map(|state| (state.id.clone(), state)).collect();
    let (mut made, mut loaded) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        store.create_checkpoint(&services, &Vec::new()).await.unwrap();
        made.push(millis(began));
        let began = Instant::now();
        assert_eq!(store.load_latest_checkpoint().await.unwrap().services.len(), 1000);
        loaded.push(millis(began));
    }
    store.close().await.unwrap();
    line(
        "checkpoint_1000_services",
        median(made),
        20.0,
        "median of 20, database and file, syncs included",
    );
    line("load_checkpoint_1000_services", median(loaded), 10.0, "median of 20, verified");
}

async fn million(dir: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env("PERSIST_BENCH_FILL", dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "filled");
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    let store = open(dir).await;
    let opened = millis(began);
    let states = StateStore::load(&store).await.unwrap();
    assert_eq!(states.len() as u64, SERVICES);
    line("reopen_after_kill", opened, 100.0, "once, a million journal rows");
    let (mut events, mut audit, mut status, mut journal) = (vec![], vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let after = Sequence(ROWS * 9 / 10 + round as u64);
        let began = Instant::now();
        assert_eq!(EventStore::read(&store, after, 100).await.unwrap().len(), 100);
        events.push(millis(began));
        let began = Instant::now();
        assert_eq!(AuditLog::read(&store, after, 100).await.unwrap().len(), 100);
        audit.push(millis(began));
        let began = Instant::now();
        StateStore::load(&store).await.unwrap();
        status.push(millis(began));
        let began = Instant::now();
        assert_eq!(Journal::read(&store, after, 100).await.unwrap().len(), 100);
        journal.push(millis(began));
    }
    line("query_events", median(events), 10.0, "median of 20, 100 of a million");
    line("query_audit", median(audit), 10.0, "median of 20, 100 of a million");
    line(
        "query_status",
        median(status),
        10.0,
        "median of 20, 50 services beside a million journal rows",
    );
    line("query_journal", median(journal), 10.0, "median of 20, 100 of a million");
    store.close().await.unwrap();
    plans(&dir.join("s.db"));
}

/// Prints how SQLite answers the questions above; that none of the crate's queries does worse is a test of its own.
fn plans(database: &Path) {
    let connection = rusqlite::Connection::open(database).unwrap();
    for query in [
        "SELECT sequence, at, body, digest FROM event WHERE sequence > 1 ORDER BY sequence LIMIT 100",
        "SELECT sequence, at, actor, action, subject, detail, hash FROM audit WHERE sequence > 1 ORDER BY sequence LIMIT 100",
        "SELECT service, incarnation, sequence, state, digest FROM service_state ORDER BY service",
        "SELECT sequence, at, service, cause, reason FROM journal WHERE sequence > 1 ORDER BY sequence LIMIT 100",
    ] {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        let steps = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<String> = steps.map(Result::unwrap).collect();
        println!("plan: {query}: {}", steps.join("; "));
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(dir) = std::env::var_os("PERSIST_BENCH_FILL") {
        runtime.block_on(fill(Path::new(&dir)));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    runtime.block_on(checkpoints(&directory.path().join("few")));
    runtime.block_on(million(&directory.path().join("many")));
}
