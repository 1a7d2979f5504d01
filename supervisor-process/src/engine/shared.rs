//! What every service's task shares: the world, the registry, the budget.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use supervisor_core::config::{Dependency, GroupStrategy, ServiceSpec};
use supervisor_core::event::EventKind;
use supervisor_core::lifecycle::{Command, CommandFailure, Event};
use supervisor_core::policy::RestartBudget;
use supervisor_core::ports::{
    ChildHandle, Clock, Entropy, EventSink, ProbeRunner, ProcessSpawner, StdioReceiver,
};
use supervisor_core::state::ServiceState;
use supervisor_core::status::{DroppedOutput, LogLine};
use supervisor_core::{Incarnation, ServiceId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::MAILBOX_MAX;
use super::dependencies::is_met;
use super::store_queue::StoreQueue;
use super::usage::Meter;
use crate::SystemSpawner;
use crate::cgroup::Cgroups;
use crate::guardian::GuardianSpawner;
use crate::notify::NotifySocket;

/// What a service's task is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Somebody asks for something and waits for the answer.
    Command { command: Command, reply: oneshot::Sender<Result<(), CommandFailure>> },
    /// Something happened to it. Boxed: a mailbox keeps room for 32 messages.
    Event(Box<Event>),
    /// Its channel hears nothing from this run: is there a reason that speaks for it?
    Excuse { incarnation: Incarnation, reply: oneshot::Sender<Option<String>> },
    /// The run in its restored state is alive, or its end is known: it is ours again.
    Adopt(Box<dyn ChildHandle>),
}

/// Who keeps captured output and can read it back.
#[derive(Debug, Clone)]
pub(crate) enum OutputKeeper {
    /// Nobody here.
    Unknown,
    System(Arc<SystemSpawner>),
    Guardian(Arc<GuardianSpawner>),
}

impl OutputKeeper {
    /// Gives what of each service's output was not kept, as far as anything was not.
    pub(crate) async fn dropped(&self) -> HashMap<ServiceId, DroppedOutput> {
        match self {
            Self::Unknown => HashMap::new(),
            Self::System(spawner) => spawner.dropped_output(),
            Self::Guardian(spawner) => spawner.dropped_output().await,
        }
    }

    /// Tells subscribers from now on when output of a run begins to be dropped.
    pub(crate) fn tell_drops(&self, to: Arc<dyn EventSink>) {
        let drops = match self {
            Self::Unknown => return,
            Self::System(spawner) => spawner.drops(),
            Self::Guardian(spawner) => spawner.drops(),
        };
        drops.set(move |service, incarnation, cause| {
            let (service, reason) = (service.clone(), cause.text().to_owned());
            to.publish(EventKind::ServiceDegraded { service, incarnation, reason });
        });
    }

    /// Gives the last `limit` captured lines of a service; blocks on files.
    pub(crate) fn logs(&self, service: &ServiceId, limit: usize) -> std::io::Result<Vec<LogLine>> {
        match self {
            Self::Unknown => Ok(Vec::new()),
            Self::System(spawner) => spawner.logs(service, limit),
            Self::Guardian(spawner) => spawner.logs(service, limit),
        }
    }
}

/// One registered service, seen from outside.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) mailbox: mpsc::Sender<Message>,
    pub(crate) state: watch::Receiver<ServiceState>,
    pub(crate) spec: Arc<ServiceSpec>,
    pub(crate) task: Option<JoinHandle<()>>,
}

/// Every registered service, in order.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    order: Vec<ServiceId>,
    handles: HashMap<ServiceId, Handle>,
}

impl Registry {
    pub(crate) fn add(&mut self, id: ServiceId, handle: Handle) {
        self.order.push(id.clone());
        self.handles.insert(id, handle);
    }

    pub(crate) fn take(&mut self, id: &ServiceId) -> Option<Handle> {
        self.order.retain(|known| known != id);
        self.handles.remove(id)
    }

    pub(crate) fn get(&self, id: &ServiceId) -> Option<&Handle> {
        self.handles.get(id)
    }

    pub(crate) fn contains(&self, id: &ServiceId) -> bool {
        self.handles.contains_key(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ServiceId, &Handle)> {
        self.order.iter().filter_map(|id| self.handles.get(id).map(|handle| (id, handle)))
    }

    /// What each service needs, as far as it is registered: stopping goes against it.
    pub(crate) fn dependencies(&self) -> BTreeMap<ServiceId, Vec<ServiceId>> {
        let known = |handle: &Handle| {
            let needs = handle.spec.depends_on.iter().map(|need| need.id.clone());
            needs.filter(|need| self.contains(need)).collect()
        };
        self.iter().map(|(id, handle)| (id.clone(), known(handle))).collect()
    }

    pub(crate) fn take_tasks(&mut self) -> Vec<JoinHandle<()>> {
        self.handles.values_mut().filter_map(|handle| handle.task.take()).collect()
    }
}

/// What every service's task shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) sink: Arc<dyn EventSink>,
    pub(crate) spawner: Arc<dyn ProcessSpawner>,
    pub(crate) cgroups: Option<Arc<Cgroups>>,
    pub(crate) output: OutputKeeper,
    pub(crate) probes: Arc<dyn ProbeRunner>,
    pub(crate) stdio: Option<Arc<dyn StdioReceiver>>,
    pub(crate) notify: Option<NotifySocket>,
    pub(crate) store: StoreQueue,
    pub(crate) meter: Arc<Meter>,
    pub(crate) health_check_interval: Duration,
    pub(crate) max_services: usize,
    /// Services that are up or on their way up; at most `max_services`.
    pub(crate) places: Mutex<HashSet<ServiceId>>,
    pub(crate) over: CancellationToken,
    /// Nothing is started any more.
    pub(crate) closing: AtomicBool,
    /// Everything is being stopped.
    pub(crate) stopping: AtomicBool,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) budget: Mutex<RestartBudget>,
}

impl Shared {
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        // Each change of the registry is one call that cannot panic half-way.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn budget(&self) -> MutexGuard<'_, RestartBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Takes a place for a service that starts by itself, such as one whose restart was due when the supervisor was lost.
    pub(crate) fn occupy(&self, id: &ServiceId) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
    }

    pub(crate) fn release(&self, id: &ServiceId) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Passes an event on to a service; one whose mailbox is full misses it.
    pub(crate) fn tell(&self, id: &ServiceId, event: Event) {
        let mailbox = self.registry().get(id).map(|handle| handle.mailbox.clone());
        if let Some(mailbox) = mailbox
            && mailbox.try_send(Message::Event(Box::new(event))).is_err()
        {
            tracing::warn!(service = %id, "an event was dropped: too many messages are waiting");
        }
    }

    /// Passes on what a service says of itself. At half a mailbox it is dropped, so that a service that talks without
    /// end never keeps a command from it.
    pub(crate) fn report(&self, id: &ServiceId, event: Event) {
        let mailbox = self.registry().get(id).map(|handle| handle.mailbox.clone());
        if let Some(mailbox) = mailbox
            && mailbox.capacity() > MAILBOX_MAX / 2
        {
            // Dropped when others filled it meanwhile; the next one says the same.
            drop(mailbox.try_send(Message::Event(Box::new(event))));
        }
    }

    /// Takes the secrets of a service out of a text it said.
    pub(crate) fn redacted(&self, id: &ServiceId, text: String) -> String {
        let spec = self.registry().get(id).map(|handle| Arc::clone(&handle.spec));
        spec.map_or_else(String::new, |spec| crate::secrets::redacted(&spec, text))
    }

    /// Fails whoever depends on a service that failed for good.
    pub(crate) fn fail_dependents(&self, of: &ServiceId, reason: &str) {
        for dependent in self.dependents(|need| need.id == *of) {
            self.tell(&dependent, Event::DependencyFailed { cause: format!("{of}: {reason}") });
        }
    }

    /// Tells whoever failed with a service that it has reached what they need of it.
    pub(crate) fn revive_dependents(&self, of: &ServiceState) {
        let back = |need: &Dependency| need.id == of.id && is_met(need.condition, of);
        for dependent in self.dependents(back) {
            self.tell(&dependent, Event::DependencyBack);
        }
    }

    fn dependents(&self, which: impl Fn(&Dependency) -> bool) -> Vec<ServiceId> {
        let registry = self.registry();
        let needs = |handle: &Handle| handle.spec.depends_on.iter().any(&which);
        registry.iter().filter(|(_, handle)| needs(handle)).map(|(id, _)| id.clone()).collect()
    }

    /// Restarts whoever the group's strategy restarts with a member that failed.
    pub(crate) fn restart_group(&self, of: &ServiceId, reason: &str) {
        let members: Vec<_> = {
            let registry = self.registry();
            let Some(group) = registry.get(of).and_then(|handle| handle.spec.group.clone()) else {
                return;
            };
            let in_group = |spec: &ServiceSpec| {
                spec.group.as_ref().is_some_and(|other| other.name == group.name)
            };
            let all: Vec<_> = registry
                .iter()
                .filter(|(_, handle)| in_group(&handle.spec))
                .map(|(id, _)| id.clone())
                .collect();
            let own = all.iter().position(|id| id == of).unwrap_or(0);
            match group.strategy {
                GroupStrategy::OneForOne => Vec::new(),
                GroupStrategy::OneForAll => all.into_iter().filter(|id| id != of).collect(),
                GroupStrategy::RestForOne => all.into_iter().skip(own + 1).collect(),
            }
        };
        for member in members {
            self.tell(&member, Event::GroupRestart { cause: format!("{of}: {reason}") });
        }
    }
}

/// Joins a task; a panic in it is reported, not passed on.
pub(crate) async fn joined(task: JoinHandle<()>) {
    if let Err(error) = task.await
        && error.is_panic()
    {
        tracing::error!(%error, "a service's task panicked");
    }
}
