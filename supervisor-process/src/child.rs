//! One running incarnation: its leader, its set, its output.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ChildHandle, ChildStdio, KillReport, Survivor};
use supervisor_core::{ProcessIdentity, Signal};
use tokio::time::Instant;

use crate::capture::{Output, Pipes};
use crate::os::{Entry, Leader, Pinned};
use crate::scan::{self, Leaders, SetKey};

/// First pause between two looks at a killed set; doubles to [`LOOK_MAX`].
const LOOK_MIN: Duration = Duration::from_micros(500);
/// Longest pause between two looks at a killed set.
const LOOK_MAX: Duration = Duration::from_millis(50);

/// How long the end of the output is waited for after the leader's end, so that its last words are in the report.
///
/// The pipes are at their end within microseconds unless somebody else holds them open; then the exit is told without.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Longest time a drop waits for a killed leader, so that no zombie is left; a kill takes well under a millisecond.
const REAP_IN_DROP: Duration = Duration::from_millis(200);

/// A child started by [`SystemSpawner`](crate::SystemSpawner).
#[derive(Debug)]
pub(crate) struct SystemChild {
    pub(crate) identity: ProcessIdentity,
    pub(crate) leader: Leader,
    pub(crate) key: SetKey,
    pub(crate) leaders: Leaders,
    pub(crate) subreaper: bool,
    pub(crate) output: Output,
    pub(crate) pipes: Pipes,
    pub(crate) stdio: Mutex<Option<ChildStdio>>,
    /// The set was seen empty once; nothing can join an empty set.
    pub(crate) emptied: AtomicBool,
}

impl SystemChild {
    /// Everything of the set that is alive, found the thorough way.
    fn living(&self) -> Vec<Entry> {
        scan::members(&self.key, &self.identity)
    }

    /// Kills what left the group: frozen first, so that nothing forks between being found and being killed.
    fn kill_escaped(&self, members: &[Entry]) {
        let group = self.leader.pid();
        let pinned: Vec<_> = members
            .iter()
            .filter(|entry| entry.group != group)
            .filter_map(|entry| Pinned::new(&entry.identity()))
            .collect();
        for signal in [Signal::Stop, Signal::Kill] {
            for process in &pinned {
                // One that is gone already is what was wanted.
                drop(process.signal(signal));
            }
        }
    }
}

#[async_trait]
impl ChildHandle for SystemChild {
    fn identity(&self) -> ProcessIdentity {
        self.identity.clone()
    }

    async fn wait(&self) -> ExitStatus {
        let status = self.leader.wait().await;
        // Looked at while the other thread reads the last words; the answer is remembered if there is nothing left.
        self.set_is_empty();
        self.pipes.at_end(LAST_WORDS).await;
        status
    }

    async fn signal_set(&self, signal: Signal) -> io::Result<()> {
        self.leader.signal_group(signal)?;
        let group = self.leader.pid();
        for entry in self.living().iter().filter(|entry| entry.group != group) {
            if let Some(process) = Pinned::new(&entry.identity()) {
                process.signal(signal)?;
            }
        }
        Ok(())
    }

    async fn kill_set(&self, confirm: Duration) -> KillReport {
        let deadline = Instant::now() + confirm;
        let mut killed = 0;
        let mut pause = LOOK_MIN;
        loop {
            // Identity cannot be lost here: the group is checked to be ours, each escapee is pinned.
            drop(self.leader.signal_group(Signal::Kill));
            let members = self.living();
            killed = killed.max(u32::try_from(members.len()).unwrap_or(u32::MAX));
            self.kill_escaped(&members);
            if self.subreaper {
                scan::orphans(&self.key, &self.leaders);
            }
            // The leader's end is noticed by the kernel's word; only what is not our child has to be looked at again.
            drop(tokio::time::timeout(pause, self.leader.wait()).await);
            let left = if self.leader.group_is_empty() { self.living() } else { members };
            if left.is_empty() && self.leader.try_wait().is_some() {
                self.emptied.store(true, Ordering::Release);
                return KillReport { killed, survivors: Vec::new() };
            }
            if Instant::now() >= deadline {
                let survivors = self.living().iter().map(survivor).collect();
                return KillReport { killed, survivors };
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    fn set_is_empty(&self) -> bool {
        if self.emptied.load(Ordering::Acquire) {
            return true;
        }
        if !self.leader.group_is_empty() {
            return false;
        }
        let empty = if self.subreaper {
            scan::orphans(&self.key, &self.leaders).is_empty()
        } else {
            self.living().is_empty()
        };
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
            drop(self.leader.signal_group(Signal::Kill));
            self.kill_escaped(&self.living());
            self.leader.reap_within(REAP_IN_DROP);
        }
        self.leaders.remove(self.leader.pid());
    }
}
