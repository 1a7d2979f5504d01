//! What differs between systems, behind one set of names. The only place with `unsafe`.

#[cfg(target_os = "linux")]
mod exit_info;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(target_os = "linux")]
mod proc_fs;
#[cfg(target_os = "linux")]
mod sched;

#[cfg(target_os = "linux")]
pub(crate) use exit_info::Bystander;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::*;
#[cfg(target_os = "linux")]
pub(crate) use proc_fs::{Entry, Snapshot, identity_of, usage};
#[cfg(target_os = "linux")]
pub(crate) use sched::{diagnosis, processor_time, processors, slowdown};
