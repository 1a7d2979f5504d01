//! What differs between systems, behind one set of names. The only place with `unsafe`.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod proc_fs;
#[cfg(not(target_os = "linux"))]
mod portable;

#[cfg(target_os = "linux")]
pub(crate) use linux::*;
#[cfg(target_os = "linux")]
pub(crate) use proc_fs::{identity_of, usage, Entry, Snapshot};
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::*;
