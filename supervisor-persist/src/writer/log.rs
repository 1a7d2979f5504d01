//! The write-ahead log: how long it is, moving it into the database, cutting it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// Pages after which the log is moved into the database; 4 MiB.
const MOVE_EVERY: u32 = 1000;
/// A log that was not moved for so long is, however short.
const MOVE_AFTER: Duration = Duration::from_secs(30);
/// Without a write for so long, the log is cut.
const IDLE: Duration = Duration::from_secs(1);
/// Bytes of a page in the log: the page and its header. Our databases have SQLite's default pages.
const PAGE: u64 = 4096 + 24;

/// What a checkpoint of the log did, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    /// A reader or another writer was in the way.
    pub(super) busy: bool,
    pub(super) log: i64,
    pub(super) moved: i64,
}

impl Moved {
    /// Whether everything in the log is in the database too, synced.
    pub(super) const fn whole(self) -> bool {
        self.log == self.moved
    }
}

/// The gauge of one connection.
#[derive(Debug)]
pub(super) struct Log {
    pages: Arc<AtomicU32>,
    /// Pages when it was moved last: what a reader pins is not worth another try until as much again has come.
    tried_at: u32,
    moved: Instant,
}

impl Log {
    /// Counts the pages that `connection` commits. SQLite's own checkpoints are off from then on: they hide their errors.
    pub(super) fn watch(connection: &mut Connection) -> Result<Self, rusqlite::Error> {
        let pages = Arc::new(AtomicU32::new(0));
        let gauge = Arc::clone(&pages);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            gauge.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { pages, tried_at: 0, moved: Instant::now() })
    }

    fn pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.pages()) * PAGE
    }

    /// How long to wait for the next write before the log is cut; for ever if there is nothing to cut.
    pub(super) fn idle_after(&self) -> Option<Duration> {
        (self.pages() > 0).then_some(IDLE)
    }

    /// Moves the log if it has become long or old; nothing waits for readers.
    pub(super) fn move_if_due(
        &mut self,
        connection: &Connection,
    ) -> Result<Option<Moved>, rusqlite::Error> {
        let pages = self.pages();
        if pages < self.tried_at {
            self.tried_at = 0;
        }
        let long = pages >= self.tried_at.saturating_add(MOVE_EVERY);
        if !long && (pages == 0 || self.moved.elapsed() < MOVE_AFTER) {
            return Ok(None);
        }
        self.tried_at = pages;
        self.moved = Instant::now();
        checkpoint(connection, "PASSIVE").map(Some)
    }

    /// Moves everything and cuts the file to nothing; a reader in the way is no error.
    pub(super) fn cut(&mut self, connection: &Connection) -> Result<Moved, rusqlite::Error> {
        let moved = checkpoint(connection, "TRUNCATE")?;
        self.moved = Instant::now();
        if moved.busy {
            tracing::debug!("a reader kept the write-ahead log from being cut");
        } else {
            self.pages.store(0, Ordering::Relaxed);
            self.tried_at = 0;
        }
        Ok(moved)
    }
}

fn checkpoint(connection: &Connection, how: &str) -> Result<Moved, rusqlite::Error> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| {
        Ok(Moved { busy: row.get::<_, i64>(0)? != 0, log: row.get(1)?, moved: row.get(2)? })
    })
}
