//! What only Linux has: children that share our memory until they are a program, sub-reapers, tags in limits.

mod launch;
mod own;
mod poller;
mod socket;

pub(crate) use launch::launch;
pub(crate) use own::{ADOPTS, ChildSignals, Children, prepare, tag, tagged};
pub(crate) use poller::Poller;
pub(super) use socket::{RECEIVE, SEND, accept, address, received, socket};
pub(crate) use socket::{is_gone, own_program, pair, peer, pipe};
