//! What every sink with subscriptions promises. The function panics with what was expected.

#![expect(clippy::panic, reason = "a contract suite fails by panicking")]

use crate::Sequence;
use crate::event::{EventKind, SupervisorEvent};
use crate::ports::{Delivery, EventSink, EventSubscription};

fn event(reason: impl Into<String>) -> EventKind {
    EventKind::BackupFailed { reason: reason.into() }
}

async fn one(subscription: &mut dyn EventSubscription) -> SupervisorEvent {
    match subscription.next().await {
        Some(Delivery::Event(event)) => *event,
        other => panic!("an event was published, and this came: {other:?}"),
    }
}

/// Runs the promises of [`EventSink`] and [`EventSubscription`]; `flood` is more events than a subscriber may lag behind.
///
/// Nobody else may publish meanwhile.
///
/// # Panics
/// When a promise is not kept.
pub async fn events(
    sink: &dyn EventSink,
    mut subscribe: impl FnMut() -> Box<dyn EventSubscription>,
    flood: u64,
) {
    let mut first = subscribe();
    sink.publish(event("one"));
    sink.publish(event("two"));
    let (a, b) = (one(&mut *first).await, one(&mut *first).await);
    assert_eq!((&a.kind, &b.kind), (&event("one"), &event("two")), "in the order of publishing");
    assert!(a.sequence < b.sequence && a.id != b.id, "with numbers that grow and ids of their own");

    let mut later = subscribe();
    sink.publish(event("three"));
    let (at_first, at_later) = (one(&mut *first).await, one(&mut *later).await);
    assert_eq!(at_first, at_later, "everybody gets the same, and a late one nothing from before");

    for n in 0..flood {
        sink.publish(event(n.to_string()));
    }
    let (mut seen, mut missed, mut last) = (0, 0, Sequence::ZERO);
    while seen + missed < flood {
        match first.next().await {
            Some(Delivery::Event(event)) => {
                assert!(event.sequence > last, "order holds for those who lag behind too");
                last = event.sequence;
                seen += 1;
            }
            Some(Delivery::Missed(n)) => missed += n,
            None => panic!("{seen} seen, {missed} missed of {flood}, and the subscription ended"),
        }
    }
    assert_eq!(seen + missed, flood, "what was not delivered is counted, exactly");
    assert!(seen > 0 && missed > 0, "the newest are delivered: {seen} seen, {missed} missed");
}
