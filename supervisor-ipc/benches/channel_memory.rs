//! What a channel at its caps holds, beside those caps.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints lines and fails by panicking"
)]

#[cfg(target_os = "linux")]
mod linux {
    use std::time::Duration;

    use serde_json::Value;
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
    async fn fill(config: RecoveryConfig, payload: &Value) -> (usize, f64) {
        let monitor = IpcMonitor::with_config(config);
        let channel = monitor.register_channel("svc").await.unwrap();
        let before = resident();
        let mut receipts = Vec::new();
        loop {
            let message = IpcMessage {
                id: Uuid::from_u128(receipts.len() as u128 + 1),
                message_type: "t".into(),
                payload: payload.clone(),
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

    fn payload(name: &str) -> (&'static str, Value) {
        match name {
            "large" => ("8 KiB", "x".repeat(8192).into()),
            "small" => ("128 B", "x".repeat(128).into()),
            _ => ("three nested objects", serde_json::json!({"a": {"b": {"c": [1, 2, 3]}}})),
        }
    }

    async fn measure(name: &str) {
        let config =
            RecoveryConfig { max_buffered_messages: 1_000_000, ..RecoveryConfig::default() };
        let cap = config.max_buffered_bytes.bytes() as f64 / 1e6;
        let (what, payload) = payload(name);
        let (messages, held) = fill(config, &payload).await;
        println!(
            r#"{{"bench":"channel_memory_{name}","value":{held:.2},"unit":"MB","floor":{cap:.2},"target":1.25,"note":"resident more with {messages} messages of {what}, receipts included, in a channel that takes no more; floor: its cap of bytes"}}"#
        );
    }

    pub(super) fn run() {
        let mut arguments = std::env::args().skip(1);
        if let (Some("measure"), Some(name)) = (arguments.next().as_deref(), arguments.next()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            return runtime.unwrap().block_on(measure(&name));
        }
        // Each in a process of its own: what one leaves to the allocator would hide what the next one takes.
        for name in ["large", "objects", "small"] {
            let program = std::env::current_exe().unwrap();
            let status = std::process::Command::new(program).args(["measure", name]).status();
            assert!(status.unwrap().success());
        }
    }
}

fn main() {
    #[cfg(target_os = "linux")]
    linux::run();
}
