//! Finding the processes of a set, those that left its group included.

use std::sync::Arc;

use supervisor_core::{Incarnation, ProcessIdentity, ServiceId};

use crate::os::{self, Entry, Snapshot};

/// Whose processes are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetKey {
    pub(crate) mark: Arc<str>,
    pub(crate) service: ServiceId,
    pub(crate) incarnation: Incarnation,
}

/// Finds every living process of a set: its group, what carries its marks, and their descendants.
///
/// Reads every process, about 5 µs each. What is older than the leader cannot come from it and is not asked for marks,
/// which would cost as much again.
pub(crate) fn members(key: &SetKey, leader: &ProcessIdentity) -> Vec<Entry> {
    let group = leader.pid;
    let snapshot = Snapshot::take();
    let me = std::process::id();
    let mut picked: Vec<Entry> = snapshot
        .entries
        .iter()
        .filter(|entry| entry.pid != me && entry.start_time >= leader.start_time)
        .filter(|entry| entry.group == group || belongs(key, entry.pid))
        .cloned()
        .collect();
    snapshot.close_over_descendants(&mut picked);
    picked
}

fn belongs(key: &SetKey, pid: u32) -> bool {
    os::marking(pid).is_some_and(|marking| {
        marking.mark == *key.mark
            && marking.service == key.service.as_str()
            && marking.incarnation == key.incarnation.get()
    })
}
