//! What the sets of all services use, measured together: one look at the system's processes answers everybody.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use supervisor_core::status::ResourceUsage;
use supervisor_core::{Incarnation, ProcessIdentity, ServiceId};

use crate::os::{self, Entry, Snapshot};

/// A measurement this young is given again instead of a new one: a thousand services asked for at once cost one look.
const FRESH: Duration = Duration::from_millis(250);

/// Resident bytes and processor ticks of one set.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Measured {
    pub(crate) usage: ResourceUsage,
    /// Processor ticks of the processes alive now, over their lives.
    pub(crate) ticks: u64,
}

#[derive(Debug)]
struct Reading {
    at: Instant,
    /// Ticks of each process, so that one that came or went in between makes no jump.
    ticks: HashMap<(u32, u64), u64>,
    sets: Arc<HashMap<ServiceId, Measured>>,
}

type Sets = HashMap<u32, (ProcessIdentity, ServiceId, Incarnation)>;

/// Measures sets.
#[derive(Debug)]
pub(crate) struct Meter {
    mark: Arc<str>,
    sets: Mutex<Sets>,
    last: Mutex<Option<Reading>>,
}

/// Keeps a set among those that are measured.
#[derive(Debug)]
pub(crate) struct Metered {
    meter: Arc<Meter>,
    pid: u32,
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.meter.sets().remove(&self.pid);
    }
}

impl Meter {
    pub(crate) fn new(mark: Arc<str>) -> Arc<Self> {
        Arc::new(Self { mark, sets: Mutex::default(), last: Mutex::default() })
    }

    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures the set of this leader from now on.
    pub(crate) fn add(
        self: &Arc<Self>,
        leader: ProcessIdentity,
        service: ServiceId,
        incarnation: Incarnation,
    ) -> Metered {
        let pid = leader.pid;
        self.sets().insert(pid, (leader, service, incarnation));
        Metered { meter: Arc::clone(self), pid }
    }

    /// Gives what every set uses, at most [`FRESH`] old.
    ///
    /// Cancel-safe.
    pub(crate) async fn read(self: &Arc<Self>) -> Arc<HashMap<ServiceId, Measured>> {
        let meter = Arc::clone(self);
        // It reads a file or three for each process of the system, which is no work for a thread that serves others.
        tokio::task::spawn_blocking(move || meter.measure()).await.unwrap_or_default()
    }

    fn measure(&self) -> Arc<HashMap<ServiceId, Measured>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| last.at.elapsed() < FRESH) {
            return Arc::clone(&last.sets);
        }
        let (at, mut ticks) = (Instant::now(), HashMap::new());
        let mut measured = HashMap::new();
        for ((service, leader), members) in self.members() {
            let mut sum = Measured::default();
            let mut recent = 0;
            for member in members {
                let Some((memory, used)) = os::usage(member.pid) else { continue };
                let key = (member.pid, member.start_time);
                let before = last.as_ref().and_then(|last| last.ticks.get(&key)).copied();
                recent += used.saturating_sub(before.unwrap_or(0));
                ticks.insert(key, used);
                sum.usage.processes += 1;
                sum.usage.memory += memory;
                sum.ticks += used;
            }
            if sum.usage.processes > 0 {
                let since = last.as_ref().filter(|last| last.sets.contains_key(&service));
                let (used, time) = match since {
                    Some(last) => (recent, at - last.at),
                    // The first look: the average over its life so far.
                    None => (sum.ticks, os::age(&leader)),
                };
                sum.usage.cpu_percent = percent(used, time);
                measured.insert(service, sum);
            }
        }
        let sets = Arc::new(measured);
        *last = Some(Reading { at, ticks, sets: Arc::clone(&sets) });
        sets
    }

    /// Sorts the system's processes into sets: by group, by descent, and what was orphaned by its mark.
    fn members(&self) -> HashMap<(ServiceId, ProcessIdentity), Vec<Entry>> {
        let sets = self.sets().clone();
        let snapshot = Snapshot::take();
        let mut picked: HashMap<u32, Vec<Entry>> = HashMap::new();
        for entry in snapshot.entries.iter().filter(|entry| sets.contains_key(&entry.group)) {
            picked.entry(entry.group).or_default().push(entry.clone());
        }
        picked.values_mut().for_each(|members| snapshot.close_over_descendants(members));
        let claimed: HashSet<u32> =
            picked.values().flatten().map(|entry| entry.pid).chain([std::process::id()]).collect();
        let oldest = sets.values().map(|(leader, ..)| leader.start_time).min().unwrap_or(u64::MAX);
        let unclaimed =
            |entry: &&Entry| entry.start_time >= oldest && !claimed.contains(&entry.pid);
        for entry in snapshot.entries.iter().filter(unclaimed) {
            let Some(marks) = os::marking(entry.pid).filter(|it| it.mark == *self.mark) else {
                continue;
            };
            let of = sets.iter().find(|(_, (_, service, incarnation))| {
                service.as_str() == marks.service && incarnation.get() == marks.incarnation
            });
            if let Some((group, _)) = of {
                picked.entry(*group).or_default().push(entry.clone());
            }
        }
        picked
            .into_iter()
            .filter_map(|(group, members)| {
                let (leader, service, _) = sets.get(&group)?;
                Some(((service.clone(), leader.clone()), members))
            })
            .collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a percentage for people")]
fn percent(ticks: u64, time: Duration) -> f32 {
    let time = time.max(os::ticks(1)).as_secs_f64();
    (os::ticks(ticks).as_secs_f64() / time * 100.0) as f32
}
