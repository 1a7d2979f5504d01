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

#[cfg(target_os = "linux")]
pub(super) use plan::pointers;
pub(crate) use plan::{NullDevice, Plan, Refused, Step};
pub(crate) use process::{
    Ended, Lock, OPEN_FILES, descriptors_max, ended, kill_child, open_files_limit, own_directory,
    reap, signal_group,
};
pub(crate) use socket::{Listener, connect, receive, send};
pub(crate) use system::{
    ADOPTS, ChildSignals, Children, Poller, is_gone, launch, own_program, pair, peer, pipe,
    prepare, tag, tagged,
};

/// Names the layers that contain sets of a guardian here, strongest first.
pub(crate) fn containment() -> Vec<String> {
    let layers = ["guardian", "process_group", "subreaper", "marked_descendants"];
    let here = layers.into_iter().filter(|layer| ADOPTS || *layer != "subreaper");
    here.map(str::to_owned).collect()
}

/// What travels with an answer.
pub(crate) type Passed = std::os::fd::OwnedFd;

/// What a host holds of a set beside its channel: nothing here.
#[derive(Debug)]
pub(crate) enum Grip {}

/// Takes what a host holds of a set out of what was passed.
pub(crate) const fn grip(
    _passed: &mut Vec<Passed>,
    _leader: &supervisor_core::ProcessIdentity,
    _key: &crate::scan::SetKey,
) -> Option<Grip> {
    None
}
