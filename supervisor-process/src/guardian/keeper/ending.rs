//! Signals and kills of whole sets, and telling of their end.
//!
//! One snapshot of the system's processes serves everything that is due in a round, so that stopping a thousand sets
//! reads them a few times and not a thousand.

use std::time::{Instant, SystemTime};

use supervisor_core::Signal;
use supervisor_core::config::HostDeathPolicy;
use supervisor_core::exit::ExitStatus;

use super::super::exits::ExitRecord;
use super::super::protocol::{Left, Reply, RequestId, SetId};
use super::requests::WAITING_MAX;
use super::set::Set;
use super::{Keeper, os};
use crate::os::{Entry, Pinned, Snapshot};

/// Looks at the family in a row while it changes under the eyes; only where ends of orphans have to be asked for.
const LOOKS_MAX: u32 = 16;

impl Keeper {
    /// Looks at every child once: reaps orphans that ended, and finds the sets that have become empty.
    pub(super) fn look_at_family(&mut self) {
        let Self { children, child_signals, sets, orphans, mark, .. } = self;
        let leaders: std::collections::HashSet<u32> =
            sets.values().filter(|set| !set.emptied).map(|set| set.leader).collect();
        for _ in 0..LOOKS_MAX {
            let others = children.list().filter(|pid| !leaders.contains(pid));
            orphans.look(others, sets.values(), mark);
            if orphans.watch(|pid| child_signals.watch(pid)) {
                break;
            }
            // One ended before its end could be asked for, and what it started may not have been there to be seen.
        }
        let mut emptied = Vec::new();
        for set in sets.values_mut().filter(|set| set.status.is_some() && !set.emptied) {
            if orphans.any_of(set.id) {
                continue;
            }
            // The last of it is gone, so its number may be given out again.
            os::reap(set.leader);
            set.emptied = true;
            emptied.push(set.id);
        }
        for id in std::mem::take(&mut self.ended) {
            self.record(id);
        }
        for id in emptied {
            self.finish_kill(id);
        }
    }

    /// Writes down how a run that outlives its host ended, before anybody is told.
    fn record(&mut self, id: SetId) {
        let Some(set) = self.sets.get(&id) else { return };
        if set.policy != HostDeathPolicy::Outlive {
            return;
        }
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let record = ExitRecord {
            service: set.service.clone(),
            incarnation: set.incarnation,
            pid: set.leader,
            start_time: set.start_time,
            status: set.status.unwrap_or(ExitStatus::Unknown),
            at_millis: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        };
        match self.exits.add(&record) {
            Ok(()) => self.exits_unsynced = true,
            // It is kept with the set all the same, and told to the next host as long as this guardian lives.
            Err(error) => self.log.say(&format!("an exit of {id} could not be recorded: {error}")),
        }
    }

    /// Tells the owner what it has not heard yet, as far as there is room.
    pub(super) fn tell(&mut self) {
        let Some(owner) = self.owner.and_then(|owner| self.peers.get_mut(&owner)) else { return };
        for set in self.sets.values_mut() {
            if owner.is_full() {
                return;
            }
            if !set.told_exit
                && let Some(exit) = set.exit()
            {
                set.told_exit = true;
                set.told_emptied = exit.empty;
                owner.say(&Reply::Exited { set: set.id, exit }, 0, Vec::new());
            }
            if set.told_exit && set.emptied && !set.told_emptied {
                set.told_emptied = true;
                owner.say(&Reply::Emptied { set: set.id }, 0, Vec::new());
            }
        }
    }

    fn answer(&mut self, to: RequestId, reply: &Reply) {
        if to != 0
            && let Some(owner) = self.owner.and_then(|owner| self.peers.get_mut(&owner))
        {
            owner.say(reply, to, Vec::new());
        }
    }

    /// Signals a set's group at once; what left the group follows at the end of the round.
    pub(super) fn signal(&mut self, to: RequestId, id: SetId, signal: Signal) {
        let sent = match self.sets.get(&id) {
            Some(set) if !set.emptied => os::signal_group(set.leader, signal),
            // An empty set is no error.
            _ => return self.answer(to, &Reply::Done { errno: 0 }),
        };
        match sent {
            Ok(()) => self.signals.push((to, id, signal)),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                self.answer(to, &Reply::Done { errno });
            }
        }
    }

    pub(super) fn send_signals(&mut self) {
        if self.signals.is_empty() {
            return;
        }
        // What became ours without anything having ended is not known yet.
        self.look_at_family();
        let snapshot = Snapshot::take();
        for (to, id, signal) in std::mem::take(&mut self.signals) {
            let mut errno = 0;
            if let Some(set) = self.sets.get(&id) {
                for process in self.escaped(set, &snapshot) {
                    if let Err(error) = process.signal(signal) {
                        errno = error.raw_os_error().unwrap_or(0);
                    }
                }
            }
            self.answer(to, &Reply::Done { errno });
        }
    }

    /// What of a set is not in its leader's group, each process held so that it cannot become another.
    fn escaped(&self, set: &Set, snapshot: &Snapshot) -> Vec<Pinned> {
        let members = self.orphans.members(set, snapshot);
        let outside = members.iter().filter(|entry| entry.group != set.leader);
        outside.filter_map(|entry| Pinned::new(&entry.identity())).collect()
    }

    /// Begins to kill a set, or joins a kill that is under way.
    pub(super) fn kill(&mut self, to: RequestId, id: SetId, until: Instant, forget: bool) {
        let Some(set) = self.sets.get_mut(&id) else {
            return self.answer(to, &Reply::Killed { killed: 0, left: Vec::new() });
        };
        set.forget |= forget;
        let now = Instant::now();
        let kill = set.kill.get_or_insert_with(|| super::set::Kill::new(now));
        let crowded = to != 0 && kill.asked.len() >= WAITING_MAX;
        if to != 0 && !crowded {
            kill.asked.push((to, until));
        }
        kill.next_look = now;
        if crowded {
            return self.busy(to);
        }
        if set.emptied {
            self.finish_kill(id);
        }
    }

    /// Takes every kill that is due one step further: the group killed, what left it frozen, looked for again, killed.
    pub(super) fn step_kills(&mut self) {
        let now = Instant::now();
        let due: Vec<SetId> = self
            .sets
            .values()
            .filter(|set| set.kill.as_ref().is_some_and(|kill| kill.next_look <= now))
            .map(|set| set.id)
            .collect();
        if due.is_empty() {
            return;
        }
        for id in &due {
            if let Some(set) = self.sets.get(id).filter(|set| !set.emptied)
                && let Err(error) = os::signal_group(set.leader, Signal::Kill)
            {
                self.log.say(&format!("the group of {} may not be killed: {error}", set.service));
            }
        }
        // What the kill made orphans is ours from now on.
        self.look_at_family();
        // Most sets are their group, and gone in a moment without a look at every process of the system.
        let due: Vec<SetId> = due.into_iter().filter(|id| self.had_its_moment(*id, now)).collect();
        if due.is_empty() {
            return;
        }
        let snapshot = Snapshot::take();
        let mut frozen = false;
        for set in due.iter().filter_map(|id| self.sets.get(id)) {
            for process in self.escaped(set, &snapshot) {
                frozen = true;
                // One that is gone already is what was wanted; one that may not be signalled shows as left.
                drop(process.signal(Signal::Stop));
            }
        }
        // Whatever forked between being found and being frozen is found now, and nothing forks any more.
        let snapshot = if frozen { Snapshot::take() } else { snapshot };
        for id in due {
            let Some(set) = self.sets.get(&id) else { continue };
            for process in self.escaped(set, &snapshot) {
                drop(process.signal(Signal::Stop));
                drop(process.signal(Signal::Kill));
            }
            let members = self.orphans.members(set, &snapshot);
            self.looked(id, &members, now);
        }
    }

    /// Tells whether a set is still being killed a moment after its group was; grants the moment once.
    fn had_its_moment(&mut self, id: SetId, now: Instant) -> bool {
        let Some(kill) = self.sets.get_mut(&id).and_then(|set| set.kill.as_mut()) else {
            return false;
        };
        if kill.begun {
            return true;
        }
        kill.begun = true;
        kill.looked(now);
        false
    }

    /// Answers those whose time is up, and sets when to look again.
    fn looked(&mut self, id: SetId, members: &[Entry], now: Instant) {
        let alone = self.owner.is_none();
        let Some(set) = self.sets.get_mut(&id) else { return };
        let Some(kill) = &mut set.kill else { return };
        kill.killed = kill.killed.max(u32::try_from(members.len()).unwrap_or(u32::MAX));
        let killed = kill.killed;
        let late: Vec<RequestId> =
            kill.asked.iter().filter(|(_, until)| now >= *until).map(|(to, _)| *to).collect();
        kill.asked.retain(|(_, until)| now < *until);
        kill.looked(now);
        if kill.asked.is_empty() && !set.forget && !alone {
            set.kill = None;
        }
        let left: Vec<Left> = members
            .iter()
            .map(|entry| Left { pid: entry.pid, start_time: entry.start_time, state: entry.state })
            .collect();
        for to in late {
            self.answer(to, &Reply::Killed { killed, left: left.clone() });
        }
    }

    /// Answers whoever waited for a set to be empty, and forgets it if nobody wants it any more.
    fn finish_kill(&mut self, id: SetId) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        let (kill, forget) = (set.kill.take(), set.forget);
        // Told before the answer, so that who was answered finds the end already known.
        self.tell();
        if let Some(kill) = kill {
            let reply = Reply::Killed { killed: kill.killed.max(1), left: Vec::new() };
            for (to, _) in kill.asked {
                self.answer(to, &reply);
            }
        }
        if forget {
            self.forget(id);
        }
    }

    /// Forgets a set that is empty; pipes somebody else still holds open are closed with it.
    pub(super) fn forget(&mut self, id: SetId) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        if set.may_live() {
            set.forget = true;
            return;
        }
        for source in set.sources.iter().flatten() {
            self.poller.remove(&source.pipe);
        }
        self.sets.remove(&id);
    }

    /// Kills what belongs to no known set once nothing that may own it is to live on.
    ///
    /// Its children are given to us when it ends, and that is noticed, so this needs no descent.
    pub(super) fn end_strays(&mut self) {
        let outlives = |set: &Set| set.policy == HostDeathPolicy::Outlive && set.may_live();
        if self.owner.is_some() || self.sets.values().any(outlives) {
            return;
        }
        for pid in self.orphans.strays() {
            os::kill_child(pid);
        }
    }
}
