//! One acknowledged message over a Unix socket beside the same framing on a bare one.

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
    use supervisor_core::config::RecoveryConfig;
    use supervisor_core::message::{ChannelState, IpcMessage};
    use supervisor_ipc::{Channel, Endpoint, IpcMonitor, UnixTransport};
    use tokio::net::{UnixListener, UnixStream};
    use tokio_util::codec::{Framed, LengthDelimitedCodec};
    use uuid::Uuid;

    const ROUNDS: usize = 4000;
    const PAYLOAD: usize = 128;

    fn median(mut times: Vec<Duration>) -> f64 {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1_000_000.0
    }

    async fn bare(path: &std::path::Path) -> f64 {
        let listener = UnixListener::bind(path).unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
            while let Some(Ok(frame)) = framed.next().await {
                framed.send(frame.freeze()).await.unwrap();
            }
        });
        let stream = UnixStream::connect(path).await.unwrap();
        let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            framed.send(Bytes::from(vec![b'x'; PAYLOAD])).await.unwrap();
            framed.next().await.unwrap().unwrap();
            times.push(began.elapsed());
        }
        drop(framed);
        server.await.unwrap();
        median(times)
    }

    async fn through(channel: &Channel) -> f64 {
        let payload = serde_json::Value::String("x".repeat(PAYLOAD));
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let message = IpcMessage {
                id: Uuid::new_v4(),
                message_type: "t".into(),
                payload: payload.clone(),
                timestamp: chrono::DateTime::UNIX_EPOCH,
                retry_count: 0,
            };
            let began = Instant::now();
            assert!(channel.send(message).await.outcome().await.delivered());
            times.push(began.elapsed());
        }
        median(times)
    }

    pub(super) async fn run(name: &str, place: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("svc.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let service = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            drop(Endpoint::new(|_: IpcMessage| async { None }).serve(stream).await);
        });
        let config = RecoveryConfig { dedupe_max: 1000, ..RecoveryConfig::default() };
        let monitor = IpcMonitor::with_config(config);
        let channel = monitor.register_channel("svc").await.unwrap();
        channel.attach(Arc::new(UnixTransport::new(&path))).await.unwrap();
        channel.reached(ChannelState::Ready).await.unwrap();
        // Interleaved halves, so that a machine that gets slower does so for both.
        let first = (bare(&directory.path().join("a.sock")).await, through(&channel).await);
        let second = (bare(&directory.path().join("b.sock")).await, through(&channel).await);
        let (floor, value) = ((first.0 + second.0) / 2.0, (first.1 + second.1) / 2.0);
        println!(
            r#"{{"bench":"{name}","value":{value:.2},"unit":"us","floor":{floor:.2},"ratio":{:.4},"target":1.3,"note":"median of {ROUNDS}, {PAYLOAD} B acknowledged over a Unix socket, {place}"}}"#,
            value / floor
        );
        monitor.shutdown(Duration::from_secs(1)).await;
        service.abort();
    }
}

fn main() {
    #[cfg(unix)]
    {
        // One core: what is measured is work, not how fast one core wakes another.
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(unix::run("channel_round_trip", "one core"));
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(unix::run("channel_round_trip_two", "two worker threads"));
    }
}
