//! Where writes wait for the thread that writes: bounded, in order, with one wake-up for a whole group.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use supervisor_core::error::DatabaseError;
use tokio::sync::{Semaphore, oneshot};

use super::job::Job;

/// Writes that may wait. At the bound the caller waits for a place: a write is never dropped.
pub(super) const QUEUE_MAX: usize = 4096;

/// Answered when the thread has ended.
pub(super) type Closing = oneshot::Sender<Result<(), DatabaseError>>;

/// The queue.
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    places: Semaphore,
}

struct State {
    jobs: VecDeque<Box<dyn Job>>,
    /// How many jobs are worth a wake-up of the thread, while it waits; a wake-up of a thread that runs is a system
    /// call for nothing.
    awaited: Option<usize>,
    closing: Option<Closing>,
    /// No handle is left, or the queue was closed.
    ended: bool,
}

/// What the thread got.
pub(super) struct Taken {
    pub(super) jobs: Vec<Box<dyn Job>>,
    pub(super) closing: Option<Closing>,
    pub(super) ended: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        let state = State { jobs: VecDeque::new(), awaited: None, closing: None, ended: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), places: Semaphore::new(QUEUE_MAX) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place and takes it.
    ///
    /// # Cancel safety
    /// Dropped while it waits, nothing was put.
    pub(super) async fn put(&self, job: Box<dyn Job>) -> Result<(), DatabaseError> {
        let place = match self.places.try_acquire() {
            Ok(place) => place,
            Err(_) => self.places.acquire().await.map_err(|_| DatabaseError::Closed)?,
        };
        let mut state = self.state();
        if state.ended || state.closing.is_some() {
            return Err(DatabaseError::Closed);
        }
        place.forget();
        state.jobs.push_back(job);
        let enough = state.awaited.is_some_and(|wanted| state.jobs.len() >= wanted);
        drop(state);
        if enough {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Asks the thread to end; false when it has been asked already.
    pub(super) fn close(&self, closing: Closing) -> bool {
        let mut state = self.state();
        if state.ended || state.closing.is_some() {
            return false;
        }
        state.closing = Some(closing);
        drop(state);
        self.filled.notify_one();
        true
    }

    /// No handle is left.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.places.close();
        self.filled.notify_one();
    }

    /// Waits until `wanted` jobs are there, or somebody wants it to end, or `timeout` is over, and takes up to `max`.
    pub(super) fn take(&self, max: usize, wanted: usize, timeout: Option<Duration>) -> Taken {
        let mut state = self.wait(self.state(), wanted, timeout);
        let n = state.jobs.len().min(max);
        let jobs: Vec<_> = state.jobs.drain(..n).collect();
        let rest = !state.jobs.is_empty();
        let closing = if rest { None } else { state.closing.take() };
        let ended = (state.ended || closing.is_some()) && !rest;
        if ended {
            state.ended = true;
        }
        drop(state);
        if ended {
            self.places.close();
        }
        self.places.add_permits(n);
        Taken { jobs, closing, ended }
    }

    /// Waits until `wanted` jobs are there or `timeout` is over, and takes up to `max` of them; nothing when it shall end.
    pub(super) fn more(&self, max: usize, wanted: usize, timeout: Duration) -> Vec<Box<dyn Job>> {
        let mut state = self.wait(self.state(), wanted, Some(timeout));
        let n = state.jobs.len().min(max);
        let jobs = state.jobs.drain(..n).collect();
        drop(state);
        self.places.add_permits(n);
        jobs
    }

    fn wait<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        wanted: usize,
        timeout: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        let began = timeout.map(|_| Instant::now());
        loop {
            if state.jobs.len() >= wanted || state.closing.is_some() || state.ended {
                return state;
            }
            state.awaited = Some(wanted);
            state = match (timeout, began) {
                (Some(timeout), Some(began)) => {
                    let Some(left) = timeout.checked_sub(began.elapsed()) else {
                        state.awaited = None;
                        return state;
                    };
                    let waited = self.filled.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                _ => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.awaited = None;
        }
    }
}
