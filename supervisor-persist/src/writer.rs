//! The one thread that writes: gathers requests, commits them together, answers when they are durable.

use std::path::PathBuf;
use std::thread::JoinHandle;

use rusqlite::{Connection, TransactionBehavior};
use supervisor_core::error::DatabaseError;
use tokio::sync::{mpsc, oneshot};

use crate::{errors, open};

/// Requests that may wait. At the bound the caller waits for a place: a request is never dropped.
const QUEUE_MAX: usize = 4096;
/// Requests committed together. More would make the first one wait for the last one's work.
const GROUP_MAX: usize = 512;

/// Answers the caller once it is known whether the group was committed.
type Finish = Box<dyn FnOnce(Result<(), DatabaseError>) + Send>;
/// Does the work; tells whether it is to be kept.
type Work = Box<dyn FnOnce(&Connection) -> (bool, Finish) + Send>;

enum Request {
    Write(Work),
    /// Commits what came before, cuts the log and ends.
    Close(oneshot::Sender<Result<(), DatabaseError>>),
}

/// Hands work to the thread that writes.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    sender: mpsc::Sender<Request>,
}

impl Writer {
    /// Starts the thread, which owns the connection from now on.
    pub(crate) fn start(
        connection: Connection,
        path: PathBuf,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let thread =
            std::thread::Builder::new().name("supervisor-persist".to_owned()).spawn(move || {
                Thread { connection: Some(connection), path, receiver }.run();
            })?;
        Ok((Self { sender }, thread))
    }

    /// Runs `work` in the next group and returns when the group is durable.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the write.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        subject: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        self.attempt(move |connection| {
            work(connection).map_err(|error| errors::sqlite(subject, error))
        })
        .await
    }

    /// As [`write`](Self::write), for work with errors of its own.
    pub(crate) async fn attempt<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            let result = work(connection);
            let keep = result.is_ok();
            let finish: Finish = Box::new(move |committed| {
                // Nobody waits any more; the write is as durable as if somebody did.
                drop(answer.send(committed.and(result)));
            });
            (keep, finish)
        });
        self.sender.send(Request::Write(work)).await.map_err(|_| DatabaseError::Closed)?;
        answered.await.map_err(|_| DatabaseError::Closed)?
    }

    /// Commits what is waiting, cuts the log and ends the thread; a second call does nothing.
    pub(crate) async fn close(&self) -> Result<(), DatabaseError> {
        let (answer, answered) = oneshot::channel();
        if self.sender.send(Request::Close(answer)).await.is_err() {
            return Ok(());
        }
        answered.await.unwrap_or(Ok(()))
    }
}

struct Thread {
    /// Nothing after a failed sync: it is opened anew before the next group, because nobody knows what its cache holds.
    connection: Option<Connection>,
    path: PathBuf,
    receiver: mpsc::Receiver<Request>,
}

impl Thread {
    fn run(mut self) {
        while let Some(first) = self.receiver.blocking_recv() {
            let mut group = Vec::new();
            let mut close = None;
            let mut next = Some(first);
            while let Some(request) = next.take() {
                match request {
                    Request::Write(work) => group.push(work),
                    Request::Close(answer) => close = Some(answer),
                }
                if close.is_none() && group.len() < GROUP_MAX {
                    next = self.receiver.try_recv().ok();
                }
            }
            self.commit(group);
            if let Some(answer) = close {
                self.receiver.close();
                drop(answer.send(self.cut_log()));
                return;
            }
        }
        // Every handle is gone without a close: what was acknowledged is durable, the log is cut at the next start.
        drop(self.cut_log());
    }

    fn commit(&mut self, group: Vec<Work>) {
        if group.is_empty() {
            return;
        }
        let mut finishes = Vec::with_capacity(group.len());
        let result = match self.connected() {
            Ok(connection) => run_group(connection, group, &mut finishes),
            Err(error) => {
                // The work is dropped with its answer: the caller learns that the store cannot write.
                tracing::error!(%error, "the database cannot be opened again");
                return;
            }
        };
        let mut outcome = Some(result);
        if matches!(outcome, Some(Err(DatabaseError::Unknown { .. }))) {
            self.connection = None;
        }
        for finish in finishes {
            finish(match &outcome {
                Some(Ok(())) => Ok(()),
                _ => match outcome.take() {
                    Some(Err(error)) => {
                        let copy = copy(&error);
                        outcome = Some(Err(error));
                        Err(copy)
                    }
                    _ => Err(DatabaseError::Closed),
                },
            });
        }
    }

    fn connected(&mut self) -> Result<&mut Connection, DatabaseError> {
        if self.connection.is_none() {
            self.connection = Some(open::writer(&self.path)?);
        }
        self.connection.as_mut().ok_or(DatabaseError::Closed)
    }

    fn cut_log(&mut self) -> Result<(), DatabaseError> {
        let connection = self.connected()?;
        let busy: i64 = connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(|error| errors::sqlite("the write-ahead log", error))?;
        if busy != 0 {
            tracing::debug!("a reader kept the write-ahead log from being cut");
        }
        Ok(())
    }
}

/// Runs a group in one transaction. A request that fails is rolled back alone; the others are kept.
fn run_group(
    connection: &mut Connection,
    group: Vec<Work>,
    finishes: &mut Vec<Finish>,
) -> Result<(), DatabaseError> {
    let failed = |error| errors::sqlite("a group of writes", error);
    let alone = group.len() == 1;
    // Immediate: a deferred transaction that turns to writing fails at once, whatever the busy timeout.
    let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => {
            drop(group);
            return Err(failed(error));
        }
    };
    let mut any = false;
    for work in group {
        if !alone {
            transaction.execute_batch("SAVEPOINT request").map_err(failed)?;
        }
        let (keep, finish) = work(&transaction);
        any |= keep;
        finishes.push(finish);
        if !alone {
            let end = if keep { "RELEASE request" } else { "ROLLBACK TO request; RELEASE request" };
            transaction.execute_batch(end).map_err(failed)?;
        }
    }
    if any { transaction.commit().map_err(failed) } else { transaction.rollback().map_err(failed) }
}

/// Says the same to each caller of a group: the cause is given as text, because it has one owner.
fn copy(error: &DatabaseError) -> DatabaseError {
    let cause = || supervisor_core::error::chain(error).into();
    match error {
        DatabaseError::DiskFull { subject } => DatabaseError::DiskFull { subject: subject.clone() },
        DatabaseError::Unknown { subject, .. } => {
            DatabaseError::Unknown { subject: subject.clone(), source: cause() }
        }
        DatabaseError::Corrupt { subject, reason } => {
            DatabaseError::Corrupt { subject: subject.clone(), reason: reason.clone() }
        }
        DatabaseError::Busy { subject, reason } => {
            DatabaseError::Busy { subject: subject.clone(), reason: reason.clone() }
        }
        _ => DatabaseError::Storage {
            action: "committing a group of writes".to_owned(),
            source: cause(),
        },
    }
}
