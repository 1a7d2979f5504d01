//! Messages that outlive the process that sent them, and buffers that spill or make their senders wait.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use supervisor_core::Sequence;
use supervisor_core::config::{FramingKind, OverflowPolicy, RecoveryConfig};
use supervisor_core::error::IpcError;
use supervisor_core::message::{IpcMessage, Outcome};
use supervisor_core::ports::Outbox;
use supervisor_core::testing::MemoryStore;
use supervisor_ipc::{
    Acceptance, Channel, ChannelOptions, Endpoint, IpcMonitor, MemoryTransport, SendOptions,
};
use uuid::Uuid;

fn message(n: u64) -> IpcMessage {
    IpcMessage {
        id: Uuid::from_u128(u128::from(n)),
        message_type: "t".into(),
        payload: n.into(),
        timestamp: chrono::DateTime::UNIX_EPOCH,
        retry_count: 0,
    }
}

const DURABLE: SendOptions = SendOptions {
    lane: supervisor_core::message::Lane::Normal,
    idempotent: true,
    ttl: None,
    expect_reply: false,
    durable: true,
    replaces: None,
};

fn monitor(store: &Arc<MemoryStore>, config: RecoveryConfig) -> IpcMonitor {
    IpcMonitor::builder(config).outbox(Arc::clone(store) as Arc<dyn Outbox>).build()
}

async fn stored(store: &MemoryStore) -> Vec<u64> {
    let rows = store.pending("svc", Sequence::ZERO, 10_000).await.unwrap();
    rows.iter().filter_map(|row| row.message.payload.as_u64()).collect()
}

/// What a service handled, in order.
type Handled = Arc<Mutex<Vec<u64>>>;

/// Attaches a service that notes what it handles.
async fn attach(channel: &Channel) -> Handled {
    let (transport, mut peer) = MemoryTransport::new(4096);
    let handled = Handled::default();
    let notes = Arc::clone(&handled);
    tokio::spawn(async move {
        let endpoint = Endpoint::new(move |message: IpcMessage| {
            notes.lock().unwrap().extend(message.payload.as_u64());
            async { None }
        });
        while let Some(stream) = peer.accept().await {
            drop(endpoint.serve(stream).await);
        }
    });
    channel.attach(Arc::new(transport)).await.unwrap();
    handled
}

async fn until(mut reached: impl AsyncFnMut() -> bool) {
    let limit = Duration::from_secs(30);
    let polled = tokio::time::timeout(limit, async {
        while !reached().await {
            // poll: at most 30 s.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(polled.await.is_ok(), "not within {limit:?}");
}

#[tokio::test]
async fn a_durable_message_is_sent_by_the_next_process_with_its_id_and_then_gone() {
    let store = Arc::new(MemoryStore::new());
    let first = monitor(&store, RecoveryConfig::default());
    let channel = first.register_channel("svc").await.unwrap();
    for n in 1..=3 {
        let receipt = channel.send_with(message(n), DURABLE).await;
        assert_eq!(receipt.accepted().unwrap(), Acceptance::Buffered);
    }
    assert_eq!(stored(&store).await, [1, 2, 3], "accepted means stored");
    first.shutdown(Duration::from_secs(30)).await;
    assert_eq!(stored(&store).await, [1, 2, 3], "the end of the channel is not its outcome");

    let second = monitor(&store, RecoveryConfig::default());
    let channel = second.register_channel("svc").await.unwrap();
    let handled = attach(&channel).await;
    until(async || stored(&store).await.is_empty()).await;
    assert_eq!(*handled.lock().unwrap(), [1, 2, 3]);
    second.shutdown(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn a_durable_message_sent_again_while_it_waits_is_one_message() {
    let store = Arc::new(MemoryStore::new());
    let monitor = monitor(&store, RecoveryConfig::default());
    let channel = monitor.register_channel("svc").await.unwrap();
    let once = channel.send_with(message(1), DURABLE).await;
    let again = channel.send_with(message(1), DURABLE).await;
    assert_eq!(again.accepted().unwrap(), Acceptance::Duplicate);
    assert_eq!(stored(&store).await, [1], "the repetition did not take it out of the store");
    let handled = attach(&channel).await;
    assert!(once.await.delivered());
    assert!(again.await.delivered());
    let late = channel.send_with(message(1), DURABLE).await;
    assert_eq!(late.accepted().unwrap(), Acceptance::Duplicate);
    until(async || stored(&store).await.is_empty()).await;
    assert_eq!(*handled.lock().unwrap(), [1]);
    monitor.shutdown(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn a_full_buffer_spills_to_the_outbox_and_everything_arrives_once_and_in_order() {
    let store = Arc::new(MemoryStore::new());
    let config = RecoveryConfig {
        max_buffered_messages: 10,
        overflow: OverflowPolicy::Spill,
        ..RecoveryConfig::default()
    };
    let monitor = monitor(&store, config);
    let channel = monitor.register_channel("svc").await.unwrap();
    let mut receipts = Vec::new();
    for n in 1..=1000 {
        let receipt = channel.send(message(n)).await;
        assert_eq!(receipt.accepted().unwrap(), Acceptance::Buffered, "{n}");
        receipts.push(receipt);
    }
    assert!(stored(&store).await.len() >= 990, "what has no room in memory is stored");
    assert!(channel.status().buffered <= 10);
    let handled = attach(&channel).await;
    for receipt in receipts {
        let outcome = receipt.await;
        assert!(outcome.delivered(), "{outcome:?}");
    }
    assert_eq!(*handled.lock().unwrap(), (1..=1000).collect::<Vec<_>>());
    until(async || stored(&store).await.is_empty()).await;
    monitor.shutdown(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn a_dead_letter_that_was_put_back_is_sent_again() {
    let store = Arc::new(MemoryStore::new());
    let config = RecoveryConfig { max_attempts: 1, ..RecoveryConfig::default() };
    let monitor = monitor(&store, config);
    let channel = monitor.register_channel("svc").await.unwrap();
    let receipt = channel.send_with(message(1), DURABLE).await;
    // A peer that greets and dies with the message.
    let (transport, mut peer) = MemoryTransport::new(4096);
    let service = tokio::spawn(async move {
        let stream = peer.accept().await.unwrap();
        let stuck = Endpoint::new(|_: IpcMessage| std::future::pending());
        let served = tokio::time::timeout(Duration::from_millis(50), stuck.serve(stream)).await;
        assert!(served.is_err(), "it never answered");
    });
    channel.attach(Arc::new(transport)).await.unwrap();
    assert!(matches!(receipt.await, Outcome::DeadLettered { .. }));
    service.await.unwrap();
    until(async || !store.dead_letters(None, 10).await.unwrap().is_empty()).await;
    assert!(stored(&store).await.is_empty(), "a dead letter is no pending message");
    assert_eq!(store.requeue(&[message(1).id]).await.unwrap(), 1);
    channel.reload().await.unwrap();
    let handled = attach(&channel).await;
    until(async || stored(&store).await.is_empty()).await;
    assert_eq!(*handled.lock().unwrap(), [1]);
    monitor.shutdown(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn a_durable_message_is_refused_where_it_could_not_be_kept() {
    let store = Arc::new(MemoryStore::new());
    let refusal = async |channel: &Channel, options| {
        let receipt = channel.send_with(message(1), options).await;
        let error = receipt.accepted().unwrap_err().to_string();
        assert!(matches!(receipt.accepted(), Err(IpcError::Unsendable { .. })), "{error}");
        error
    };
    let without = IpcMonitor::with_config(RecoveryConfig::default());
    let channel = without.register_channel("svc").await.unwrap();
    assert!(refusal(&channel, DURABLE).await.contains("no outbox"));
    let with = monitor(&store, RecoveryConfig::default());
    let channel = with.register_channel("svc").await.unwrap();
    let once = SendOptions { idempotent: false, ..DURABLE };
    assert!(refusal(&channel, once).await.contains("idempotent"));
    let rpc = ChannelOptions { framing: FramingKind::Lsp, ..ChannelOptions::default() };
    let channel = with.register_channel_with("rpc", rpc).await.unwrap();
    assert!(refusal(&channel, DURABLE).await.contains("acknowledges"));
    assert!(stored(&store).await.is_empty());
}

#[tokio::test]
async fn a_sender_waits_for_room_and_is_let_in_when_there_is_some() {
    let config = RecoveryConfig {
        max_buffered_messages: 1,
        overflow: OverflowPolicy::Block,
        block_timeout: Duration::from_secs(60),
        ..RecoveryConfig::default()
    };
    let monitor = IpcMonitor::with_config(config);
    let channel = monitor.register_channel("svc").await.unwrap();
    let first = channel.send(message(1)).await;
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { channel.send(message(2)).await.await }
    });
    let handled = attach(&channel).await;
    assert!(first.await.delivered());
    assert!(waiting.await.unwrap().delivered());
    assert_eq!(*handled.lock().unwrap(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_waited_its_time_is_refused() {
    let config = RecoveryConfig {
        max_buffered_messages: 1,
        overflow: OverflowPolicy::Block,
        ..RecoveryConfig::default()
    };
    let limit = config.block_timeout;
    let monitor = IpcMonitor::with_config(config);
    let channel = monitor.register_channel("svc").await.unwrap();
    let _first = channel.send(message(1)).await;
    let began = tokio::time::Instant::now();
    let refused = channel.send(message(2)).await;
    assert!(matches!(refused.accepted(), Err(IpcError::BufferFull { .. })));
    assert!(began.elapsed() >= limit && began.elapsed() < limit * 2, "{:?}", began.elapsed());
}
