//! Channels whose peers die together again and again, and what that adds to their traffic.

use std::collections::HashSet;

use async_trait::async_trait;
use serde_json::{Value, json};
use supervisor_core::error::IpcError;
use supervisor_ipc::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, WriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::herd::pass;
use super::*;

const CHANNELS: u64 = 30;
/// Deaths of all peers at once, half a second apart.
const DEATHS: u32 = 40;
const APART: Duration = Duration::from_millis(500);
/// How long a peer takes to acknowledge: more than half of what it gets is unacknowledged when it dies.
const LATE: Duration = Duration::from_millis(300);
/// Messages each channel is given between two deaths.
const EACH: u64 = 20;
const FLIGHT: usize = 16;

/// What was on the wire.
#[derive(Debug, Default)]
struct Traffic {
    written: u64,
    ids: HashSet<String>,
    connections: u64,
}

/// A peer of another make than the one that is tested: it reads frames and acknowledges them late.
#[derive(Debug)]
struct LatePeers {
    traffic: Arc<Mutex<Traffic>>,
    life: watch::Sender<u32>,
}

type Out = Arc<tokio::sync::Mutex<WriteHalf<DuplexStream>>>;

async fn say(out: &Out, frame: Value) {
    let text = frame.to_string();
    let mut out = out.lock().await;
    // Who has gone hears nothing.
    drop(out.write_u32(u32::try_from(text.len()).unwrap()).await);
    drop(out.write_all(text.as_bytes()).await);
}

async fn serve(stream: DuplexStream, traffic: Arc<Mutex<Traffic>>) -> std::io::Result<()> {
    let (mut from, to) = tokio::io::split(stream);
    let out: Out = Arc::new(tokio::sync::Mutex::new(to));
    let mut late = JoinSet::new();
    traffic.lock().unwrap().connections += 1;
    loop {
        let mut body = vec![0; from.read_u32().await? as usize];
        from.read_exact(&mut body).await?;
        let frame: Value = serde_json::from_slice(&body).unwrap();
        let s = frame["s"].clone();
        match frame["k"].as_str().unwrap() {
            "hello" => {
                let session = frame["session"].clone();
                say(&out, json!({ "k": "hello", "version": 1, "session": session })).await;
            }
            "m" => {
                {
                    let mut traffic = traffic.lock().unwrap();
                    traffic.written += 1;
                    traffic.ids.insert(frame["m"]["id"].as_str().unwrap().to_owned());
                }
                let out = Arc::clone(&out);
                late.spawn(async move {
                    pass(LATE).await;
                    say(&out, json!({ "k": "a", "s": s, "d": false })).await;
                });
            }
            "ping" => say(&out, json!({ "k": "pong", "s": s })).await,
            _ => {}
        }
    }
}

#[async_trait]
impl Transport for LatePeers {
    async fn connect(&self) -> Result<Connection, IpcError> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (traffic, mut life) = (Arc::clone(&self.traffic), self.life.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                served = serve(theirs, traffic) => drop(served),
                _ = life.changed() => {}
            }
        });
        Ok(Connection::of(ours))
    }

    fn describe(&self) -> String {
        "a late peer".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn channels_whose_peers_die_together_again_and_again_write_a_fifth_more_and_no_more() {
    let mut config = RecoveryConfig {
        max_buffered_messages: 10_000,
        message_ttl: Duration::from_secs(900),
        dedupe_window: Duration::from_secs(900),
        max_attempts: 100,
        max_in_flight: FLIGHT,
        retry_budget_floor: 1,
        concurrent_reconnects: 30,
        ..RecoveryConfig::default()
    };
    config.breaker.failure_threshold = 1000;
    config.reconnect.base_delay = Duration::from_millis(10);
    config.reconnect.max_delay = Duration::from_millis(50);
    let (floor, percent) = (config.retry_budget_floor, config.retry_budget_percent);
    let monitor = IpcMonitor::with_config(config);
    let traffic = Arc::new(Mutex::new(Traffic::default()));
    let peers = Arc::new(LatePeers { traffic: Arc::clone(&traffic), life: watch::Sender::new(0) });
    let mut channels = Vec::new();
    for n in 0..CHANNELS {
        let channel = monitor.register_channel(format!("svc{n}")).await.unwrap();
        channel.attach(Arc::clone(&peers) as Arc<dyn Transport>).await.unwrap();
        channels.push(channel);
    }
    let begun = tokio::time::Instant::now();
    let (mut next, mut receipts) = (0, Vec::new());
    for _ in 0..DEATHS {
        for _ in 0..EACH {
            for channel in &channels {
                next += 1;
                let options = SendOptions::default();
                receipts.push(channel.send_with(message(next), options).await);
            }
            pass(APART / u32::try_from(EACH).unwrap()).await;
        }
        peers.life.send_modify(|life| *life += 1);
    }
    let mut blamed = 0_u64;
    for receipt in receipts {
        let outcome = receipt.outcome().await;
        // A peer that dies by the clock dies now and then over what is tried alone, which looks like its doing.
        blamed += u64::from(matches!(outcome, Outcome::DeadLettered { .. }));
        assert!(
            outcome.delivered() || matches!(outcome, Outcome::DeadLettered { .. }),
            "{outcome:?}"
        );
    }
    let seconds = begun.elapsed().as_secs();
    let (fresh, written, connections) = {
        let traffic = traffic.lock().unwrap();
        (traffic.ids.len() as u64, traffic.written, traffic.connections)
    };
    assert_eq!(fresh, next, "everything arrived");
    assert!(connections > CHANNELS * u64::from(DEATHS) / 2, "they came back: {connections}");
    let extra = written - fresh;
    // A fifth, and what each channel may always: the floor, ten seconds of it saved, and one flight.
    let always = CHANNELS * (u64::from(floor) * (seconds + 10) + FLIGHT as u64);
    let most = fresh * u64::from(percent) / 100 + always;
    println!(
        "{fresh} messages, {extra} repetitions of {most}, {connections} connections, {seconds} s, {blamed} blamed"
    );
    assert!(
        extra <= most,
        "{extra} repetitions of {fresh} messages in {seconds} s, {most} allowed"
    );
    assert!(extra > 1000, "there was something to be repeated: {extra}");
    monitor.shutdown(LIMIT).await;
}
