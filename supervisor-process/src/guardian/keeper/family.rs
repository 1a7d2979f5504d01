//! Whose process is it? Everything below the guardian came from one of its sets.
//!
//! Where the system has sub-reapers (Linux), a process whose parent has died is given to the guardian. Which set it is of is told by its session or group (the
//! leader's number, which stays taken until its set is empty), else by the tag in its limits, else by the marks in its
//! environment. One that changed all three is a stray: it ends when nothing is left that it could belong to.
//!
//! Where it has none (macOS), every process of the user that is younger than the guardian is looked at in the same way,
//! and by its living parent; what says nothing of us is a stranger's and is forgotten at once.

use std::collections::HashMap;

use super::super::protocol::SetId;
use super::set::Set;
use crate::os::{self, Entry, Snapshot};

/// The processes of sets that are no leaders, by pid.
#[derive(Debug, Default)]
pub(super) struct Orphans(HashMap<u32, Orphan>);

#[derive(Debug, Clone, Copy)]
struct Orphan {
    /// With its pid it is one process and no other.
    start_time: u64,
    /// Its set, as far as that is known.
    of: Option<SetId>,
}

impl Orphans {
    /// Takes the children that are no leaders: those that ended are reaped, those that live are told apart.
    pub(super) fn look<'a>(
        &mut self,
        children: impl Iterator<Item = u32>,
        sets: impl Iterator<Item = &'a Set> + Clone,
        mark: &str,
    ) {
        let before = std::mem::take(&mut self.0);
        for pid in children {
            let Some(entry) = Entry::read(pid) else { continue };
            if !entry.is_alive() {
                os::guardian::reap(pid);
                continue;
            }
            let start_time = entry.start_time;
            let known = before.get(&pid).filter(|known| known.start_time == start_time);
            let of = known
                .and_then(|known| known.of)
                .or_else(|| attributed(&entry, sets.clone(), mark))
                .or_else(|| self.0.get(&entry.parent)?.of);
            if of.is_some() || os::guardian::ADOPTS {
                self.0.insert(pid, Orphan { start_time, of });
            }
        }
    }

    /// Asks to be told of every end; tells whether all were there to be asked for.
    pub(super) fn watch(&self, mut watch: impl FnMut(u32) -> bool) -> bool {
        let mut all = true;
        for pid in self.0.keys() {
            all &= watch(*pid);
        }
        all
    }

    /// Tells whether anything of a set is among them.
    pub(super) fn any_of(&self, set: SetId) -> bool {
        self.0.values().any(|orphan| orphan.of == Some(set))
    }

    /// Those whose set is not known.
    pub(super) fn strays(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().filter(|(_, orphan)| orphan.of.is_none()).map(|(pid, _)| *pid)
    }

    /// Finds every living process of a set in a snapshot: its leader, its orphans, and their descendants.
    pub(super) fn members(&self, set: &Set, snapshot: &Snapshot) -> Vec<Entry> {
        let root = |entry: &&Entry| {
            entry.pid == set.leader
                || self.0.get(&entry.pid).is_some_and(|orphan| {
                    orphan.of == Some(set.id) && orphan.start_time == entry.start_time
                })
        };
        let mut picked: Vec<Entry> = snapshot.entries.iter().filter(root).cloned().collect();
        snapshot.close_over_descendants(&mut picked);
        picked
    }
}

fn attributed<'a>(
    entry: &Entry,
    mut sets: impl Iterator<Item = &'a Set> + Clone,
    mark: &str,
) -> Option<SetId> {
    // An emptied set's leader is reaped, so its number may be a stranger's.
    let own = |set: &&Set| {
        !set.emptied && [entry.session, entry.group, entry.parent].contains(&set.leader)
    };
    if let Some(set) = sets.clone().find(own) {
        return Some(set.id);
    }
    if let Some(tagged) = os::guardian::tagged(entry.pid)
        && sets.clone().any(|set| set.id == tagged)
    {
        return Some(tagged);
    }
    let marking = os::marking(entry.pid).filter(|marking| marking.mark == mark)?;
    let marked = |set: &&Set| {
        set.service.as_str() == marking.service && set.incarnation.get() == marking.incarnation
    };
    sets.find(marked).map(|set| set.id)
}
