//! What a channel at its caps holds, beside those caps.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints lines and fails by panicking"
)]

#[cfg(target_os = "linux")]
mod linux {
    use std::time::Duration;

    use supervisor_core::config::RecoveryConfig;
    use supervisor_core::message::IpcMessage;
    use supervisor_ipc::IpcMonitor;
    use uuid::Uuid;

    /// Megabytes this process holds.
    fn resident() -> f64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: f64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        kilobytes * 1024.0 / 1e6
    }

    /// Fills a channel that nobody serves until it refuses, and gives the messages and megabytes it took.
    async fn fill(config: RecoveryConfig, payload: usize) -> (usize, f64) {
        let monitor = IpcMonitor::with_config(config);
        let channel = monitor.register_channel("svc").await.unwrap();
        let before = resident();
        let mut receipts = Vec::new();
        loop {
            let message = IpcMessage {
                id: Uuid::from_u128(receipts.len() as u128 + 1),
                message_type: "t".into(),
                payload: "x".repeat(payload).into(),
                timestamp: chrono::DateTime::UNIX_EPOCH,
                retry_count: 0,
            };
            let receipt = channel.send(message).await;
            if receipt.accepted().is_err() {
                break;
            }
            receipts.push(receipt);
        }
        let held = resident() - before;
        monitor.shutdown(Duration::from_secs(1)).await;
        (receipts.len(), held)
    }

    pub(super) async fn run() {
        let config =
            RecoveryConfig { max_buffered_messages: 1_000_000, ..RecoveryConfig::default() };
        let cap = config.max_buffered_bytes.bytes() as f64 / 1e6;
        // Small messages last: what they leave to the allocator would hide what the large ones take.
        for (name, payload) in [("channel_memory_large", 8192), ("channel_memory_small", 128)] {
            let (messages, held) = fill(config.clone(), payload).await;
            println!(
                r#"{{"bench":"{name}","value":{held:.2},"unit":"MB","floor":{cap:.2},"target":1.25,"note":"resident more with {messages} messages of {payload} B, receipts included, in a channel that takes no more; floor: its cap of bytes"}}"#
            );
        }
    }
}

fn main() {
    #[cfg(target_os = "linux")]
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(linux::run());
}
