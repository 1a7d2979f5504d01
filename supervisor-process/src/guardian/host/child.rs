//! One run as its host sees it, while the guardian holds it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::config::HostDeathPolicy;
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ChildHandle, ChildStdio, KillReport, Survivor};
use supervisor_core::{ProcessIdentity, Signal};
use tokio::sync::watch;

use super::super::protocol::{Exit, Held, Left, Reply, Request, SetId};
use super::asking::Lost;
use super::link::Link;
use crate::os::Entry;
use crate::os::guardian::{Grip, Passed, grip};
use crate::scan::{self, SetKey};

/// How a run ended, as far as it has.
#[derive(Debug, Clone, Default)]
struct Ended {
    status: Option<ExitStatus>,
    empty: bool,
    lines: Vec<String>,
}

/// What is known of a run; the guardian's events change it.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) set: SetId,
    pub(super) identity: ProcessIdentity,
    pub(super) key: SetKey,
    pub(super) policy: HostDeathPolicy,
    /// Nobody holds it any more if it ended under a guardian that is gone.
    link: Option<Arc<Link>>,
    ended: watch::Sender<Ended>,
    stdio: Mutex<Option<ChildStdio>>,
    /// What else we hold of it.
    grip: Mutex<Option<Grip>>,
}

impl Run {
    pub(super) fn new(
        link: &Arc<Link>,
        (set, identity): (SetId, ProcessIdentity),
        key: SetKey,
        policy: HostDeathPolicy,
        mut passed: Vec<Passed>,
    ) -> Arc<Self> {
        let grip = grip(&mut passed, &identity, &key);
        let run = Arc::new(Self {
            set,
            identity,
            key,
            policy,
            link: Some(Arc::clone(link)),
            ended: watch::Sender::new(Ended::default()),
            stdio: Mutex::new(stdio(passed)),
            grip: Mutex::new(grip),
        });
        link.runs().insert(set, Arc::downgrade(&run));
        run
    }

    /// A set the guardian held before this host came.
    pub(super) fn held(
        link: &Arc<Link>,
        held: Held,
        identity: ProcessIdentity,
        key: SetKey,
    ) -> Arc<Self> {
        let run = Self::new(link, (held.set, identity), key, held.policy, Vec::new());
        if let Some(exit) = held.exit {
            run.exited(exit);
        }
        run
    }

    /// A run of which only the record of its end is left.
    pub(super) fn recorded(
        identity: ProcessIdentity,
        key: SetKey,
        status: ExitStatus,
    ) -> Arc<Self> {
        let ended = Ended { status: Some(status), empty: true, lines: Vec::new() };
        Arc::new(Self {
            set: 0,
            identity,
            key,
            policy: HostDeathPolicy::Outlive,
            link: None,
            ended: watch::Sender::new(ended),
            stdio: Mutex::default(),
            grip: Mutex::default(),
        })
    }

    pub(super) fn exited(&self, exit: Exit) {
        let Exit { status, empty, lines } = exit;
        self.ended.send_replace(Ended { status: Some(status), empty, lines });
    }

    pub(super) fn emptied(&self) {
        self.ended.send_modify(|ended| ended.empty = true);
    }

    /// The guardian is gone and what it held was ended, or not.
    pub(super) fn lost(&self, empty: bool) {
        self.ended.send_modify(|ended| {
            // Ended by our own hand: the sweep kills, and who was asked nothing can say nothing else.
            ended.status.get_or_insert(ExitStatus::Signal(KILLED));
            ended.empty |= empty;
        });
    }

    pub(super) fn attach(&self, mut passed: Vec<Passed>) {
        let grip = grip(&mut passed, &self.identity, &self.key);
        *self.grip.lock().unwrap_or_else(PoisonError::into_inner) = grip;
        *self.stdio.lock().unwrap_or_else(PoisonError::into_inner) = stdio(passed);
    }

    /// Kills a set nobody took over.
    pub(super) fn kill_unclaimed(&self) {
        if let Some(link) = &self.link {
            link.tell(&Request::Kill { set: self.set, confirm_ms: 0, forget: true });
            link.runs().remove(&self.set);
        }
    }

    fn is_empty(&self) -> bool {
        self.ended.borrow().empty
    }
}

/// The number of the signal that kills.
const KILLED: i32 = 9;

fn stdio(pipes: Vec<Passed>) -> Option<ChildStdio> {
    let [stdin, stdout]: [Passed; 2] = pipes.try_into().ok()?;
    Some(ChildStdio { stdin: stdin.into(), stdout: stdout.into() })
}

/// A child the guardian started for this host, or for the one before it.
///
/// Dropping it kills the set, except of a service that outlives its host: that runs on and is found again.
#[derive(Debug)]
pub(super) struct GuardianChild(pub(super) Arc<Run>);

#[async_trait]
impl ChildHandle for GuardianChild {
    fn identity(&self) -> ProcessIdentity {
        self.0.identity.clone()
    }

    async fn wait(&self) -> ExitStatus {
        let mut ended = self.0.ended.subscribe();
        let found = ended.wait_for(|ended| ended.status.is_some()).await;
        found.ok().and_then(|ended| ended.status).unwrap_or(ExitStatus::Unknown)
    }

    async fn signal_set(&self, signal: Signal) -> io::Result<()> {
        let Some(link) = self.0.link.as_ref().filter(|_| !self.0.is_empty()) else { return Ok(()) };
        match link.ask(&Request::Signal { set: self.0.set, signal }).await {
            Ok(answer) => match answer.reply {
                Reply::Done { errno: 0 } => Ok(()),
                Reply::Done { errno } => Err(io::Error::from_raw_os_error(errno)),
                _ => Err(io::ErrorKind::InvalidData.into()),
            },
            // What it held is being killed, which is more than was asked for.
            Err(Lost) => Ok(()),
        }
    }

    async fn kill_set(&self, confirm: Duration) -> KillReport {
        let Some(link) = self.0.link.as_ref().filter(|_| !self.0.is_empty()) else {
            return KillReport::default();
        };
        let confirm_ms = u64::try_from(confirm.as_millis()).unwrap_or(u64::MAX);
        let asked = link.ask(&Request::Kill { set: self.0.set, confirm_ms, forget: false }).await;
        if let Ok(answer) = asked
            && let Reply::Killed { killed, left } = answer.reply
        {
            let survivors = left.into_iter().map(|left| self.survivor(left)).collect();
            return KillReport { killed, survivors };
        }
        // The guardian is gone: the sweep after it kills this set with all the others.
        drop(tokio::time::timeout(confirm, link.asked.cleaned.cancelled()).await);
        if self.0.is_empty() {
            return KillReport { killed: 1, survivors: Vec::new() };
        }
        let left = scan::members(&self.0.key, &self.0.identity);
        let survivors: Vec<_> = left
            .iter()
            .map(|entry| Survivor { identity: entry.identity(), state: entry.state })
            .collect();
        KillReport { killed: 1, survivors }
    }

    fn set_is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn members(&self) -> Vec<ProcessIdentity> {
        if self.0.is_empty() {
            return Vec::new();
        }
        scan::members(&self.0.key, &self.0.identity).iter().map(Entry::identity).collect()
    }

    fn take_stdio(&self) -> Option<ChildStdio> {
        self.0.stdio.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn last_lines(&self, max: usize) -> Vec<String> {
        let ended = self.0.ended.borrow();
        ended.lines.iter().skip(ended.lines.len().saturating_sub(max)).cloned().collect()
    }
}

impl GuardianChild {
    fn survivor(&self, left: Left) -> Survivor {
        let boot_id = self.0.identity.boot_id.clone();
        let identity = ProcessIdentity { boot_id, pid: left.pid, start_time: left.start_time };
        Survivor { identity, state: left.state }
    }
}

impl Drop for GuardianChild {
    fn drop(&mut self) {
        let Some(link) = &self.0.link else { return };
        let set = self.0.set;
        if self.0.is_empty() {
            link.tell(&Request::Forget { set });
        } else if self.0.policy == HostDeathPolicy::Die {
            link.tell(&Request::Kill { set, confirm_ms: 0, forget: true });
        }
        link.runs().remove(&set);
    }
}
