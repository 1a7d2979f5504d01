//! What an endpoint has handled, so that a repetition has no second effect.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::recent::{Place, Recent};

/// Ids looked at with each message; more than one, so that those that are too many go faster than they come.
const FORGET_STEP: usize = 16;
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
    ids: Recent<Instant, Handling>,
    sessions: VecDeque<(Uuid, u64)>,
    forgotten_early: u64,
}

/// Small, because there are many.
#[derive(Debug)]
enum Handling {
    /// Some connection is at it.
    Running,
    Done(Option<Box<Value>>),
}

/// The right to handle one message; dropped without an answer, somebody else may.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    memory: &'a Memory,
    id: Uuid,
    place: Place,
    over: bool,
}

/// The right to handle a message, or the answer it got before.
pub(super) type Begun<'a> = Result<Turn<'a>, Option<Value>>;

impl Memory {
    pub(super) fn new(window: Duration, most: usize) -> Self {
        Self { window, most, known: Mutex::default(), finished: Notify::new() }
    }

    fn locked(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with a message at this time; nothing while another connection is at it.
    pub(super) fn try_begin(&self, id: Uuid, now: Instant) -> Option<Begun<'_>> {
        let mut known = self.locked();
        let key = known.ids.key(id);
        match known.ids.get(key) {
            Some(Handling::Done(answer)) => Some(Err(answer.as_deref().cloned())),
            Some(Handling::Running) => None,
            None => {
                let place = known.ids.push(now, key, Handling::Running);
                Some(Ok(Turn { memory: self, id, place, over: false }))
            }
        }
    }

    /// The same, but waits while another connection is at it.
    pub(super) async fn begin(&self, id: Uuid) -> Begun<'_> {
        loop {
            // Listening first: what ends in between wakes it.
            let finished = self.finished.notified();
            if let Some(begun) = self.try_begin(id, Instant::now()) {
                return begun;
            }
            finished.await;
        }
    }

    pub(super) fn recall(&self, id: Uuid, answer: Option<Value>) {
        let (now, mut known) = (Instant::now(), self.locked());
        let (key, done) = (known.ids.key(id), Handling::Done(answer.map(Box::new)));
        if let Some(handling) = known.ids.get_mut(key) {
            *handling = done;
        } else {
            known.ids.push(now, key, done);
        }
        known.forget(self.most, self.window, now);
    }

    /// Up to which number this session's messages were handled.
    pub(super) fn handled(&self, session: Uuid) -> u64 {
        self.locked().sessions.iter().find(|(known, _)| *known == session).map_or(0, |(_, s)| *s)
    }

    /// Notes that this session's messages were handled up to this number.
    pub(super) fn advance(&self, session: Uuid, s: u64) {
        self.locked().advance(session, s);
    }

    pub(super) fn forgotten_early(&self) -> u64 {
        self.locked().forgotten_early
    }
}

impl Known {
    fn advance(&mut self, session: Uuid, s: u64) {
        match self.sessions.back_mut() {
            Some((newest, handled)) if *newest == session => *handled = (*handled).max(s),
            _ => {
                let before = self.sessions.iter().position(|(of, _)| *of == session);
                let handled = before.and_then(|at| self.sessions.remove(at)).map_or(0, |(_, s)| s);
                self.sessions.push_back((session, handled.max(s)));
                if self.sessions.len() > SESSIONS_MAX {
                    self.sessions.pop_front();
                }
            }
        }
    }

    /// Forgets ids that are too many; one that is being handled takes its place anew at the end.
    fn forget(&mut self, most: usize, window: Duration, now: Instant) {
        for _ in 0..FORGET_STEP {
            let Some((at, _)) = self.ids.oldest().filter(|_| self.ids.len() > most) else { return };
            let early = now.duration_since(*at) < window;
            match self.ids.pop() {
                Some((key, Some(running @ Handling::Running))) => {
                    self.ids.push(now, key, running);
                }
                Some((_, Some(Handling::Done(_)))) => self.forgotten_early += u64::from(early),
                Some((_, None)) | None => {}
            }
        }
    }
}

impl Turn<'_> {
    /// Keeps the answer, and notes the number that the message had in its session.
    pub(super) fn done(mut self, answer: Option<&Value>, s: Option<(Uuid, u64)>, now: Instant) {
        self.over = true;
        let done = Handling::Done(answer.cloned().map(Box::new));
        let mut known = self.memory.locked();
        if let Some(handling) = known.ids.get_at(self.place, self.id) {
            *handling = done;
        }
        known.forget(self.memory.most, self.memory.window, now);
        if let Some((session, s)) = s {
            known.advance(session, s);
        }
        drop(known);
        self.memory.finished.notify_waiters();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.over {
            let mut known = self.memory.locked();
            let key = known.ids.key(self.id);
            drop(known.ids.remove(key));
            drop(known);
            self.memory.finished.notify_waiters();
        }
    }
}
