//! Finding the processes of a set, those that left its group included.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use supervisor_core::{Incarnation, ProcessIdentity, ServiceId};

use crate::os::{self, Entry, Snapshot};

/// Whose processes are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetKey {
    pub(crate) mark: Arc<str>,
    pub(crate) service: ServiceId,
    pub(crate) incarnation: Incarnation,
}

/// The pids of leaders this process started and has not reaped: no orphan, whatever else is known of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leaders(Arc<Mutex<HashSet<u32>>>);

impl Leaders {
    pub(crate) fn add(&self, pid: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
    }

    pub(crate) fn remove(&self, pid: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }

    fn contains(&self, pid: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
    }
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

/// Looks among our own children for orphans of a set, and reaps those of any set that have ended.
///
/// Cheap enough for the moment between a crash and the restart: it reads only what a subreaper was given.
pub(crate) fn orphans(key: &SetKey, leaders: &Leaders) -> Vec<Entry> {
    let mut found = Vec::new();
    for child in os::own_children() {
        if leaders.contains(child.pid) {
            continue;
        }
        if child.is_alive() {
            if belongs(key, child.pid) {
                found.push(child);
            }
        } else {
            os::reap_orphan(child.pid);
        }
    }
    found
}

fn belongs(key: &SetKey, pid: u32) -> bool {
    os::marking(pid).is_some_and(|marking| {
        marking.mark == *key.mark
            && marking.service == key.service.as_str()
            && marking.incarnation == key.incarnation.get()
    })
}
