//! What a service says on its own account, over connections that break.

use serde_json::{Value, json};
use supervisor_core::config::OverflowPolicy;
use supervisor_core::error::{Classified, ErrorClass, IpcError};
use supervisor_core::text::ByteSize;
use supervisor_ipc::testing::{Fault, FaultProxy};
use supervisor_ipc::{Acceptance, Incoming, Pusher, Receipt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A service that talks, too, and serves one connection after the other.
fn talker(
    config: RecoveryConfig,
    buffer: usize,
) -> (Arc<dyn Transport>, Pusher, Effects, tokio::task::JoinHandle<()>) {
    let (transport, mut peer) = MemoryTransport::new(buffer);
    let effects = Effects::default();
    let endpoint = service_with(&effects, config);
    let pusher = endpoint.pusher();
    let task = tokio::spawn(async move {
        while let Some(stream) = peer.accept().await {
            drop(endpoint.serve(stream).await);
        }
    });
    (Arc::new(transport), pusher, effects, task)
}

async fn outcome(receipt: &Receipt) -> Outcome {
    tokio::time::timeout(LIMIT, receipt.outcome()).await.unwrap()
}

async fn next(incoming: &mut Incoming) -> u64 {
    let message = tokio::time::timeout(LIMIT, incoming.recv()).await.unwrap().unwrap();
    message.payload.as_u64().unwrap()
}

/// Takes what comes until it was asked to stop, and everything that is there then.
fn listen(
    channel: &Channel,
) -> (tokio::task::JoinHandle<Vec<u64>>, tokio::sync::oneshot::Sender<()>) {
    let mut incoming = channel.incoming();
    let (stop, mut stopped) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let mut heard = Vec::new();
        loop {
            tokio::select! {
                biased;
                message = incoming.recv() => heard.push(message.unwrap().payload.as_u64().unwrap()),
                _ = &mut stopped => return heard,
            }
        }
    });
    (task, stop)
}

/// Both sides send; every message arrives once and in order, and its outcome says so.
async fn both_talk(scripts: impl IntoIterator<Item = (Fault, Fault)>, pushed: u64, sent: u64) {
    let (transport, pusher, effects, peer) = talker(RecoveryConfig::default(), 64);
    let proxy = Arc::new(FaultProxy::new(transport, scripts));
    let (monitor, channel) = channel(quick(), proxy).await;
    let (heard, stop) = listen(&channel);
    let mut receipts = Vec::new();
    for n in 1..=pushed {
        receipts.push(pusher.push(message(n)).await);
    }
    exchange(&channel, &effects, 1000, sent).await;
    for receipt in &receipts {
        let outcome = outcome(receipt).await;
        assert!(matches!(outcome, Outcome::Acked { .. }), "{outcome:?}");
    }
    stop.send(()).unwrap();
    assert_eq!(heard.await.unwrap(), (1..=pushed).collect::<Vec<_>>());
    assert_eq!(pusher.waiting(), 0);
    monitor.shutdown(LIMIT).await;
    peer.abort();
}

/// Reconnects without long pauses.
fn quick() -> RecoveryConfig {
    let mut config = RecoveryConfig::default();
    config.reconnect.max_delay = Duration::from_millis(2);
    config.reconnect.base_delay = Duration::from_millis(1);
    config.breaker.failure_threshold = 1000;
    config
}

#[tokio::test]
async fn a_session_in_which_the_service_talks_too_cut_at_any_byte_loses_and_doubles_nothing() {
    // More than there are, in either direction.
    for after in 0..680 {
        both_talk([(Fault::Cut { after }, Fault::None)], 2, 1).await;
        both_talk([(Fault::None, Fault::Cut { after })], 2, 1).await;
    }
}

#[tokio::test]
async fn a_service_that_talks_over_connections_that_break_again_and_again_loses_and_doubles_nothing()
 {
    let seed = std::env::var("PUSH_SEED").ok().map_or_else(|| 0x5eed, |seed| seed.parse().unwrap());
    println!("PUSH_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..60 {
        let one = |random: &mut fastrand::Rng| match random.u8(0..5) {
            0 => Fault::None,
            1 => Fault::Slice { bytes: random.usize(1..40), pause: Duration::ZERO },
            2 => {
                let from = random.usize(0..2000);
                Fault::Repeat { from, to: from + random.usize(1..1500) }
            }
            _ => Fault::Cut { after: random.usize(0..6000) },
        };
        let scripts: Vec<_> =
            (0..random.usize(1..8)).map(|_| (one(&mut random), one(&mut random))).collect();
        both_talk(scripts, random.u64(1..80), random.u64(1..20)).await;
    }
}

#[tokio::test]
async fn what_a_service_says_is_acknowledged_when_every_subscriber_asked_for_more_and_not_before() {
    let (transport, pusher, _, peer) = talker(RecoveryConfig::default(), 4096);
    let (monitor, channel) = channel(RecoveryConfig::default(), transport).await;
    let first = pusher.push(message(1)).await;
    let answered = channel.send_with(message(3), options(3)).await;
    assert!(outcome(&answered).await.delivered());
    assert_eq!(pusher.waiting(), 1, "nobody subscribes yet");
    let mut incoming = channel.incoming();
    assert_eq!(next(&mut incoming).await, 1, "the first one gets what waited");
    let second = pusher.push(message(2)).await;
    assert_eq!(next(&mut incoming).await, 2);
    assert!(outcome(&first).await.delivered());
    let mut other = channel.incoming();
    assert_eq!(next(&mut other).await, 2, "nobody is done with it");
    assert!(incoming.try_recv().is_none());
    assert_eq!(pusher.waiting(), 1, "one subscriber is not done with it");
    assert!(other.try_recv().is_none());
    assert!(outcome(&second).await.delivered());
    monitor.shutdown(LIMIT).await;
    assert_eq!(tokio::time::timeout(LIMIT, incoming.recv()).await.unwrap(), None, "closed");
    peer.abort();
}

#[tokio::test]
async fn a_subscriber_that_stops_asking_holds_the_service_back_at_its_bound_and_loses_nothing() {
    let limits = RecoveryConfig { max_buffered_messages: 400, ..RecoveryConfig::default() };
    let (transport, pusher, _, peer) = talker(limits, 4096);
    let (monitor, channel) = channel(RecoveryConfig::default(), transport).await;
    let mut incoming = channel.incoming();
    let mut receipts = Vec::new();
    let refused = loop {
        let receipt = pusher.push(message(receipts.len() as u64)).await;
        match receipt.accepted() {
            Ok(_) => receipts.push(receipt),
            Err(error) => break error.to_string(),
        }
    };
    assert!(receipts.len() == 400 && refused.contains("400 messages"), "{refused}");
    for n in 0..400 {
        assert_eq!(next(&mut incoming).await, n);
    }
    assert!(incoming.try_recv().is_none() && incoming.missed() == 0);
    for receipt in &receipts {
        assert!(outcome(receipt).await.delivered());
    }
    monitor.shutdown(LIMIT).await;
    peer.abort();
}

#[tokio::test]
async fn what_a_service_wants_to_say_is_bounded_in_bytes_and_a_host_that_takes_less_gets_it_singly()
{
    let limits =
        RecoveryConfig { max_buffered_bytes: ByteSize::kib(64), ..RecoveryConfig::default() };
    let (transport, pusher, _, peer) = talker(limits, 4096);
    let large = |n: u64| IpcMessage { payload: json!([n, "x".repeat(10_000)]), ..message(n) };
    let mut receipts = Vec::new();
    let error = loop {
        let receipt = pusher.push(large(receipts.len() as u64)).await;
        match receipt.accepted() {
            Ok(how) => assert_eq!(how, Acceptance::Buffered),
            Err(error) => break error.to_string(),
        }
        receipts.push(receipt);
    };
    assert!(receipts.len() == 6 && error.contains("64KiB"), "{} {error}", receipts.len());
    let little =
        RecoveryConfig { max_buffered_bytes: ByteSize::kib(8), ..RecoveryConfig::default() };
    let (monitor, channel) = channel(little, transport).await;
    let mut incoming = channel.incoming();
    for n in 0..receipts.len() {
        let message = tokio::time::timeout(LIMIT, incoming.recv()).await.unwrap().unwrap();
        assert_eq!(message.payload[0], n);
    }
    assert!(incoming.try_recv().is_none());
    for receipt in &receipts {
        assert!(outcome(receipt).await.delivered());
    }
    assert_eq!(channel.status().generation.get(), 1, "and the connection lived");
    monitor.shutdown(LIMIT).await;
    peer.abort();
}

#[tokio::test(start_paused = true)]
async fn what_no_host_takes_in_its_time_expires_and_what_it_waited_for_makes_room() {
    let config = RecoveryConfig {
        max_buffered_messages: 1,
        overflow: OverflowPolicy::Block,
        block_timeout: Duration::from_secs(60),
        message_ttl: Duration::from_secs(600),
        ..RecoveryConfig::default()
    };
    let endpoint = service_with(&Effects::default(), config);
    let pusher = endpoint.pusher();
    let brief = SendOptions { ttl: Some(Duration::from_secs(20)), ..SendOptions::default() };
    let began = tokio::time::Instant::now();
    let first = pusher.push_with(message(1), brief).await;
    let second = pusher.push_with(message(2), brief).await;
    assert_eq!(began.elapsed().as_secs(), 20, "it waited for room");
    assert_eq!(first.outcome().await, Outcome::Expired);
    let (third, fourth) = (pusher.push(message(3)), pusher.push(message(4)));
    let (third, fourth) = tokio::join!(third, fourth);
    assert_eq!(second.outcome().await, Outcome::Expired);
    assert!(third.accepted().is_ok(), "they wait in their order");
    let error = fourth.accepted().unwrap_err();
    assert!(matches!(error, IpcError::BufferFull { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
    drop(endpoint);
    assert!(matches!(third.outcome().await, Outcome::NotSent { .. }));
    let late = pusher.push(message(5)).await;
    assert!(matches!(late.accepted(), Err(IpcError::Closed { .. })));
}

#[tokio::test]
async fn what_a_host_gives_no_answer_to_or_an_endpoint_cannot_keep_is_refused_by_name() {
    let endpoint = service(&Effects::default());
    let pusher = endpoint.pusher();
    let default = SendOptions::default();
    for (options, name) in [
        (SendOptions { expect_reply: true, ..default }, "expect_reply"),
        (SendOptions { durable: true, ..default }, "durable"),
        (SendOptions { lane: supervisor_core::message::Lane::Control, ..default }, "control"),
    ] {
        let receipt = pusher.push_with(message(1), options).await;
        let error = receipt.accepted().unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    assert_eq!(pusher.waiting(), 0);
}

/// One side of a connection, spoken to frame by frame.
struct Raw(tokio::io::DuplexStream);

impl Raw {
    async fn say(&mut self, frame: Value) {
        let content = frame.to_string().into_bytes();
        self.0.write_u32(u32::try_from(content.len()).unwrap()).await.unwrap();
        self.0.write_all(&content).await.unwrap();
    }

    async fn hear(&mut self) -> Option<Value> {
        let heard = async {
            let length = self.0.read_u32().await.ok()?;
            let mut content = vec![0; length as usize];
            self.0.read_exact(&mut content).await.ok()?;
            Some(serde_json::from_slice(&content).unwrap())
        };
        tokio::time::timeout(LIMIT, heard).await.unwrap()
    }
}

/// A host, frame by frame, and what its service ends with.
fn host(
    endpoint: &Arc<Endpoint<impl Handler>>,
) -> (Raw, tokio::task::JoinHandle<Result<(), IpcError>>) {
    let (ours, theirs) = tokio::io::duplex(4096);
    let endpoint = Arc::clone(endpoint);
    (Raw(ours), tokio::spawn(async move { endpoint.serve(theirs).await }))
}

fn takes(session: Option<&Value>, handled: u64) -> Value {
    let mut push = json!({"window": 8, "bytes": 100_000_000, "handled": handled});
    if let Some(session) = session {
        push["session"] = session.clone();
    }
    json!({"k": "hello", "version": 1, "push": push})
}

#[tokio::test]
async fn a_host_that_does_not_say_that_it_takes_messages_gets_none_and_the_next_one_does() {
    let endpoint = Arc::new(service(&Effects::default()));
    let pusher = endpoint.pusher();
    let receipt = pusher.push(message(1)).await;
    let (mut old, _serving) = host(&endpoint);
    old.say(json!({"k": "hello", "version": 1})).await;
    assert_eq!(old.hear().await.unwrap()["k"], "hello");
    old.say(json!({"k": "ping", "s": 1})).await;
    assert_eq!(old.hear().await.unwrap(), json!({"k": "pong", "s": 1}));
    assert_eq!(pusher.waiting(), 1);
    let (mut new, _serving) = host(&endpoint);
    new.say(takes(None, 0)).await;
    new.hear().await.unwrap();
    let pushed = new.hear().await.unwrap();
    assert_eq!((&pushed["k"], &pushed["m"]["payload"]), (&json!("m"), &json!(1)));
    new.say(json!({"k": "a", "s": pushed["s"], "d": false})).await;
    assert!(matches!(outcome(&receipt).await, Outcome::Acked { duplicate: false, .. }));
}

#[tokio::test]
async fn the_host_that_greeted_last_is_pushed_to_and_the_one_before_when_that_is_gone() {
    let endpoint = Arc::new(service(&Effects::default()));
    let pusher = endpoint.pusher();
    let (mut first, _serving) = host(&endpoint);
    first.say(takes(None, 0)).await;
    let session = first.hear().await.unwrap()["push"]["session"].clone();
    let receipts = [pusher.push(message(1)).await, pusher.push(message(2)).await];
    let s = first.hear().await.unwrap()["s"].as_u64().unwrap();
    first.hear().await.unwrap();
    let (mut second, serving) = host(&endpoint);
    second.say(takes(Some(&session), s)).await;
    let greeting = second.hear().await.unwrap();
    assert_eq!(greeting["push"]["session"], session, "it goes on over connections");
    assert!(matches!(outcome(&receipts[0]).await, Outcome::Acked { duplicate: true, .. }));
    let again = second.hear().await.unwrap();
    assert_eq!((&again["m"]["payload"], &again["m"]["retry_count"]), (&json!(2), &json!(1)));
    assert!(again["s"].as_u64().unwrap() > s + 1, "numbers go on and never repeat");
    // What the first one says now is about a time that is over.
    first.say(json!({"k": "a", "s": again["s"], "d": false})).await;
    first.say(json!({"k": "ping", "s": 1})).await;
    assert_eq!(first.hear().await.unwrap()["k"], "pong");
    assert_eq!(pusher.waiting(), 1);
    drop(second);
    serving.await.unwrap().unwrap();
    let again = first.hear().await.unwrap();
    assert_eq!(again["m"]["payload"], 2);
    first.say(json!({"k": "a", "s": again["s"], "d": true})).await;
    assert!(matches!(outcome(&receipts[1]).await, Outcome::Acked { duplicate: true, .. }));
}

#[tokio::test]
async fn a_host_that_acknowledges_what_was_never_said_costs_its_connection_alone() {
    let endpoint = Arc::new(service(&Effects::default()));
    let pusher = endpoint.pusher();
    let receipt = pusher.push(message(1)).await;
    let (mut liar, serving) = host(&endpoint);
    liar.say(takes(None, 0)).await;
    let session = liar.hear().await.unwrap()["push"]["session"].clone();
    liar.say(json!({"k": "a", "s": 99, "d": false})).await;
    let error = serving.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("number 99, which was never given"), "{error}");
    let (mut liar, serving) = host(&endpoint);
    liar.say(takes(Some(&session), 77)).await;
    let error = serving.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("number 77, which was never given"), "{error}");
    assert_eq!(pusher.waiting(), 1);
    let (mut honest, _serving) = host(&endpoint);
    honest.say(takes(None, 0)).await;
    honest.hear().await.unwrap();
    let s = honest.hear().await.unwrap()["s"].clone();
    honest.say(json!({"k": "a", "s": s, "d": false})).await;
    assert!(outcome(&receipt).await.delivered());
}

#[tokio::test]
async fn a_message_that_must_not_be_repeated_is_unknown_when_the_connection_breaks() {
    let endpoint = Arc::new(service(&Effects::default()));
    let pusher = endpoint.pusher();
    let (mut first, _serving) = host(&endpoint);
    first.say(takes(None, 0)).await;
    first.hear().await.unwrap();
    let once = SendOptions { idempotent: false, ..SendOptions::default() };
    let receipt = pusher.push_with(message(1), once).await;
    first.hear().await.unwrap();
    drop(first);
    assert!(matches!(outcome(&receipt).await, Outcome::Indeterminate { .. }));
}

/// A service, frame by frame, of a channel that restarts it when it breaks the protocol.
async fn spoken_to(config: RecoveryConfig) -> (IpcMonitor, Channel, supervisor_ipc::MemoryPeer) {
    let (transport, peer) = MemoryTransport::new(4096);
    let (monitor, channel) = channel(config, Arc::new(transport)).await;
    (monitor, channel, peer)
}

async fn greets(peer: &mut supervisor_ipc::MemoryPeer, session: u64) -> (Raw, Value) {
    let mut raw = Raw(peer.accept().await.unwrap());
    let hello = raw.hear().await.unwrap();
    let push = json!({"session": Uuid::from_u128(u128::from(session))});
    raw.say(json!({"k": "hello", "version": 1, "push": push})).await;
    (raw, hello)
}

fn pushed(s: u64, n: u64) -> Value {
    json!({"k": "m", "s": s, "m": message(n)})
}

#[tokio::test]
async fn what_a_restarted_service_says_again_is_taken_once() {
    let (_monitor, channel, mut peer) = spoken_to(quick()).await;
    let mut incoming = channel.incoming();
    let (mut raw, hello) = greets(&mut peer, 1).await;
    assert_eq!(hello["push"]["session"], Value::Null);
    raw.say(pushed(1, 1)).await;
    raw.say(pushed(2, 2)).await;
    assert_eq!(next(&mut incoming).await, 1);
    assert_eq!(next(&mut incoming).await, 2);
    assert_eq!(raw.hear().await.unwrap(), json!({"k": "a", "s": 1, "d": false}));
    drop(raw);
    let (mut raw, hello) = greets(&mut peer, 2).await;
    assert_eq!(hello["push"]["session"], json!(Uuid::from_u128(1)));
    assert_eq!(hello["push"]["handled"], 1);
    raw.say(pushed(1, 1)).await;
    assert_eq!(raw.hear().await.unwrap(), json!({"k": "a", "s": 1, "d": true}));
    raw.say(pushed(2, 2)).await;
    raw.say(pushed(3, 3)).await;
    assert_eq!(next(&mut incoming).await, 3, "the second was heard already");
    assert_eq!(raw.hear().await.unwrap(), json!({"k": "a", "s": 2, "d": true}));
    assert!(incoming.try_recv().is_none());
    assert_eq!(raw.hear().await.unwrap(), json!({"k": "a", "s": 3, "d": false}));
}

#[tokio::test]
async fn a_service_that_says_more_than_the_channel_takes_costs_its_connection_alone() {
    let config = RecoveryConfig { max_in_flight: 3, ..quick() };
    let (_monitor, channel, mut peer) = spoken_to(config).await;
    let (mut raw, hello) = greets(&mut peer, 1).await;
    assert_eq!(hello["push"]["window"], 3);
    for n in 1..=4 {
        raw.say(pushed(n, n)).await;
    }
    assert_eq!(raw.hear().await, None, "the connection is over");
    let (mut raw, _) = greets(&mut peer, 1).await;
    channel.reached(supervisor_core::message::ChannelState::Ready).await.unwrap();
    let mut incoming = channel.incoming();
    raw.say(pushed(5, 4)).await;
    for n in 1..=4 {
        assert_eq!(next(&mut incoming).await, n);
    }
    assert!(incoming.try_recv().is_none());
}

#[tokio::test]
async fn a_peer_that_does_not_number_what_it_says_is_acknowledged_at_once() {
    let (_monitor, channel, mut peer) = spoken_to(quick()).await;
    let mut raw = Raw(peer.accept().await.unwrap());
    raw.hear().await.unwrap();
    raw.say(json!({"k": "hello", "version": 1})).await;
    channel.reached(supervisor_core::message::ChannelState::Ready).await.unwrap();
    raw.say(pushed(7, 7)).await;
    assert_eq!(raw.hear().await.unwrap(), json!({"k": "a", "s": 7, "d": false}));
    let mut incoming = channel.incoming();
    raw.say(pushed(7, 8)).await;
    assert_eq!(next(&mut incoming).await, 8, "what nobody subscribed to is nobody's");
}
