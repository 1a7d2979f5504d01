//! Killed at a random moment, over and over: what was acknowledged is there, groups are whole, the next start works.
//!
//! The victim is this test program started again with `PERSIST_VICTIM=<role>:<directory>`. Moments come from a printed
//! seed; `PERSIST_SEED=<n>` repeats them. `PERSIST_KILLS=<n>` sets the number of kills of each role.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the victim acknowledges through its output")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chrono::DateTime;
use supervisor_core::journal::{Actor, AuditAction, AuditRecord, Transition};
use supervisor_core::ports::{AuditLog, Journal, StateStore};
use supervisor_core::state::{Phase, ServiceState};
use supervisor_core::{Incarnation, Sequence, ServiceId};
use supervisor_persist::{BackupReason, Durability, StatePersistence};

mod old {
    refinery::embed_migrations!("migrations");
}

/// Rows of a group; all are there or none is.
const GROUP: u64 = 5;
/// Longest life of a victim, in microseconds, from its first word on.
const LIFE_MAX: u64 = 60_000;

fn transition(id: &str, incarnation: u64) -> Transition {
    let mut state = ServiceState::registered(ServiceId::new(id).unwrap(), DateTime::UNIX_EPOCH);
    state.incarnation = Incarnation(incarnation);
    Transition { state, from: Phase::Starting, cause: "running".into() }
}

fn audit(n: u64) -> AuditRecord {
    AuditRecord {
        actor: Actor::Host,
        action: AuditAction::Configuration,
        subject: "svc".into(),
        detail: format!("row {n}"),
    }
}

async fn open(dir: &Path) -> StatePersistence {
    let builder = StatePersistence::builder(dir.join("s.db"), dir.join("c"));
    builder.keep_checkpoints(5).open().await.unwrap()
}

/// Tells the test that something was acknowledged.
fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word}").unwrap();
    out.flush().unwrap();
}

/// What the victim does until it is killed.
async fn victim(role: &str, dir: &Path) {
    if role == "migrator" {
        say("ready");
    }
    let store = open(dir).await;
    let first = Journal::head(&store).await.unwrap().get() / GROUP + 1;
    if role != "migrator" {
        say("ready");
    }
    for n in first.. {
        let group = (0..GROUP).map(|part| transition(&format!("g{part}"), n)).collect();
        match role {
            "checkpoint" => {
                let state = transition("g0", n).state;
                let services = HashMap::from([(state.id.clone(), state)]);
                let id = store.create_checkpoint(&services, &Vec::new()).await.unwrap();
                say(&format!("checkpoint {id}"));
            }
            "soon" => {
                // Every other group without a sync: what was acknowledged survives the process all the same.
                let rule = if n % 2 == 0 { Durability::Soon } else { Durability::Synced };
                store.with_durability(rule).record(group).await.unwrap();
                say(&format!("group {n}"));
            }
            "backup" => {
                store.record(group).await.unwrap();
                say(&format!("group {n}"));
                let made = store.create_backup(BackupReason::Requested).await.unwrap();
                say(&format!("backup {}", made.name));
            }
            _ => {
                let (group, row) =
                    tokio::join!(store.record(group), AuditLog::append(&store, audit(n)));
                say(&format!("group {n}"));
                say(&format!("audit {}", row.unwrap()));
                group.unwrap();
            }
        }
    }
}

/// Everything a victim said before it died.
#[derive(Debug, Default)]
struct Said {
    groups: u64,
    audit: u64,
    checkpoints: Vec<String>,
    backups: Vec<String>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("group", n)) => self.groups = self.groups.max(n.parse().unwrap()),
            Some(("audit", n)) => self.audit = self.audit.max(n.parse().unwrap()),
            Some(("checkpoint", id)) => self.checkpoints.push(id.to_owned()),
            Some(("backup", name)) => self.backups.push(name.to_owned()),
            _ => {}
        }
    }
}

/// Starts a victim, lets it live for so long after its first word, kills it.
fn one_life(role: &str, dir: &Path, life: Duration, said: &mut Said) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_victim", "--nocapture", "--test-threads=1"])
        .env("PERSIST_VICTIM", format!("{role}:{}", dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.ends_with("ready"));
    let killer = std::thread::spawn(move || {
        // The moment of the kill; waking too early is a moment as good as any.
        std::thread::park_timeout(life);
        child.kill().unwrap();
        child.wait().unwrap()
    });
    lines.map_while(Result::ok).for_each(|line| said.hear(&line));
    let ended = killer.join().unwrap();
    assert!(ready, "the victim did not start: {ended}");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ended),
        Some(9),
        "{role} ended early"
    );
}

async fn check(dir: &Path, said: &Said) {
    let began = Instant::now();
    let store = open(dir).await;
    assert!(began.elapsed() < Duration::from_secs(30), "ready after {:?}", began.elapsed());
    let mut rows: HashMap<u64, u64> = HashMap::new();
    let mut after = Sequence::ZERO;
    loop {
        let step = Journal::read(&store, after, 10_000).await.unwrap();
        let Some(last) = step.last() else { break };
        after = last.sequence;
        step.iter().for_each(|row| *rows.entry(row.incarnation.get()).or_default() += 1);
    }
    for (group, count) in &rows {
        assert_eq!(*count, GROUP, "group {group} is torn");
    }
    for group in 1..=said.groups {
        assert!(rows.contains_key(&group), "group {group} of {} is lost", said.groups);
    }
    let newest = rows.keys().max().copied().unwrap_or(0);
    for state in StateStore::load(&store).await.unwrap() {
        assert!(
            state.incarnation.get() == newest || state.id.as_str() == "from-before",
            "{state:?}"
        );
    }
    assert!(AuditLog::head(&store).await.unwrap().get() >= said.audit, "an audit row is lost");
    let trail = AuditLog::verify(&store).await.unwrap();
    assert!(trail.intact, "{}", trail.detail);
    if let Some(newest) = said.checkpoints.last() {
        let found = store.load_latest_checkpoint().await.unwrap();
        let older = said.checkpoints.iter().rev().skip(1).any(|id| *id == found.id.to_string());
        assert!(!older, "{} instead of {newest}", found.id);
    }
    let backups = store.backups().await.unwrap();
    for backup in &backups {
        assert!(store.verify_backup(&backup.name).await.unwrap().intact, "{}", backup.name);
    }
    for name in &said.backups {
        assert!(backups.iter().any(|backup| backup.name == *name), "{name} is lost");
    }
    store.close().await.unwrap();
    let connection = rusqlite::Connection::open(dir.join("s.db")).unwrap();
    let found: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn kill_again_and_again(role: &str, kills: u64, prepare: impl Fn(&Path)) {
    let seed = number("PERSIST_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{role}: repeat with PERSIST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let mut said = Said::default();
    for _ in 0..number("PERSIST_KILLS").unwrap_or(kills) {
        if role == "migrator" {
            // Each life begins with the old database.
            std::fs::remove_dir_all(dir.path()).unwrap();
            std::fs::create_dir(dir.path()).unwrap();
            prepare(dir.path());
            said = Said::default();
        }
        let life = Duration::from_micros(random.u64(0..LIFE_MAX));
        one_life(role, dir.path(), life, &mut said);
        check(dir.path(), &said).await;
    }
    assert!(
        said.groups + said.checkpoints.len() as u64 > 0 || role == "migrator",
        "nothing was ever acknowledged"
    );
}

fn old_database(dir: &Path) {
    let mut connection = rusqlite::Connection::open(dir.join("s.db")).unwrap();
    connection.execute_batch("PRAGMA application_id=1229210963; PRAGMA journal_mode=WAL;").unwrap();
    let runner = old::migrations::runner().set_target(refinery::Target::Version(4));
    runner.set_grouped(true).run(&mut connection).unwrap();
    let state = serde_json::to_string(&transition("from-before", 0).state).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA user_version=4;
             INSERT INTO service_state VALUES ('from-before', 0, 0, '{state}');"
        ))
        .unwrap();
}

/// Does nothing, unless this program was started as a victim.
#[test]
fn the_victim() {
    let Ok(text) = std::env::var("PERSIST_VICTIM") else { return };
    let (role, dir) = text.split_once(':').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(victim(role, &PathBuf::from(dir)));
}

#[tokio::test]
async fn scenario_01_a_writer_killed_in_a_commit_loses_nothing_acknowledged_and_tears_no_group() {
    kill_again_and_again("writer", 25, |_| {}).await;
}

#[tokio::test]
async fn what_was_acknowledged_without_a_sync_survives_a_kill_too() {
    kill_again_and_again("soon", 15, |_| {}).await;
}

#[tokio::test]
async fn a_checkpoint_writer_that_is_killed_leaves_a_checkpoint_that_loads() {
    kill_again_and_again("checkpoint", 20, |_| {}).await;
}

#[tokio::test]
async fn a_backup_that_is_killed_leaves_every_listed_backup_sound() {
    kill_again_and_again("backup", 15, |_| {}).await;
}

#[tokio::test]
async fn a_migrator_that_is_killed_leaves_the_old_schema_or_the_new_one() {
    kill_again_and_again("migrator", 20, old_database).await;
}

/// A recovery is what a writer begins with: the one before it was killed with a log full of groups.
#[tokio::test]
async fn a_recovery_that_is_killed_is_finished_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let seed = number("PERSIST_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("recovery: repeat with PERSIST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut said = Said::default();
    one_life("writer", dir.path(), Duration::from_micros(LIFE_MAX), &mut said);
    for _ in 0..number("PERSIST_KILLS").unwrap_or(15) {
        // Killed while it opens: the word that ends the wait is the first one, before the database is touched.
        one_life("migrator", dir.path(), Duration::from_micros(random.u64(0..15_000)), &mut said);
    }
    check(dir.path(), &said).await;
}
