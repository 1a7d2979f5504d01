//! One running incarnation: its leader, its set, its output.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ChildHandle, ChildStdio, KillReport, Survivor};
use supervisor_core::{ProcessIdentity, Signal};
use tokio::time::Instant;

use crate::capture::{Output, Pipes};
use crate::os::{self, Census, Entry, Leader, Moment, Pinned};
use crate::scan::{self, SetKey};

/// First pause between two looks at a killed set; doubles to [`LOOK_MAX`].
const LOOK_MIN: Duration = Duration::from_micros(500);
/// Longest pause between two looks at a killed set.
const LOOK_MAX: Duration = Duration::from_millis(50);

/// How long the end of the output is waited for after the leader's end where pipes cannot be asked what is in them.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Longest time a drop waits for a killed leader, so that no zombie is left; a kill takes well under a millisecond.
const REAP_IN_DROP: Duration = Duration::from_millis(200);

/// A child started by [`SystemSpawner`](crate::SystemSpawner).
#[derive(Debug)]
pub(crate) struct SystemChild {
    pub(crate) identity: ProcessIdentity,
    pub(crate) leader: Leader,
    pub(crate) key: SetKey,
    pub(crate) census: Arc<Census>,
    /// A moment before the leader was started.
    pub(crate) born: Moment,
    pub(crate) output: Output,
    pub(crate) pipes: Pipes,
    pub(crate) stdio: Mutex<Option<ChildStdio>>,
    /// The set was seen empty once; nothing can join an empty set.
    pub(crate) emptied: AtomicBool,
    /// Members outside the group that were found; some carry no marks and their parents may be gone.
    pub(crate) seen: Mutex<Vec<ProcessIdentity>>,
}

impl SystemChild {
    /// Everything of the set that is alive, found the thorough way.
    fn living(&self) -> Vec<Entry> {
        scan::members(&self.key, &self.identity)
    }

    /// Looks for what is outside the leader's group, the fast way: by its marks, or from its living parents.
    fn look_outside(&self) -> Vec<ProcessIdentity> {
        let group = self.leader.pid();
        let left = self.census.left(&self.key, group, self.born);
        let mut found: Vec<Entry> = left.pids.iter().copied().filter_map(Entry::read).collect();
        // Asking each process for its children costs more than all the rest, and mostly nobody can be one.
        if os::may_have_kin(&left) {
            let mut parents: Vec<_> = found.iter().map(Entry::identity).collect();
            if self.leader.try_wait().is_none() {
                parents.push(self.identity.clone());
            }
            found.extend(descendants(parents));
        }
        let mut seen = self.seen();
        for entry in found.iter().filter(|entry| entry.group != group && entry.is_alive()) {
            let identity = entry.identity();
            if !seen.contains(&identity) {
                seen.push(identity);
            }
        }
        seen.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Vec<ProcessIdentity>> {
        // A list of identities is valid after any statement.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether nothing outside the group is left; what cannot be looked at counts as left.
    fn nothing_outside(&self) -> bool {
        let mut seen = self.seen();
        seen.retain(|identity| {
            Entry::read(identity.pid)
                .is_some_and(|entry| entry.is_alive() && entry.start_time == identity.start_time)
        });
        seen.is_empty() && self.census.left(&self.key, self.leader.pid(), self.born).is_empty()
    }

    /// The leader and what carries the marks.
    fn marked(&self) -> Vec<ProcessIdentity> {
        let marked = self.census.left(&self.key, self.leader.pid(), self.born).pids;
        let entries = marked.into_iter().filter_map(Entry::read).filter(Entry::is_alive);
        entries.map(|entry| entry.identity()).chain([self.identity.clone()]).collect()
    }

    fn is_empty_after_reaping(&self) -> bool {
        // An orphan of ours that ended is a member of its group until it is reaped.
        self.set_is_empty() || {
            self.nothing_outside();
            self.census.reap();
            self.set_is_empty()
        }
    }
}

/// Kills processes: frozen first, so that nothing forks between being found and being killed.
fn kill<'a>(processes: impl Iterator<Item = &'a ProcessIdentity>) {
    let pinned: Vec<_> = processes.filter_map(Pinned::new).collect();
    for signal in [Signal::Stop, Signal::Kill] {
        for process in &pinned {
            // One that is gone already is what was wanted.
            drop(process.signal(signal));
        }
    }
}

/// Follows living children; no more often than each process once.
pub(crate) fn descendants(of: Vec<ProcessIdentity>) -> Vec<Entry> {
    let mut found: Vec<Entry> = Vec::new();
    let mut next = of;
    while let Some(parent) = next.pop() {
        let children = os::children_of(parent.pid);
        // Whose children these are is known only if the number was not given to somebody else meanwhile.
        if os::identity_of(parent.pid).is_some_and(|now| now != parent) {
            continue;
        }
        for child in children {
            if !found.iter().any(|other| other.pid == child.pid) {
                next.push(child.identity());
                found.push(child);
            }
        }
    }
    found
}

#[async_trait]
impl ChildHandle for SystemChild {
    fn identity(&self) -> ProcessIdentity {
        self.identity.clone()
    }

    async fn wait(&self) -> ExitStatus {
        let status = self.leader.wait().await;
        self.pipes.last_words(LAST_WORDS).await;
        status
    }

    async fn signal_set(&self, signal: Signal) -> io::Result<()> {
        // Before the signal: those that end by it cannot be followed to their children any more. What is resumed was
        // signalled a moment ago.
        let outside =
            if signal == Signal::Cont { self.seen().clone() } else { self.look_outside() };
        self.leader.signal_group(signal)?;
        for process in outside.iter().filter_map(Pinned::new) {
            process.signal(signal)?;
        }
        Ok(())
    }

    async fn kill_set(&self, confirm: Duration) -> KillReport {
        let deadline = Instant::now() + confirm;
        let mut killed = 0;
        let mut pause = LOOK_MIN;
        // Looked for the fast way first; what is not gone then is looked for among all processes.
        let mut members = self.marked();
        loop {
            // Identity cannot be lost here: the group is checked to be ours, each escapee is pinned.
            let escaped = self.look_outside();
            drop(self.leader.signal_group(Signal::Kill));
            kill(escaped.iter().chain(&members));
            killed = killed.max(u32::try_from(members.len().max(1)).unwrap_or(u32::MAX));
            // The leader's end is noticed by the kernel's word; only what is not our child has to be looked at again.
            drop(tokio::time::timeout(pause, self.leader.wait()).await);
            if self.is_empty_after_reaping() {
                return KillReport { killed, survivors: Vec::new() };
            }
            if Instant::now() >= deadline {
                let survivors: Vec<_> = self.living().iter().map(survivor).collect();
                return KillReport { killed, survivors };
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
            members = self.living().iter().map(Entry::identity).collect();
        }
    }

    fn set_is_empty(&self) -> bool {
        if self.emptied.load(Ordering::Acquire) {
            return true;
        }
        if !self.leader.group_is_empty() {
            return false;
        }
        let empty = self.nothing_outside();
        self.emptied.fetch_or(empty, Ordering::AcqRel);
        empty
    }

    fn members(&self) -> Vec<ProcessIdentity> {
        self.living().iter().map(Entry::identity).collect()
    }

    fn take_stdio(&self) -> Option<ChildStdio> {
        self.stdio.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn last_lines(&self, max: usize) -> Vec<String> {
        self.output.last_lines(max)
    }
}

fn survivor(entry: &Entry) -> Survivor {
    Survivor { identity: entry.identity(), state: entry.state }
}

impl Drop for SystemChild {
    /// Kills what is left; the promise of the handle.
    fn drop(&mut self) {
        if !self.emptied.load(Ordering::Acquire) {
            let outside = self.look_outside();
            drop(self.leader.signal_group(Signal::Kill));
            kill(outside.iter().chain(&self.marked()));
            self.leader.reap_within(REAP_IN_DROP);
        }
        if self.leader.try_wait().is_some() {
            self.census.reaped(self.leader.pid());
        }
        self.census.reap();
    }
}
