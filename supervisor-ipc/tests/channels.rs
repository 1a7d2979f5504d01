//! Channels against real peers: in memory, over a Unix socket, over a child's pipes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::config::{FramingKind, RecoveryConfig};
use supervisor_core::error::IpcError;
use supervisor_core::message::{ChannelState, IpcMessage, Outcome};
use supervisor_core::ports::{OwnedSyncSession, StateSynchronizer};
use supervisor_ipc::{
    Acceptance, Channel, ChannelOptions, Endpoint, IpcMonitor, Listener, MemoryTransport,
    SendOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

fn message(payload: serde_json::Value) -> IpcMessage {
    IpcMessage {
        id: Uuid::new_v4(),
        message_type: "t".into(),
        payload,
        timestamp: chrono::DateTime::UNIX_EPOCH,
        retry_count: 0,
    }
}

fn asking() -> SendOptions {
    SendOptions { expect_reply: true, ..SendOptions::default() }
}

async fn register(config: RecoveryConfig) -> (IpcMonitor, Channel) {
    let monitor = IpcMonitor::with_config(config);
    let channel = monitor.register_channel("svc".to_owned()).await.unwrap();
    (monitor, channel)
}

fn echo() -> Endpoint<impl supervisor_ipc::Handler> {
    Endpoint::new(|message: IpcMessage| async move {
        (!message.payload.is_null()).then_some(message.payload)
    })
}

#[tokio::test]
async fn a_message_sent_while_the_peer_is_down_is_answered_when_it_is_back() {
    let (_monitor, channel) = register(RecoveryConfig::default()).await;
    let receipt = channel.send_with(message(7.into()), asking()).await;
    assert_eq!(receipt.accepted().unwrap(), Acceptance::Buffered);
    let (transport, mut peer) = MemoryTransport::new(64);
    channel.attach(Arc::new(transport)).await.unwrap();
    tokio::spawn(async move { echo().serve(peer.accept().await.unwrap()).await });
    let Outcome::Answered { reply, .. } = receipt.await else { panic!("not answered") };
    assert_eq!(reply, 7);
}

#[tokio::test]
async fn a_peer_that_dies_and_returns_loses_and_doubles_nothing() {
    let (_monitor, channel) = register(RecoveryConfig::default()).await;
    let (transport, mut peer) = MemoryTransport::new(4096);
    channel.attach(Arc::new(transport)).await.unwrap();
    let handled = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&handled);
    let service = tokio::spawn(async move {
        let endpoint = Endpoint::new(move |_: IpcMessage| {
            count.fetch_add(1, Ordering::Relaxed);
            async { None }
        });
        // Cut in the middle of every connection but the last; the endpoint remembers what it handled.
        for limit in [3000_u64, 5000, u64::MAX] {
            let stream = peer.accept().await.unwrap();
            let (reader, writer) = tokio::io::split(stream);
            let joined = tokio::io::join(reader.take(limit), writer);
            drop(endpoint.serve(joined).await);
        }
    });
    let receipts = futures_util::future::join_all(
        (0..100).map(|n| channel.send(message(serde_json::json!(n)))),
    )
    .await;
    for receipt in receipts {
        let outcome = receipt.await;
        assert!(outcome.delivered(), "{outcome:?}");
    }
    assert_eq!(handled.load(Ordering::Relaxed), 100);
    assert_eq!(channel.status().generation.get(), 3);
    service.abort();
}

#[tokio::test]
async fn a_full_buffer_refuses_at_once_and_says_so() {
    let config = RecoveryConfig { max_buffered_messages: 2, ..RecoveryConfig::default() };
    let (monitor, channel) = register(config).await;
    let _first = channel.send(message(1.into())).await;
    let _second = channel.send(message(2.into())).await;
    let refused = monitor.send_message("svc", message(3.into())).await;
    assert!(matches!(refused.accepted(), Err(IpcError::BufferFull { .. })));
    assert!(matches!(refused.await, Outcome::Rejected { .. }));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_state_learns_that_the_channel_is_closed_instead() {
    let (monitor, channel) = register(RecoveryConfig::default()).await;
    let waiting = channel.clone();
    let waiting = tokio::spawn(async move { waiting.reached(ChannelState::Ready).await });
    monitor.shutdown(Duration::from_secs(1)).await;
    let told = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    assert!(matches!(told, Err(IpcError::Closed { .. })), "{told:?}");
    channel.reached(ChannelState::Closed).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_nobody_takes_expires() {
    let (_monitor, channel) = register(RecoveryConfig::default()).await;
    let receipt = channel.send(message(1.into())).await;
    assert_eq!(receipt.outcome().await, Outcome::Expired);
}

#[tokio::test]
async fn the_same_id_again_is_the_same_message() {
    let (_monitor, channel) = register(RecoveryConfig::default()).await;
    let once = message(1.into());
    let _first = channel.send(once.clone()).await;
    let again = channel.send(once).await;
    assert_eq!(again.accepted().unwrap(), Acceptance::Duplicate);
    assert_eq!(channel.status().buffered, 1);
}

#[tokio::test]
async fn an_unknown_channel_and_a_bad_configuration_are_named() {
    let monitor =
        IpcMonitor::with_config(RecoveryConfig { max_attempts: 0, ..RecoveryConfig::default() });
    let error = monitor.register_channel("x").await.unwrap_err();
    assert!(
        matches!(&error, IpcError::Config(config) if config.field() == "max_attempts"),
        "{error}"
    );
    let receipt = monitor.send_message("x", message(1.into())).await;
    assert!(matches!(receipt.accepted(), Err(IpcError::UnknownChannel { .. })));
}

#[tokio::test]
async fn the_same_name_is_the_same_channel_unless_it_is_set_up_otherwise() {
    let (monitor, _channel) = register(RecoveryConfig::default()).await;
    assert!(monitor.register_channel("svc").await.is_ok());
    let other = ChannelOptions { framing: FramingKind::Lsp, ..ChannelOptions::default() };
    assert!(matches!(
        monitor.register_channel_with("svc", other).await,
        Err(IpcError::AlreadyRegistered { .. })
    ));
}

#[derive(Debug)]
struct Greeting;

#[async_trait]
impl StateSynchronizer for Greeting {
    async fn synchronize(&self, session: &mut OwnedSyncSession) -> Result<(), IpcError> {
        session.send(br#"{"jsonrpc":"2.0","id":"sync","method":"initialize"}"#.to_vec()).await?;
        let answer = session.receive().await?;
        assert!(String::from_utf8_lossy(&answer).contains("capabilities"));
        Ok(())
    }
}

#[tokio::test]
async fn the_peers_state_is_restored_before_anything_else_flows() {
    let monitor = IpcMonitor::with_config(RecoveryConfig::default());
    let options = ChannelOptions { framing: FramingKind::Mcp, ..ChannelOptions::default() };
    let channel = monitor.register_channel_with("mcp", options).await.unwrap();
    channel.set_synchronizer(Arc::new(Greeting)).await.unwrap();
    let receipt = channel.send_with(message(serde_json::json!({"a": 1})), asking()).await;
    let (transport, mut peer) = MemoryTransport::new(4096);
    channel.attach(Arc::new(transport)).await.unwrap();
    let mut stream = tokio::io::BufStream::new(peer.accept().await.unwrap());
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut stream, &mut line).await.unwrap();
    assert!(line.contains("initialize"), "{line}");
    stream.write_all(b"{\"id\":\"sync\",\"result\":{\"capabilities\":{}}}\n").await.unwrap();
    stream.flush().await.unwrap();
    line.clear();
    tokio::io::AsyncBufReadExt::read_line(&mut stream, &mut line).await.unwrap();
    let request: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(request["method"], "t");
    let answer = serde_json::json!({"jsonrpc": "2.0", "id": request["id"], "result": "done"});
    stream.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let Outcome::Answered { reply, .. } = receipt.await else { panic!("not answered") };
    assert_eq!(reply["result"], "done");
}

#[tokio::test]
async fn a_hostile_frame_ends_the_connection_and_nothing_else() {
    let (_monitor, channel) = register(RecoveryConfig::default()).await;
    let (transport, mut peer) = MemoryTransport::new(4096);
    channel.attach(Arc::new(transport)).await.unwrap();
    let mut stream = peer.accept().await.unwrap();
    stream.write_all(&[0xff; 64]).await.unwrap();
    let stream = peer.accept().await.unwrap();
    tokio::spawn(async move { echo().serve(stream).await });
    assert!(channel.send(message(serde_json::Value::Null)).await.await.delivered());
}

#[cfg(unix)]
#[tokio::test]
async fn a_service_on_a_unix_socket_may_come_later_and_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("svc.sock");
    let (_monitor, channel) = register(RecoveryConfig::default()).await;
    channel.attach(Arc::new(supervisor_ipc::UnixTransport::new(&path))).await.unwrap();
    for generation in 1..=2 {
        let receipt = channel.send_with(message(generation.into()), asking()).await;
        drop(std::fs::remove_file(&path));
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        channel.retry_now().await.unwrap();
        let service = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            echo().serve(stream).await
        });
        assert!(
            tokio::time::timeout(Duration::from_secs(20), receipt.outcome())
                .await
                .unwrap()
                .delivered()
        );
        assert_eq!(channel.status().generation.get(), generation);
        service.abort();
        drop(service.await);
        tokio::time::timeout(Duration::from_secs(20), async {
            while channel.status().state == ChannelState::Ready {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn shutting_down_ends_every_message_and_every_task() {
    let (monitor, channel) = register(RecoveryConfig::default()).await;
    let receipt = channel.send(message(1.into())).await;
    monitor.shutdown(Duration::from_secs(5)).await;
    assert!(matches!(receipt.await, Outcome::NotSent { .. }));
    assert!(matches!(channel.send(message(2.into())).await.await, Outcome::Rejected { .. }));
}

#[tokio::test]
async fn what_the_peer_asks_while_it_owes_us_an_answer_is_answered_at_once() {
    let monitor = IpcMonitor::with_config(RecoveryConfig::default());
    let options = ChannelOptions { framing: FramingKind::Mcp, ..ChannelOptions::default() };
    let channel = monitor.register_channel_with("rpc", options).await.unwrap();
    let (transport, mut peer) = MemoryTransport::new(4096);
    channel.attach(Arc::new(transport)).await.unwrap();
    let mut stream = tokio::io::BufStream::new(peer.accept().await.unwrap());
    let receipt = channel.send_with(message(serde_json::json!({})), asking()).await;
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut stream, &mut line).await.unwrap();
    let ours: serde_json::Value = serde_json::from_str(&line).unwrap();
    // It does not answer before it was answered itself.
    stream.write_all(b"{\"id\":\"q\",\"method\":\"roots/list\"}\n").await.unwrap();
    stream.flush().await.unwrap();
    line.clear();
    tokio::io::AsyncBufReadExt::read_line(&mut stream, &mut line).await.unwrap();
    let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(answer["id"], "q");
    let reply = serde_json::json!({"jsonrpc": "2.0", "id": ours["id"], "result": 1});
    stream.write_all(format!("{reply}\n").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    assert!(receipt.await.delivered());
}

#[tokio::test]
async fn a_hostile_peer_harms_no_other_channel() {
    let monitor = IpcMonitor::with_config(RecoveryConfig::default());
    let good = monitor.register_channel("good").await.unwrap();
    let bad = monitor.register_channel("bad").await.unwrap();
    let (transport, mut peer) = MemoryTransport::new(4096);
    good.attach(Arc::new(transport)).await.unwrap();
    tokio::spawn(async move { echo().serve(peer.accept().await.unwrap()).await });
    let (transport, mut peer) = MemoryTransport::new(4096);
    bad.attach(Arc::new(transport)).await.unwrap();
    let stuck = bad.send(message(1.into())).await;
    let hello = br#"{"k":"hello","version":1}"#;
    let frame = |content: &[u8]| {
        [u32::try_from(content.len()).unwrap().to_be_bytes().as_slice(), content].concat()
    };
    let said: [Vec<u8>; 4] = [
        // A gigabyte, half a frame, numbers of nobody, and then it never reads again.
        0x4000_0000_u32.to_be_bytes().to_vec(),
        vec![0, 0, 0, 99, b'{'],
        frame(br#"{"k":"r","s":77,"p":1}"#),
        frame(br#"{"k":"a","s":99999,"d":true}"#),
    ];
    for bytes in said {
        let mut stream = peer.accept().await.unwrap();
        stream.write_all(&frame(hello)).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        drop(stream);
        bad.retry_now().await.unwrap();
    }
    for n in 0..50 {
        let receipt = good.send_with(message(n.into()), asking()).await;
        assert!(
            tokio::time::timeout(Duration::from_secs(20), receipt.outcome())
                .await
                .unwrap()
                .delivered()
        );
    }
    assert_eq!(good.status().generation.get(), 1);
    monitor.shutdown(Duration::from_secs(20)).await;
    assert!(!matches!(stuck.await, Outcome::Answered { .. }));
}

/// Lets paused time pass.
async fn pass(time: Duration) {
    // poll: nothing sleeps, time is paused; every timer on the way has its turn, for at most two minutes of it.
    tokio::time::sleep(time).await;
}

/// Time jumps as it does when this process, or its machine, stands still; the peer stands still with it.
#[tokio::test(start_paused = true)]
async fn a_standstill_of_eight_hours_costs_no_connection_and_no_message() {
    let (_monitor, channel) = register(RecoveryConfig::default()).await;
    let (transport, mut peer) = MemoryTransport::new(4096);
    channel.attach(Arc::new(transport)).await.unwrap();
    let awake = Arc::new(tokio::sync::Notify::new());
    let wakes = Arc::clone(&awake);
    let endpoint = Endpoint::new(move |message: IpcMessage| {
        let awake = Arc::clone(&awake);
        async move {
            awake.notified().await;
            Some(message.payload)
        }
    });
    let service = tokio::spawn(async move { endpoint.serve(peer.accept().await.unwrap()).await });
    channel.reached(ChannelState::Ready).await.unwrap();
    let receipt = channel.send_with(message(7.into()), asking()).await;
    tokio::time::advance(Duration::from_secs(8 * 3600)).await;
    // Everybody has his turn before anybody is woken.
    pass(Duration::from_millis(1)).await;
    wakes.notify_one();
    assert!(receipt.await.delivered());
    // Silent for as long as an endpoint allows, but for signs of life.
    pass(Duration::from_secs(120)).await;
    assert_eq!(channel.status().generation.get(), 1, "{}", channel.status().reason);
    assert!(!service.is_finished());
}

#[tokio::test]
async fn an_outcome_that_was_asked_for_once_and_left_alone_keeps_nobody_from_reading() {
    let mut config = RecoveryConfig::default();
    // Nothing else is to wake the channel within the limit.
    config.heartbeat.idle = Duration::from_secs(600);
    let (_monitor, channel) = register(config).await;
    let (transport, mut peer) = MemoryTransport::new(4096);
    channel.attach(Arc::new(transport)).await.unwrap();
    tokio::spawn(async move { echo().serve(peer.accept().await.unwrap()).await });
    assert!(channel.send(message(7.into())).await.await.delivered());
    let receipt = channel.send(message(8.into())).await;
    let mut alone = Box::pin(receipt.outcome());
    assert!(futures_util::poll!(alone.as_mut()).is_pending(), "it is the one who is to read now");
    let heard = async {
        while channel.status().in_flight > 0 {
            // poll: for the answer, up to the limit below.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), heard).await.unwrap();
    assert!(alone.await.delivered());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_takes_silence_for_the_end_unless_it_stood_still_itself() {
    let (stream, mut peer) = tokio::io::duplex(4096);
    let service = tokio::spawn(async move { echo().serve(stream).await });
    let hello = br#"{"k":"hello","version":1,"idle":1000}"#;
    peer.write_all(&u32::try_from(hello.len()).unwrap().to_be_bytes()).await.unwrap();
    peer.write_all(hello).await.unwrap();
    peer.read_u32().await.unwrap();
    tokio::time::advance(Duration::from_secs(8 * 3600)).await;
    pass(Duration::from_secs(5)).await;
    assert!(!service.is_finished(), "nobody could say anything meanwhile");
    pass(Duration::from_secs(2)).await;
    assert!(matches!(service.await.unwrap(), Err(IpcError::TimedOut { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_counts_silence_from_the_last_word() {
    let (stream, mut peer) = tokio::io::duplex(4096);
    let service = tokio::spawn(async move { echo().serve(stream).await });
    let frames: [&[u8]; 2] =
        [br#"{"k":"hello","version":1,"idle":1000}"#, br#"{"k":"ping","s":1}"#];
    for frame in frames {
        peer.write_u32(u32::try_from(frame.len()).unwrap()).await.unwrap();
        peer.write_all(frame).await.unwrap();
        pass(Duration::from_secs(5)).await;
    }
    assert!(!service.is_finished(), "it said something five seconds ago");
    pass(Duration::from_secs(2)).await;
    assert!(matches!(service.await.unwrap(), Err(IpcError::TimedOut { .. })));
}

#[tokio::test]
async fn a_service_listens_in_a_line_on_a_port_of_this_machine_and_on_no_other() {
    let listener = Listener::tcp("127.0.0.1:0").await.unwrap();
    let address = listener.address().unwrap().to_string();
    let config =
        RecoveryConfig { handshake_timeout: Duration::from_millis(300), ..Default::default() };
    let service = tokio::spawn(
        listener
            .serve(Endpoint::with_config(|m: IpcMessage| async move { Some(m.payload) }, config)),
    );
    // Peers that say nothing take every place, for as long as a greeting may take.
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    let (_monitor, channel) = register(RecoveryConfig::default()).await;
    channel.attach(Arc::new(supervisor_ipc::TcpTransport::new(address))).await.unwrap();
    let receipt = channel.send_with(message(7.into()), asking()).await;
    let answered = tokio::time::timeout(Duration::from_secs(20), receipt.outcome()).await;
    assert!(answered.unwrap().delivered());
    assert_eq!(channel.status().generation.get(), 1);
    service.abort();
    let refused = Listener::tcp("0.0.0.0:0").await.unwrap_err();
    let said = supervisor_core::error::chain(&refused);
    assert!(said.contains("0.0.0.0:0") && said.contains("loopback"), "{said}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_service_listens_in_a_line_on_a_socket_that_only_its_user_reaches() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("svc.sock");
    let listener = Listener::local(&path).unwrap();
    let mode = std::fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let service = tokio::spawn(listener.serve(echo()));
    let (_monitor, channel) = register(RecoveryConfig::default()).await;
    channel.attach(Arc::new(supervisor_ipc::UnixTransport::new(&path))).await.unwrap();
    assert!(channel.send_with(message(7.into()), asking()).await.await.delivered());
    service.abort();
    drop(service.await);
    assert!(!path.exists(), "it goes with its listener");
}

#[cfg(unix)]
#[tokio::test]
async fn a_stale_socket_is_replaced_and_what_is_in_use_or_no_socket_is_left_alone() {
    use std::os::unix::net::UnixListener;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("svc.sock");
    let refused = |path: &std::path::Path| {
        let error = Listener::local(path).unwrap_err();
        let said = supervisor_core::error::chain(&error);
        assert!(said.contains("svc.sock"), "{said}");
        (said, supervisor_core::error::Classified::class(&error).retryable())
    };
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left by a dead process");
    let listener = Listener::local(&path).unwrap();
    let (said, again) = refused(&path);
    assert!(said.contains("in use") && again, "{said}");
    drop(listener);
    // One that knows nothing of locks.
    let other = UnixListener::bind(&path).unwrap();
    let (said, again) = refused(&path);
    assert!(said.contains("in use") && again, "{said}");
    assert!(path.exists());
    // A listener whose socket was replaced by another's leaves that one alone.
    drop(other);
    let listener = Listener::local(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    drop(listener);
    let (said, again) = refused(&path);
    assert!(said.contains("no socket") && !again, "{said}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
