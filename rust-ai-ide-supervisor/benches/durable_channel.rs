//! Durable messages a second: stored, sent, acknowledged by the peer and removed, beside the same rows in groups of the
//! same size on bare SQLite.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints lines and fails by panicking"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rusqlite::Connection;
use supervisor_core::config::RecoveryConfig;
use supervisor_core::message::{ChannelState, IpcMessage};
use supervisor_core::ports::Outbox;
use supervisor_core::text::ByteSize;
use supervisor_ipc::{Channel, Endpoint, IpcMonitor, MemoryTransport, SendOptions};
use supervisor_persist::StatePersistence;
use uuid::Uuid;

const MESSAGES: u128 = 100_000;
/// Producers that wait for each message to be stored before they send the next.
const WAITING: usize = 64;
/// Producers with many messages on their way, and how many.
const STREAMING: usize = 4;
const WINDOW: usize = 1024;
const PAYLOAD: usize = 128;

fn message(n: u128) -> IpcMessage {
    IpcMessage {
        id: Uuid::from_u128(n + 1),
        message_type: "t".into(),
        payload: serde_json::Value::String("x".repeat(PAYLOAD)),
        timestamp: chrono::DateTime::UNIX_EPOCH,
        retry_count: 0,
    }
}

/// The rows of the outbox on a connection of one's own, WAL and FULL: in each commit a group is put and the one before
/// it taken.
fn bare(path: &std::path::Path, group: usize) -> f64 {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
             CREATE TABLE outbox (sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, channel TEXT NOT NULL, message TEXT NOT NULL) STRICT;
             CREATE INDEX outbox_by_channel ON outbox (channel, sequence);",
        )
        .unwrap();
    let run = |text: &str| connection.prepare_cached(text).unwrap().execute([]).unwrap();
    let groups = (usize::try_from(MESSAGES).unwrap() / group).min(400);
    let began = Instant::now();
    for number in 0..groups {
        run("BEGIN IMMEDIATE");
        for n in 0..group {
            let message = message((number * group + n) as u128);
            let text = serde_json::to_string(&message).unwrap();
            let insert = "INSERT INTO outbox (id, channel, message) VALUES (?1, 'svc', ?2)";
            let mut insert = connection.prepare_cached(insert).unwrap();
            insert.execute((message.id.to_string(), text)).unwrap();
        }
        let before = "DELETE FROM outbox WHERE sequence <= (SELECT max(sequence) FROM outbox) - ?1";
        connection
            .prepare_cached(before)
            .unwrap()
            .execute([i64::try_from(group).unwrap()])
            .unwrap();
        run("COMMIT");
    }
    (groups * group) as f64 / began.elapsed().as_secs_f64()
}

/// One producer of many, which has at most `window` messages on their way to the store or to the peer; with a window of
/// one it waits until the message before is stored, and collects the outcomes behind it.
async fn produce(channel: Channel, numbers: impl Iterator<Item = u128>, window: usize) {
    let options = SendOptions { durable: true, ..SendOptions::default() };
    let mut open = FuturesUnordered::new();
    for n in numbers {
        if window == 1 {
            let receipt = channel.send_with(message(n), options).await;
            receipt.accepted().unwrap();
            open.push(futures_util::future::Either::Left(async move { receipt.outcome().await }));
            continue;
        }
        let channel = channel.clone();
        open.push(futures_util::future::Either::Right(async move {
            channel.send_with(message(n), options).await.outcome().await
        }));
        if open.len() >= window {
            let outcome = open.next().await.unwrap();
            assert!(outcome.delivered(), "{outcome:?}");
        }
    }
    while let Some(outcome) = open.next().await {
        assert!(outcome.delivered(), "{outcome:?}");
    }
}

/// Messages a second from so many producers with such a window.
async fn through(channel: &Channel, producers: usize, window: usize, first: u128) -> f64 {
    let began = Instant::now();
    let tasks: Vec<_> = (0..producers)
        .map(|producer| {
            let numbers = (first + producer as u128..first + MESSAGES).step_by(producers);
            tokio::spawn(produce(channel.clone(), numbers, window))
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    MESSAGES as f64 / began.elapsed().as_secs_f64()
}

async fn run() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let store = Arc::new(StatePersistence::new(place("a.db"), place("checkpoints")).await.unwrap());
    let config = RecoveryConfig {
        max_buffered_messages: 16_384,
        max_buffered_bytes: ByteSize::mib(16),
        max_in_flight: 4096,
        ..RecoveryConfig::default()
    };
    let monitor = IpcMonitor::builder(config).outbox(Arc::clone(&store) as Arc<dyn Outbox>).build();
    let channel = monitor.register_channel("svc").await.unwrap();
    let (transport, mut peer) = MemoryTransport::new(256 * 1024);
    let service = tokio::spawn(async move {
        let stream = peer.accept().await.unwrap();
        drop(Endpoint::new(|_: IpcMessage| async { None }).serve(stream).await);
    });
    channel.attach(Arc::new(transport)).await.unwrap();
    channel.reached(ChannelState::Ready).await.unwrap();
    // A floor before and after each, so that a machine that gets slower does so for both.
    let floors = |name: &str, group| bare(&place(name), group);
    let before = floors("b.db", WAITING);
    let waiting = through(&channel, WAITING, 1, 0).await;
    let after = floors("c.db", WAITING);
    report(
        "durable_messages_each_awaited",
        waiting,
        (before + after) / 2.0,
        &format!(
            "{WAITING} producers, each waits until its message is on the disk before it sends the next; groups of {WAITING} on bare SQLite"
        ),
    );
    let before = floors("d.db", WINDOW);
    let streaming = through(&channel, STREAMING, WINDOW, MESSAGES).await;
    let after = floors("e.db", WINDOW);
    report(
        "durable_messages_in_flight",
        streaming,
        (before + after) / 2.0,
        &format!(
            "{STREAMING} producers with {WINDOW} messages on their way each; groups of {WINDOW} on bare SQLite"
        ),
    );
    println!(
        r#"{{"bench":"durable_messages","value":{streaming:.0},"unit":"1/s","target":64000,"better":"higher","note":"the same, as it is"}}"#
    );
    monitor.shutdown(Duration::from_secs(30)).await;
    service.abort();
    store.close().await.unwrap();
}

fn report(name: &str, value: f64, floor: f64, note: &str) {
    println!(
        r#"{{"bench":"{name}","value":{value:.0},"unit":"1/s","floor":{floor:.0},"ratio":{:.4},"better":"higher","note":"{MESSAGES} of {PAYLOAD} B, synced before each is accepted, then acknowledged: {note}"}}"#,
        value / floor
    );
}

fn main() {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(run());
}
