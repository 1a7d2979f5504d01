//! A table of processes that were only ever said to exist.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::ProcessIdentity;
use crate::error::ProcessError;
use crate::ports::{KillReport, MarkedProcess, ProcessTable};

/// Fake [`ProcessTable`]: what was put into it lives until it is ended.
#[derive(Debug, Default)]
pub struct MemoryTable {
    living: Mutex<Vec<(String, MarkedProcess)>>,
}

impl MemoryTable {
    /// Makes a table without processes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a process with a mark into it.
    pub fn put(&self, mark: impl Into<String>, process: MarkedProcess) {
        self.living().push((mark.into(), process));
    }

    fn living(&self) -> std::sync::MutexGuard<'_, Vec<(String, MarkedProcess)>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ProcessTable for MemoryTable {
    fn is_alive(&self, identity: &ProcessIdentity) -> bool {
        self.living().iter().any(|(_, process)| process.identity == *identity)
    }

    fn marked(&self, mark: &str) -> Vec<MarkedProcess> {
        let living = self.living();
        living.iter().filter(|(of, _)| of == mark).map(|(_, process)| process.clone()).collect()
    }

    async fn end(
        &self,
        processes: &[ProcessIdentity],
        _grace: Duration,
    ) -> Result<KillReport, ProcessError> {
        let mut living = self.living();
        let before = living.len();
        living.retain(|(_, process)| !processes.contains(&process.identity));
        let killed = u32::try_from(before - living.len()).unwrap_or(u32::MAX);
        Ok(KillReport { killed, survivors: Vec::new() })
    }
}
