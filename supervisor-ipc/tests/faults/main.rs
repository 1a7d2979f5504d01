//! Channels whose connections break on purpose, over every transport that runs here.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use supervisor_core::config::RecoveryConfig;
use supervisor_core::message::{IpcMessage, Outcome};
use supervisor_ipc::{
    Channel, Endpoint, Handler, IpcMonitor, MemoryTransport, SendOptions, Transport,
};
use uuid::Uuid;

mod budget;
mod cut;
mod herd;
mod hostile;
mod proxy;
mod pushed;
mod suite;

/// How long anything may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(30);

fn message(n: u64) -> IpcMessage {
    IpcMessage {
        id: Uuid::from_u128(u128::from(n)),
        message_type: if n.is_multiple_of(3) { "ask" } else { "tell" }.into(),
        payload: n.into(),
        timestamp: chrono::DateTime::UNIX_EPOCH,
        retry_count: 0,
    }
}

/// Every third message asks, every seventh must not be repeated.
fn options(n: u64) -> SendOptions {
    SendOptions {
        expect_reply: n.is_multiple_of(3),
        idempotent: !n.is_multiple_of(7),
        ..SendOptions::default()
    }
}

/// How often each message had its effect.
type Effects = Arc<Mutex<HashMap<Uuid, u32>>>;

/// A service that counts, and answers those who ask.
fn service(effects: &Effects) -> Endpoint<impl Handler + use<>> {
    service_with(effects, RecoveryConfig::default())
}

fn service_with(effects: &Effects, config: RecoveryConfig) -> Endpoint<impl Handler + use<>> {
    let effects = Arc::clone(effects);
    let handler = move |message: IpcMessage| {
        *effects.lock().unwrap().entry(message.id).or_default() += 1;
        async move { (message.message_type == "ask").then_some(message.payload) }
    };
    Endpoint::with_config(handler, config)
}

/// A memory transport with a service behind it that serves one connection after the other.
fn served(effects: &Effects, buffer: usize) -> (Arc<dyn Transport>, tokio::task::JoinHandle<()>) {
    let (transport, mut peer) = MemoryTransport::new(buffer);
    let endpoint = service(effects);
    let task = tokio::spawn(async move {
        while let Some(stream) = peer.accept().await {
            drop(endpoint.serve(stream).await);
        }
    });
    (Arc::new(transport), task)
}

async fn channel(config: RecoveryConfig, transport: Arc<dyn Transport>) -> (IpcMonitor, Channel) {
    let monitor = IpcMonitor::with_config(config);
    let channel = monitor.register_channel("svc").await.unwrap();
    channel.attach(transport).await.unwrap();
    (monitor, channel)
}

/// Sends messages and judges every outcome against what the service says.
async fn exchange(channel: &Channel, effects: &Effects, first: u64, count: u64) {
    let mut receipts = Vec::new();
    for n in first..first + count {
        receipts.push((n, channel.send_with(message(n), options(n)).await));
    }
    for (n, receipt) in receipts {
        let outcome = tokio::time::timeout(LIMIT, receipt.outcome())
            .await
            .unwrap_or_else(|_| panic!("message {n} has no outcome: {:?}", channel.status()));
        let times = effects.lock().unwrap().get(&message(n).id).copied().unwrap_or_default();
        assert!(times <= 1, "message {n} took effect {times} times");
        match outcome {
            Outcome::Answered { ref reply, .. } => {
                assert_eq!((reply, times), (&message(n).payload, 1), "message {n}");
            }
            Outcome::Acked { .. } => assert!(times == 1 && n % 3 != 0, "message {n}: {times}"),
            Outcome::Indeterminate { .. } => assert_eq!(n % 7, 0, "message {n} may be repeated"),
            other => panic!("message {n}: {other:?}"),
        }
    }
}
