//! A few connections that only read, so that a question never waits for the writer.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use supervisor_core::error::DatabaseError;
use tokio::sync::Semaphore;

use crate::{errors, open};

/// Questions answered at once; one more waits for a place.
const READERS_MAX: usize = 3;
/// Steps of SQLite's machine between two looks at the clock; some microseconds.
const LOOK_EVERY: i32 = 10_000;

/// The pool.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    deadline: Duration,
    places: Semaphore,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    /// A question that takes longer than `deadline` is cut off.
    pub(crate) fn new(path: PathBuf, deadline: Duration) -> Self {
        Self { path, deadline, places: Semaphore::new(READERS_MAX), idle: Arc::default() }
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
        let deadline = self.deadline;
        let answered = tokio::task::spawn_blocking(move || {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match kept {
                Some(connection) => connection,
                None => open::reader(&path)?,
            };
            cut_after(&mut connection, deadline)?;
            let answer = question(&connection);
            if matches!(&answer, Err(error) if errors::fault(error).is_some()) {
                // What such a connection has in its cache is not asked again.
                return answer;
            }
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

/// Ends whatever the connection does once `deadline` is over: an open question keeps the log from being cut.
fn cut_after(connection: &mut Connection, deadline: Duration) -> Result<(), DatabaseError> {
    let began = Instant::now();
    connection
        .progress_handler(LOOK_EVERY, Some(move || began.elapsed() > deadline))
        .map_err(|error| errors::sqlite("a reader's deadline", error))
}

#[cfg(feature = "test-util")]
impl crate::StatePersistence {
    /// Asks a question that holds its snapshot until it is cut off.
    ///
    /// # Errors
    /// Always: [`DatabaseError::Busy`] at the deadline.
    ///
    /// # Cancel safety
    /// Safe; the question goes on until it is cut off.
    pub async fn question_without_end(&self) -> Result<(), DatabaseError> {
        let question =
            "WITH RECURSIVE n(i) AS (SELECT count(*) FROM journal UNION ALL SELECT i + 1 FROM n)
                        SELECT max(i) FROM n";
        self.inner
            .readers
            .read(move |connection| {
                let answer = connection.query_row(question, [], |_| Ok(()));
                answer.map_err(|error| errors::sqlite("a question", error))
            })
            .await
    }
}
