//! Putting every run of another spawner into a group of its own.
//!
//! A start does not wait for it: moving a process between groups can take the kernel milliseconds. Whoever has to know
//! what is in the group, because the leader has ended or the set is to be killed, waits for a move that has begun and
//! calls off one that has not.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::config::HostDeathPolicy;
use supervisor_core::error::SpawnError;
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{
    ChildHandle, ChildStdio, KillReport, ProcessSpawner, SpawnRequest, Survivor,
};
use supervisor_core::{Incarnation, ProcessIdentity, ServiceId, Signal};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::group::Group;
use super::{Cgroups, LOOK, name_of};
use crate::os::{Entry, Pinned};

/// Longest time the drop of a child waits for its killed group, so that its directory can go.
const REMOVE_WITHIN: Duration = Duration::from_millis(100);

/// Puts every run of another spawner into a group of its own.
#[derive(Debug)]
pub(crate) struct CgroupSpawner {
    inner: Arc<dyn ProcessSpawner>,
    cgroups: Arc<Cgroups>,
    /// Whether a run that is to outlive its host does, once its handle is dropped.
    keeps: bool,
}

impl CgroupSpawner {
    pub(crate) const fn new(
        inner: Arc<dyn ProcessSpawner>,
        cgroups: Arc<Cgroups>,
        keeps: bool,
    ) -> Self {
        Self { inner, cgroups, keeps }
    }
}

/// Gives a run that an earlier supervisor started its group back, if it was put into one.
pub(crate) fn adopted(
    cgroups: &Arc<Cgroups>,
    child: Box<dyn ChildHandle>,
    service: &ServiceId,
    run: Incarnation,
) -> Box<dyn ChildHandle> {
    match cgroups.known(service, run, child.identity().pid) {
        Some(group) => {
            let joining = Arc::new(Joining::new(State::Settled(Some(group))));
            let (inner, cgroups) = (Arc::from(child), Arc::clone(cgroups));
            Box::new(CgroupChild { inner, joining, cgroups, outlives: true })
        }
        None => child,
    }
}

#[async_trait]
impl ProcessSpawner for CgroupSpawner {
    async fn spawn(&self, request: SpawnRequest) -> Result<Box<dyn ChildHandle>, SpawnError> {
        let name = name_of(&request.service, request.incarnation);
        let memory_max = request.spec.limits.memory.map(supervisor_core::text::ByteSize::bytes);
        let outlives = self.keeps && request.spec.on_host_death == HostDeathPolicy::Outlive;
        let inner: Arc<dyn ChildHandle> = Arc::from(self.inner.spawn(request).await?);
        let joining = Arc::new(Joining::new(State::Queued));
        let (state, child) = (Arc::clone(&joining), Arc::downgrade(&inner));
        let cgroups = Arc::clone(&self.cgroups);
        // Nobody waits for it but through `joining`, and it is one move long.
        drop(tokio::spawn(async move {
            let Ok(_turn) = cgroups.turn.acquire().await else { return };
            let owner = Arc::clone(&cgroups);
            let moved = tokio::task::spawn_blocking(move || {
                state.carry_out(&owner, &child, &name, memory_max);
            });
            drop(moved.await);
        }));
        let cgroups = Arc::clone(&self.cgroups);
        Ok(Box::new(CgroupChild { inner, joining, cgroups, outlives }))
    }

    fn containment(&self) -> Vec<String> {
        let own = self.cgroups.in_force().then(|| "cgroup_v2".to_owned());
        own.into_iter().chain(self.inner.containment()).collect()
    }
}

/// Whether a run is in its group.
#[derive(Debug)]
enum State {
    /// It waits for its turn.
    Queued,
    /// It is being moved.
    Begun,
    /// Its handle was dropped while it was being moved.
    Dropped,
    /// It is in this group, or in none.
    Settled(Option<Group>),
}

#[derive(Debug)]
struct Joining {
    state: Mutex<State>,
    settled: Notify,
}

impl Joining {
    fn new(state: State) -> Self {
        Self { state: Mutex::new(state), settled: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every statement under the lock leaves a state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a run into its group, unless that was called off; blocks.
    fn carry_out(
        &self,
        cgroups: &Cgroups,
        child: &Weak<dyn ChildHandle>,
        name: &str,
        memory_max: Option<u64>,
    ) {
        {
            let mut state = self.lock();
            if !matches!(*state, State::Queued) {
                return;
            }
            *state = State::Begun;
        }
        // Held while it is moved, so that what drops it in between does not take its leader away.
        let group =
            child.upgrade().and_then(|child| join(cgroups, child.as_ref(), name, memory_max));
        let dropped = {
            let mut state = self.lock();
            let dropped = matches!(*state, State::Dropped);
            *state = State::Settled(group.clone().filter(|_| !dropped));
            dropped
        };
        if let Some(group) = group.filter(|_| dropped) {
            end(cgroups, &group);
        }
        self.settled.notify_waiters();
    }

    /// Waits for a move that has begun, and calls off one that has not.
    async fn settle(&self) {
        loop {
            let settled = self.settled.notified();
            let mut settled = std::pin::pin!(settled);
            // Listening begins before the look, so that no end of a move is missed.
            settled.as_mut().enable();
            match &mut *self.lock() {
                queued @ State::Queued => {
                    *queued = State::Settled(None);
                    return;
                }
                State::Begun => {}
                State::Dropped | State::Settled(_) => return,
            }
            settled.await;
        }
    }

    fn group(&self) -> Option<Group> {
        match &*self.lock() {
            State::Settled(group) => group.clone(),
            State::Queued | State::Begun | State::Dropped => None,
        }
    }
}

fn join(
    cgroups: &Cgroups,
    child: &dyn ChildHandle,
    name: &str,
    memory_max: Option<u64>,
) -> Option<Group> {
    let joined = cgroups.group(name, memory_max).and_then(|group| {
        group.fetch(&child.identity()).inspect_err(|_| cgroups.remove(&group))?;
        Ok(group)
    });
    match joined {
        Ok(group) => {
            cgroups.refused.store(false, Ordering::Relaxed);
            Some(group)
        }
        // It ended before it could be moved.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            // It is contained by the layers below, as everywhere where there is no cgroup.
            if !cgroups.refused.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "a run could not be put into a cgroup of its own");
            }
            None
        }
    }
}

/// Kills what is in a group and removes it.
fn end(cgroups: &Cgroups, group: &Group) {
    if group.populated() {
        // What does not go by it is not waited for longer: a drop blocks its thread.
        drop(group.kill());
        let deadline = std::time::Instant::now() + REMOVE_WITHIN;
        while group.populated() && std::time::Instant::now() < deadline {
            std::thread::park_timeout(LOOK);
        }
    }
    cgroups.remove(group);
}

#[derive(Debug)]
struct CgroupChild {
    inner: Arc<dyn ChildHandle>,
    joining: Arc<Joining>,
    cgroups: Arc<Cgroups>,
    /// Its set runs on when this is dropped, group and all.
    outlives: bool,
}

impl CgroupChild {
    fn populated(&self) -> bool {
        self.joining.group().is_some_and(|group| group.populated())
    }

    fn strangers(&self) -> Vec<(ProcessIdentity, Pinned)> {
        let Some(group) = self.joining.group() else { return Vec::new() };
        // Most sets are their leader, and looking for the members of others reads every process of the system.
        let leader = self.inner.identity().pid;
        if group.pids().iter().all(|pid| *pid == leader) {
            return Vec::new();
        }
        group.strangers(&self.inner.members())
    }
}

#[async_trait]
impl ChildHandle for CgroupChild {
    fn identity(&self) -> ProcessIdentity {
        self.inner.identity()
    }

    async fn wait(&self) -> ExitStatus {
        let status = self.inner.wait().await;
        // Whether anything is left of its set is asked next.
        self.joining.settle().await;
        status
    }

    async fn signal_set(&self, signal: Signal) -> io::Result<()> {
        // Found before anything ends by the signal; the rest must not get it twice, which many take for "at once".
        let strangers = self.strangers();
        self.inner.signal_set(signal).await?;
        strangers.iter().try_for_each(|(_, process)| process.signal(signal))
    }

    async fn kill_set(&self, confirm: Duration) -> KillReport {
        let deadline = Instant::now() + confirm;
        self.joining.settle().await;
        if let Some(Err(error)) = self.joining.group().map(|group| group.kill()) {
            tracing::warn!(%error, "a cgroup could not be killed; its processes are, one by one");
        }
        let mut report = self.inner.kill_set(confirm).await;
        while self.populated() && Instant::now() < deadline {
            for (_, process) in self.strangers() {
                // One that is gone already is what was wanted.
                drop(process.signal(Signal::Kill));
            }
            tokio::time::sleep(LOOK).await;
        }
        if self.populated() {
            let state = |pid| Entry::read(pid).map_or('?', |entry| entry.state);
            for (identity, _) in self.strangers() {
                let state = state(identity.pid);
                report.survivors.push(Survivor { identity, state });
            }
        }
        report
    }

    fn set_is_empty(&self) -> bool {
        self.inner.set_is_empty() && !self.populated()
    }

    fn members(&self) -> Vec<ProcessIdentity> {
        let strangers = self.strangers().into_iter().map(|(identity, _)| identity);
        self.inner.members().into_iter().chain(strangers).collect()
    }

    fn take_stdio(&self) -> Option<ChildStdio> {
        self.inner.take_stdio()
    }

    fn last_lines(&self, max: usize) -> Vec<String> {
        self.inner.last_lines(max)
    }

    fn killed_for_memory(&self) -> bool {
        self.joining.group().is_some_and(|group| group.killed_for_memory())
    }
}

impl Drop for CgroupChild {
    fn drop(&mut self) {
        if self.outlives && !self.inner.set_is_empty() {
            return;
        }
        let left = match &mut *self.joining.lock() {
            begun @ State::Begun => {
                // Who moves it ends it.
                *begun = State::Dropped;
                None
            }
            state => match std::mem::replace(state, State::Settled(None)) {
                State::Settled(group) => group,
                State::Queued | State::Begun | State::Dropped => None,
            },
        };
        if let Some(group) = left {
            end(&self.cgroups, &group);
        }
    }
}
