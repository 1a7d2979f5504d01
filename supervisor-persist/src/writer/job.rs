//! One write: work that can be repeated, and the caller who waits for its answer.

use std::any::Any;

use rusqlite::Connection;
use supervisor_core::error::DatabaseError;
use tokio::sync::oneshot;

use super::Durability;
use crate::errors;
use crate::mode::Fault;

/// Content of a write that is not safe to repeat by itself; the same content after an unknown outcome is its repetition.
pub(crate) type Key = [u8; 32];
/// What a write gave, kept for its repetition.
pub(super) type Kept = Box<dyn Any + Send>;

/// How one run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is to be committed.
    Keep,
    /// The work refused itself: the caller learns why, the others in the group are not concerned.
    Refused,
    /// The storage failed under it, and with it the whole group.
    Faulty(Fault),
}

/// A write of any kind.
pub(super) trait Job: Send {
    /// Does the work in the open transaction. Called again when the group has to be repeated.
    fn run(&mut self, connection: &Connection) -> Step;
    /// Answers with what the last run gave.
    fn answer(self: Box<Self>);
    /// Answers that it could not be done.
    fn fail(self: Box<Self>, error: DatabaseError);
    /// Gives the key and the result of the last run, for a repetition by the caller.
    fn keep(&self) -> Option<(Key, Kept)>;
    /// Gives the key.
    fn key(&self) -> Option<Key>;
    /// Gives how much has to happen before it is answered.
    fn durability(&self) -> Durability;
    /// Takes the result of an earlier try instead of running.
    fn take_over(&mut self, kept: Kept);
}

/// A write that gives a `T`.
pub(super) struct Pending<T, F> {
    pub(super) work: F,
    pub(super) key: Option<Key>,
    pub(super) durability: Durability,
    pub(super) result: Option<Result<T, DatabaseError>>,
    pub(super) answer: oneshot::Sender<Result<T, DatabaseError>>,
}

impl<T, F> Job for Pending<T, F>
where
    T: Clone + Send + 'static,
    F: FnMut(&Connection) -> Result<T, DatabaseError> + Send,
{
    fn run(&mut self, connection: &Connection) -> Step {
        let result = (self.work)(connection);
        let step = match &result {
            Ok(_) => Step::Keep,
            Err(error) => errors::fault(error).map_or(Step::Refused, Step::Faulty),
        };
        self.result = Some(result);
        step
    }

    fn answer(self: Box<Self>) {
        // Nobody may wait any more; the write is as durable as if somebody did.
        drop(self.answer.send(self.result.unwrap_or(Err(DatabaseError::Closed))));
    }

    fn fail(self: Box<Self>, error: DatabaseError) {
        drop(self.answer.send(Err(error)));
    }

    fn keep(&self) -> Option<(Key, Kept)> {
        match (&self.key, &self.result) {
            (Some(key), Some(Ok(result))) => Some((*key, Box::new(result.clone()))),
            _ => None,
        }
    }

    fn key(&self) -> Option<Key> {
        self.key
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn take_over(&mut self, kept: Kept) {
        self.result = kept.downcast::<T>().ok().map(|kept| Ok(*kept));
    }
}
