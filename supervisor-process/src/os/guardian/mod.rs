//! Linux: what the guardian and its host need of the system beyond what the rest of the crate needs.

mod launch;
mod process;
mod socket;

pub(crate) use launch::{NullDevice, Plan, Refused, Step, launch};
pub(crate) use process::{
    Children, Ended, Lock, OPEN_FILES, descriptors_max, ended, kill_child, open_files_limit,
    prepare, reap, signal_group, tag, tagged,
};
pub(crate) use socket::{Epoll, Listener, connect, is_gone, pair, peer, receive, send};
