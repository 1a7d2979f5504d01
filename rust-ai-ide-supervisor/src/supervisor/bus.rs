//! The event bus: numbers events, hands them to subscribers, and has them stored.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::error::{Classified as _, ErrorClass, chain};
use supervisor_core::event::{EVENT_VERSION, EventKind, SupervisorEvent};
use supervisor_core::ports::{Clock, Delivery, Entropy, EventSink, EventStore, EventSubscription};
use supervisor_core::{Sequence, time_ordered_id};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;

/// Events a subscriber may lag behind before it is told how many it missed.
///
/// At the bound the oldest are overwritten: the supervisor never waits for a window that does not read.
pub(crate) const SUBSCRIBER_LAG_MAX: usize = 4096;
/// Events waiting to be stored. At the bound new ones are counted instead, and the count is stored when there is room.
const STORE_QUEUE_MAX: usize = 8192;
/// Events stored in one call.
const STORE_BATCH_MAX: usize = 512;
/// Pause before events that could not be stored are tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Numbers events and hands them on; publishing never blocks.
#[derive(Debug)]
pub(crate) struct EventBus {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    live: broadcast::Sender<Arc<SupervisorEvent>>,
    // One lock around the number and both sends keeps every reader's order that of the numbers.
    order: Mutex<Order>,
    unstored: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Order {
    next: Sequence,
    store: Option<mpsc::Sender<Arc<SupervisorEvent>>>,
}

impl EventBus {
    pub(crate) fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Arc<Self> {
        let (live, _) = broadcast::channel(SUBSCRIBER_LAG_MAX);
        let order = Mutex::new(Order { next: Sequence(1), store: None });
        Arc::new(Self { clock, entropy, live, order, unstored: Arc::default() })
    }

    /// Goes on after the numbers already stored, and stores from now on; the task ends when the bus is
    /// [closed](Self::close).
    pub(crate) fn store_into(&self, store: Arc<dyn EventStore>, head: Sequence) -> JoinHandle<()> {
        let (sender, receiver) = mpsc::channel(STORE_QUEUE_MAX);
        let mut order = self.lock();
        order.next = order.next.max(head.next());
        order.store = Some(sender);
        crate::supervisor::tasks::spawn(store_events(store, receiver, Arc::clone(&self.unstored)))
    }

    /// Stops storing; the task that stores ends once it has written what was waiting.
    pub(crate) fn close(&self) {
        self.lock().store = None;
    }

    pub(crate) fn subscribe(&self) -> Box<dyn EventSubscription> {
        Box::new(Subscription { receiver: self.live.subscribe() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Order> {
        // The guarded data is valid after every statement, so a panic elsewhere leaves nothing half done.
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self, order: &mut Order, kind: EventKind) -> Arc<SupervisorEvent> {
        let at = self.clock.wall();
        let sequence = order.next;
        order.next = sequence.next();
        let id = time_ordered_id(at, [self.entropy.next_u64(), self.entropy.next_u64()]);
        Arc::new(SupervisorEvent { version: EVENT_VERSION, id, sequence, at, kind })
    }
}

impl EventSink for EventBus {
    fn publish(&self, kind: EventKind) {
        let mut order = self.lock();
        let kept = is_kept(&kind);
        if kept && let Some(store) = order.store.clone() {
            let missed = self.unstored.load(Ordering::Relaxed);
            if missed > 0 {
                let note = self.number(&mut order, EventKind::EventsDropped { missed });
                if store.try_send(note).is_ok() {
                    self.unstored.store(0, Ordering::Relaxed);
                }
            }
            let event = self.number(&mut order, kind);
            if store.try_send(Arc::clone(&event)).is_err() {
                self.unstored.fetch_add(1, Ordering::Relaxed);
            }
            drop(self.live.send(event));
        } else {
            let event = self.number(&mut order, kind);
            // An error means that nobody subscribes.
            drop(self.live.send(event));
        }
    }
}

/// A passed probe is told to subscribers and not kept: at one every few seconds per service it would be nearly
/// all of the table and say nothing that the absence of a failure does not.
const fn is_kept(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::HealthCheckCompleted { passed: true, .. })
}

async fn store_events(
    store: Arc<dyn EventStore>,
    mut receiver: mpsc::Receiver<Arc<SupervisorEvent>>,
    unstored: Arc<AtomicU64>,
) {
    let mut batch = Vec::with_capacity(STORE_BATCH_MAX);
    while receiver.recv_many(&mut batch, STORE_BATCH_MAX).await > 0 {
        let events: Vec<_> = batch.drain(..).map(|event| event.as_ref().clone()).collect();
        // What storage has no room for waits here and behind this in the queue; the queue's bound is the memory's.
        while let Err(error) = store.append(events.clone()).await {
            tracing::warn!(error = %chain(&error), "events were not stored");
            if error.class() != ErrorClass::Transient || receiver.is_closed() {
                unstored.fetch_add(events.len() as u64, Ordering::Relaxed);
                break;
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
    }
}

#[derive(Debug)]
struct Subscription {
    receiver: broadcast::Receiver<Arc<SupervisorEvent>>,
}

#[async_trait]
impl EventSubscription for Subscription {
    async fn next(&mut self) -> Option<Delivery> {
        match self.receiver.recv().await {
            Ok(event) => Some(Delivery::Event(Box::new(event.as_ref().clone()))),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Delivery::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use supervisor_core::error::DatabaseError;

    use super::*;

    /// A store that is full so many times.
    #[derive(Debug, Default)]
    struct Full {
        refusals: Mutex<u32>,
        stored: Mutex<Vec<Sequence>>,
    }

    #[async_trait]
    impl EventStore for Full {
        async fn append(&self, events: Vec<SupervisorEvent>) -> Result<(), DatabaseError> {
            let mut refusals = self.refusals.lock().unwrap();
            if let Some(left) = refusals.checked_sub(1) {
                *refusals = left;
                return Err(DatabaseError::DiskFull { subject: "events".into() });
            }
            self.stored.lock().unwrap().extend(events.iter().map(|event| event.sequence));
            Ok(())
        }

        async fn read(&self, _: Sequence, _: usize) -> Result<Vec<SupervisorEvent>, DatabaseError> {
            Ok(Vec::new())
        }

        async fn head(&self) -> Result<Sequence, DatabaseError> {
            Ok(Sequence::ZERO)
        }
    }

    fn bus() -> Arc<EventBus> {
        EventBus::new(
            Arc::new(supervisor_process::SystemClock::new()),
            Arc::new(supervisor_process::SystemEntropy::new()),
        )
    }

    #[tokio::test]
    async fn the_bus_keeps_every_promise_of_a_sink() {
        let bus = bus();
        let flood = 2 * SUBSCRIBER_LAG_MAX as u64;
        supervisor_core::testing::event_contract::events(&*bus, || bus.subscribe(), flood).await;
    }

    #[tokio::test(start_paused = true)]
    async fn events_that_found_no_room_are_stored_in_order_once_there_is_some() {
        let store = Arc::new(Full { refusals: Mutex::new(3), ..Full::default() });
        let bus = bus();
        let task = bus.store_into(Arc::clone(&store) as _, Sequence::ZERO);
        for _ in 0..5 {
            bus.publish(EventKind::BackupFailed { reason: "full".into() });
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        tokio::time::sleep(2 * STORE_RETRY).await;
        bus.close();
        task.await.unwrap();
        assert_eq!(*store.stored.lock().unwrap(), (1..=5).map(Sequence).collect::<Vec<_>>());
        assert_eq!(bus.unstored.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn events_nobody_had_room_for_until_the_end_are_counted_and_do_not_hold_the_shutdown() {
        let store = Arc::new(Full { refusals: Mutex::new(u32::MAX), ..Full::default() });
        let bus = bus();
        let task = bus.store_into(Arc::clone(&store) as _, Sequence::ZERO);
        bus.publish(EventKind::BackupFailed { reason: "full".into() });
        tokio::task::yield_now().await;
        bus.close();
        task.await.unwrap();
        assert_eq!(bus.unstored.load(Ordering::Relaxed), 1);
    }
}
