//! A few connections that only read, so that a question never waits for the writer.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use supervisor_core::error::DatabaseError;
use tokio::sync::Semaphore;

use crate::open;

/// Questions answered at once; one more waits for a place.
const READERS_MAX: usize = 3;

/// The pool.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    places: Semaphore,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, places: Semaphore::new(READERS_MAX), idle: Arc::default() }
    }

    /// Answers a question on a thread that may block.
    ///
    /// # Cancel safety
    /// Safe; the question is answered to nobody.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let _place = self.places.acquire().await.map_err(|_| DatabaseError::Closed)?;
        let (path, idle) = (self.path.clone(), Arc::clone(&self.idle));
        let answered = tokio::task::spawn_blocking(move || {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match kept {
                Some(connection) => connection,
                None => open::reader(&path)?,
            };
            let answer = question(&connection);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            answer
        });
        answered.await.map_err(|_| DatabaseError::Closed)?
    }

    /// Closes the connections, so that the log can be cut.
    pub(crate) fn close(&self) {
        self.places.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
