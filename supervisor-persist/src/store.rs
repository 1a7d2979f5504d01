//! The store: one database, one writer, a few readers, one owner.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use supervisor_core::checkpoint::{Checkpoint, CheckpointContent};
use supervisor_core::error::{DatabaseError, chain};
use supervisor_core::ports::{CheckpointStore, Clock, Entropy};
use supervisor_core::state::{PendingOperation, ServiceState};
use supervisor_core::{CheckpointId, ServiceId};

use crate::anchor::Anchor;
use crate::audit::AuditKey;
use crate::clock::{StdClock, StdEntropy};
use crate::folders::{self, Folders};
use crate::ladder::{self, RecoveryNote, RecoveryReport};
use crate::lock::OwnerLock;
use crate::mode::{StorageMode, StorageStatus};
use crate::readers::Readers;
use crate::writer::{Durability, Writer, WriterSettings};
use crate::{errors, files, retention, schema};

/// Keeps a supervisor's state in one SQLite database and a directory of checkpoint files.
///
/// A handle: clones share one store. What a call has acknowledged survives a kill and a power cut. One process at a
/// time owns a database; the lock is released by the system however that process ends.
///
/// ```
/// use std::collections::HashMap;
/// use supervisor_persist::StatePersistence;
///
/// # let directory = tempfile::tempdir()?;
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let store = StatePersistence::new(directory.path().join("supervisor.db"), directory.path().join("checkpoints")).await?;
/// let id = store.create_checkpoint(&HashMap::new(), &Vec::new()).await?;
/// assert_eq!(store.load_latest_checkpoint().await?.id, id);
/// store.close().await?;
/// # Ok::<(), supervisor_core::error::DatabaseError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct StatePersistence {
    pub(crate) inner: Arc<Inner>,
    durability: Durability,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) writer: Writer,
    pub(crate) readers: Readers,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) checkpoint_dir: PathBuf,
    pub(crate) key: AuditKey,
    pub(crate) anchor: Anchor,
    pub(crate) secrets: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) folders: Folders,
    /// One backup, restoration or change of the savepoints at a time.
    pub(crate) maintenance: Mutex<()>,
    /// What opening found.
    pub(crate) opening: Mutex<RecoveryReport>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    lock: Mutex<Option<OwnerLock>>,
}

/// How much is kept of what grows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) checkpoints: u64,
    pub(crate) journal_rows: u64,
    pub(crate) events: u64,
    pub(crate) audit_rows: u64,
    pub(crate) outbox_rows: u64,
    pub(crate) outbox_bytes: u64,
    pub(crate) dead_letters: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            checkpoints: 20,
            journal_rows: 1_000_000,
            events: 200_000,
            audit_rows: 1_000_000,
            outbox_rows: 1_000_000,
            outbox_bytes: 1 << 30,
            dead_letters: 10_000,
        }
    }
}

/// Settings of a store before it is opened.
#[derive(Debug)]
#[must_use]
pub struct StatePersistenceBuilder {
    database: PathBuf,
    checkpoint_dir: PathBuf,
    clock: Option<Arc<dyn Clock>>,
    entropy: Option<Arc<dyn Entropy>>,
    secrets: Vec<String>,
    limits: Limits,
    set_aside: bool,
    from_backup: Option<String>,
    writing: WriterSettings,
    reader_deadline: Duration,
}

impl StatePersistenceBuilder {
    /// Sets where time comes from; the system's clocks otherwise.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets where randomness comes from; the system's otherwise.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = Some(entropy);
        self
    }

    /// Names values that must not stand in any audit row; those shorter than four bytes are not looked for.
    pub fn secrets(mut self, secrets: impl IntoIterator<Item = String>) -> Self {
        self.secrets.extend(secrets.into_iter().filter(|secret| secret.len() >= 4));
        self
    }

    /// Sets how many checkpoints are kept, at least 2; 20 otherwise.
    pub fn keep_checkpoints(mut self, n: u64) -> Self {
        self.limits.checkpoints = n.max(2);
        self
    }

    /// Sets how many journal rows and events are kept, at least 1000 each; a million and 200,000 otherwise.
    pub fn keep_rows(mut self, journal: u64, events: u64) -> Self {
        self.limits.journal_rows = journal.max(1000);
        self.limits.events = events.max(1000);
        self
    }

    /// Sets how many audit rows are kept, at least 1000; a million otherwise. Older ones go under a
    /// [seal](StatePersistence::prune_audit), unless they do not verify.
    pub fn keep_audit(mut self, rows: u64) -> Self {
        self.limits.audit_rows = rows.max(1000);
        self
    }

    /// Consents to moving a database that would be refused (foreign, newer, of another history) into the folder
    /// `quarantine` beside it, unchanged, and going on with the newest sound backup this program can read, or from nothing.
    pub fn set_aside_refused(mut self) -> Self {
        self.set_aside = true;
        self
    }

    /// Moves the database into the folder `quarantine`, whatever it is, and goes on with this backup in its place.
    ///
    /// Opening fails, and nothing is moved, when the backup is not there or does not verify.
    pub fn go_back_to(mut self, backup: impl Into<String>) -> Self {
        self.from_backup = Some(backup.into());
        self
    }

    /// Sets how long a write is held while storage fails before its caller is told; 2 s otherwise.
    pub fn hold_writes(mut self, hold: Duration) -> Self {
        self.writing.hold = hold;
        self
    }

    /// Sets the size in bytes of the file that is given up when the disk is full; 1 MiB otherwise, 0 for none.
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.writing.reserve = bytes;
        self
    }

    /// Sets the size in bytes of the write-ahead log that raises the alarm; 64 MiB otherwise.
    pub fn wal_alarm(mut self, bytes: u64) -> Self {
        self.writing.wal_alarm = bytes;
        self
    }

    /// Sets how long a question may take before it is cut off, so that it does not keep the write-ahead log from being
    /// cut; 10 s otherwise.
    pub fn reader_deadline(mut self, deadline: Duration) -> Self {
        self.reader_deadline = deadline;
        self
    }

    /// Opens the store, bringing its schema up to date after a proven backup.
    ///
    /// A database that is damaged is moved into the folder `quarantine` and rebuilt from the newest backup that verifies; what was found and done is in
    /// [`recovery_report`](StatePersistence::recovery_report).
    ///
    /// # Errors
    /// [`DatabaseError::Owned`] naming the process that has it, [`DatabaseError::Foreign`], [`DatabaseError::TooNew`],
    /// [`DatabaseError::Corrupt`] and [`DatabaseError::Migration`] with the file as it was before, and what the system said.
    ///
    /// # Cancel safety
    /// Safe; opening goes on in the background and its result is dropped, lock included.
    pub async fn open(self) -> Result<StatePersistence, DatabaseError> {
        let opened = tokio::task::spawn_blocking(move || self.open_blocking()).await;
        let (store, fresh) = opened.map_err(|error| DatabaseError::Storage {
            action: "opening the store".into(),
            source: error.into(),
        })??;
        if let Err(error) = store.tell_of_opening(fresh).await {
            // The findings are stored; a store that can be read must not be out of reach for want of a row about it.
            tracing::error!(error = %chain(&error), "what opening found could not be audited");
        }
        Ok(store)
    }

    fn open_blocking(self) -> Result<(StatePersistence, Vec<RecoveryNote>), DatabaseError> {
        schema::check_library()?;
        let clock = self.clock.unwrap_or_else(|| Arc::new(StdClock(Instant::now())));
        let path = self.database;
        let parent = folders::parent(&path);
        files::create_private_dir(parent)
            .map_err(|error| errors::file("creating", parent, error))?;
        let lock = OwnerLock::take(&path, clock.wall())?;
        let folders = Folders::beside(&path);
        let ladder::Opened { connection, report, fresh } = ladder::open(ladder::Request {
            folders: &folders,
            checkpoint_dir: &self.checkpoint_dir,
            at: clock.wall(),
            set_aside: self.set_aside,
            from_backup: self.from_backup,
        })?;
        let dir = self.checkpoint_dir;
        files::create_private_dir(&dir).map_err(|error| errors::file("creating", &dir, error))?;
        let key = AuditKey::load_or_create(&path)?;
        let anchor = Anchor::beside(&path);
        let (writer, thread) = Writer::start(connection, path.clone(), self.writing)?;
        let inner = Inner {
            writer,
            readers: Readers::new(path.clone(), self.reader_deadline),
            clock,
            entropy: self.entropy.unwrap_or_else(|| Arc::new(StdEntropy)),
            checkpoint_dir: dir,
            key,
            anchor,
            secrets: self.secrets,
            limits: self.limits,
            folders,
            maintenance: Mutex::new(()),
            opening: Mutex::new(report),
            thread: Mutex::new(Some(thread)),
            lock: Mutex::new(Some(lock)),
        };
        let durability = Durability::default();
        Ok((StatePersistence { inner: Arc::new(inner), durability }, fresh))
    }
}

impl StatePersistence {
    /// Opens the store with default settings.
    ///
    /// # Errors
    /// As for [`StatePersistenceBuilder::open`].
    ///
    /// # Cancel safety
    /// As for [`StatePersistenceBuilder::open`].
    pub async fn new(
        db_path: impl Into<PathBuf>,
        checkpoint_dir: impl Into<PathBuf>,
    ) -> Result<Self, DatabaseError> {
        Self::builder(db_path, checkpoint_dir).open().await
    }

    /// Makes settings for a store.
    pub fn builder(
        db_path: impl Into<PathBuf>,
        checkpoint_dir: impl Into<PathBuf>,
    ) -> StatePersistenceBuilder {
        StatePersistenceBuilder {
            database: db_path.into(),
            checkpoint_dir: checkpoint_dir.into(),
            clock: None,
            entropy: None,
            secrets: Vec::new(),
            limits: Limits::default(),
            set_aside: false,
            from_backup: None,
            writing: WriterSettings {
                hold: Duration::from_secs(2),
                reserve: 1 << 20,
                wal_alarm: 64 << 20,
                prune: retention::make_room,
            },
            reader_deadline: Duration::from_secs(10),
        }
    }

    /// Gives a handle to the same store whose writes are acknowledged by this rule: states, events, messages, dead
    /// letters and keys. Audit rows, checkpoints, savepoints and backups are synced whatever it says.
    ///
    /// ```
    /// # use supervisor_persist::{Durability, StatePersistence};
    /// # async fn doc(store: StatePersistence, noise: Vec<supervisor_core::event::SupervisorEvent>) -> Result<(), supervisor_core::error::DatabaseError> {
    /// use supervisor_core::ports::EventStore;
    /// let soon = store.with_durability(Durability::Soon);
    /// soon.append(noise).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self { inner: Arc::clone(&self.inner), durability }
    }

    /// The writer for what the caller's rule of durability concerns.
    pub(crate) fn writer(&self) -> Writer {
        self.inner.writer.with(self.durability)
    }

    /// Gives what the storage can do at the moment.
    #[must_use]
    pub fn mode(&self) -> StorageMode {
        self.inner.writer.status().borrow().mode
    }

    /// Gives the state of the storage, and tells about each change of it.
    ///
    /// The receiver ends when the store and its clones are gone.
    #[must_use]
    pub fn watch_storage(&self) -> tokio::sync::watch::Receiver<StorageStatus> {
        self.inner.writer.status()
    }

    /// Gives how much of the write-ahead log is in use, in bytes.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        self.inner.writer.wal_bytes()
    }

    /// Takes a checkpoint of these services and operations and gives its id; on return it is durable in both of its places.
    ///
    /// # Errors
    /// [`DatabaseError`]; its class says whether a retry may help.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer; the checkpoint may still be there.
    #[expect(
        clippy::ptr_arg,
        reason = "callers pass references to collections made by Default, without naming their type"
    )]
    pub async fn create_checkpoint(
        &self,
        services: &HashMap<ServiceId, ServiceState>,
        pending_operations: &Vec<PendingOperation>,
    ) -> Result<CheckpointId, DatabaseError> {
        let content = CheckpointContent {
            services: services.clone(),
            pending_operations: pending_operations.clone(),
            channels: std::collections::BTreeMap::new(),
        };
        CheckpointStore::create(self, content).await
    }

    /// Gives the newest checkpoint that verifies.
    ///
    /// # Errors
    /// [`DatabaseError::NotFound`] when there is none; [`restore`](CheckpointStore::restore) also says what was passed over.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn load_latest_checkpoint(&self) -> Result<Checkpoint, DatabaseError> {
        let restored = self.restore().await?;
        restored
            .checkpoint
            .ok_or_else(|| DatabaseError::NotFound { subject: "checkpoint".to_owned() })
    }

    /// Commits what is waiting, cuts the write-ahead log and releases the lock; later calls answer `Closed`.
    ///
    /// # Errors
    /// What cutting the log gave; everything acknowledged is durable all the same.
    ///
    /// # Cancel safety
    /// Safe; call it again to finish.
    pub async fn close(&self) -> Result<(), DatabaseError> {
        let inner = &self.inner;
        inner.readers.close();
        let anchored = self.write_anchor().await;
        let marked = inner.writer.write("the end of the run", ladder::mark_clean).await;
        let closed = inner.writer.close().await;
        let thread = inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It has answered already and only has to return.
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
        drop(inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
        // A second call finds the writer gone, which is what was asked for.
        let unless_closed = |done: Result<(), DatabaseError>| match done {
            Err(DatabaseError::Closed) => Ok(()),
            other => other,
        };
        closed.and(unless_closed(anchored)).and(unless_closed(marked))
    }
}
