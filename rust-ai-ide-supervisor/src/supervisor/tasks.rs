//! The one place where background tasks are started.

use std::future::Future;

use tokio::task::JoinHandle;

/// Starts a background task. Its owner keeps the handle and joins it at shutdown.
#[must_use]
pub(crate) fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(task)
}
