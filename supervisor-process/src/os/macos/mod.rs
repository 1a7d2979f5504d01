//! macOS: death told by the kernel through a kqueue, signals to groups and to processes whose identity was just read.
//!
//! Type-checked and not run. The system has no handle that pins a process, no sub-reaper, no limits set from outside,
//! no senders of datagrams named by the kernel; what follows from each stands where it matters.

mod census;
mod events;
mod info;
pub(super) mod kqueue;
mod leader;
mod procargs;

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, WaitId, WaitIdOptions};
use supervisor_core::{ProcessIdentity, Signal};

pub(crate) use census::{Census, Moment};
pub(crate) use events::Events;
pub(crate) use info::{
    Entry, Snapshot, age, boot_id, children_of, diagnosis, identity_of, ticks, usage,
};
pub(super) use info::{processes, uptime};
pub(crate) use leader::{Bystander, Leader, Started, start};
pub(crate) use procargs::{guardian_mark, marking};

use super::unix::native;

/// Names the layers that contain sets here.
pub(crate) fn containment(_subreaper: bool) -> Vec<String> {
    vec!["process_group".to_owned(), "marked_descendants".to_owned()]
}

/// Gives the time since boot, suspend included.
pub(crate) fn since_boot() -> Duration {
    // The one of the system's clocks that neither stops in sleep nor follows the wall clock.
    info::clock(libc::CLOCK_MONOTONIC_RAW)
}

pub(crate) fn become_subreaper() -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "sub-reapers exist on Linux only"))
}

/// A process whose identity was checked, and is checked again before each signal.
///
/// Nothing pins a process here. Between the check and the signal, a microsecond, it may end, be reaped and its number be
/// given out again; the system gives numbers out in a circle of 99,999, so that would take a whole round in that time.
#[derive(Debug)]
pub(crate) struct Pinned(ProcessIdentity);

impl Pinned {
    /// Takes exactly this process; nothing if it is gone or its pid is somebody else's by now.
    pub(crate) fn new(identity: &ProcessIdentity) -> Option<Self> {
        let pinned = Self(identity.clone());
        (!identity.boot_id.is_empty() && pinned.pid().is_some()).then_some(pinned)
    }

    /// Its number, if that is still its own.
    fn pid(&self) -> Option<Pid> {
        let pid = Pid::from_raw(i32::try_from(self.0.pid).ok()?)?;
        (identity_of(self.0.pid)? == self.0).then_some(pid)
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        match rustix::process::kill_process(pid, native(signal)) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reaps it if it has ended and is our child; tells whether there is nothing left to wait for.
    pub(crate) fn reap(&self) -> bool {
        // A number that is another's by now is not waited for: that may be a child of ours, too.
        let Some(pid) = self.pid() else { return true };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        !matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(None))
    }
}

/// Looking at processes and signalling them takes no descriptors here, so none are kept back for it.
pub(crate) const fn reserve_descriptors() {}

/// What is left of a set, as far as it is not a child of ours.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) pids: Vec<u32>,
    /// Something could not be looked at, so the set counts as not empty.
    pub(crate) unsure: bool,
}

impl Left {
    pub(crate) fn is_empty(&self) -> bool {
        self.pids.is_empty() && !self.unsure
    }
}

/// The socket services report to: there are no abstract names here, and no senders of datagrams named by the kernel.
#[derive(Debug)]
pub(crate) struct CredentialSocket(std::convert::Infallible);

impl CredentialSocket {
    pub(crate) fn bind(_name: &str) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "heartbeats are reported on Linux only"))
    }

    pub(crate) async fn receive(&self) -> io::Result<(u32, String)> {
        match self.0 {}
    }
}

/// Gives the most descriptors the system lets one process have, which a limit may not be above.
pub(super) fn descriptors_ceiling() -> Option<u64> {
    info::number(c"kern.maxfilesperproc").and_then(|max| u64::try_from(max).ok())
}

/// Raises the soft limit of open descriptors as far as the system allows, and gives the new one.
///
/// Services started without a guardian inherit it: no limit of another process can be set here, and setting it between
/// fork and exec would make the standard library fork.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    static OPEN_FILES: OnceLock<Rlimit> = OnceLock::new();
    let was = OPEN_FILES.get_or_init(|| rustix::process::getrlimit(Resource::Nofile));
    let raised = super::unix::raised(was);
    rustix::process::setrlimit(Resource::Nofile, raised)?;
    Ok(raised.current.unwrap_or(u64::MAX))
}

/// Limits of a running process cannot be set here; a guardian sets them before there is a program.
pub(crate) fn limit(pid: u32, limits: &supervisor_core::config::ResourceLimits) {
    if !super::unix::rlimits(limits).is_empty() {
        tracing::warn!(pid, "resource limits take a guardian on this system; they are not set");
    }
}

/// One thread at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) had: Duration,
    pub(crate) waited: Duration,
    pub(crate) state: char,
}

/// How long a thread waits for a processor is not counted here, so every hang is believed.
pub(crate) const fn threads(_set: &[u32]) -> Option<Vec<Thread>> {
    None
}

pub(crate) const fn slowdown() -> f64 {
    1.0
}

pub(crate) fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}
