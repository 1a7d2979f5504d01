//! Whose process is it? Everything below the guardian came from one of its sets.
//!
//! A process whose parent has died is given to the guardian. Which set it is of is told by its session or group (the
//! leader's number, which stays taken until its set is empty), else by the tag in its limits, else by the marks in its
//! environment. One that changed all three is a stray: it ends when nothing is left that it could belong to.

use std::collections::HashMap;

use super::super::protocol::SetId;
use super::set::Set;
use crate::os::{self, Entry, Snapshot};

/// The processes that were given to the guardian, by pid, and the set each is of as far as that is known.
#[derive(Debug, Default)]
pub(super) struct Orphans(HashMap<u32, Option<SetId>>);

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
            let known = before.get(&pid).copied().flatten();
            let of = known.or_else(|| attributed(&entry, sets.clone(), mark));
            self.0.insert(pid, of);
        }
    }

    /// Tells whether anything of a set is among them.
    pub(super) fn any_of(&self, set: SetId) -> bool {
        self.0.values().any(|of| *of == Some(set))
    }

    /// Those whose set is not known.
    pub(super) fn strays(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().filter(|(_, of)| of.is_none()).map(|(pid, _)| *pid)
    }

    /// Finds every living process of a set in a snapshot: its leader, its orphans, and their descendants.
    pub(super) fn members(&self, set: &Set, snapshot: &Snapshot) -> Vec<Entry> {
        let root = |entry: &&Entry| {
            entry.pid == set.leader || self.0.get(&entry.pid) == Some(&Some(set.id))
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
    let own =
        |set: &&Set| !set.emptied && (entry.session == set.leader || entry.group == set.leader);
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
