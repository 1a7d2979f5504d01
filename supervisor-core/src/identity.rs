//! Which process is meant: a pid alone is never enough to signal.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names one process for good: boot, pid and start time.
///
/// **Invariant:** nothing is ever signalled by pid alone; a process whose identity cannot be read is
/// treated as a stranger.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The boot the pid belongs to (Linux: `/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// The process id.
    pub pid: u32,
    /// Start time in the system's own units (Linux: clock ticks since boot; macOS: microseconds; Windows: 100 ns).
    pub start_time: u64,
}

impl fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} (started {})", self.pid, self.start_time)
    }
}
