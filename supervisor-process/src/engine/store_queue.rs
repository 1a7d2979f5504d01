//! Storing states in order, off the way between a crash and the restart.
//!
//! A restart does not wait for the disk. A process whose record was not durable when the supervisor died is found
//! by the mark in its environment, so the order "store, then act" costs nothing but a place in a queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use supervisor_core::ServiceId;
use supervisor_core::error::chain;
use supervisor_core::event::EventKind;
use supervisor_core::journal::Transition;
use supervisor_core::ports::{EventSink, StateStore};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Transitions waiting to be stored. At the bound one is dropped and the mode says so; the next transition of the
/// same service carries its whole state again.
const QUEUE_MAX: usize = 8192;
/// Transitions stored in one call.
const BATCH_MAX: usize = 256;
/// Pause before what could not be stored is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// The mode while states cannot be stored.
const DEGRADED: &str = "storage_degraded";

/// Hands transitions to the store, in order; never blocks.
#[derive(Debug)]
pub(crate) struct StoreQueue {
    sender: Mutex<Option<mpsc::Sender<Transition>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl StoreQueue {
    pub(crate) fn start(store: Option<Arc<dyn StateStore>>, sink: Arc<dyn EventSink>) -> Self {
        let Some(store) = store else {
            return Self { sender: Mutex::new(None), task: Mutex::new(None) };
        };
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let task = tokio::spawn(
            Writer { store, sink, unstored: HashMap::new(), degraded: false }.run(receiver),
        );
        Self { sender: Mutex::new(Some(sender)), task: Mutex::new(Some(task)) }
    }

    pub(crate) fn push(&self, transition: Transition) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_ref()
            && sender.try_send(transition).is_err()
        {
            tracing::error!("a transition was not stored: too many are waiting");
        }
    }

    /// Stores what is waiting and ends.
    pub(crate) async fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            super::shared::joined(task).await;
        }
    }
}

struct Writer {
    store: Arc<dyn StateStore>,
    sink: Arc<dyn EventSink>,
    /// The newest state of each service that could not be stored; bounded by the number of services.
    unstored: HashMap<ServiceId, Transition>,
    degraded: bool,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Transition>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let received = if self.unstored.is_empty() {
                receiver.recv_many(&mut batch, BATCH_MAX).await
            } else {
                let waited =
                    tokio::time::timeout(RETRY, receiver.recv_many(&mut batch, BATCH_MAX)).await;
                waited.unwrap_or(usize::MAX)
            };
            self.write(std::mem::take(&mut batch)).await;
            if received == 0 {
                return;
            }
        }
    }

    async fn write(&mut self, batch: Vec<Transition>) {
        let mut all: Vec<Transition> =
            self.unstored.drain().map(|(_, transition)| transition).collect();
        all.extend(batch);
        if all.is_empty() {
            return;
        }
        match self.store.record(all.clone()).await {
            Ok(_) => self.set_degraded(false, "states are stored again"),
            Err(error) => {
                let text =
                    format!("states cannot be stored and are kept in memory: {}", chain(&error));
                self.unstored.extend(
                    all.into_iter().map(|transition| (transition.state.id.clone(), transition)),
                );
                self.set_degraded(true, &text);
            }
        }
    }

    fn set_degraded(&mut self, degraded: bool, reason: &str) {
        if degraded == self.degraded {
            return;
        }
        self.degraded = degraded;
        let mode = if degraded { DEGRADED } else { "normal" }.to_owned();
        self.sink.publish(EventKind::ModeChanged { mode, reason: reason.to_owned() });
    }
}
