//! A stream of messages whose receiver is killed at a third and started again: what was lost, what was doubled, and how
//! long after its return everything sent so far was there.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints lines and fails by panicking"
)]

#[cfg(unix)]
#[path = "../tests/channel_processes/receiver.rs"]
mod receiver;

#[cfg(unix)]
mod unix {
    use std::path::Path;
    use std::process::{Child, Command};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use supervisor_core::config::{OverflowPolicy, RecoveryConfig};
    use supervisor_core::message::{ChannelState, IpcMessage};
    use supervisor_core::text::ByteSize;
    use supervisor_ipc::{Channel, IpcMonitor, Receipt, UnixTransport};
    use uuid::Uuid;

    const MESSAGES: usize = 100_000;
    /// Messages of a tick of 5 ms: 20,000 a second.
    const PER_TICK: usize = 100;
    const PAYLOAD: usize = 128;

    fn start(directory: &Path) -> Child {
        let program = std::env::current_exe().unwrap();
        Command::new(program).arg("receiver").arg(directory).spawn().unwrap()
    }

    fn message(n: usize) -> IpcMessage {
        IpcMessage {
            id: Uuid::from_u128(n as u128 + 1),
            message_type: "t".into(),
            payload: serde_json::Value::String("x".repeat(PAYLOAD)),
            timestamp: chrono::DateTime::UNIX_EPOCH,
            retry_count: 0,
        }
    }

    /// What is sent, at its pace.
    struct Stream {
        channel: Channel,
        receipts: Vec<Receipt>,
    }

    impl Stream {
        async fn tick(&mut self) {
            for _ in 0..PER_TICK {
                let receipt = self.channel.send(message(self.receipts.len())).await;
                self.receipts.push(receipt);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }

        async fn settled(&self) {
            for receipt in &self.receipts {
                assert!(receipt.outcome().await.delivered());
            }
        }
    }

    pub(super) async fn run() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = start(directory.path());
        let config = RecoveryConfig {
            overflow: OverflowPolicy::Block,
            block_timeout: Duration::from_secs(30),
            max_buffered_messages: 50_000,
            max_buffered_bytes: ByteSize::mib(32),
            ..RecoveryConfig::default()
        };
        let monitor = IpcMonitor::with_config(config);
        let channel = monitor.register_channel("svc").await.unwrap();
        super::receiver::until_there(directory.path()).await;
        channel
            .attach(Arc::new(UnixTransport::new(super::receiver::socket(directory.path()))))
            .await
            .unwrap();
        channel.reached(ChannelState::Ready).await.unwrap();
        let mut stream = Stream { channel, receipts: Vec::new() };
        while stream.receipts.len() < MESSAGES / 3 {
            stream.tick().await;
        }
        child.kill().unwrap();
        let before = stream.channel.status().generation;
        let place = directory.path().to_owned();
        let restarted = tokio::task::spawn_blocking(move || {
            child.wait().unwrap();
            start(&place)
        });
        while stream.channel.status().generation == before {
            stream.tick().await;
        }
        stream.channel.reached(ChannelState::Ready).await.unwrap();
        let back = Instant::now();
        stream.settled().await;
        let took = back.elapsed().as_secs_f64() * 1000.0;
        println!(
            r#"{{"bench":"killed_receiver_caught_up","value":{took:.2},"unit":"ms","target":100,"note":"from its return until all of {} messages sent by then were acknowledged"}}"#,
            stream.receipts.len()
        );
        while stream.receipts.len() < MESSAGES {
            stream.tick().await;
        }
        stream.settled().await;
        let effects = super::receiver::effects(directory.path());
        let distinct: std::collections::HashSet<_> = effects.iter().collect();
        println!(
            r#"{{"bench":"killed_receiver_lost","value":{},"unit":"messages","target":0,"note":"of {MESSAGES}, killed at a third"}}"#,
            stream.receipts.len() - distinct.len()
        );
        println!(
            r#"{{"bench":"killed_receiver_doubled","value":{},"unit":"messages","target":0,"note":"of {MESSAGES}, killed at a third"}}"#,
            effects.len() - distinct.len()
        );
        let mut child = restarted.await.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        monitor.shutdown(Duration::from_secs(5)).await;
    }
}

fn main() {
    #[cfg(unix)]
    {
        let mut arguments = std::env::args().skip(1);
        if arguments.next().as_deref() == Some("receiver") {
            return receiver::run(std::path::Path::new(&arguments.next().unwrap()));
        }
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(unix::run());
    }
}
