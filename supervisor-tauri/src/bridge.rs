//! The one task that reads the supervisor's events and hands them to pages, a batch a tick.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use supervisor_core::Monotonic;
use supervisor_core::event::SupervisorEvent;
use supervisor_core::ports::{Delivery, EventSubscription};
use tauri::async_runtime::JoinHandle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::batch::{BatchLimits, Batcher};
use crate::dto::{BATCH_VERSION, EventBatch};

/// Time the task gets to end by itself; it only ever waits for the next event, so this is generous.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// Sends a batch to every page that listens.
pub(crate) type Emit = Arc<dyn Fn(EventBatch) + Send + Sync>;

/// Owns the task; [`stop`](Self::stop) joins it, and dropping ends it.
#[derive(Debug)]
pub(crate) struct Bridge {
    // Dropping the sender is the signal, so a bridge that is merely dropped ends its task too.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Bridge {
    pub(crate) fn start(
        subscription: Box<dyn EventSubscription>,
        limits: BatchLimits,
        revision: Arc<AtomicU64>,
        emit: Emit,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task =
            tauri::async_runtime::spawn(forward(subscription, limits, revision, emit, stopped));
        Self { stop, task }
    }

    /// Ends the task and waits for it.
    pub(crate) async fn stop(self) {
        let Self { stop, mut task } = self;
        drop(stop);
        match tokio::time::timeout(STOP_WAIT, &mut task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the event bridge ended abnormally"),
            Err(_) => {
                tracing::error!("the event bridge did not end in {STOP_WAIT:?} and is aborted");
                task.abort();
            }
        }
    }
}

async fn forward(
    mut subscription: Box<dyn EventSubscription>,
    limits: BatchLimits,
    revision: Arc<AtomicU64>,
    emit: Emit,
    mut stopped: oneshot::Receiver<()>,
) {
    let origin = Instant::now();
    let now = || Monotonic::from_origin(origin.elapsed());
    let mut batcher = Batcher::new(limits);
    loop {
        let due = batcher.deadline().map(|at| origin + at.since_origin());
        tokio::select! {
            // In this order a flood of events delays neither the end nor a batch that is due.
            biased;
            _ = &mut stopped => return,
            () = sleep_until(due) => {}
            delivery = subscription.next() => match delivery {
                Some(Delivery::Event(event)) => {
                    let bytes = sent_length(&event);
                    batcher.push(now(), *event, bytes);
                }
                Some(Delivery::Missed(count)) => batcher.missed(now(), count),
                None => batcher.close(now()),
            },
        }
        if let Some(batch) = batcher.poll(now()) {
            // Raised before it is sent: a snapshot that reads the number early only makes a page skip
            // events whose effects it has already read.
            let revision = revision.fetch_add(1, Ordering::SeqCst) + 1;
            emit(EventBatch {
                version: BATCH_VERSION,
                revision,
                events: batch.events,
                missed: batch.missed,
                closed: batch.closed,
            });
            if batch.closed {
                return;
            }
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Counts the bytes of an event as it is sent, without keeping them.
fn sent_length(event: &SupervisorEvent) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // An event that cannot be written cannot be sent either: its length counts as too much.
    serde_json::to_writer(&mut count, event).map_or(usize::MAX, |()| count.0)
}
