//! macOS: whether anything of a set is left, asked of every process that is not older than its leader.
//!
//! The system lists its processes in one step, so nothing is missed that is there while it does; what ends between the
//! list and the look at it may have started something in between, and then the list is taken again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Entry, Left, processes, uptime};
use crate::os::children;
use crate::scan::SetKey;

/// Lists taken in a row while processes vanish under the look; beyond it the set counts as not empty.
const LISTS_MAX: u32 = 16;
/// Processes remembered; at the bound all are forgotten and learnt again.
const REMEMBERED_MAX: usize = 16 * 1024;

/// A moment; see [`Census::moment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u64);

/// Looks for what is left of sets.
#[derive(Debug)]
pub(crate) struct Census {
    /// Start times of processes that carry no marks, by pid.
    strangers: Mutex<HashMap<u32, u64>>,
}

impl Census {
    pub(crate) fn new(_subreaper: bool) -> Self {
        Self { strangers: Mutex::default() }
    }

    /// Gives a moment that is not after now; taken before a leader is started.
    pub(crate) fn moment(&self) -> Moment {
        Moment(uptime())
    }

    /// Finds the living processes of a set that are no children of ours, whether they left the leader's group or not.
    ///
    /// `born` is a moment before the leader was started.
    pub(crate) fn left(&self, key: &SetKey, _leader: u32, born: Moment) -> Left {
        // What a panic leaves is at worst a memory that misses something, which is then looked at again.
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.len() >= REMEMBERED_MAX {
            strangers.clear();
        }
        let mut left = Left::default();
        for _ in 0..LISTS_MAX {
            let listed = children::without(processes().into_iter());
            left.pids.clear();
            left.unsure = false;
            for pid in listed {
                let Some(entry) = Entry::read(pid) else {
                    // Another user's is there and not ours to read.
                    left.unsure |= !exists(pid);
                    continue;
                };
                let known = strangers.get(&pid) == Some(&entry.start_time);
                if !entry.is_alive() || entry.start_time < born.0 || known {
                    continue;
                }
                match super::marking(pid).filter(|marking| marking.mark == *key.mark) {
                    None => drop(strangers.insert(pid, entry.start_time)),
                    Some(marking)
                        if marking.service == key.service.as_str()
                            && marking.incarnation == key.incarnation.get() =>
                    {
                        left.pids.push(pid);
                    }
                    Some(_) => {}
                }
            }
            if !left.unsure {
                break;
            }
        }
        left
    }

    /// Learns that a child of ours is gone; what is remembered is known by its start time, too.
    pub(crate) const fn reaped(&self, _pid: u32) {}

    /// Reaps orphans that were given to us; none are here.
    pub(crate) const fn reap(&self) {}
}

fn exists(pid: u32) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}
