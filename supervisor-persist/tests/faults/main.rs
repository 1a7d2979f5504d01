//! Every call that can fail does, one after the other: what was acknowledged is there afterwards, and nothing is damaged.
//!
//! A failing point prints how to run it alone: `PERSIST_FAULT=<work>:<how>:<n>`.
//!
//! | work | what runs under faults |
//! |---|---|
//! | commit | transitions, events, audit rows, messages, keys; by several callers |
//! | checkpoint | two checkpoints with their file copies |
//! | migration | opening a database of schema 4 |
//! | recovery | opening what a kill left, with a full log |
//! | backup | two backups, and looking at them |
//! | prune | sealing the audit trail |

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use supervisor_core::ports::{AuditLog, CheckpointStore, StateStore};
use supervisor_persist::BackupReason;
use supervisor_persist::testing::{FaultPlan, How, Op};

mod oracle;

use oracle::{Acked, directory, open, reopens, reread, row, transition, written};

mod old {
    refinery::embed_migrations!("migrations");
}

const HOWS: [How; 6] = [
    How::Once,
    How::OnceFull,
    How::Torn,
    How::Persistent,
    How::PersistentFull,
    How::PersistentSync,
];

/// Points of one work that run at once; opening and closing wait for other threads.
const SHARES: usize = 4;

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// What runs under faults, and the directory it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Commit,
    Checkpoint,
    Migration,
    Recovery,
    Backup,
    Prune,
}

impl Work {
    const fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Checkpoint => "checkpoint",
            Self::Migration => "migration",
            Self::Recovery => "recovery",
            Self::Backup => "backup",
            Self::Prune => "prune",
        }
    }

    /// Makes what it begins with, and what was acknowledged until then.
    async fn template(self, dir: &Path) -> Acked {
        let mut acked = Acked::default();
        match self {
            Self::Migration => {
                old_database(&dir.join("s.db"));
                acked.services.push("from-before".to_owned());
            }
            Self::Recovery => {
                let live = directory();
                let store = open(live.path()).await.unwrap();
                for round in 1..=20 {
                    acked.some_of_everything(&store, round).await;
                }
                acked.checkpoint(&store).await;
                // Copied under a living store: what a kill would leave, a log of everything in it.
                copy_all(live.path(), dir);
                assert!(fs::metadata(dir.join("s.db-wal")).unwrap().len() > 100_000);
                store.close().await.unwrap();
            }
            Self::Commit | Self::Checkpoint | Self::Backup | Self::Prune => {
                let store = open(dir).await.unwrap();
                acked.some_of_everything(&store, 1).await;
                acked.checkpoint(&store).await;
                store.close().await.unwrap();
            }
        }
        acked
    }

    async fn run(self, dir: &Path, acked: &mut Acked) {
        let Ok(store) = open(dir).await else { return };
        match self {
            Self::Commit => {
                for round in 2..=4 {
                    acked.some_of_everything(&store, round).await;
                }
            }
            Self::Checkpoint => {
                acked.checkpoint(&store).await;
                acked.checkpoint(&store).await;
            }
            Self::Migration => acked.some_of_everything(&store, 2).await,
            Self::Recovery => {
                drop(store.restore().await);
                acked.some_of_everything(&store, 30).await;
            }
            Self::Backup => {
                for round in 2..=3 {
                    acked.some_of_everything(&store, round).await;
                    let made = store.create_backup(BackupReason::Requested).await;
                    acked.backups.extend(made.ok().map(|backup| backup.name));
                }
                drop(store.verify_backups(2).await);
            }
            Self::Prune => {
                for n in 0..3 {
                    drop(AuditLog::append(&store, row(&format!("old {n}"))).await);
                }
                drop(store.prune_audit(1).await);
                // Pruned or not cannot be known after an error; the chain tells whether it is whole.
                acked.audit.clear();
            }
        }
        drop(store.close().await);
    }
}

fn old_database(path: &Path) {
    let mut connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA application_id=1229210963; PRAGMA journal_mode=WAL;").unwrap();
    let runner = old::migrations::runner().set_target(refinery::Target::Version(4));
    runner.set_grouped(true).run(&mut connection).unwrap();
    let state = serde_json::to_string(&transition("from-before").state).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA user_version=4;
             INSERT INTO service_state VALUES ('from-before', 1, 1, '{state}');
             INSERT INTO journal VALUES (1, 1, 'from-before', 1, 'starting', 'running', 'running', 'up');"
        ))
        .unwrap();
}

/// One point: the work with the n-th call failing, then the oracle, twice.
async fn point(work: Work, template: &Path, acked: &str, how: How, n: u64) -> Result<bool, String> {
    let dir = directory();
    copy_all(template, dir.path());
    let mut acked = reread(acked);
    let plan = FaultPlan::watch(dir.path()).unwrap();
    plan.arm(n, how);
    work.run(dir.path(), &mut acked).await;
    let fired = plan.fired();
    plan.disarm();
    drop(plan);
    let found = match acked.check(dir.path()).await {
        // Recovery itself leaves something that opens.
        Ok(()) => reopens(dir.path()).await,
        Err(error) => Err(error),
    };
    found.map_err(|error| {
        let name = work.name();
        format!("{error}\nfailed: {fired:?}\nrepeat: PERSIST_FAULT={name}:{how:?}:{n}")
    })?;
    Ok(!fired.is_empty())
}

fn wanted() -> Option<(String, String, u64)> {
    let text = std::env::var("PERSIST_FAULT").ok()?;
    let mut parts = text.split(':').map(str::to_owned);
    Some((parts.next()?, parts.next()?, parts.next()?.parse().ok()?))
}

/// Whether failing this way at this call differs from the other ways.
fn tells(how: How, op: Op) -> bool {
    match how {
        How::OnceFull | How::Torn | How::PersistentFull => op == Op::Write,
        How::PersistentSync => op == Op::Sync,
        _ => true,
    }
}

async fn every_point(work: Work) {
    let template = directory();
    let acked = written(&work.template(template.path()).await);
    let calls = {
        let dir = directory();
        copy_all(template.path(), dir.path());
        let plan = FaultPlan::watch(dir.path()).unwrap();
        work.run(dir.path(), &mut reread(&acked)).await;
        plan.ops()
    };
    assert!(calls.len() > 10, "{} made {} calls", work.name(), calls.len());
    let all = (1..).zip(&calls).flat_map(|(n, op)| {
        HOWS.into_iter().filter(move |how| tells(*how, *op)).map(move |how| (how, n))
    });
    let only = wanted();
    let points: Vec<(How, u64)> = match &only {
        None => all.collect(),
        Some((name, how, n)) => HOWS
            .into_iter()
            .filter(|known| *name == work.name() && format!("{known:?}") == *how)
            .map(|how| (how, *n))
            .collect(),
    };
    let (hit, failures) = run_points(work, template.path(), &acked, &points).await;
    assert!(failures.is_empty(), "{} failures, the first:\n{}", failures.len(), failures[0]);
    if only.is_none() {
        // A fault may end the work before a later point; most are reached in any case.
        assert!(
            hit * 10 > points.len() * 7,
            "{}: {hit} of {} points hit",
            work.name(),
            points.len()
        );
    }
}

/// Runs points on a few threads; gives how many calls did fail, and what the oracle found.
async fn run_points(
    work: Work,
    template: &Path,
    acked: &str,
    points: &[(How, u64)],
) -> (usize, Vec<String>) {
    let mut tasks = tokio::task::JoinSet::new();
    for share in 0..SHARES {
        let points: Vec<_> = points.iter().copied().skip(share).step_by(SHARES).collect();
        let (template, acked) = (template.to_owned(), acked.to_owned());
        tasks.spawn(async move {
            let (mut hit, mut failures) = (0, Vec::new());
            for (how, n) in points {
                match point(work, &template, &acked, how, n).await {
                    Ok(fired) => hit += usize::from(fired),
                    Err(failure) => failures.push(failure),
                }
            }
            (hit, failures)
        });
    }
    let mut all = (0, Vec::new());
    while let Some(share) = tasks.join_next().await {
        let (hit, failures) = share.unwrap();
        all.0 += hit;
        all.1.extend(failures);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_call_of_commits_loses_and_damages_nothing() {
    every_point(Work::Commit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_call_of_checkpoints_loses_and_damages_nothing() {
    every_point(Work::Checkpoint).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_call_of_a_migration_loses_and_damages_nothing() {
    every_point(Work::Migration).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_call_of_a_recovery_loses_and_damages_nothing() {
    every_point(Work::Recovery).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_call_of_backups_loses_and_damages_nothing() {
    every_point(Work::Backup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_call_of_pruning_the_trail_loses_and_damages_nothing() {
    every_point(Work::Prune).await;
}

/// What the plan promises the tests above.
#[tokio::test]
async fn a_plan_concerns_its_own_directory_only() {
    let (one, other) = (directory(), directory());
    let plan = FaultPlan::watch(one.path()).unwrap();
    plan.arm(1, How::Persistent);
    assert!(open(one.path()).await.is_err());
    let store = open(other.path()).await.unwrap();
    store.record(vec![transition("a")]).await.unwrap();
    store.close().await.unwrap();
    assert!(plan.calls() > 0, "and it was asked");
}
