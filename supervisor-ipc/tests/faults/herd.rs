//! Thirty channels whose peers die at the same moment.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use supervisor_core::error::IpcError;
use supervisor_core::message::{ChannelState, Lane};
use supervisor_ipc::Connection;
use tokio::sync::watch;

use super::*;

const CHANNELS: u64 = 30;

/// Lets paused time pass.
pub(super) async fn pass(time: Duration) {
    // poll: nothing sleeps, time is paused; what takes its time here takes at most 30 ms of it.
    tokio::time::sleep(time).await;
}

/// What all channels reconnect to: it counts who is at it, and refuses each of them at first.
#[derive(Debug)]
struct Manager {
    at_it: AtomicUsize,
    most: AtomicUsize,
    refusals: AtomicUsize,
    /// The peers that live; a change ends them all.
    life: watch::Sender<u32>,
    /// When a channel was back.
    back: Mutex<Vec<tokio::time::Instant>>,
    /// Lanes of what each peer got after its return, by channel, and how much it got in all.
    got: Mutex<HashMap<u64, Vec<String>>>,
    handled: AtomicUsize,
}

#[derive(Debug)]
struct Door(u64, Arc<Manager>, Mutex<u32>);

#[async_trait]
impl Transport for Door {
    async fn connect(&self) -> Result<Connection, IpcError> {
        let manager = Arc::clone(&self.1);
        let at_it = manager.at_it.fetch_add(1, Ordering::SeqCst) + 1;
        manager.most.fetch_max(at_it, Ordering::SeqCst);
        pass(Duration::from_millis(10)).await;
        let attempt = {
            let mut attempts = self.2.lock().unwrap();
            *attempts += 1;
            *attempts
        };
        if (2..=4).contains(&attempt) {
            manager.at_it.fetch_sub(1, Ordering::SeqCst);
            manager.refusals.fetch_add(1, Ordering::SeqCst);
            return Err(IpcError::TimedOut { channel: "it".into(), limit: Duration::ZERO });
        }
        let (ours, theirs) = tokio::io::duplex(4096);
        let channel = self.0;
        tokio::spawn(async move {
            // Restoring its state is what costs a peer.
            pass(Duration::from_millis(30)).await;
            manager.at_it.fetch_sub(1, Ordering::SeqCst);
            manager.back.lock().unwrap().push(tokio::time::Instant::now());
            let mut life = manager.life.subscribe();
            let counted = Arc::clone(&manager);
            let endpoint = Endpoint::new(move |message: IpcMessage| {
                counted.handled.fetch_add(1, Ordering::SeqCst);
                let mut got = counted.got.lock().unwrap();
                got.entry(channel).or_default().push(message.message_type);
                drop(got);
                async { None }
            });
            tokio::select! {
                served = endpoint.serve(theirs) => drop(served),
                _ = life.changed() => {}
            }
        });
        Ok(Connection::of(ours))
    }

    fn describe(&self) -> String {
        "a door".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn thirty_channels_whose_peers_die_together_return_four_at_a_time_spread_and_interactive_first()
 {
    let manager = Arc::new(Manager {
        at_it: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        refusals: AtomicUsize::new(0),
        life: watch::Sender::new(0),
        back: Mutex::default(),
        got: Mutex::default(),
        handled: AtomicUsize::new(0),
    });
    let monitor = IpcMonitor::with_config(RecoveryConfig::default());
    let mut channels = Vec::new();
    for n in 0..CHANNELS {
        let channel = monitor.register_channel(format!("svc{n}")).await.unwrap();
        channel.attach(Arc::new(Door(n, Arc::clone(&manager), Mutex::default()))).await.unwrap();
        channels.push(channel);
    }
    let mut next = 0;
    let mut send = |n: usize, lane: Lane| {
        next += 1;
        let mut message = message(next);
        message.message_type = format!("{lane:?}");
        let options = SendOptions { lane, ..SendOptions::default() };
        let channel = channels[n].clone();
        async move { channel.send_with(message, options).await }
    };
    let mut receipts = Vec::new();
    for n in 0..channels.len() {
        for _ in 0..10 {
            receipts.push(send(n, Lane::Normal).await);
        }
    }
    for receipt in receipts.drain(..) {
        assert!(receipt.await.delivered());
    }
    manager.most.store(0, Ordering::SeqCst);
    manager.back.lock().unwrap().clear();
    manager.got.lock().unwrap().clear();
    manager.life.send_modify(|life| *life += 1);
    for channel in &channels {
        channel.reached(ChannelState::Connecting).await.unwrap();
    }
    for lane in [Lane::Bulk, Lane::Normal, Lane::Interactive] {
        for n in 0..channels.len() {
            receipts.push(send(n, lane).await);
        }
    }
    for receipt in receipts {
        assert!(receipt.await.delivered());
    }
    assert_eq!(manager.most.load(Ordering::SeqCst), 4, "all places are used, and no more");
    assert_eq!(manager.refusals.load(Ordering::SeqCst), 90, "each was refused thrice");
    let back = manager.back.lock().unwrap().clone();
    let moments: std::collections::HashSet<_> = back.iter().collect();
    assert_eq!(back.len(), 30);
    assert!(moments.len() > 7, "they come at different times: {}", moments.len());
    for (channel, got) in manager.got.lock().unwrap().iter() {
        assert_eq!(got[..], ["Interactive", "Normal", "Bulk"], "channel {channel}");
    }
    assert_eq!(manager.handled.load(Ordering::SeqCst), 390, "nothing was written twice");
    monitor.shutdown(LIMIT).await;
}
