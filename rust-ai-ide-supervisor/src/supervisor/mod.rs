//! One supervisor made of the three engines.
//!
//! `builder.rs` makes it, `open.rs` joins the engines, `guarding.rs` is who owns the processes, `recovery.rs` decides what stored state means,
//! `monitoring.rs` starts what it decided, `upkeep.rs` looks after storage meanwhile, `control.rs` is the face for windows and sockets, and
//! `shutdown.rs` is the only way out.

mod builder;
mod bus;
mod channels;
mod checkpoints;
mod control;
mod guarding;
mod monitoring;
mod numbers;
mod open;
mod operations;
mod recovery;
mod shutdown;
mod sink;
mod storage;
pub(crate) mod tasks;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use supervisor_core::ServiceId;
use supervisor_core::config::{ServiceSpec, SupervisorConfig};
use supervisor_core::error::SupervisorError;
use supervisor_core::journal::Actor;
use supervisor_core::ports::{Clock, Entropy, EventSubscription, SupervisorControl};
use supervisor_core::status::SupervisorPhase;
use tokio::sync::{OnceCell, watch};

pub use builder::SupervisorBuilder;
pub use guarding::GuardianChoice;
pub use operations::OperationGuard;
pub use shutdown::ShutdownReport;

use bus::EventBus;
use open::Parts;
use sink::Culprit;

/// Keeps local services alive, remembers their state and keeps their channels usable.
///
/// A handle: clones share one supervisor. Nothing is opened before the first asynchronous call, so
/// [`new`](Self::new) needs no runtime. Dropping the last handle without [`shutdown`](SupervisorControl::shutdown)
/// kills every service; the next supervisor in the same state directory recovers.
///
/// ```no_run
/// use rust_ai_ide_supervisor::{ServiceConfig, Supervisor, SupervisorControl};
/// use rust_ai_ide_supervisor::Actor;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let supervisor = Supervisor::new()?;
/// supervisor.register_service(ServiceConfig::new("lsp", "my-language-server")?).await?;
/// supervisor.start_monitoring().await?;
/// // …
/// supervisor.shutdown(Actor::Host).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: SupervisorConfig,
    state_dir: PathBuf,
    subreaper: bool,
    guardian: GuardianChoice,
    cgroups: bool,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    started_at: DateTime<Utc>,
    bus: Arc<EventBus>,
    parts: OnceCell<Parts>,
    phase: watch::Sender<SupervisorPhase>,
    culprits: watch::Sender<Vec<Culprit>>,
    finished: watch::Sender<Option<ShutdownReport>>,
    /// `normal`, or a word for what works with less than it promises.
    mode: Mutex<String>,
    operations: operations::Operations,
    /// Serialises what must not overlap: start of monitoring, shutdown, reload.
    gate: tokio::sync::Mutex<()>,
}

impl Supervisor {
    /// Makes a supervisor with default settings and the state directory `.ide-supervisor` in the working directory.
    ///
    /// # Errors
    /// [`SupervisorError::Process`] when there is no working directory. A retry does not help.
    pub fn new() -> Result<Self, SupervisorError> {
        Self::builder().build()
    }

    /// Makes a supervisor with settings of one's own.
    pub fn builder() -> SupervisorBuilder {
        SupervisorBuilder::default()
    }

    /// Registers a service; it is started when monitoring starts, or at once if it runs already.
    ///
    /// # Errors
    /// [`SupervisorError::Config`] naming the field, [`SupervisorError::AlreadyRegistered`], and what opening the
    /// state directory may give. Nothing is half-registered.
    ///
    /// # Cancel safety
    /// Safe; the service is registered or not.
    pub async fn register_service(
        &self,
        service: impl Into<ServiceSpec>,
    ) -> Result<ServiceId, SupervisorError> {
        self.register(service.into(), Actor::Host).await
    }

    /// Recovers stored state and starts every service that starts by itself; a second call changes nothing.
    ///
    /// # Errors
    /// [`SupervisorError::Partial`] with every service that could not be started; the others run, and those
    /// whose failure may pass are tried again by their restart policy.
    ///
    /// # Cancel safety
    /// Safe; call it again to finish.
    pub async fn start_monitoring(&self) -> Result<(), SupervisorError> {
        SupervisorControl::start_monitoring(self).await
    }

    /// Removes a service, stopping it first.
    ///
    /// # Errors
    /// [`SupervisorError::UnknownService`], or what stopping it gave; it stays registered then.
    ///
    /// # Cancel safety
    /// Safe; call it again to finish.
    pub async fn remove_service(
        &self,
        service: &ServiceId,
        actor: Actor,
    ) -> Result<(), SupervisorError> {
        self.remove(service, actor).await
    }

    /// Subscribes to events from now on.
    #[must_use]
    pub fn events(&self) -> Box<dyn EventSubscription> {
        self.inner.bus.subscribe()
    }

    /// Gives the channel monitor, for sending messages to services.
    ///
    /// # Errors
    /// What opening the state directory may give.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ipc(&self) -> Result<supervisor_ipc::IpcMonitor, SupervisorError> {
        Ok(self.parts().await?.ipc.clone())
    }

    /// Gives the store, for hosts that keep more than the supervisor does.
    ///
    /// # Errors
    /// What opening the state directory may give.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn persistence(
        &self,
    ) -> Result<supervisor_persist::StatePersistence, SupervisorError> {
        Ok(self.parts().await?.store.clone())
    }

    /// Gives what stores and tells events that do not come from the engines.
    pub(crate) async fn sink(
        &self,
    ) -> Result<Arc<dyn supervisor_core::ports::EventSink>, SupervisorError> {
        Ok(Arc::clone(&self.parts().await?.sink) as Arc<_>)
    }

    /// Gives the state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.inner.state_dir
    }

    /// Gives the settings.
    #[must_use]
    pub fn config(&self) -> &SupervisorConfig {
        &self.inner.config
    }

    /// Waits until the supervisor has shut down, for whatever reason, and says how that went.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn finished(&self) -> ShutdownReport {
        let mut finished = self.inner.finished.subscribe();
        let found = finished.wait_for(Option::is_some).await;
        found.ok().and_then(|report| report.clone()).unwrap_or_default()
    }
}

impl Inner {
    /// Goes on to a phase, never back to one; tells whether it did.
    ///
    /// A shutdown may be asked for while monitoring starts, and what ends with the shutdown waits for its phase.
    fn advance(&self, to: SupervisorPhase) -> bool {
        self.phase.send_if_modified(|phase| {
            let onward = *phase < to;
            if onward {
                *phase = to;
            }
            onward
        })
    }

    fn mode(&self) -> String {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what works with less than it promises; says whether that is news.
    fn set_mode(&self, mode: &str) -> bool {
        let mut known = self.mode.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *known != mode;
        mode.clone_into(&mut known);
        news
    }
}
