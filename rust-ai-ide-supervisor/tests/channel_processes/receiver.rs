//! A service of its own process that appends each message's id to a file, which is its effect and its memory at once.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::config::RecoveryConfig;
use supervisor_core::message::IpcMessage;
use supervisor_ipc::Endpoint;
use uuid::Uuid;

/// Where it listens.
pub(crate) fn socket(directory: &Path) -> PathBuf {
    directory.join("svc.sock")
}

/// Every effect it had, in order.
pub(crate) fn effects(directory: &Path) -> Vec<Uuid> {
    let text = std::fs::read_to_string(directory.join("effects")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Waits until it listens.
pub(crate) async fn until_there(directory: &Path) {
    let began = std::time::Instant::now();
    while tokio::net::UnixStream::connect(socket(directory)).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "the receiver does not listen");
        // poll: its socket, for at most 30 s.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Serves until it is killed.
pub(crate) fn run(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(directory));
}

async fn serve(directory: &Path) {
    let handled: Vec<_> = effects(directory).into_iter().map(|id| (id, None)).collect();
    let file = OpenOptions::new().create(true).append(true).open(directory.join("effects"));
    let file = file.unwrap();
    let config = RecoveryConfig { dedupe_max: 1_000_000, ..RecoveryConfig::default() };
    let handler = move |message: IpcMessage| {
        // One write, so that a kill leaves all of the line or nothing.
        let written = (&file).write_all(format!("{}\n", message.id).as_bytes());
        written.unwrap();
        async { None }
    };
    let endpoint = Arc::new(Endpoint::with_config(handler, config).recalling(handled));
    // A socket that its dead predecessor left.
    drop(std::fs::remove_file(socket(directory)));
    let listener = tokio::net::UnixListener::bind(socket(directory)).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move { drop(endpoint.serve(stream).await) });
    }
}
