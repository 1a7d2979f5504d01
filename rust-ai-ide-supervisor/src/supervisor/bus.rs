//! The event bus: numbers events, hands them to subscribers, and has them stored.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
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

/// Numbers events and hands them on; publishing never blocks.
#[derive(Debug)]
pub(crate) struct EventBus {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    live: broadcast::Sender<Arc<SupervisorEvent>>,
    // One lock around the number and both sends keeps every reader's order that of the numbers.
    order: Mutex<Order>,
    unstored: AtomicU64,
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
        Arc::new(Self { clock, entropy, live, order, unstored: AtomicU64::new(0) })
    }

    /// Goes on after the numbers already stored, and stores from now on; the task ends when the bus is
    /// [closed](Self::close).
    pub(crate) fn store_into(&self, store: Arc<dyn EventStore>, head: Sequence) -> JoinHandle<()> {
        let (sender, receiver) = mpsc::channel(STORE_QUEUE_MAX);
        let mut order = self.lock();
        order.next = order.next.max(head.next());
        order.store = Some(sender);
        crate::supervisor::tasks::spawn(store_events(store, receiver))
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
) {
    let mut batch = Vec::with_capacity(STORE_BATCH_MAX);
    while receiver.recv_many(&mut batch, STORE_BATCH_MAX).await > 0 {
        let events = batch.drain(..).map(|event| event.as_ref().clone()).collect();
        if let Err(error) = store.append(events).await {
            // Events are a record for people; a store that cannot take them says so in its own mode event.
            tracing::warn!(error = %supervisor_core::error::chain(&error), "events were not stored");
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
