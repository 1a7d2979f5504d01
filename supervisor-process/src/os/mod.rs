//! What differs between systems, behind one set of names. The only place with `unsafe`.

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
compile_error!("supervisor-process knows Linux, macOS and Windows");

#[cfg(target_os = "linux")]
mod census;
#[cfg(unix)]
mod children;
#[cfg(target_os = "linux")]
mod counter;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod exit_info;
#[cfg(unix)]
pub(crate) mod guardian;
#[cfg(not(target_os = "linux"))]
mod importance;
#[cfg(target_os = "linux")]
mod launch;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(unix)]
mod pipes;
#[cfg(target_os = "linux")]
mod proc_fs;
#[cfg(all(test, target_os = "linux"))]
#[path = "macos/procargs.rs"]
mod procargs;
#[cfg(target_os = "linux")]
mod reserve;
#[cfg(target_os = "linux")]
mod rlimits;
#[cfg(target_os = "linux")]
mod sched;
#[cfg(target_os = "linux")]
mod slots;
#[cfg(target_os = "linux")]
mod start;
mod step;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub(crate) use census::{Census, may_have_kin};
#[cfg(target_os = "linux")]
pub(crate) use counter::Moment;
#[cfg(target_os = "linux")]
use events::Events;
#[cfg(target_os = "linux")]
pub(crate) use exit_info::Bystander;
#[cfg(not(target_os = "linux"))]
pub(crate) use late::{identity_of_started, limit_started, may_have_kin, set_limits};
#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(target_os = "macos")]
pub(crate) use macos::*;
#[cfg(unix)]
pub(crate) use pipes::{Pipe, PipeHandle, PipeReader};
#[cfg(target_os = "linux")]
pub(crate) use proc_fs::{Entry, Snapshot, boot_id, identity_of, usage};
#[cfg(target_os = "linux")]
use rlimits::descriptors_ceiling;
#[cfg(target_os = "linux")]
pub(crate) use rlimits::raise_open_files;
#[cfg(target_os = "linux")]
pub(crate) use sched::{Thread, diagnosis, processors, slowdown, threads};
#[cfg(target_os = "linux")]
pub(crate) use start::{
    Command, identity_of_started, limit_started, no_stdio, own_group, reserve_descriptors,
    set_limits, set_stdio, start,
};
#[cfg(target_os = "macos")]
pub(crate) use unix::{Command, no_stdio, own_group, set_stdio};
#[cfg(unix)]
pub(crate) use unix::{executable, is_too_large, rlimits, spawn_error_kind, spellings};
#[cfg(windows)]
pub(crate) use windows::*;

/// Where limits and rank can be set only once there is a process, and nobody is known not to descend from another.
#[cfg(not(target_os = "linux"))]
mod late {
    use supervisor_core::ProcessIdentity;
    use supervisor_core::config::ResourceLimits;

    use super::{Command, Left, Started, identity_of, importance, limit};
    use crate::importance::Refusals;

    /// Everybody in the set has to be asked for children.
    pub(crate) const fn may_have_kin(_left: &Left) -> bool {
        true
    }

    /// Leaves it to [`limit_started`].
    pub(crate) const fn set_limits(_command: &mut Command, _limits: &ResourceLimits) {}

    /// Names what was started; nothing if it is gone already.
    pub(crate) fn identity_of_started(started: &Started) -> Option<ProcessIdentity> {
        identity_of(started.leader.pid())
    }

    /// Sets limits and rank of what was just started, and gives what was refused. Its first instructions run without.
    pub(crate) fn limit_started(started: &Started, limits: &ResourceLimits) -> Refusals {
        let pid = started.leader.pid();
        limit(pid, limits);
        importance::rank(pid, limits)
    }
}

/// Takes what is read from one pipe.
pub(crate) trait Take: Send + std::fmt::Debug {
    /// Takes the next bytes.
    fn chunk(&mut self, bytes: &[u8]);

    /// Learns that the pipe is at its end.
    fn end(&mut self);
}
