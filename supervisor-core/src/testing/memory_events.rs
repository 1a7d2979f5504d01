//! A sink with subscriptions, in memory and without a runtime.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;
use chrono::DateTime;
use uuid::Uuid;

use crate::Sequence;
use crate::event::{EVENT_VERSION, EventKind, SupervisorEvent};
use crate::ports::{Delivery, EventSink, EventSubscription};

/// Numbers events from 1 on and hands them to its subscribers; one that lags behind is told how much it missed.
///
/// Times are seconds since 1970 and ids are made of the numbers, so that what comes out can be written down.
#[derive(Debug, Clone)]
pub struct MemoryEvents {
    board: Arc<Mutex<Board>>,
}

#[derive(Debug)]
struct Board {
    /// The newest events, the oldest first.
    events: VecDeque<SupervisorEvent>,
    capacity: usize,
    last: Sequence,
    waiting: Vec<Waker>,
    ended: bool,
}

impl MemoryEvents {
    /// Keeps so many events for those who lag behind, at least one; at the bound the oldest go.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let board = Board {
            events: VecDeque::new(),
            capacity: capacity.max(1),
            last: Sequence::ZERO,
            waiting: Vec::new(),
            ended: false,
        };
        Self { board: Arc::new(Mutex::new(board)) }
    }

    /// Subscribes to what is published from now on.
    #[must_use]
    pub fn subscribe(&self) -> Box<dyn EventSubscription> {
        let seen = self.board().last;
        Box::new(MemorySubscription { board: Arc::clone(&self.board), seen })
    }

    /// Ends every subscription once it has given what is there.
    pub fn end(&self) {
        let mut board = self.board();
        board.ended = true;
        board.waiting.drain(..).for_each(Waker::wake);
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for MemoryEvents {
    fn publish(&self, kind: EventKind) {
        let mut board = self.board();
        let sequence = board.last.next();
        board.last = sequence;
        if board.events.len() == board.capacity {
            board.events.pop_front();
        }
        let seconds = i64::try_from(sequence.get()).unwrap_or(i64::MAX);
        board.events.push_back(SupervisorEvent {
            version: EVENT_VERSION,
            id: Uuid::from_u128(sequence.get().into()),
            sequence,
            at: DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::UNIX_EPOCH),
            kind,
        });
        board.waiting.drain(..).for_each(Waker::wake);
    }
}

#[derive(Debug)]
struct MemorySubscription {
    board: Arc<Mutex<Board>>,
    seen: Sequence,
}

#[async_trait]
impl EventSubscription for MemorySubscription {
    async fn next(&mut self) -> Option<Delivery> {
        std::future::poll_fn(|context| {
            let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(event) = board.events.iter().find(|event| event.sequence > self.seen) else {
                if board.ended {
                    return Poll::Ready(None);
                }
                board.waiting.push(context.waker().clone());
                return Poll::Pending;
            };
            let missed = event.sequence.get() - self.seen.next().get();
            if missed > 0 {
                self.seen = Sequence(event.sequence.get() - 1);
                return Poll::Ready(Some(Delivery::Missed(missed)));
            }
            self.seen = event.sequence;
            Poll::Ready(Some(Delivery::Event(Box::new(event.clone()))))
        })
        .await
    }
}
