//! Durable messages a second: stored, sent, acknowledged by the peer and removed, beside the store's own group commits.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints lines and fails by panicking"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use supervisor_core::config::RecoveryConfig;
use supervisor_core::message::{ChannelState, IpcMessage};
use supervisor_core::ports::Outbox;
use supervisor_core::text::ByteSize;
use supervisor_ipc::{Channel, Endpoint, IpcMonitor, MemoryTransport, SendOptions};
use supervisor_persist::StatePersistence;
use uuid::Uuid;

const MESSAGES: u128 = 100_000;
const PRODUCERS: u128 = 64;
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

/// One producer of many: each message is sent once the one before it is stored; outcomes are collected behind it.
async fn produce(channel: Channel, producer: u128) {
    let options = SendOptions { durable: true, ..SendOptions::default() };
    let mut open = FuturesUnordered::new();
    for n in (producer..MESSAGES).step_by(usize::try_from(PRODUCERS).unwrap()) {
        let receipt = channel.send_with(message(n), options).await;
        receipt.accepted().unwrap();
        open.push(async move { receipt.outcome().await });
    }
    while let Some(outcome) = open.next().await {
        assert!(outcome.delivered(), "{outcome:?}");
    }
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
    let began = Instant::now();
    let producers: Vec<_> =
        (0..PRODUCERS).map(|producer| tokio::spawn(produce(channel.clone(), producer))).collect();
    for producer in producers {
        producer.await.unwrap();
    }
    let rate = MESSAGES as f64 / began.elapsed().as_secs_f64();
    println!(
        r#"{{"bench":"durable_messages","value":{rate:.0},"unit":"1/s","target":64000,"better":"higher","note":"{MESSAGES} of {PAYLOAD} B from {PRODUCERS} producers: synced to disk before each is accepted, then acknowledged"}}"#
    );
    monitor.shutdown(Duration::from_secs(30)).await;
    service.abort();
    store.close().await.unwrap();
}

fn main() {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(run());
}
