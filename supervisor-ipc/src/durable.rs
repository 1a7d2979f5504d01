//! The durable side of a channel: messages are stored before they are accepted, and removed once their outcome is known.
//!
//! **Invariant:** what was acknowledged to the sender is in the outbox or had its outcome; a process that dies in between
//! leaves it there, and the next one sends it with the same id.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use supervisor_core::error::DatabaseError;
use supervisor_core::message::{DeadLetter, IpcMessage, OutboxEntry, Outcome};
use supervisor_core::ports::Outbox;
use supervisor_core::{Monotonic, Sequence};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::machine::SendOptions;
use crate::receipt::Receipt;

/// Messages that may wait to be stored. At the bound senders wait for a place; what would spill is refused.
pub(crate) const STORES_MAX: usize = 4096;
/// Messages read back, or removed, at a time.
const BATCH: usize = 1024;
/// Pause after the outbox failed.
const PAUSE: Duration = Duration::from_secs(1);
/// A message without end: ten years.
pub(crate) const NO_END: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A place among the messages that wait to be stored.
pub(crate) type Place = OwnedSemaphorePermit;

/// A message whose sender waits until it is stored.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) message: IpcMessage,
    pub(crate) options: SendOptions,
    pub(crate) answer: oneshot::Sender<Receipt>,
    _place: Place,
}

/// What a call to the outbox ended with.
#[derive(Debug)]
pub(crate) enum Done {
    Stored(Vec<(Waiting, Result<Sequence, DatabaseError>)>),
    Removed(Vec<Uuid>, Result<(), DatabaseError>),
    Loaded(Sequence, Result<Vec<OutboxEntry>, DatabaseError>),
    Buried(Result<(), DatabaseError>),
}

/// One channel's part of the outbox.
#[derive(Debug)]
pub(crate) struct Durable {
    outbox: Arc<dyn Outbox>,
    channel: Arc<str>,
    pub(crate) jobs: JoinSet<Done>,
    places: Arc<Semaphore>,
    /// To be stored next, all in one call, so that they are in the order in which they came.
    queue: Vec<(Waiting, OutboxEntry)>,
    storing: bool,
    /// Messages of the last call; so many senders are likely to be back.
    last: usize,
    /// Senders that are ready were given a turn to join the next call.
    gathered: bool,
    /// Stored messages that the machine holds; bounded by the machine's buffer.
    held: HashSet<Uuid>,
    /// Their outcome is known, they are to be removed.
    finished: Vec<Uuid>,
    removing: bool,
    /// Reading goes on after this; `None` when everything stored is in memory.
    resume: Option<Sequence>,
    loading: bool,
    pause: Option<Monotonic>,
}

impl Durable {
    pub(crate) fn new(outbox: Arc<dyn Outbox>, channel: Arc<str>) -> Self {
        Self {
            outbox,
            channel,
            jobs: JoinSet::new(),
            places: Arc::new(Semaphore::new(STORES_MAX)),
            queue: Vec::new(),
            storing: false,
            last: 0,
            gathered: false,
            held: HashSet::new(),
            finished: Vec::new(),
            removing: false,
            // What an earlier process left.
            resume: Some(Sequence::ZERO),
            loading: false,
            pause: None,
        }
    }

    /// Whether stored messages wait that are not in memory: what comes now has to go behind them.
    pub(crate) const fn behind(&self) -> bool {
        self.resume.is_some() || self.loading
    }

    /// Where senders wait for a place.
    pub(crate) fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.places)
    }

    pub(crate) fn place(&self) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    pub(crate) fn store(
        &mut self,
        message: IpcMessage,
        options: SendOptions,
        now: DateTime<Utc>,
        answer: oneshot::Sender<Receipt>,
        place: Place,
    ) {
        let expires_at =
            options.ttl.and_then(|ttl| now.checked_add_signed(TimeDelta::from_std(ttl).ok()?));
        let entry = OutboxEntry {
            sequence: Sequence::ZERO,
            channel: self.channel.to_string(),
            message: message.clone(),
            expires_at,
        };
        self.queue.push((Waiting { message, options, answer, _place: place }, entry));
    }

    pub(crate) fn stored(&mut self) {
        self.storing = false;
    }

    /// Whether the senders that were answered together should have a turn before what is there is stored: each call is
    /// a sync of the disk, and the first of them comes back alone. Said once for each call.
    pub(crate) fn gathers(&mut self) -> bool {
        let few = !self.storing && !self.queue.is_empty() && self.queue.len() < self.last;
        few && !std::mem::replace(&mut self.gathered, true)
    }

    fn store_queue(&mut self, runtime: &Handle) {
        if self.storing || self.queue.is_empty() {
            return;
        }
        self.storing = true;
        self.gathered = false;
        self.last = self.queue.len();
        let (waiting, entries): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.queue).into_iter().unzip();
        let outbox = Arc::clone(&self.outbox);
        let work = async move {
            let results = outbox.enqueue_all(entries).await;
            Done::Stored(waiting.into_iter().zip(results).collect())
        };
        self.jobs.spawn_on(work, runtime);
    }

    /// The machine holds this stored message now.
    pub(crate) fn hold(&mut self, id: Uuid) {
        self.held.insert(id);
    }

    pub(crate) fn holds(&self, id: Uuid) -> bool {
        self.held.contains(&id)
    }

    /// This stored message stays behind, for want of room.
    pub(crate) fn leave(&mut self, sequence: Sequence) {
        let before = Sequence(sequence.get().saturating_sub(1));
        self.resume = Some(self.resume.map_or(before, |known| known.min(before)));
    }

    /// Notes an outcome; one that the end of the channel forced leaves the message for the next process.
    pub(crate) fn settled(&mut self, id: Uuid, outcome: &Outcome) {
        let keep = matches!(outcome, Outcome::NotSent { .. } | Outcome::Indeterminate { .. });
        if self.held.remove(&id) && !keep {
            self.finished.push(id);
        }
    }

    pub(crate) fn finish(&mut self, id: Uuid) {
        self.finished.push(id);
    }

    pub(crate) fn bury(&mut self, letter: DeadLetter, runtime: &Handle) {
        let outbox = Arc::clone(&self.outbox);
        let work = async move { Done::Buried(outbox.bury(letter).await) };
        self.jobs.spawn_on(work, runtime);
    }

    /// Reads everything again, for messages that others have put into the outbox.
    pub(crate) fn reload(&mut self) {
        self.resume = Some(Sequence::ZERO);
        self.pause = None;
    }

    /// Starts what is due.
    pub(crate) fn step(&mut self, now: Monotonic, room: bool, runtime: &Handle) {
        // What is to be removed goes with what is to be stored, into one commit, unless there is much of it.
        let due = !self.storing || self.finished.len() >= BATCH;
        self.store_queue(runtime);
        if self.pause.is_some_and(|at| now < at) {
            return;
        }
        self.pause = None;
        if due && !self.removing && !self.finished.is_empty() {
            self.removing = true;
            let ids = self.finished.split_off(self.finished.len().saturating_sub(BATCH));
            let outbox = Arc::clone(&self.outbox);
            let work = async move {
                let result = outbox.acknowledge(&ids).await;
                Done::Removed(ids, result)
            };
            self.jobs.spawn_on(work, runtime);
        }
        if room
            && !self.loading
            && let Some(after) = self.resume.take()
        {
            self.loading = true;
            let (outbox, channel) = (Arc::clone(&self.outbox), Arc::clone(&self.channel));
            let work =
                async move { Done::Loaded(after, outbox.pending(&channel, after, BATCH).await) };
            self.jobs.spawn_on(work, runtime);
        }
    }

    pub(crate) fn removed(
        &mut self,
        now: Monotonic,
        ids: Vec<Uuid>,
        result: Result<(), DatabaseError>,
    ) {
        self.removing = false;
        if let Err(error) = result {
            // Still there, so it may be sent once more; the peer knows its id.
            tracing::warn!(channel = %self.channel, %error, "delivered messages stay in the outbox");
            self.finished.extend(ids);
            self.pause = Some(now + PAUSE);
        }
    }

    /// Takes a batch over; gives what is to be put into the machine.
    pub(crate) fn loaded(
        &mut self,
        now: Monotonic,
        after: Sequence,
        result: Result<Vec<OutboxEntry>, DatabaseError>,
    ) -> Vec<OutboxEntry> {
        self.loading = false;
        match result {
            Ok(entries) => {
                if entries.len() >= BATCH
                    && let Some(last) = entries.last()
                {
                    self.resume = Some(self.resume.map_or(last.sequence, |r| r.min(last.sequence)));
                }
                entries
            }
            Err(error) => {
                tracing::warn!(channel = %self.channel, %error, "the outbox cannot be read");
                self.resume = Some(self.resume.map_or(after, |known| known.min(after)));
                self.pause = Some(now + PAUSE);
                Vec::new()
            }
        }
    }

    pub(crate) const fn next_deadline(&self) -> Option<Monotonic> {
        self.pause
    }

    /// Ends what is under way and removes what is finished.
    pub(crate) async fn close(mut self) {
        while self.jobs.join_next().await.is_some() {}
        for ids in self.finished.chunks(BATCH) {
            if let Err(error) = self.outbox.acknowledge(ids).await {
                tracing::warn!(channel = %self.channel, %error, "delivered messages stay in the outbox");
                return;
            }
        }
    }
}
