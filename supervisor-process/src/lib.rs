#![doc = include_str!("../README.md")]

mod capture;
mod cgroup;
mod child;
mod clock;
mod command;
#[cfg(any(windows, test))]
mod command_line;
mod engine;
pub mod guardian;
mod importance;
mod notify;
mod os;
mod probe;
mod scan;
mod secrets;
mod spawner;
mod table;

pub use cgroup::Cgroups;
pub use clock::{SystemClock, SystemEntropy};
pub use command::{INCARNATION_VARIABLE, MARK_VARIABLE, SERVICE_VARIABLE, find_program};
pub use engine::{Engine, EngineBuilder};
pub use probe::{ChannelPing, SystemProbes};
pub use spawner::SystemSpawner;
pub use table::{Activity, SystemProcessTable};

/// Raises this process's soft limit of open descriptors to its hard one, and gives the new limit.
///
/// Services that are started afterwards get back what it was, unless their specification names another one. A setting
/// of the whole process, so nothing here does it unasked; a program of its own does it once, before it starts services.
///
/// # Errors
/// What the system said; the limit is as it was then, and a retry does not help.
///
/// # Platform
/// **Linux.** **macOS:** up to `kern.maxfilesperproc`; services started without a guardian inherit it. **Windows:**
/// [`std::io::ErrorKind::Unsupported`].
pub fn raise_open_files() -> std::io::Result<u64> {
    os::raise_open_files()
}
