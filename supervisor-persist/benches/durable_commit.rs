//! One durable commit through the store beside one of bare SQLite, one that may wait for its sync beside that, and 64
//! producers beside one.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints lines and fails by panicking"
)]

use std::time::{Duration, Instant};

use chrono::DateTime;
use supervisor_core::ServiceId;
use supervisor_core::journal::Transition;
use supervisor_core::ports::StateStore;
use supervisor_core::state::{Phase, ServiceState};
use supervisor_persist::{Durability, StatePersistence};

const ROUNDS: usize = 400;
const PRODUCERS: usize = 64;
const PER_PRODUCER: usize = 500;

fn transition(n: usize) -> Transition {
    let id = ServiceId::new(format!("service-{n}")).unwrap();
    let state = ServiceState::registered(id, DateTime::UNIX_EPOCH);
    Transition { state, from: Phase::Starting, cause: "running".into() }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// The same two statements on a connection of one's own, WAL and FULL.
struct Bare(rusqlite::Connection);

impl Bare {
    fn open(path: &std::path::Path) -> Self {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
             CREATE TABLE journal (sequence INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER, service TEXT, incarnation INTEGER, from_phase TEXT, to_phase TEXT, cause TEXT, reason TEXT) STRICT;
             CREATE TABLE service_state (service TEXT PRIMARY KEY, incarnation INTEGER, sequence INTEGER, state TEXT) STRICT, WITHOUT ROWID;",
        )
        .unwrap();
        Self(connection)
    }

    fn commit(&self) {
        let run = |text: &str| self.0.prepare_cached(text).unwrap().execute([]).unwrap();
        let state = serde_json::to_string(&transition(1).state).unwrap();
        run("BEGIN IMMEDIATE");
        run(
            "INSERT INTO journal (at, service, incarnation, from_phase, to_phase, cause, reason) VALUES (1, 'service-1', 1, 'starting', 'running', 'running', 'up')",
        );
        let upsert = "INSERT OR REPLACE INTO service_state VALUES ('service-1', 1, 1, ?1)";
        self.0.prepare_cached(upsert).unwrap().execute([&state]).unwrap();
        run("COMMIT");
    }
}

/// Medians of bare commits, of the store's, and of those that may wait for their sync; one of each in turn, so that
/// whatever else the disk does concerns all of them.
async fn one_by_one(bare: &Bare, store: &StatePersistence) -> [f64; 3] {
    let soon = store.with_durability(Durability::Soon);
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let began = Instant::now();
        bare.commit();
        times[0].push(began.elapsed());
        for (store, times) in [store, &soon].into_iter().zip(&mut times[1..]) {
            let began = Instant::now();
            store.record(vec![transition(1)]).await.unwrap();
            times.push(began.elapsed());
        }
    }
    times.map(median)
}

/// Commits a second of so many producers that each wait for their answer, and the 99th percentile of that wait.
async fn throughput(store: &StatePersistence, producers: usize, each: usize) -> (f64, f64) {
    let began = Instant::now();
    let tasks: Vec<_> = (0..producers)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut waits = Vec::with_capacity(each);
                for _ in 0..each {
                    let put = Instant::now();
                    store.record(vec![transition(n)]).await.unwrap();
                    waits.push(put.elapsed());
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    let rate = (producers * each) as f64 / began.elapsed().as_secs_f64();
    waits.sort_unstable();
    (rate, waits[waits.len() * 99 / 100].as_secs_f64() * 1000.0)
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = StatePersistence::new(directory.path().join("s.db"), directory.path().join("c")).await.unwrap();
        let bare = Bare::open(&directory.path().join("a.db"));
        let [floor, value, soon] = one_by_one(&bare, &store).await;
        println!(
            r#"{{"bench":"durable_commit","value":{value:.4},"unit":"ms","floor":{floor:.4},"ratio":{:.4},"target":1.15,"note":"median of {ROUNDS}, one transition (state and journal row), WAL FULL"}}"#,
            value / floor
        );
        println!(
            r#"{{"bench":"commit_soon","value":{soon:.4},"unit":"ms","floor":{value:.4},"ratio":{:.4},"note":"median of {ROUNDS}, acknowledged without a sync, beside one with"}}"#,
            soon / value
        );
        // One after the other in turn; the first rounds only warm up.
        throughput(&store, PRODUCERS, 20).await;
        let mut sums = [0.0; 4];
        for _ in 0..3 {
            let (one, many) =
                (throughput(&store, 1, 1000).await, throughput(&store, PRODUCERS, PER_PRODUCER).await);
            for (sum, value) in sums.iter_mut().zip([one.0, one.1, many.0, many.1]) {
                *sum += value / 3.0;
            }
        }
        let [one, one_p99, many, many_p99] = sums;
        println!(
            r#"{{"bench":"group_commit","value":{many:.1},"unit":"commits/s","floor":{one:.1},"ratio":{:.4},"target":30,"better":"higher","note":"{PRODUCERS} producers beside one; mean of 3"}}"#,
            many / one
        );
        println!(
            r#"{{"bench":"group_commit_p99","value":{many_p99:.4},"unit":"ms","floor":{one_p99:.4},"ratio":{:.4},"note":"p99 of {PRODUCERS} producers beside that of one"}}"#,
            many_p99 / one_p99
        );
        store.close().await.unwrap();
    });
}
