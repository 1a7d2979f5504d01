//! Finding and ending what a dead supervisor left behind.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::error::ProcessError;
use supervisor_core::ports::{KillReport, MarkedProcess, ProcessTable, Survivor};
use supervisor_core::{Incarnation, ProcessIdentity, ServiceId, Signal};
use tokio::time::Instant;

use crate::os::{self, Entry, Pinned, Snapshot};

/// How long killed leftovers are looked at before their survivors are reported.
const CONFIRM: Duration = Duration::from_secs(5);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// The system's processes, looked up by identity.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemProcessTable;

/// What a set did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Processor time in clock ticks; only comparing two of them means something.
    pub ticks: u64,
    /// Whether one of it has or wants a processor at this moment; Linux only, else never.
    pub runnable: bool,
    /// Whether its leader is stopped, by a signal or a debugger.
    pub stopped: bool,
}

impl SystemProcessTable {
    /// Makes a view of the system's processes.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// Names each of these leaders that is still that very process, and whatever is in its group.
    ///
    /// This finds what shows no marks: a program that was started with an environment of its own, or one whose environment
    /// the system hides. A leader that is there keeps the number of its group its own. Reads every process once.
    #[must_use]
    pub fn led_by(&self, leaders: &[ProcessIdentity]) -> Vec<ProcessIdentity> {
        let alive = |leader: &&ProcessIdentity| self.is_alive(leader);
        if !leaders.iter().any(|leader| alive(&leader)) {
            return Vec::new();
        }
        let snapshot = Snapshot::take();
        // Asked after the processes were read: who is still there led its group while they were.
        let groups: HashSet<u32> = leaders.iter().filter(alive).map(|leader| leader.pid).collect();
        let members = snapshot.entries.iter().filter(|entry| groups.contains(&entry.group));
        members.map(Entry::identity).collect()
    }

    /// Tells what the set of this leader did so far; nothing if it is gone or the system does not tell.
    ///
    /// # Platform
    /// Linux and macOS, where a tick is a microsecond.
    #[must_use]
    pub fn activity(&self, leader: &ProcessIdentity) -> Option<Activity> {
        let entry = Entry::read(leader.pid).filter(|entry| entry.identity() == *leader)?;
        let stopped = matches!(entry.state, 'T' | 't');
        let snapshot = Snapshot::take();
        let of_group = snapshot.entries.iter().filter(|entry| entry.group == leader.pid);
        let mut set: Vec<_> = of_group.cloned().collect();
        snapshot.close_over_descendants(&mut set);
        let used: Vec<_> = set.iter().filter_map(|entry| os::usage(entry.pid)).collect();
        let ticks = used.iter().map(|(_, ticks)| ticks).sum();
        // Elsewhere the state does not tell one that waits for a processor from one that sleeps.
        let runnable = cfg!(target_os = "linux") && set.iter().any(|entry| entry.state == 'R');
        (!used.is_empty()).then_some(Activity { ticks, runnable, stopped })
    }
}

#[async_trait]
impl ProcessTable for SystemProcessTable {
    fn is_alive(&self, identity: &ProcessIdentity) -> bool {
        Entry::read(identity.pid)
            .is_some_and(|entry| entry.is_alive() && entry.identity() == *identity)
    }

    fn marked(&self, mark: &str) -> Vec<MarkedProcess> {
        let me = std::process::id();
        let snapshot = Snapshot::take();
        let others = snapshot.entries.iter().filter(|entry| entry.pid != me);
        others
            .filter_map(|entry| {
                let marking = os::marking(entry.pid).filter(|marking| marking.mark == mark)?;
                Some(MarkedProcess {
                    identity: entry.identity(),
                    service: ServiceId::new(marking.service).ok()?,
                    incarnation: Incarnation(marking.incarnation),
                })
            })
            .collect()
    }

    async fn end(
        &self,
        processes: &[ProcessIdentity],
        grace: Duration,
    ) -> Result<KillReport, ProcessError> {
        let mut left = with_descendants(processes);
        let killed = u32::try_from(left.len()).unwrap_or(u32::MAX);
        signal(&left, &[Signal::Term, Signal::Cont]);
        let patience = Instant::now() + grace;
        while !left.is_empty() && Instant::now() < patience {
            tokio::time::sleep(LOOK).await;
            left.retain(|identity| self.is_alive(identity));
        }
        let deadline = Instant::now() + CONFIRM;
        while !left.is_empty() && Instant::now() < deadline {
            // Frozen before they are killed, so that nothing forks between being found and being killed.
            signal(&left, &[Signal::Stop]);
            left = with_descendants(&left);
            signal(&left, &[Signal::Stop, Signal::Kill]);
            tokio::time::sleep(LOOK).await;
            left.retain(|identity| self.is_alive(identity));
        }
        let survivors = left
            .iter()
            .filter_map(|identity| Entry::read(identity.pid).map(|entry| (identity, entry.state)))
            .map(|(identity, state)| Survivor { identity: identity.clone(), state })
            .collect();
        Ok(KillReport { killed, survivors })
    }
}

fn signal(processes: &[ProcessIdentity], signals: &[Signal]) {
    for process in processes.iter().filter_map(Pinned::new) {
        for signal in signals {
            // One that is gone already is what was wanted; one that may not be signalled shows as a survivor.
            drop(process.signal(*signal));
        }
    }
}

fn with_descendants(processes: &[ProcessIdentity]) -> Vec<ProcessIdentity> {
    let snapshot = Snapshot::take();
    let mut picked: Vec<Entry> = snapshot
        .entries
        .iter()
        .filter(|entry| processes.contains(&entry.identity()))
        .cloned()
        .collect();
    if cfg!(windows) {
        // A snapshot shows the sets of this process there and nothing else.
        let missing = |identity: &&ProcessIdentity| {
            !picked.iter().any(|entry| entry.identity() == **identity)
        };
        let missing: Vec<_> = processes.iter().filter(missing).collect();
        let found = missing.iter().filter_map(|identity| {
            Entry::read(identity.pid)
                .filter(|entry| entry.is_alive() && entry.identity() == **identity)
        });
        picked.extend(found);
    }
    snapshot.close_over_descendants(&mut picked);
    picked.iter().map(Entry::identity).collect()
}
