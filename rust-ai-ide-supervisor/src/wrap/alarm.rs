//! The one timer of a session.

use std::pin::Pin;

use supervisor_core::Monotonic;
use supervisor_core::ports::Clock;
use tokio::time::{Instant, Sleep};

/// Rings when something is due.
///
/// Deadlines move with every message, nearly always to a later time, and setting a timer costs a system call. So it stays
/// as it was set until it rings; a ring that comes too early makes whoever hears it look at the time and ask again.
pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// What it is set to.
    at: Option<Monotonic>,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep_until(Instant::now())), at: None }
    }

    /// Waits until `due`, or a little less; for ever when nothing is due.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn rings(&mut self, due: Option<Monotonic>, clock: &dyn Clock) {
        let Some(due) = due else {
            return std::future::pending().await;
        };
        if self.at.is_none_or(|at| due < at) {
            self.sleep.as_mut().reset(Instant::now() + due.since(clock.monotonic()));
            self.at = Some(due);
        }
        self.sleep.as_mut().await;
        self.at = None;
    }
}
