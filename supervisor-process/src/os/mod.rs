//! What differs between systems, behind one set of names. The only place with `unsafe`.

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
compile_error!("supervisor-process knows Linux, macOS and Windows");

#[cfg(target_os = "linux")]
mod census;
#[cfg(unix)]
mod children;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod exit_info;
#[cfg(unix)]
pub(crate) mod guardian;
mod importance;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(unix)]
mod pipes;
#[cfg(windows)]
mod portable;
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
#[cfg(unix)]
mod unix;

#[cfg(target_os = "linux")]
pub(crate) use census::{Census, Moment};
#[cfg(target_os = "linux")]
use events::Events;
#[cfg(target_os = "linux")]
pub(crate) use exit_info::Bystander;
pub(crate) use importance::rank;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(target_os = "macos")]
pub(crate) use macos::*;
#[cfg(unix)]
pub(crate) use pipes::{Pipe, PipeHandle, PipeReader};
#[cfg(windows)]
pub(crate) use portable::*;
#[cfg(target_os = "linux")]
pub(crate) use proc_fs::{Entry, Snapshot, boot_id, identity_of, usage};
#[cfg(target_os = "linux")]
pub(crate) use reserve::fill as reserve_descriptors;
#[cfg(target_os = "linux")]
use rlimits::descriptors_ceiling;
#[cfg(target_os = "linux")]
pub(crate) use rlimits::{limit, raise_open_files};
#[cfg(target_os = "linux")]
pub(crate) use sched::{Thread, diagnosis, processors, slowdown, threads};
#[cfg(unix)]
pub(crate) use unix::{executable, is_too_large, own_group, rlimits, set_stdio, spawn_error_kind};

/// Takes what is read from one pipe.
pub(crate) trait Take: Send + std::fmt::Debug {
    /// Takes the next bytes.
    fn chunk(&mut self, bytes: &[u8]);

    /// Learns that the pipe is at its end.
    fn end(&mut self);
}
