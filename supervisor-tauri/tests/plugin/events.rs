//! Batches as a page gets them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::json;
use supervisor_core::ports::Delivery;
use supervisor_tauri::{Builder, EVENTS, EventBatch, SupervisorExt as _};
use tauri::Listener as _;

use crate::fake::{Deliveries, Fake, event};
use crate::page::{Page, open};

/// Generous: a loaded machine may be slow, and a batch that comes ends the wait at once.
const PATIENCE: Duration = Duration::from_secs(20);

fn following(settings: serde_json::Value) -> (Page, Deliveries, Receiver<EventBatch>) {
    let (fake, deliveries) = Fake::new();
    let plugin = Builder::new().control(Arc::new(fake));
    let page = open(plugin, &["supervisor-tauri:default"], Some(settings));
    let (sender, batches) = sync_channel(64);
    page.window().listen_any(EVENTS, move |message| {
        let batch = serde_json::from_str(message.payload()).unwrap();
        sender.try_send(batch).unwrap();
    });
    (page, deliveries, batches)
}

fn send(deliveries: &Deliveries, sequences: std::ops::Range<u64>) {
    for sequence in sequences {
        let delivery = Delivery::Event(Box::new(event(sequence)));
        deliveries.try_send(Some(delivery)).unwrap();
    }
}

fn sequences(batch: &EventBatch) -> Vec<u64> {
    batch.events.iter().map(|event| event.sequence.get()).collect()
}

#[test]
fn events_arrive_in_order_in_batches_whose_revisions_grow_by_one() {
    let (page, deliveries, batches) = following(json!({"tick_ms": 50}));
    let (mut seen, mut revision) = (Vec::new(), 0);
    for round in 0..3_u64 {
        send(&deliveries, round * 10..round * 10 + 10);
        while (seen.len() as u64) < round * 10 + 10 {
            let batch = batches.recv_timeout(PATIENCE).unwrap();
            assert_eq!(batch.revision, revision + 1);
            assert_eq!((batch.version, batch.missed, batch.closed), (1, 0, false));
            revision = batch.revision;
            seen.extend(sequences(&batch));
        }
    }
    assert_eq!(seen, (0..30).collect::<Vec<_>>());
    let snapshot = page.invoke("snapshot", json!({})).unwrap();
    assert_eq!(snapshot["revision"], revision);
    assert_eq!(page.app.supervisor().revision(), revision);
}

#[test]
fn a_flood_beyond_the_bound_says_how_much_is_missing() {
    let (_page, deliveries, batches) = following(json!({"tick_ms": 200, "batch_max": 5}));
    send(&deliveries, 0..1000);
    let (mut seen, mut missed) = (Vec::new(), 0);
    while seen.len() as u64 + missed < 1000 {
        let batch = batches.recv_timeout(PATIENCE).unwrap();
        assert!(batch.events.len() <= 5);
        seen.extend(sequences(&batch));
        missed += batch.missed;
    }
    assert!(missed > 0, "1000 events fit no few batches of 5");
    assert_eq!(seen.last(), Some(&999), "the newest is kept");
    assert!(seen.is_sorted());
}

#[test]
fn a_subscription_that_lagged_is_passed_on_as_missing() {
    let (_page, deliveries, batches) = following(json!({"tick_ms": 50}));
    deliveries.try_send(Some(Delivery::Missed(42))).unwrap();
    let batch = batches.recv_timeout(PATIENCE).unwrap();
    assert_eq!((batch.events.len(), batch.missed, batch.closed), (0, 42, false));
}

#[test]
fn the_end_of_the_supervisor_closes_the_stream() {
    let (_page, deliveries, batches) = following(json!({"tick_ms": 2000}));
    send(&deliveries, 0..1);
    deliveries.try_send(None).unwrap();
    let batch = batches.recv_timeout(PATIENCE).unwrap();
    assert_eq!((sequences(&batch), batch.closed), (vec![0], true));
    assert!(batches.try_recv().is_err());
}
