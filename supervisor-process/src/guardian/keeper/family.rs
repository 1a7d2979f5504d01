//! Whose process is it? Everything below the guardian came from one of its sets.
//!
//! Where the system has sub-reapers (Linux), a process whose parent has died is given to the guardian. Which set it is of
//! is told by its session or group (the leader's number, which stays taken until its set is empty), else by the tag in its
//! limits, else by the marks in its environment. One that changed all three is a stray: it ends when nothing is left that
//! it could belong to.
//!
//! Where it has none (macOS), every process of the user that is younger than the guardian is looked at in the same way,
//! and by its living parent; what says nothing of us is a stranger's and is forgotten at once.

use std::collections::HashMap;

use super::super::protocol::SetId;
use super::set::Set;
use crate::os::{self, Entry, Snapshot};

/// The processes of sets that are no leaders, by pid.
#[derive(Debug)]
pub(super) struct Orphans {
    by_pid: HashMap<u32, Orphan>,
    /// Whether what is looked at came from our sets for certain, so that one nobody claims is a stray and no stranger.
    adopts: bool,
}

#[derive(Debug, Clone, Copy)]
struct Orphan {
    /// With its pid it is one process and no other.
    start_time: u64,
    /// Its set, as far as that is known.
    of: Option<SetId>,
}

impl Orphans {
    /// None so far.
    pub(super) fn new() -> Self {
        Self { by_pid: HashMap::new(), adopts: os::guardian::ADOPTS }
    }

    /// Takes the children that are no leaders: those that ended are reaped, those that live are told apart.
    pub(super) fn look<'a>(
        &mut self,
        children: impl Iterator<Item = u32>,
        sets: impl Iterator<Item = &'a Set> + Clone,
        mark: &str,
    ) {
        let before = std::mem::take(&mut self.by_pid);
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
                .or_else(|| self.by_pid.get(&entry.parent)?.of);
            if of.is_some() || self.adopts {
                self.by_pid.insert(pid, Orphan { start_time, of });
            }
        }
    }

    /// Asks to be told of every end; tells whether all were there to be asked for.
    pub(super) fn watch(&self, mut watch: impl FnMut(u32) -> bool) -> bool {
        let mut all = true;
        for pid in self.by_pid.keys() {
            all &= watch(*pid);
        }
        all
    }

    /// Tells whether anything of a set is among them.
    pub(super) fn any_of(&self, set: SetId) -> bool {
        self.by_pid.values().any(|orphan| orphan.of == Some(set))
    }

    /// Those whose set is not known.
    pub(super) fn strays(&self) -> impl Iterator<Item = u32> + '_ {
        self.by_pid.iter().filter(|(_, orphan)| orphan.of.is_none()).map(|(pid, _)| *pid)
    }

    /// Finds every living process of a set in a snapshot: its leader, its orphans, and their descendants.
    pub(super) fn members(&self, set: &Set, snapshot: &Snapshot) -> Vec<Entry> {
        let root = |entry: &&Entry| {
            entry.pid == set.leader
                || self.by_pid.get(&entry.pid).is_some_and(|orphan| {
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use supervisor_core::Incarnation;
    use supervisor_core::config::HostDeathPolicy;

    use super::*;
    use crate::capture::Output;

    fn led_by(leader: &Child) -> Set {
        Set {
            id: 7,
            service: "svc".parse().unwrap(),
            incarnation: Incarnation(1),
            policy: HostDeathPolicy::Die,
            leader: leader.id(),
            start_time: 0,
            end: None,
            output: Output::new(None),
            sources: [None, None],
            channel: None,
            status: None,
            emptied: false,
            told_exit: false,
            told_emptied: false,
            kill: None,
            forget: false,
        }
    }

    fn sh(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap()
    }

    /// The living descendants of a process, parents first, once there are so many.
    fn descendants(of: u32, count: usize) -> Vec<u32> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let mut found = vec![of];
            let mut next = 0;
            while let Some(parent) = found.get(next) {
                found.extend(os::children_of(*parent).iter().map(|entry| entry.pid));
                next += 1;
            }
            if found.len() > count {
                return found.split_off(1);
            }
            assert!(Instant::now() < deadline, "{found:?}");
            // poll: for the program to start its own, with the limit above.
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    #[test]
    fn where_orphans_are_nobodys_a_set_is_told_from_strangers_by_group_and_living_parents() {
        // The last one has a session of its own and no marks; its parent, of another session, is what tells.
        let mut leader = sh("setsid sh -c 'setsid sleep 600 & wait' & wait");
        let mut stranger = sh("sleep 600 & wait");
        let (ours, theirs) = (descendants(leader.id(), 2), descendants(stranger.id(), 1));
        let all = || ours.iter().chain(&theirs).copied().chain([stranger.id()]);
        let sets = [led_by(&leader)];
        let mut orphans = Orphans { adopts: false, ..Orphans::new() };
        orphans.look(all(), sets.iter(), "mark");
        let mut known: Vec<u32> = orphans.by_pid.keys().copied().collect();
        known.sort_unstable();
        let mut wanted = ours.clone();
        wanted.sort_unstable();
        assert_eq!(known, wanted);
        assert!(orphans.any_of(7));
        assert_eq!(orphans.strays().count(), 0, "a stranger is nobody's to end");
        // A number that is another process's by now says nothing of whose it is.
        let recycled = Orphan { start_time: 0, of: Some(7) };
        orphans.by_pid.insert(stranger.id(), recycled);
        orphans.look(all(), sets.iter(), "mark");
        assert!(!orphans.by_pid.contains_key(&stranger.id()));
        assert!(orphans.watch(|pid| pid != stranger.id()), "every one is asked for");
        for pid in ours.iter().chain(&theirs) {
            os::guardian::kill_child(*pid);
        }
        for child in [&mut leader, &mut stranger] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
