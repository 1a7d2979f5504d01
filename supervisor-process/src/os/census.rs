//! Linux: whether anything of a set is left, asked of the few processes that can be and not of all.
//!
//! Every process of a set is younger than its leader, and the kernel gives out process numbers in a circle. So only
//! the numbers given out since the leader was started are looked at, and of those only the ones not looked at before:
//! whose a process is does not change. A look costs some microseconds where reading every process costs a
//! millisecond, and that look stands between a crash and the restart.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, test_kill_process};

use super::children::{self, ByPid, PidSet};
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
/// The least a new process or thread costs the kernel, well below what was ever measured (about 10 µs).
const CREATION_MIN: Duration = Duration::from_micros(3);
/// Looks at a process that is just being replaced by another program and has no environment for that moment.
const TRIES: usize = 20;

/// A moment in the life of the system's counter of processes; see [`Census::moment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    created: u64,
    at: Instant,
}

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
    /// None of ours.
    Stranger,
    /// Nobody any more.
    Nobody,
    /// A set: service and incarnation.
    Set(Box<str>, u64),
}

/// What is left of a set, as far as it is not a child of ours.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) pids: Vec<u32>,
    /// Something could not be looked at, so the set counts as not empty.
    pub(crate) unsure: bool,
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
        let Ok(candidates) = self.candidates(key, leader, born) else {
            return Left { pids: Vec::new(), unsure: true };
        };
        let mut left = Left::default();
        for pid in candidates {
            match self.owners.get(&pid) {
                Some(owner) if !owner.is(key) => continue,
                _ => {}
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
                    let owner = marking
                        .filter(|marking| marking.mark == *key.mark)
                        .map_or(Owner::Stranger, |marking| {
                            Owner::Set(marking.service.into(), marking.incarnation)
                        });
                    if owner.is(key) {
                        left.pids.push(pid);
                    }
                    if self.owners.len() < REMEMBERED_MAX {
                        self.owners.insert(pid, owner);
                    }
                }
            }
        }
        left
    }

    /// The numbers that may be of a set: given out since its leader was started, and no children of ours.
    fn candidates(&mut self, key: &SetKey, leader: u32, born: Moment) -> io::Result<Vec<u32>> {
        let range = self.counter.as_mut().and_then(|counter| {
            let last = counter.last()?;
            Some((counter.now()?, last, counter.pid_max))
        });
        let Some((now, last, pid_max)) = range else {
            self.owners.clear();
            return Ok(children::without(pids()?));
        };
        // Once round the circle a number may be another process's; half of it leaves room for numbers in use.
        let half = u64::from(pid_max) / 2;
        if now.saturating_sub(self.owners_since.created) >= half
            || self.owners.len() >= REMEMBERED_MAX
        {
            self.owners.clear();
            self.owners_since = Moment::of(self.counter.as_ref());
        }
        if now.saturating_sub(born.created) >= half {
            return Ok(children::without(pids()?));
        }
        let range = Circle { after: leader, last, end: pid_max };
        if range.len() > RANGE_MAX {
            return Ok(children::without(pids()?.filter(|pid| range.contains(*pid))));
        }
        let settled =
            self.settled(last).filter(|given| given.at > born.at && range.contains(given.pid));
        let settled = settled.map(|given| Circle { last: given.pid, ..range });
        let others = |pid: &u32| self.owners.get(pid).is_some_and(|owner| !owner.is(key));
        let mut asked = children::without(range.iter().filter(|pid| !others(pid)));
        let listed: Option<PidSet> =
            if asked.len() > ASK_MAX { Some(pids()?.collect()) } else { None };
        asked.retain(|pid| {
            let exists = listed.as_ref().map_or_else(|| exists(*pid), |list| list.contains(pid));
            if !exists && settled.is_some_and(|settled| settled.contains(*pid)) {
                self.owners.insert(*pid, Owner::Nobody);
            }
            exists
        });
        Ok(asked)
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

impl Moment {
    /// The last one that is certainly not after now.
    fn of(counter: Option<&Counter>) -> Self {
        Self { created: counter.map_or(0, |counter| counter.created), at: Instant::now() }
    }
}

impl Owner {
    fn is(&self, key: &SetKey) -> bool {
        match self {
            Self::Stranger | Self::Nobody => false,
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

/// The kernel's counter of processes and threads, read through files kept open: it is asked when there may be no
/// descriptor left.
#[derive(Debug)]
struct Counter {
    load: File,
    stat: File,
    max: File,
    text: Vec<u8>,
    pid_max: u32,
    /// Created since boot, as of `read_at`.
    created: u64,
    read_at: Instant,
    processors: u64,
}

impl Counter {
    fn open() -> Option<Self> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // The processors this process may use can be fewer than there are; so the most there can be is taken.
        let processors = std::fs::read_to_string("/sys/devices/system/cpu/possible")
            .ok()
            .and_then(|text| text.trim().rsplit(['-', ',']).next()?.parse::<usize>().ok())
            .map_or(processors, |last| processors.max(last + 1));
        let mut counter = Self {
            load: File::open("/proc/loadavg").ok()?,
            stat: File::open("/proc/stat").ok()?,
            max: File::open("/proc/sys/kernel/pid_max").ok()?,
            text: Vec::new(),
            pid_max: 0,
            created: 0,
            read_at: Instant::now(),
            processors: processors as u64,
        };
        counter.read()?;
        Some(counter)
    }

    /// Gives a number no smaller than that of the processes and threads created by now.
    fn now(&mut self) -> Option<u64> {
        let elapsed = self.read_at.elapsed().as_nanos() / CREATION_MIN.as_nanos();
        let at_most = u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_mul(self.processors);
        if at_most < u64::from(self.pid_max) / 8 {
            return Some(self.created + at_most);
        }
        self.read()?;
        Some(self.created)
    }

    fn read(&mut self) -> Option<()> {
        let read_at = Instant::now();
        self.pid_max = again(&self.max, &mut self.text)?.trim().parse().ok()?;
        let text = again(&self.stat, &mut self.text)?;
        let line = text.lines().rev().find_map(|line| line.strip_prefix("processes "))?;
        self.created = line.trim().parse().ok()?;
        self.read_at = read_at;
        Some(())
    }

    /// The number given out last.
    fn last(&mut self) -> Option<u32> {
        let text = again(&self.load, &mut self.text)?;
        text.split_ascii_whitespace().next_back()?.parse().ok()
    }
}

/// Reads a file of `/proc` from its beginning, into a buffer that is kept.
fn again<'a>(file: &File, buffer: &'a mut Vec<u8>) -> Option<&'a str> {
    buffer.resize(buffer.capacity().max(4096), 0);
    loop {
        // The kernel writes these files anew for each read from the start, and whole if there is room.
        match file.read_at(buffer, 0) {
            Ok(read) if read < buffer.len() => {
                buffer.truncate(read);
                return std::str::from_utf8(buffer).ok();
            }
            Ok(_) => buffer.resize(buffer.len() * 4, 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_given_out_since_are_found_across_the_end_of_the_circle() {
        let straight = Circle { after: 10, last: 13, end: 100 };
        assert_eq!(straight.iter().collect::<Vec<_>>(), [11, 12, 13]);
        let across = Circle { after: 97, last: 2, end: 100 };
        assert_eq!(across.iter().collect::<Vec<_>>(), [98, 99, 1, 2]);
        for circle in [straight, across, Circle { after: 99, last: 1, end: 100 }] {
            assert_eq!(circle.len(), circle.iter().count() as u64);
            assert!((1..100).all(|pid| circle.contains(pid) == circle.iter().any(|p| p == pid)));
        }
        assert_eq!(Circle { after: 5, last: 5, end: 100 }.len(), 0);
    }

    #[test]
    fn the_counter_counts_every_process_and_names_the_last_number() {
        let mut counter = Counter::open().unwrap();
        counter.read().unwrap();
        let before = counter.created;
        let mut child = std::process::Command::new("true").spawn().unwrap();
        counter.read().unwrap();
        assert!(counter.created > before);
        assert!(counter.now().unwrap() >= counter.created);
        assert!(counter.last().unwrap() > 0);
        child.wait().unwrap();
    }
}
