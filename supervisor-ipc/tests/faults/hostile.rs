//! Endpoints and channels whose peers say what they like.

use supervisor_core::error::IpcError;
use supervisor_core::message::ChannelState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn frame(content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [u32::try_from(content.len()).unwrap().to_be_bytes().as_slice(), content].concat()
}

const HELLO: &str = r#"{"k":"hello","version":1}"#;

/// What both sides may be told, with a piece of the reason they give.
fn nonsense() -> Vec<(Vec<u8>, &'static str)> {
    let nested = format!(r#"{{"k":"r","s":1,"p":{}}}"#, "[".repeat(100_000));
    vec![
        (vec![0xff; 64], "4294967295"),
        (frame(r#"{"k":"a","s":-1,"d":false}"#), "-1"),
        (frame(r#"{"k":"a","s":18446744073709551616}"#), "invalid"),
        (frame(r#"{"k":"a","s":"1"}"#), "string"),
        (frame(nested), "recursion limit"),
        (frame(b"{\"k\":\"a\xff\"}"), "unicode"),
        (frame(r#"{"k":"m","s":1}"#), "without content"),
        (frame(r#"{"k":"m","s":1,"m":{"id":"7"}}"#), "UUID"),
        (frame(r#"{"k":"unheard-of","s":1}"#), "unknown variant"),
        (frame("null"), "null"),
        (frame(""), "EOF"),
    ]
}

#[tokio::test]
async fn an_endpoint_says_what_a_hostile_peer_did_and_serves_the_next_one() {
    let effects = Effects::default();
    let endpoint = Arc::new(service(&effects));
    for (said, reason) in nonsense() {
        let (stream, mut peer) = tokio::io::duplex(1024);
        let served = tokio::spawn({
            let endpoint = Arc::clone(&endpoint);
            async move { endpoint.serve(stream).await }
        });
        peer.write_all(&frame(HELLO)).await.unwrap();
        // It may hang up before it has heard everything.
        drop(peer.write_all(&said).await);
        let error = served.await.unwrap().unwrap_err();
        assert!(matches!(error, IpcError::Protocol { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{reason}: {error}");
        assert!(error.to_string().len() < 300, "{error}");
    }
    // What nobody waits for is no harm.
    let (stream, mut peer) = tokio::io::duplex(1024);
    for said in [HELLO, r#"{"k":"a","s":9}"#, r#"{"k":"r","s":9,"p":1}"#, r#"{"k":"pong","s":9}"#] {
        peer.write_all(&frame(said)).await.unwrap();
    }
    peer.shutdown().await.unwrap();
    endpoint.serve(stream).await.unwrap();
    assert!(effects.lock().unwrap().is_empty());
    let (transport, mut peer) = MemoryTransport::new(512);
    let task = tokio::spawn(async move { endpoint.serve(peer.accept().await.unwrap()).await });
    let (monitor, channel) = channel(RecoveryConfig::default(), Arc::new(transport)).await;
    exchange(&channel, &effects, 1, 50).await;
    monitor.shutdown(LIMIT).await;
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_peer_asks_and_never_reads_stops_listening_to_it() {
    let effects = Effects::default();
    let endpoint = service(&effects);
    let (stream, mut peer) = tokio::io::duplex(4096);
    let served = tokio::spawn(async move { endpoint.serve(stream).await });
    peer.write_all(&frame(HELLO)).await.unwrap();
    let question = frame(r#"{"k":"ping","s":7}"#);
    let mut taken = 0;
    while tokio::time::timeout(Duration::from_secs(1), peer.write_all(&question)).await.is_ok() {
        taken += question.len();
        assert!(taken < 256 * 1024, "it goes on taking questions whose answers nobody reads");
    }
    // Read at last, it goes on.
    let mut answers = vec![0; 4096];
    assert!(peer.read(&mut answers).await.unwrap() > 0);
    drop(peer);
    drop(served.await.unwrap());
}

#[tokio::test]
async fn a_channel_says_what_a_hostile_peer_did_and_its_message_reaches_the_next_one_once() {
    let mut said = nonsense();
    said.push((frame(r#"{"k":"a","s":99999}"#), "never given"));
    said.push((frame(r#"{"k":"r","s":18446744073709551615,"p":1}"#), "never given"));
    for (said, reason) in said {
        let effects = Effects::default();
        let (transport, mut peer) = MemoryTransport::new(4096);
        let (monitor, channel) = channel(RecoveryConfig::default(), Arc::new(transport)).await;
        let mut stream = peer.accept().await.unwrap();
        stream.write_all(&frame(HELLO)).await.unwrap();
        channel.reached(ChannelState::Ready).await.unwrap();
        let receipt = channel.send(message(1)).await;
        drop(stream.write_all(&said).await);
        let mut stream = peer.accept().await.unwrap();
        // It claims to have handled what nobody gave it.
        let length = stream.read_u32().await.unwrap();
        let mut hello = vec![0; length as usize];
        stream.read_exact(&mut hello).await.unwrap();
        let mut forged: serde_json::Value = serde_json::from_slice(&hello).unwrap();
        forged["handled"] = u64::MAX.into();
        stream.write_all(&frame(forged.to_string())).await.unwrap();
        let endpoint = service(&effects);
        let task = tokio::spawn(async move {
            let next = peer.accept().await.unwrap();
            endpoint.serve(next).await
        });
        let outcome = tokio::time::timeout(LIMIT, receipt.outcome()).await.unwrap();
        assert!(outcome.delivered(), "{outcome:?}");
        assert_eq!(effects.lock().unwrap().len(), 1, "{reason}");
        let status = channel.status();
        let cause = status.last_recovery.unwrap().cause;
        assert!(cause.contains(reason), "{reason}: {cause}");
        assert!(cause.len() < 400, "{cause}");
        monitor.shutdown(LIMIT).await;
        task.abort();
    }
}
