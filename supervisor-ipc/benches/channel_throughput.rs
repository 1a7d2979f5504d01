//! Acknowledged messages a second in memory, beside sending one by one on a bare socket; and one channel whose peer is
//! killed in the middle.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints lines and fails by panicking"
)]

#[cfg(unix)]
mod unix {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use futures_util::{SinkExt, StreamExt};
    use supervisor_core::config::{OverflowPolicy, RecoveryConfig};
    use supervisor_core::message::{ChannelState, IpcMessage};
    use supervisor_core::text::ByteSize;
    use supervisor_ipc::{Channel, Endpoint, IpcMonitor, MemoryTransport};
    use tokio::net::UnixStream;
    use tokio_util::codec::{Framed, LengthDelimitedCodec};
    use uuid::Uuid;

    const MESSAGES: u128 = 200_000;
    const PAYLOAD: usize = 128;
    /// Messages between two looks at whether they arrived.
    const WINDOW: usize = 1000;

    /// Messages a second, one way, each sent and flushed by itself; nobody says that they arrived.
    async fn bare() -> f64 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = tokio::spawn(async move {
            let mut framed = Framed::new(theirs, LengthDelimitedCodec::new());
            let mut count = 0;
            while let Some(Ok(_)) = framed.next().await {
                count += 1;
            }
            count
        });
        let began = Instant::now();
        tokio::spawn(async move {
            let mut framed = Framed::new(ours, LengthDelimitedCodec::new());
            for _ in 0..MESSAGES {
                framed.send(Bytes::from(vec![b'x'; PAYLOAD])).await.unwrap();
            }
        })
        .await
        .unwrap();
        assert_eq!(server.await.unwrap(), MESSAGES);
        MESSAGES as f64 / began.elapsed().as_secs_f64()
    }

    async fn through(channel: Channel, first: u128) -> f64 {
        let payload = serde_json::Value::String("x".repeat(PAYLOAD));
        let began = Instant::now();
        tokio::spawn(async move {
            let mut open = std::collections::VecDeque::with_capacity(WINDOW);
            for n in 0..MESSAGES {
                let message = IpcMessage {
                    id: Uuid::from_u128(first + n),
                    message_type: "t".into(),
                    payload: payload.clone(),
                    timestamp: chrono::DateTime::UNIX_EPOCH,
                    retry_count: 0,
                };
                open.push_back(channel.send(message).await);
                if open.len() >= WINDOW {
                    assert!(open.pop_front().unwrap().outcome().await.delivered());
                }
            }
            for receipt in open {
                assert!(receipt.outcome().await.delivered());
            }
        })
        .await
        .unwrap();
        MESSAGES as f64 / began.elapsed().as_secs_f64()
    }

    pub(super) async fn run() {
        let (transport, mut peer) = MemoryTransport::new(256 * 1024);
        let service = tokio::spawn(async move {
            let stream = peer.accept().await.unwrap();
            drop(Endpoint::new(|_: IpcMessage| async { None }).serve(stream).await);
        });
        let config = RecoveryConfig {
            overflow: OverflowPolicy::Block,
            block_timeout: Duration::from_secs(10),
            max_buffered_messages: 4096,
            max_buffered_bytes: ByteSize::mib(8),
            max_in_flight: 2048,
            ..RecoveryConfig::default()
        };
        let monitor = IpcMonitor::with_config(config);
        let channel = monitor.register_channel("svc").await.unwrap();
        channel.attach(Arc::new(transport)).await.unwrap();
        channel.reached(ChannelState::Ready).await.unwrap();
        // Interleaved halves, so that a machine that gets slower does so for both.
        let first = (bare().await, through(channel.clone(), 1).await);
        let second = (bare().await, through(channel.clone(), 1 + MESSAGES).await);
        let (floor, value) = ((first.0 + second.0) / 2.0, (first.1 + second.1) / 2.0);
        let ratio = value / floor;
        println!(
            r#"{{"bench":"channel_messages","value":{value:.0},"unit":"1/s","floor":{floor:.0},"ratio":{ratio:.4},"target":0.8,"better":"higher","note":"{MESSAGES} of {PAYLOAD} B, acknowledged, in memory; floor: sent one by one on a bare Unix socket, not acknowledged"}}"#,
        );
        println!(
            r#"{{"bench":"channel_messages_absolute","value":{value:.0},"unit":"1/s","target":400000,"better":"higher","note":"the same, as it is"}}"#,
        );
        monitor.shutdown(Duration::from_secs(1)).await;
        service.abort();
    }
}

fn main() {
    #[cfg(unix)]
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(unix::run());
}
