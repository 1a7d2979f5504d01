//! Linux: whether anything of a set is left, asked of the few processes that can be and not of all.
//!
//! Every process of a set is younger than its leader, and the kernel gives out process numbers in a circle. So only
//! the numbers given out since the leader was started are looked at, and of those only the ones not looked at before:
//! whose a process is does not change. A look costs some microseconds where reading every process costs a
//! millisecond, and that look stands between a crash and the restart.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, test_kill_process};

use super::children::{self, ByPid, PidSet};
use super::counter::{Counter, Moment};
use super::proc_fs::{Asked, Entry, ask, pids};
use super::unix::{Marking, marking_in};
use crate::scan::SetKey;

/// Numbers gone through one by one, most of them known; above it, only the processes that exist are.
const RANGE_MAX: u64 = 8192;
/// Numbers asked whether there is such a process; above it, listing the processes that exist is cheaper.
const ASK_MAX: usize = 1000;
/// After so long a number that was given out and belongs to nobody was given up again, and is not just being taken:
/// a process comes to be within microseconds of getting its number.
const SETTLED: Duration = Duration::from_secs(2);
/// Processes remembered; at the bound all are forgotten and learnt again.
const REMEMBERED_MAX: usize = 16 * 1024;
/// Ancestors followed of a process without marks.
const GENERATIONS_MAX: usize = 64;
/// Looks at a process that is just being replaced by another program and has no environment for that moment.
const TRIES: usize = 20;

/// Looks for what is left of sets.
#[derive(Debug)]
pub(crate) struct Census {
    subreaper: bool,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    counter: Option<Counter>,
    owners: HashMap<u32, Owner, ByPid>,
    owners_since: Moment,
    /// Numbers given out last, the newer one at least [`SETTLED`] after the older, and when they were.
    given: [Given; 2],
    /// Orphans that ended, to be reaped when it delays nobody.
    ended: Vec<u32>,
}

/// A number that was the last one given out at some time.
#[derive(Debug, Clone, Copy)]
struct Given {
    at: Instant,
    pid: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Owner {
    /// None of ours by its marks, and who its parent was when it was looked at.
    Stranger { parent: u32 },
    /// Nobody any more.
    Nobody,
    /// A set: service and incarnation.
    Set(Box<str>, u64),
}

/// Tells whether something without marks may be a child of somebody in the set, so that they have to be asked.
pub(crate) const fn may_have_kin(left: &Left) -> bool {
    left.kin
}

/// The numbers that may be of a set: given out since its leader was started, no children of ours and nobody else's.
#[derive(Debug)]
struct Candidates {
    pids: Vec<u32>,
    /// The numbers gone through, if they were.
    range: Option<Circle>,
}

/// What is left of a set, as far as it is not a child of ours.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) pids: Vec<u32>,
    /// Something could not be looked at, so the set counts as not empty.
    pub(crate) unsure: bool,
    /// Something alive without marks may descend from the set by its living parents.
    kin: bool,
}

impl Left {
    pub(crate) fn is_empty(&self) -> bool {
        self.pids.is_empty() && !self.unsure
    }
}

impl Census {
    pub(crate) fn new(subreaper: bool) -> Self {
        let mut counter = Counter::open();
        let owners_since = Moment::of(counter.as_ref());
        let pid = counter.as_mut().and_then(|counter| counter.last()).unwrap_or(0);
        let given = [Given { at: owners_since.at, pid }; 2];
        let known =
            Known { counter, owners: HashMap::default(), owners_since, given, ended: Vec::new() };
        Self { subreaper, known: Mutex::new(known) }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // What a panic leaves is at worst a memory that misses something, which is then looked at again.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a moment that is not after now; taken before a leader is started.
    pub(crate) fn moment(&self) -> Moment {
        Moment::of(self.lock().counter.as_ref())
    }

    /// Finds the living processes of a set that are no children of ours, whether they left the leader's group or not.
    ///
    /// `born` is a moment before the leader was started.
    pub(crate) fn left(&self, key: &SetKey, leader: u32, born: Moment) -> Left {
        self.lock().left(key, leader, born, self.subreaper)
    }

    /// Learns that a child of ours is gone, so that its number need not be asked for.
    pub(crate) fn reaped(&self, pid: u32) {
        let mut known = self.lock();
        if known.owners.len() < REMEMBERED_MAX {
            known.owners.insert(pid, Owner::Nobody);
        }
    }

    /// Reaps the orphans that were found to have ended.
    pub(crate) fn reap(&self) {
        let ended = std::mem::take(&mut self.lock().ended);
        children::reap_orphans(&ended);
    }
}

impl Known {
    fn left(&mut self, key: &SetKey, leader: u32, born: Moment, subreaper: bool) -> Left {
        let Ok(Candidates { pids, range }) = self.candidates(key, leader, born) else {
            return Left { pids: Vec::new(), unsure: true, kin: true };
        };
        let mut left = Left { kin: range.is_none(), ..Left::default() };
        let mut strangers = Vec::new();
        for pid in pids {
            if !range.map_or_else(
                || self.owners.get(&pid).is_none_or(|owner| owner.is(key)),
                |range| self.is_undecided(pid, key, range),
            ) {
                continue;
            }
            match look(pid) {
                Look::Gone => {
                    self.owners.remove(&pid);
                }
                Look::Ended { parent } => {
                    self.owners.remove(&pid);
                    if subreaper && parent == std::process::id() {
                        self.ended.push(pid);
                    }
                }
                Look::Unsure => left.unsure = true,
                Look::Alive(marking) => {
                    let marking = marking.filter(|marking| marking.mark == *key.mark);
                    let owner = match marking {
                        Some(marking) => Owner::Set(marking.service.into(), marking.incarnation),
                        None => {
                            let Some(entry) = Entry::read(pid) else { continue };
                            strangers.push(entry.parent);
                            Owner::Stranger { parent: entry.parent }
                        }
                    };
                    if owner.is(key) {
                        left.pids.push(pid);
                    }
                    if self.owners.len() < REMEMBERED_MAX {
                        self.owners.insert(pid, owner);
                    }
                }
            }
        }
        // Only now, as one that was looked at later may be the parent of one looked at before.
        let foreign =
            |parent: &u32| range.is_some_and(|range| self.is_foreign(*parent, key, range));
        left.kin |= !strangers.iter().all(foreign);
        left
    }

    /// Tells whether a number has to be looked at, however often it was. Somebody whose descent is not known is: it may
    /// have ended, and be nobody by now.
    fn is_undecided(&self, pid: u32, key: &SetKey, range: Circle) -> bool {
        match self.owners.get(&pid) {
            None => true,
            Some(Owner::Stranger { parent }) => !self.is_foreign(*parent, key, range),
            Some(owner) => owner.is(key),
        }
    }

    /// Tells whether what has this parent certainly descends from nobody in the set: whose child a process was born as
    /// does not change, and one that lost its parent before it was looked at is found by its marks or not at all.
    fn is_foreign(&self, mut parent: u32, key: &SetKey, range: Circle) -> bool {
        for _ in 0..GENERATIONS_MAX {
            if parent == range.after {
                return false;
            }
            if !range.contains(parent) {
                return true;
            }
            match self.owners.get(&parent) {
                Some(Owner::Stranger { parent: next }) => parent = *next,
                Some(owner @ Owner::Set(..)) => return !owner.is(key),
                // The leader of another set; what else is not known may be anybody.
                Some(Owner::Nobody) | None => return children::is_listed(parent),
            }
        }
        false
    }

    fn candidates(&mut self, key: &SetKey, leader: u32, born: Moment) -> io::Result<Candidates> {
        let all = |pids| Candidates { pids, range: None };
        let since = self.owners_since;
        let range = self.counter.as_mut().and_then(|counter| {
            let last = counter.last()?;
            let (forget, too_old) = (counter.is_half_round(since)?, counter.is_half_round(born)?);
            Some((forget, too_old, last, counter.pid_max))
        });
        let Some((forget, too_old, last, pid_max)) = range else {
            self.owners.clear();
            return Ok(all(children::without(pids()?)));
        };
        if forget || self.owners.len() >= REMEMBERED_MAX {
            self.owners.clear();
            self.owners_since = Moment::of(self.counter.as_ref());
        }
        if too_old {
            return Ok(all(children::without(pids()?)));
        }
        let range = Circle { after: leader, last, end: pid_max };
        if range.len() > RANGE_MAX {
            return Ok(all(children::without(pids()?.filter(|pid| range.contains(*pid)))));
        }
        let settled =
            self.settled(last).filter(|given| given.at > born.at && range.contains(given.pid));
        let settled = settled.map(|given| Circle { last: given.pid, ..range });
        let undecided = |pid: &u32| self.is_undecided(*pid, key, range);
        let open: Vec<u32> = range.iter().filter(undecided).collect();
        let mut asked = children::without(open.into_iter());
        let listed: Option<PidSet> =
            if asked.len() > ASK_MAX { Some(pids()?.collect()) } else { None };
        asked.retain(|pid| {
            let exists = listed.as_ref().map_or_else(|| exists(*pid), |list| list.contains(pid));
            if !exists && settled.is_some_and(|settled| settled.contains(*pid)) {
                self.owners.insert(*pid, Owner::Nobody);
            }
            exists
        });
        Ok(Candidates { pids: asked, range: Some(range) })
    }

    /// Gives a number that was given out long enough ago, if one is known.
    fn settled(&mut self, last: u32) -> Option<Given> {
        let now = Instant::now();
        let [older, newer] = self.given;
        if now.duration_since(newer.at) >= SETTLED {
            self.given = [newer, Given { at: now, pid: last }];
            return Some(newer);
        }
        (now.duration_since(older.at) >= SETTLED).then_some(older)
    }
}

impl Owner {
    fn is(&self, key: &SetKey) -> bool {
        match self {
            Self::Stranger { .. } | Self::Nobody => false,
            Self::Set(service, incarnation) => {
                **service == *key.service.as_str() && *incarnation == key.incarnation.get()
            }
        }
    }
}

/// What a look at one process gives.
enum Look {
    Gone,
    Ended { parent: u32 },
    Alive(Option<Marking>),
    Unsure,
}

fn look(pid: u32) -> Look {
    for _ in 0..TRIES {
        match ask(pid) {
            Asked::Environment(bytes) => return Look::Alive(marking_in(&bytes)),
            Asked::Stranger => return Look::Alive(None),
            Asked::Gone => return Look::Gone,
            Asked::NotNow => return Look::Unsure,
            Asked::Empty => {}
        }
        // A zombie, a kernel thread, one without a single variable, or one between two programs.
        match Entry::read(pid) {
            None => return Look::Gone,
            Some(entry) if !entry.is_alive() => return Look::Ended { parent: entry.parent },
            Some(entry) if !entry.between_programs => return Look::Alive(None),
            Some(_) => std::thread::yield_now(),
        }
    }
    Look::Unsure
}

fn exists(pid: u32) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// The numbers after one and up to another, on a circle.
#[derive(Debug, Clone, Copy)]
struct Circle {
    after: u32,
    last: u32,
    end: u32,
}

impl Circle {
    fn is_straight(self) -> bool {
        self.last >= self.after
    }

    fn len(self) -> u64 {
        let (after, last) = (u64::from(self.after), u64::from(self.last));
        if self.is_straight() {
            last - after
        } else {
            u64::from(self.end).max(after + 1) - 1 - after + last
        }
    }

    fn contains(self, pid: u32) -> bool {
        if self.is_straight() {
            pid > self.after && pid <= self.last
        } else {
            pid > self.after || pid <= self.last
        }
    }

    fn iter(self) -> impl Iterator<Item = u32> {
        let (first, second) = if self.is_straight() {
            (self.after + 1..self.last + 1, 0..0)
        } else {
            (self.after + 1..self.end.max(self.after + 1), 1..self.last + 1)
        };
        first.chain(second)
    }
}

#[cfg(test)]
#[path = "census_tests.rs"]
mod tests;
