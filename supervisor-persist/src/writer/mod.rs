//! The one thread that writes: gathers requests, commits them together, answers when they are durable.
//!
//! Work is repeatable, so a group can be run again: with a savepoint for each request when one of them refused
//! itself, and on a new connection when the old one failed. Each commit writes its number (`writer_mark`), so that
//! after a commit with an unknown outcome the file itself says whether it happened.

mod group;
mod job;
mod log;
mod queue;
mod thread;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use supervisor_core::error::DatabaseError;
use tokio::sync::{oneshot, watch};

pub(crate) use job::Key;
use job::Pending;
use queue::Queue;

use crate::errors;
use crate::mode::{StorageMode, StorageStatus};

/// How much has to happen before a write is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// It is on the disk: it survives a kill and a power cut.
    #[default]
    Synced,
    /// It is with the operating system: it survives a kill of this process, and a power cut from the next synced write
    /// on, or after about a second, whichever comes first. Order is kept: a power cut never takes a write and leaves a
    /// later one. Costs about a fiftieth of a synced one.
    Soon,
}

/// Makes room in a full database; given by whoever knows what can go.
pub(crate) type Prune = fn(&Connection) -> Result<(), rusqlite::Error>;

/// How the writer behaves when storage does not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriterSettings {
    /// How long writes are held before they are refused.
    pub(crate) hold: Duration,
    /// Size of the reserve file, in bytes.
    pub(crate) reserve: u64,
    /// Size of the write-ahead log that raises the alarm, in bytes.
    pub(crate) wal_alarm: u64,
    pub(crate) prune: Prune,
}

/// What the thread tells everybody.
#[derive(Debug)]
struct Shared {
    status: watch::Sender<StorageStatus>,
    wal_bytes: AtomicU64,
}

/// Hands work to the thread that writes.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    handle: Arc<Handle>,
    durability: Durability,
}

struct Handle {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.end();
    }
}

impl Writer {
    /// Starts the thread, which owns the connection from now on.
    pub(crate) fn start(
        connection: Connection,
        path: PathBuf,
        settings: WriterSettings,
    ) -> Result<(Self, JoinHandle<()>), DatabaseError> {
        let status = StorageStatus {
            mode: StorageMode::Normal,
            reason: "everything is stored".to_owned(),
            wal_alarm: false,
        };
        let shared =
            Arc::new(Shared { status: watch::Sender::new(status), wal_bytes: AtomicU64::new(0) });
        let queue = Arc::new(Queue::new());
        let thread = thread::Thread::new(
            connection,
            path,
            Arc::clone(&queue),
            Arc::clone(&shared),
            settings,
        )?;
        let named = std::thread::Builder::new().name("supervisor-persist".to_owned());
        let running = named.spawn(move || thread.run()).map_err(|error| {
            DatabaseError::Storage { action: "starting the writer".into(), source: error.into() }
        })?;
        let handle = Arc::new(Handle { queue, shared });
        Ok((Self { handle, durability: Durability::Synced }, running))
    }

    /// Gives a handle whose writes are acknowledged by this rule.
    pub(crate) fn with(&self, durability: Durability) -> Self {
        Self { handle: Arc::clone(&self.handle), durability }
    }

    /// Runs `work` in the next group and returns when the group is durable. Work may run more than once; only the last
    /// run is kept.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the write.
    pub(crate) async fn write<T: Clone + Send + 'static>(
        &self,
        subject: &'static str,
        mut work: impl FnMut(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        self.attempt(move |connection| {
            work(connection).map_err(|error| errors::sqlite(subject, error))
        })
        .await
    }

    /// As [`write`](Self::write), for work with errors of its own.
    pub(crate) async fn attempt<T: Clone + Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        self.put(None, work).await
    }

    /// As [`attempt`](Self::attempt), for work that would have a second effect when a caller repeats it after
    /// [`DatabaseError::Unknown`]: the repetition is known by its key and gets the first answer.
    pub(crate) async fn attempt_once<T: Clone + Send + 'static>(
        &self,
        key: Key,
        work: impl FnMut(&Connection) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        self.put(Some(key), work).await
    }

    async fn put<T: Clone + Send + 'static>(
        &self,
        key: Option<Key>,
        work: impl FnMut(&Connection) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let (answer, answered) = oneshot::channel();
        let durability = self.durability;
        let job = Box::new(Pending { work, key, durability, result: None, answer });
        self.handle.queue.put(job).await?;
        answered.await.map_err(|_| DatabaseError::Closed)?
    }

    /// Commits what is waiting, cuts the log and ends the thread; a second call does nothing.
    pub(crate) async fn close(&self) -> Result<(), DatabaseError> {
        let (answer, answered) = oneshot::channel();
        if !self.handle.queue.close(answer) {
            return Ok(());
        }
        answered.await.unwrap_or(Ok(()))
    }

    /// Tells when the mode or an alarm changes.
    pub(crate) fn status(&self) -> watch::Receiver<StorageStatus> {
        self.handle.shared.status.subscribe()
    }

    /// Gives how much of the write-ahead log is in use, in bytes.
    pub(crate) fn wal_bytes(&self) -> u64 {
        self.handle.shared.wal_bytes.load(Ordering::Relaxed)
    }
}
