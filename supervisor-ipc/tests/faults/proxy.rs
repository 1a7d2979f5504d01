//! One fault of each kind in the first connection.

use supervisor_core::config::HeartbeatConfig;
use supervisor_ipc::testing::{Fault, FaultProxy};

use super::*;

/// Signs of life and deadlines of a few hundred milliseconds.
fn hasty() -> RecoveryConfig {
    RecoveryConfig {
        heartbeat: HeartbeatConfig { idle: Duration::from_millis(100), misses: 3 },
        write_deadline: Duration::from_millis(500),
        handshake_timeout: Duration::from_secs(1),
        max_in_flight: 64,
        ..RecoveryConfig::default()
    }
}

async fn survives(script: (Fault, Fault)) -> Channel {
    let effects = Effects::default();
    let (transport, peer) = served(&effects, 512);
    let proxy = Arc::new(FaultProxy::new(transport, [script]));
    let (monitor, channel) = channel(hasty(), proxy).await;
    exchange(&channel, &effects, 1, 200).await;
    let end = channel.clone();
    monitor.shutdown(LIMIT).await;
    peer.abort();
    end
}

#[tokio::test]
async fn slices_and_latency_change_nothing() {
    for (bytes, millis) in [(1, 0), (7, 0), (64, 0), (1024, 1)] {
        let slow = Fault::Slice { bytes, pause: Duration::from_millis(millis) };
        let channel = survives((slow.clone(), slow)).await;
        assert_eq!(channel.status().generation.get(), 1);
    }
}

#[tokio::test]
async fn a_connection_closed_in_one_direction_only_is_replaced() {
    survives((Fault::HalfClose { after: 2000 }, Fault::None)).await;
    survives((Fault::None, Fault::HalfClose { after: 300 })).await;
}

#[tokio::test]
async fn a_black_hole_in_either_direction_is_found_by_its_silence() {
    let channel = survives((Fault::BlackHole { after: 2000 }, Fault::None)).await;
    assert!(channel.status().generation.get() >= 2);
    let cause = channel.status().last_recovery.unwrap().cause;
    assert!(cause.contains("no sign of life"), "{cause}");
    survives((Fault::None, Fault::BlackHole { after: 300 })).await;
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_given_up() {
    let channel = survives((Fault::StopReading { after: 2000 }, Fault::None)).await;
    assert!(channel.status().generation.get() >= 2);
}

#[tokio::test]
async fn junk_from_either_side_costs_one_connection() {
    for at in [0, 1, 40, 333] {
        let junk = Fault::Junk { at, bytes: vec![0xff; 9] };
        survives((junk.clone(), Fault::None)).await;
        survives((Fault::None, junk)).await;
    }
}

#[tokio::test]
async fn a_bit_that_flips_on_its_way_from_the_peer_loses_and_doubles_nothing() {
    // Beyond the greeting, in the heads and letters of acknowledgements; digits of numbers are not protected.
    for at in [0, 3, 4, 5, 8] {
        survives((Fault::None, Fault::BitFlip { at })).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_gets_a_part_of_the_stream_twice_handles_no_message_twice() {
    for (from, to) in [(0, 4), (0, 150), (100, 400), (150, 151)] {
        survives((Fault::Repeat { from, to }, Fault::None)).await;
    }
}

#[tokio::test]
async fn a_tcp_peer_that_vanishes_without_a_word_is_found_by_its_silence() {
    let effects = Effects::default();
    let listener = supervisor_ipc::Listener::tcp("127.0.0.1:0").await.unwrap();
    let address = listener.address().unwrap().to_string();
    let service = tokio::spawn(listener.serve(service(&effects)));
    let script = (Fault::BlackHole { after: 2000 }, Fault::BlackHole { after: 2000 });
    let tcp = Arc::new(supervisor_ipc::TcpTransport::new(address));
    let proxy = Arc::new(FaultProxy::new(tcp, [script]));
    let (monitor, channel) = channel(hasty(), proxy).await;
    exchange(&channel, &effects, 1, 200).await;
    let cause = channel.status().last_recovery.unwrap().cause;
    assert!(cause.contains("no sign of life"), "{cause}");
    monitor.shutdown(LIMIT).await;
    service.abort();
}
