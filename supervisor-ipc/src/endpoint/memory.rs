//! What an endpoint has handled, so that a repetition has no second effect.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

/// Channels whose position is remembered; beyond it the one that was quiet longest is forgotten, and its messages are
/// recognised by their ids alone.
const SESSIONS_MAX: usize = 64;

/// Shared by all connections of one endpoint.
#[derive(Debug)]
pub(super) struct Memory {
    window: Duration,
    most: usize,
    known: Mutex<Known>,
    finished: Notify,
}

#[derive(Debug, Default)]
struct Known {
    ids: HashMap<Uuid, Handling>,
    order: VecDeque<(Instant, Uuid)>,
    sessions: VecDeque<(Uuid, u64)>,
    forgotten_early: u64,
}

#[derive(Debug, Clone)]
enum Handling {
    /// Some connection is at it.
    Running,
    Done(Option<Value>),
}

/// The right to handle one message; dropped without an answer, somebody else may.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    memory: &'a Memory,
    id: Uuid,
    over: bool,
}

impl Memory {
    pub(super) fn new(window: Duration, most: usize) -> Self {
        Self { window, most, known: Mutex::default(), finished: Notify::new() }
    }

    fn locked(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the right to handle a message, or the answer it got before. Waits while another connection is at it.
    pub(super) async fn begin(&self, id: Uuid) -> Result<Turn<'_>, Option<Value>> {
        loop {
            // Listening first: what ends in between wakes it.
            let finished = self.finished.notified();
            {
                let mut known = self.locked();
                match known.ids.get(&id) {
                    Some(Handling::Done(answer)) => return Err(answer.clone()),
                    Some(Handling::Running) => {}
                    None => {
                        known.ids.insert(id, Handling::Running);
                        return Ok(Turn { memory: self, id, over: false });
                    }
                }
            }
            finished.await;
        }
    }

    pub(super) fn recall(&self, id: Uuid, answer: Option<Value>) {
        self.note(id, answer);
    }

    fn note(&self, id: Uuid, answer: Option<Value>) {
        let now = Instant::now();
        let mut known = self.locked();
        if known.ids.insert(id, Handling::Done(answer)).is_none_or(|was| was.running()) {
            known.order.push_back((now, id));
        }
        while known.order.len() > self.most {
            let Some((at, old)) = known.order.pop_front() else { break };
            known.ids.remove(&old);
            known.forgotten_early += u64::from(now.duration_since(at) < self.window);
        }
    }

    /// Up to which number this session's messages were handled.
    pub(super) fn handled(&self, session: Uuid) -> u64 {
        self.locked().sessions.iter().find(|(known, _)| *known == session).map_or(0, |(_, s)| *s)
    }

    pub(super) fn advance(&self, session: Uuid, s: u64) {
        let mut known = self.locked();
        match known.sessions.back_mut() {
            Some((newest, handled)) if *newest == session => *handled = (*handled).max(s),
            _ => {
                let before = known.sessions.iter().position(|(of, _)| *of == session);
                let handled = before.and_then(|at| known.sessions.remove(at)).map_or(0, |(_, s)| s);
                known.sessions.push_back((session, handled.max(s)));
                if known.sessions.len() > SESSIONS_MAX {
                    known.sessions.pop_front();
                }
            }
        }
    }

    pub(super) fn forgotten_early(&self) -> u64 {
        self.locked().forgotten_early
    }
}

impl Handling {
    const fn running(&self) -> bool {
        matches!(self, Self::Running)
    }
}

impl Turn<'_> {
    pub(super) fn done(mut self, answer: Option<Value>) {
        self.over = true;
        self.memory.note(self.id, answer);
        self.memory.finished.notify_waiters();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.memory.locked().ids.remove(&self.id);
            self.memory.finished.notify_waiters();
        }
    }
}
