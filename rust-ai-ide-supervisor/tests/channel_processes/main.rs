//! Channels between processes that are killed: the receiver in the middle of a stream, the sender after a message was
//! accepted, either side while the service speaks on its own account. The processes are this test program, started again with a role.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking; a role talks to the test"
)]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::Sequence;
use supervisor_core::config::{OverflowPolicy, RecoveryConfig};
use supervisor_core::message::IpcMessage;
use supervisor_core::ports::Outbox;
use supervisor_ipc::{IpcMonitor, SendOptions, UnixTransport};
use supervisor_persist::StatePersistence;
use uuid::Uuid;

mod receiver;
mod talker;

const LIMIT: Duration = Duration::from_secs(60);
const ROLE: &str = "CHANNEL_TEST_ROLE";
const PLACE: &str = "CHANNEL_TEST_PLACE";

/// What this program is when it was started by a test of itself.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match role.as_str() {
        "receiver" => receiver::run(&place),
        "talker" => run().block_on(talker::talk(&place)),
        "host" => run().block_on(talker::hear(&place)),
        sender => run().block_on(send(&place, sender.parse().unwrap())),
    }
}

/// This program in a role, which ends when it is dropped, by a failed test too.
struct Role(Child);

impl Drop for Role {
    fn drop(&mut self) {
        // Ended by itself is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(role: &str, place: &Path) -> Role {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "role", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(PLACE, place)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    Role(child.unwrap())
}

fn end(role: Role) {
    drop(role);
}

fn message(n: u64) -> IpcMessage {
    IpcMessage {
        id: Uuid::from_u128(u128::from(n)),
        message_type: "t".into(),
        payload: n.into(),
        timestamp: chrono::DateTime::UNIX_EPOCH,
        retry_count: 0,
    }
}

/// The sender: a thousand durable messages from `first` on, each said to be accepted once it is; it never ends by itself.
async fn send(place: &Path, first: u64) {
    let store = StatePersistence::new(place.join("sender.db"), place.join("checkpoints")).await;
    let store = Arc::new(store.unwrap());
    let monitor = IpcMonitor::builder(RecoveryConfig::default())
        .outbox(Arc::clone(&store) as Arc<dyn Outbox>)
        .build();
    let channel = monitor.register_channel("svc").await.unwrap();
    channel.attach(Arc::new(UnixTransport::new(receiver::socket(place)))).await.unwrap();
    let options = SendOptions { durable: true, ..SendOptions::default() };
    for n in first..first + 1000 {
        if channel.send_with(message(n), options).await.accepted().is_ok() {
            println!("accepted {n}");
        }
    }
    loop {
        if store.pending("svc", Sequence::ZERO, 1).await.unwrap().is_empty() {
            println!("empty");
        }
        // poll: until the test ends this process.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_message_accepted_before_its_sender_was_killed_takes_effect_exactly_once() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let receiver = start("receiver", place);
    receiver::until_there(place).await;
    let mut accepted = HashSet::new();
    let mut first = 1;
    for kill_after in [3, 170, 40, 611, usize::MAX] {
        let mut sender = start(&first.to_string(), place);
        let lines = BufReader::new(sender.0.stdout.take().unwrap()).lines();
        let mut heard = 0;
        for line in lines.map_while(Result::ok) {
            if let Some((_, n)) = line.split_once("accepted ") {
                accepted.insert(Uuid::from_u128(n.parse().unwrap()));
                heard += 1;
            }
            if heard >= kill_after || (line.contains("empty") && kill_after == usize::MAX) {
                break;
            }
        }
        end(sender);
        first += 1000;
    }
    end(receiver);
    assert!(accepted.len() >= 1800, "{}", accepted.len());
    let mut times: HashMap<Uuid, usize> = HashMap::new();
    for id in receiver::effects(place) {
        *times.entry(id).or_default() += 1;
    }
    assert_eq!(times.values().max(), Some(&1), "nothing took effect twice");
    let lost: Vec<_> = accepted.iter().filter(|id| !times.contains_key(*id)).collect();
    assert!(lost.is_empty(), "{} of {} were lost: {lost:?}", lost.len(), accepted.len());
}

#[tokio::test]
async fn a_receiver_killed_again_and_again_in_the_middle_of_a_stream_loses_and_doubles_nothing() {
    const MESSAGES: u64 = 10_000;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let mut receiver = start("receiver", place);
    receiver::until_there(place).await;
    let config = RecoveryConfig {
        overflow: OverflowPolicy::Block,
        block_timeout: LIMIT,
        message_ttl: LIMIT,
        ..RecoveryConfig::default()
    };
    let monitor = IpcMonitor::with_config(config);
    let channel = monitor.register_channel("svc").await.unwrap();
    channel.attach(Arc::new(UnixTransport::new(receiver::socket(place)))).await.unwrap();
    let mut receipts = Vec::new();
    for n in 1..=MESSAGES {
        if n.is_multiple_of(MESSAGES / 3) {
            end(receiver);
            receiver = start("receiver", place);
        }
        receipts.push(channel.send(message(n)).await);
    }
    for receipt in receipts {
        let outcome = tokio::time::timeout(LIMIT, receipt.outcome()).await.unwrap();
        assert!(outcome.delivered(), "{outcome:?}");
    }
    end(receiver);
    let effects = receiver::effects(place);
    let distinct: HashSet<_> = effects.iter().collect();
    assert_eq!((effects.len(), distinct.len()), (10_000, 10_000));
    assert_eq!(effects, (1..=MESSAGES).map(|n| message(n).id).collect::<Vec<_>>(), "and in order");
    assert!(channel.status().generation.get() >= 4, "{}", channel.status().generation);
    monitor.shutdown(LIMIT).await;
}
