//! Many services under one roof: registered, commanded, watched, and stopped in order.
//!
//! One task owns each service: it turns what happens into events of core's lifecycle machine and carries out the
//! effects. It holds no policy.

mod actor;
mod builder;
mod ceilings;
mod channel_watch;
mod dependencies;
mod effects;
mod overload;
mod shared;
mod shutdown;
mod store_queue;
mod usage;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use supervisor_core::ServiceId;
use supervisor_core::config::ServiceSpec;
use supervisor_core::error::{ProcessError, SupervisorError};
use supervisor_core::lifecycle::{Command, CommandFailure, Event, Lifecycle, Now};
use supervisor_core::ports::ChildHandle;
use supervisor_core::state::ServiceState;
use supervisor_core::status::{DroppedOutput, LogLine, ResourceUsage};
use tokio::sync::{mpsc, oneshot, watch};

pub use builder::EngineBuilder;
pub(crate) use shared::Shared;
use shared::{Handle, Message};

/// Messages that may wait for one service. At the bound commands are answered `Busy`; reports of a service about
/// itself are dropped, the next one says the same.
pub(crate) const MAILBOX_MAX: usize = 128;

/// Supervises services. A handle: clones share one engine.
///
/// Dropping the last handle without [`shutdown`](Self::shutdown) kills every set; nothing of it is stored.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.over.cancel();
    }
}

impl Engine {
    /// Makes an engine with settings of one's own.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// Registers a service and starts nothing. With `restored` its counters go on where they stood.
    ///
    /// # Errors
    /// [`SupervisorError::Config`] naming the field, [`SupervisorError::AlreadyRegistered`], or
    /// [`SupervisorError::ShuttingDown`]. Nothing is half-registered; a retry does not help.
    ///
    /// # Cancel safety
    /// Safe; the service is registered or not.
    pub async fn register(
        &self,
        spec: impl Into<ServiceSpec>,
        restored: Option<ServiceState>,
    ) -> Result<ServiceId, SupervisorError> {
        let shared = &self.inner.shared;
        let spec = Arc::new(spec.into());
        let now = shared.now();
        let (period, seed) = (shared.health_check_interval, shared.entropy.next_u64());
        let machine = match &restored {
            Some(state) => Lifecycle::restore(Arc::clone(&spec), period, seed, now, state)?,
            None => Lifecycle::new(Arc::clone(&spec), period, seed, now)?,
        };
        let id = spec.service_id()?;
        let (mailbox, receiver) = mpsc::channel(MAILBOX_MAX);
        let (state, watched) = watch::channel(machine.state());
        let mut registry = shared.registry();
        if shared.is_closing() {
            return Err(SupervisorError::ShuttingDown);
        }
        if registry.contains(&id) {
            return Err(SupervisorError::AlreadyRegistered { service: id });
        }
        let task = actor::spawn(Arc::clone(shared), machine, receiver, state);
        registry.add(id.clone(), Handle { mailbox, state: watched, spec, task: Some(task) });
        let services = registry.len();
        drop(registry);
        shared.budget().set_services(services, now.monotonic);
        Ok(id)
    }

    /// Removes a service, stopping it first.
    ///
    /// # Errors
    /// [`SupervisorError::UnknownService`], or what stopping it gave; it stays registered then.
    ///
    /// # Cancel safety
    /// Safe; call it again to finish.
    pub async fn remove(&self, id: &ServiceId) -> Result<(), SupervisorError> {
        self.stop(id).await?;
        let shared = &self.inner.shared;
        let removed = shared.registry().take(id);
        if let Some(mut handle) = removed {
            let task = handle.task.take();
            drop(handle);
            if let Some(task) = task {
                shared::joined(task).await;
            }
        }
        shared.release(id);
        let services = shared.registry().len();
        shared.budget().set_services(services, shared.now().monotonic);
        Ok(())
    }

    /// Starts a service and returns when its process runs; one that is up already is left alone.
    ///
    /// # Errors
    /// [`SupervisorError::UnknownService`], [`SupervisorError::TooManyServices`], or a [`ProcessError`] that says why
    /// it did not come up. After a transient one its restart policy goes on trying.
    ///
    /// # Cancel safety
    /// Safe; the command is carried out all the same.
    pub async fn start(&self, id: &ServiceId) -> Result<(), SupervisorError> {
        self.claim(id)?;
        self.command(id, Command::Start).await
    }

    /// Stops a service and returns when its set is empty. A second call while it stops kills at once.
    ///
    /// # Errors
    /// [`SupervisorError::UnknownService`], or [`ProcessError::Unkillable`] naming what survived.
    ///
    /// # Cancel safety
    /// Safe; the command is carried out all the same.
    pub async fn stop(&self, id: &ServiceId) -> Result<(), SupervisorError> {
        self.command(id, Command::Stop).await
    }

    /// Stops and starts a service, a hung one too, and returns when its new process runs.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    ///
    /// # Cancel safety
    /// Safe; the command is carried out all the same.
    pub async fn restart(&self, id: &ServiceId) -> Result<(), SupervisorError> {
        self.claim(id)?;
        self.command(id, Command::Restart).await
    }

    /// Says that the run in a service's restored state is gone: it is started again if that was what was asked for.
    ///
    /// # Errors
    /// [`SupervisorError::UnknownService`], [`SupervisorError::TooManyServices`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn resume(&self, id: &ServiceId) -> Result<(), SupervisorError> {
        self.claim(id)?;
        let mailbox = self.mailbox(id)?;
        let sent = mailbox.send(Message::Event(Box::new(Event::FoundGone { status: None }))).await;
        sent.map_err(|_| SupervisorError::ShuttingDown)
    }

    /// Says that the run in a service's restored state is `child`: it is ours again, or its end is judged as if it had
    /// been seen. A service whose state does not name a run leaves it to be killed.
    ///
    /// # Errors
    /// [`SupervisorError::UnknownService`], [`SupervisorError::TooManyServices`]; the child is dropped then.
    ///
    /// # Cancel safety
    /// Safe; the child is dropped or taken over.
    pub async fn adopt(
        &self,
        id: &ServiceId,
        child: Box<dyn ChildHandle>,
    ) -> Result<(), SupervisorError> {
        self.claim(id)?;
        let mailbox = self.mailbox(id)?;
        let sent = mailbox.send(Message::Adopt(child)).await;
        sent.map_err(|_| SupervisorError::ShuttingDown)
    }

    /// Gives the state of every service, in the order they were registered.
    #[must_use]
    pub fn states(&self) -> Vec<ServiceState> {
        self.inner
            .shared
            .registry()
            .iter()
            .map(|(_, handle)| handle.state.borrow().clone())
            .collect()
    }

    /// Gives the state of one service.
    #[must_use]
    pub fn state(&self, id: &ServiceId) -> Option<ServiceState> {
        self.inner.shared.registry().get(id).map(|handle| handle.state.borrow().clone())
    }

    /// Watches the state of one service: every change is seen, a slow reader sees the newest.
    #[must_use]
    pub fn watch(&self, id: &ServiceId) -> Option<watch::Receiver<ServiceState>> {
        self.inner.shared.registry().get(id).map(|handle| handle.state.clone())
    }

    /// Gives the specification of one service.
    #[must_use]
    pub fn spec(&self, id: &ServiceId) -> Option<Arc<ServiceSpec>> {
        self.inner.shared.registry().get(id).map(|handle| Arc::clone(&handle.spec))
    }

    /// Measures what the whole set of a service uses; nothing if it is down or cannot be measured here.
    ///
    /// All sets are measured together, and a measurement is given again for a quarter of a second. Processor use counts
    /// from the measurement before, or from the start of the run for the first one.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn usage(&self, id: &ServiceId) -> Option<ResourceUsage> {
        self.inner.shared.meter.read().await.get(id).map(|measured| measured.usage)
    }

    /// Gives what of each service's output was not kept, as far as anything was not.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn dropped_output(&self) -> HashMap<ServiceId, DroppedOutput> {
        self.inner.shared.output.dropped().await
    }

    /// Gives the last `limit` captured lines of a service, oldest first.
    ///
    /// # Errors
    /// [`SupervisorError::UnknownService`], or [`ProcessError::Os`] about the files.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn logs(
        &self,
        id: &ServiceId,
        limit: usize,
    ) -> Result<Vec<LogLine>, SupervisorError> {
        self.mailbox(id)?;
        let output = self.inner.shared.output.clone();
        let service = id.clone();
        let read = tokio::task::spawn_blocking(move || output.logs(&service, limit)).await;
        let failed = |source: supervisor_core::error::Cause| ProcessError::Os {
            action: format!("reading the output of {id}"),
            source,
        };
        let lines = read.map_err(|error| failed(error.into()))?;
        Ok(lines.map_err(|error| failed(error.into()))?)
    }

    /// Starts nothing from here on, whether by command, by policy or for a dependency that was met; what runs goes on.
    ///
    /// First step of a shutdown that has something to save before it stops the rest. There is no way back.
    pub fn start_no_more(&self) {
        self.inner.shared.closing.store(true, Ordering::Release);
    }

    /// Stops everything, dependents first, layers in parallel, and kills what is left at the deadline.
    ///
    /// # Errors
    /// [`SupervisorError::Partial`] with every service that did not end. A second call does nothing and succeeds.
    ///
    /// # Cancel safety
    /// Not safe to resume: what was not stopped yet is killed when the engine is dropped.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), SupervisorError> {
        shutdown::run(self, deadline).await
    }

    /// Names the layers that contain sets here, strongest first.
    #[must_use]
    pub fn containment(&self) -> Vec<String> {
        self.inner.shared.spawner.containment()
    }

    fn mailbox(&self, id: &ServiceId) -> Result<mpsc::Sender<Message>, SupervisorError> {
        let registry = self.inner.shared.registry();
        let handle = registry
            .get(id)
            .ok_or_else(|| SupervisorError::UnknownService { service: id.clone() })?;
        Ok(handle.mailbox.clone())
    }

    /// Takes one of the places of `max_concurrent_services`, or says that none is left.
    fn claim(&self, id: &ServiceId) -> Result<(), SupervisorError> {
        self.mailbox(id)?;
        let shared = &self.inner.shared;
        if shared.is_closing() {
            return Err(SupervisorError::ShuttingDown);
        }
        let mut places = shared.places.lock().unwrap_or_else(PoisonError::into_inner);
        if !places.contains(id) && places.len() >= shared.max_services {
            return Err(SupervisorError::TooManyServices {
                service: id.clone(),
                limit: shared.max_services,
            });
        }
        places.insert(id.clone());
        Ok(())
    }

    async fn command(&self, id: &ServiceId, command: Command) -> Result<(), SupervisorError> {
        let mailbox = self.mailbox(id)?;
        let (reply, answer) = oneshot::channel();
        mailbox.try_send(Message::Command { command, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProcessError::Busy { service: id.clone() }.into(),
            mpsc::error::TrySendError::Closed(_) => SupervisorError::ShuttingDown,
        })?;
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(failed(id, failure).into()),
            Err(_) => Err(SupervisorError::ShuttingDown),
        }
    }
}

fn failed(id: &ServiceId, failure: CommandFailure) -> ProcessError {
    let service = id.clone();
    match failure {
        CommandFailure::SpawnFailed { kind, reason } => {
            let program = String::new();
            let source = supervisor_core::error::SpawnError {
                kind,
                program,
                reason: reason.clone(),
                source: None,
            };
            if kind.class().retryable() {
                return ProcessError::Spawn { service, source };
            }
            ProcessError::Refused { service, reason }
        }
        CommandFailure::Unkillable { survivors } => ProcessError::Unkillable { service, survivors },
        CommandFailure::Ended { reason } => ProcessError::Refused { service, reason },
        CommandFailure::Superseded => {
            ProcessError::Refused { service, reason: "a later command took its place".to_owned() }
        }
        CommandFailure::Busy => ProcessError::Busy { service },
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Now {
        Now { monotonic: self.clock.monotonic(), wall: self.clock.wall() }
    }
}
