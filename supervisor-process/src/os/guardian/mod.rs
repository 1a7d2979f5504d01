//! What the guardian and its host need of the system beyond what the rest of the crate needs.
//!
//! `linux/` and `macos/` have the same names in them; the files beside them are for both.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
mod plan;
mod process;
mod socket;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(target_os = "macos")]
use macos as system;

pub(super) use plan::pointers;
pub(crate) use plan::{NullDevice, Plan, Refused, Step};
pub(crate) use process::{
    Ended, Lock, OPEN_FILES, descriptors_max, ended, kill_child, open_files_limit, reap,
    signal_group,
};
pub(crate) use socket::{Listener, connect, receive, send};
pub(crate) use system::{
    ADOPTS, ChildSignals, Children, Poller, is_gone, launch, own_program, pair, peer, pipe,
    prepare, tag, tagged,
};
