//! Where the engines' events go: to the bus, to the audit trail, and to whoever must act on a critical failure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use supervisor_core::ServiceId;
use supervisor_core::error::{Classified as _, ErrorClass, chain};
use supervisor_core::event::EventKind;
use supervisor_core::journal::{Actor, AuditAction, AuditRecord};
use supervisor_core::ports::{AuditLog, EventSink};
use supervisor_core::state::Phase;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::bus::EventBus;
use super::channels::ChannelHub;
use super::tasks;

/// Audit rows waiting to be stored. At the bound rows are counted instead, and the gap is stored as a row.
const AUDIT_QUEUE_MAX: usize = 8192;
/// Pause before rows that could not be stored are tried again.
const AUDIT_RETRY: Duration = Duration::from_secs(1);
/// Audit rows given to the store at once; it commits them together.
const AUDIT_BATCH_MAX: usize = 64;

/// A critical service that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Culprit {
    pub(super) service: ServiceId,
    pub(super) reason: String,
}

/// Queues audit rows; never blocks.
#[derive(Debug, Clone)]
pub(super) struct AuditQueue {
    sender: Arc<Mutex<Option<mpsc::Sender<AuditRecord>>>>,
    missed: Arc<AtomicU64>,
}

impl AuditQueue {
    /// Stores rows until the queue is closed; the task then ends.
    pub(super) fn start(log: Arc<dyn AuditLog>) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(AUDIT_QUEUE_MAX);
        let missed = Arc::new(AtomicU64::new(0));
        let task = tasks::spawn(store_rows(log, receiver, Arc::clone(&missed)));
        (Self { sender: Arc::new(Mutex::new(Some(sender))), missed }, task)
    }

    pub(super) fn note(
        &self,
        actor: Actor,
        action: AuditAction,
        subject: impl Into<String>,
        detail: impl Into<String>,
    ) {
        let record = AuditRecord { actor, action, subject: subject.into(), detail: detail.into() };
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.as_ref().is_none_or(|sender| sender.try_send(record).is_err()) {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes no more rows; the task ends once it has stored what is waiting.
    pub(super) fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

async fn store_rows(
    log: Arc<dyn AuditLog>,
    mut receiver: mpsc::Receiver<AuditRecord>,
    missed: Arc<AtomicU64>,
) {
    let mut batch = Vec::with_capacity(AUDIT_BATCH_MAX);
    while receiver.recv_many(&mut batch, AUDIT_BATCH_MAX).await > 0 {
        let gap = missed.swap(0, Ordering::Relaxed);
        if gap > 0 {
            batch.push(AuditRecord {
                actor: Actor::Supervisor,
                action: AuditAction::Audit,
                subject: "audit".to_owned(),
                detail: format!(
                    "{gap} rows are missing here: storage had no room, or they came faster than it took them"
                ),
            });
        }
        // What storage has no room for waits here, and what comes meanwhile behind it in the queue.
        loop {
            let lost = store_once(&*log, &mut batch).await;
            let over = batch.is_empty() || receiver.is_closed();
            let lost = lost + if over { batch.len() } else { 0 };
            if lost > 0 {
                missed.fetch_add(lost as u64, Ordering::Relaxed);
                tracing::error!(lost, "audit rows could not be stored; the gap will be marked");
            }
            if over {
                break;
            }
            tokio::time::sleep(AUDIT_RETRY).await;
        }
        batch.clear();
    }
}

/// Stores rows and leaves those in the batch that are worth another try; gives how many are not.
async fn store_once(log: &dyn AuditLog, batch: &mut Vec<AuditRecord>) -> usize {
    // Polled in order, so they are queued in order, and committed as one group.
    let results = join_all(batch.iter().cloned().map(|record| log.append(record))).await;
    let mut lost = 0;
    let mut results = results.into_iter();
    batch.retain(|_| match results.next() {
        Some(Err(error)) if error.class() == ErrorClass::Transient => true,
        Some(Err(error)) => {
            lost += 1;
            tracing::error!(error = %chain(&error), "an audit row could not be stored");
            false
        }
        _ => false,
    });
    lost
}

/// The engines' sink.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) bus: Arc<EventBus>,
    pub(super) audit: AuditQueue,
    pub(super) culprits: watch::Sender<Vec<Culprit>>,
    /// Held weakly: its monitor publishes here.
    pub(super) channels: Weak<ChannelHub>,
}

impl Sink {
    /// A run that begins may be connected to soon, and one that is ready can be now.
    fn tell_channel(&self, event: &EventKind) {
        if let EventKind::ServiceStateChanged { service, from, to, ready, .. } = event
            && (*ready || (from != to && matches!(to, Phase::Starting | Phase::Running)))
            && let Some(channels) = self.channels.upgrade()
        {
            channels.started(service);
        }
    }
}

impl EventSink for Sink {
    fn publish(&self, event: EventKind) {
        self.tell_channel(&event);
        match &event {
            EventKind::ServiceStateChanged { service, incarnation, from, to, reason, .. }
                if from != to =>
            {
                let detail = format!("#{incarnation} {from} -> {to}: {reason}");
                self.audit.note(
                    Actor::Supervisor,
                    AuditAction::ServiceState,
                    service.as_str(),
                    detail,
                );
            }
            EventKind::ServiceGaveUp { service, critical: true, reason, .. } => {
                let culprit = Culprit { service: service.clone(), reason: reason.clone() };
                // The first one starts the shutdown; those that fail meanwhile are recorded beside it.
                self.culprits.send_modify(|culprits| culprits.push(culprit));
            }
            EventKind::CheckpointQuarantined { source, reason } => {
                let detail = format!("quarantined: {reason}");
                self.audit.note(
                    Actor::Supervisor,
                    AuditAction::Checkpoint,
                    source.as_str(),
                    detail,
                );
            }
            _ => {}
        }
        self.bus.publish(event);
    }
}
