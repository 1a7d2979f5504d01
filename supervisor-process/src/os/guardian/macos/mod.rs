//! What only macOS has: queues of the kernel that tell of ends, and no sub-reapers.
//!
//! Type-checked and not run.

mod launch;
mod own;
mod poller;
mod socket;

pub(crate) use launch::launch;
pub(crate) use own::{ADOPTS, ChildSignals, Children, prepare, tag, tagged};
pub(crate) use poller::Poller;
pub(super) use socket::{RECEIVE, SEND, accept, address, received, socket};
pub(crate) use socket::{is_gone, own_program, pair, peer, pipe};
