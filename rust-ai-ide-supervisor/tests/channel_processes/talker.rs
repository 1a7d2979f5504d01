//! A service that speaks on its own account and a host that listens, each in a process of its own that is killed.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use supervisor_core::config::{OverflowPolicy, RecoveryConfig};
use supervisor_core::message::{IpcMessage, Outcome};
use supervisor_ipc::{Channel, Endpoint, IpcMonitor, Listener, Receipt, UnixTransport};
use uuid::Uuid;

use super::{LIMIT, end, message, start};

/// What the service has to say in all.
pub(crate) const SAYS: u64 = 4000;

fn socket(place: &Path) -> PathBuf {
    place.join("talker.sock")
}

fn ids(file: &Path) -> Vec<Uuid> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// One write, so that a kill leaves all of the line or nothing.
fn note(file: &Path, id: Uuid) {
    let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
    file.write_all(format!("{id}\n").as_bytes()).unwrap();
}

/// The service: says what it has no acknowledgement for in its file, in its order, and notes what it gets one for.
pub(crate) async fn talk(place: &Path) {
    let acknowledged = place.join("acknowledged");
    let done: HashSet<Uuid> = ids(&acknowledged).into_iter().collect();
    let config = RecoveryConfig {
        overflow: OverflowPolicy::Block,
        block_timeout: LIMIT,
        message_ttl: LIMIT,
        ..RecoveryConfig::default()
    };
    let endpoint = Endpoint::with_config(|_: IpcMessage| async { None }, config);
    let pusher = endpoint.pusher();
    let serving = tokio::spawn(Listener::local(socket(place)).unwrap().serve(endpoint));
    let (receipts, mut outcomes) =
        tokio::sync::mpsc::channel::<Receipt>(usize::try_from(SAYS).unwrap());
    let noting = tokio::spawn(async move {
        while let Some(receipt) = outcomes.recv().await {
            let outcome = receipt.outcome().await;
            assert!(matches!(outcome, Outcome::Acked { .. }), "{outcome:?}");
            note(&acknowledged, receipt.id());
        }
    });
    for n in (1..=SAYS).filter(|n| !done.contains(&message(*n).id)) {
        receipts.send(pusher.push(message(n)).await).await.unwrap();
    }
    drop(receipts);
    noting.await.unwrap();
    println!("said all");
    serving.await.unwrap();
}

async fn listen(place: &Path) -> (IpcMonitor, Channel) {
    let mut config = RecoveryConfig::default();
    // A service that is killed on purpose is no crash loop.
    config.breaker.failure_threshold = 1000;
    config.reconnect.base_delay = std::time::Duration::from_millis(2);
    config.reconnect.max_delay = std::time::Duration::from_millis(20);
    let monitor = IpcMonitor::with_config(config);
    let channel = monitor.register_channel("talker").await.unwrap();
    channel.attach(Arc::new(UnixTransport::new(socket(place)))).await.unwrap();
    (monitor, channel)
}

/// The host: notes what it hears, unless it did before it was killed.
pub(crate) async fn hear(place: &Path) {
    let (_monitor, channel) = listen(place).await;
    let mut incoming = channel.incoming();
    let heard = place.join("heard");
    let mut known: HashSet<Uuid> = ids(&heard).into_iter().collect();
    println!("listens");
    while let Some(message) = incoming.recv().await {
        if known.insert(message.id) {
            note(&heard, message.id);
        }
    }
}

/// Waits until a file has so many lines.
async fn until(file: &Path, lines: usize) {
    let began = std::time::Instant::now();
    while ids(file).len() < lines {
        assert!(began.elapsed() < LIMIT, "{} of {lines} lines", ids(file).len());
        // poll: what the processes note, for at most a minute.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

fn everything() -> Vec<Uuid> {
    (1..=SAYS).map(|n| message(n).id).collect()
}

#[tokio::test]
async fn what_a_service_says_that_is_killed_again_and_again_is_heard_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let (monitor, channel) = listen(place).await;
    let mut incoming = channel.incoming();
    let mut talker = start("talker", place);
    let mut heard = Vec::new();
    while heard.len() < everything().len() {
        let message = tokio::time::timeout(LIMIT, incoming.recv()).await.unwrap().unwrap();
        heard.push(message.id);
        if heard.len().is_multiple_of(700) {
            end(talker);
            talker = start("talker", place);
        }
    }
    assert_eq!(heard, everything());
    assert!(incoming.try_recv().is_none(), "which says that the last one is handled");
    until(&place.join("acknowledged"), heard.len()).await;
    assert!(incoming.try_recv().is_none(), "none comes twice");
    // One more each time, or two, if it was met while it died.
    assert!((6..=11).contains(&channel.status().generation.get()), "{:?}", channel.status());
    monitor.shutdown(LIMIT).await;
    end(talker);
}

#[tokio::test]
async fn what_a_service_says_while_its_host_is_killed_again_and_again_is_heard_by_one_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let talker = start("talker", place);
    let heard = place.join("heard");
    for lines in [1, 300, 900, 1700, 2600, everything().len()] {
        let host = start("host", place);
        until(&heard, lines).await;
        if lines == everything().len() {
            until(&place.join("acknowledged"), lines).await;
        }
        end(host);
    }
    end(talker);
    // A host that notes what it handled with the effect has each effect once.
    assert_eq!(ids(&heard), everything());
    assert_eq!(ids(&place.join("acknowledged")), everything());
}
