//! What differs between systems, behind one set of names. The only place with `unsafe`.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(target_os = "linux")]
mod proc_fs;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::*;
#[cfg(target_os = "linux")]
pub(crate) use proc_fs::{Entry, Snapshot, identity_of, usage};
