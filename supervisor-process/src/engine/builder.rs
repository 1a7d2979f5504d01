//! Settings of an engine before it is made.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use supervisor_core::error::ProcessError;
use supervisor_core::event::EventKind;
use supervisor_core::policy::RestartBudget;
use supervisor_core::ports::{
    Clock, Entropy, EventSink, ProbeRunner, ProcessSpawner, StateStore, StdioReceiver,
};
use tokio_util::sync::CancellationToken;

use super::shared::{OutputKeeper, Registry, Shared};
use super::store_queue::StoreQueue;
use super::usage::Meter;
use super::{Engine, Inner};
use crate::cgroup::{CgroupSpawner, Cgroups};
use crate::guardian::GuardianSpawner;
use crate::notify::NotifySocket;
use crate::{SystemClock, SystemEntropy, SystemProbes, SystemSpawner};

/// Settings of an engine before it is made; everything has a default.
#[derive(Debug, Default)]
#[must_use]
pub struct EngineBuilder {
    clock: Option<Arc<dyn Clock>>,
    entropy: Option<Arc<dyn Entropy>>,
    sink: Option<Arc<dyn EventSink>>,
    store: Option<Arc<dyn StateStore>>,
    spawner: Option<Arc<dyn ProcessSpawner>>,
    probes: Option<Arc<dyn ProbeRunner>>,
    stdio: Option<Arc<dyn StdioReceiver>>,
    mark: Option<String>,
    log_dir: Option<PathBuf>,
    health_check_interval: Option<Duration>,
    max_services: Option<usize>,
    subreaper: bool,
    guardian: Option<Arc<GuardianSpawner>>,
    cgroups: Option<Cgroups>,
}

/// An engine nobody listens to.
#[derive(Debug)]
struct NoSink;

impl EventSink for NoSink {
    fn publish(&self, _: EventKind) {}
}

impl EngineBuilder {
    /// Sets where time comes from; the system's clocks otherwise.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets where randomness comes from; the system's otherwise.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = Some(entropy);
        self
    }

    /// Sets where events go; nowhere otherwise.
    pub fn sink(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Sets where states are stored; nowhere otherwise.
    pub fn store(mut self, store: Arc<dyn StateStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Sets what starts processes; [`SystemSpawner`] otherwise.
    pub fn spawner(mut self, spawner: Arc<dyn ProcessSpawner>) -> Self {
        self.spawner = Some(spawner);
        self
    }

    /// Starts processes through a guardian; its mark is this engine's, see [`mark`](Self::mark).
    pub fn guardian(mut self, guardian: Arc<GuardianSpawner>) -> Self {
        self.guardian = Some(guardian);
        self
    }

    /// Sets what runs probes; [`SystemProbes`] otherwise.
    pub fn probes(mut self, probes: Arc<dyn ProbeRunner>) -> Self {
        self.probes = Some(probes);
        self
    }

    /// Sets who takes over the pipes of stdio channels; they are closed otherwise.
    pub fn stdio(mut self, stdio: Arc<dyn StdioReceiver>) -> Self {
        self.stdio = Some(stdio);
        self
    }

    /// Sets the mark every process carries; one of this engine's own otherwise.
    ///
    /// A supervisor that uses the same mark again finds what this one left behind.
    pub fn mark(mut self, mark: impl Into<String>) -> Self {
        self.mark = Some(mark.into());
        self
    }

    /// Sets where output is kept, one directory a service; the temporary directory otherwise.
    pub fn log_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.log_dir = Some(path.into());
        self
    }

    /// Sets the period of probes that name none; 5 s otherwise.
    pub fn health_check_interval(mut self, period: Duration) -> Self {
        self.health_check_interval = Some(period);
        self
    }

    /// Sets how many services may be up at once; no limit otherwise.
    pub fn max_services(mut self, limit: usize) -> Self {
        self.max_services = Some(limit);
        self
    }

    /// Adopts orphaned descendants of services; see [`SystemSpawner::new`].
    pub fn subreaper(mut self, wanted: bool) -> Self {
        self.subreaper = wanted;
        self
    }

    /// Puts every run into a cgroup of its own below this one, whoever starts it.
    ///
    /// The strongest containment there is: nothing leaves it, and one write kills all of it. Moving a process into a group
    /// can take the kernel some milliseconds, for which no start waits.
    pub fn cgroups(mut self, cgroups: Cgroups) -> Self {
        self.cgroups = Some(cgroups);
        self
    }

    /// Makes the engine.
    ///
    /// # Errors
    /// [`ProcessError::Os`] when the capture thread cannot be started or a setting is refused.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub fn build(self) -> Result<Engine, ProcessError> {
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let entropy = self.entropy.unwrap_or_else(|| Arc::new(SystemEntropy::new()));
        let sink = self.sink.unwrap_or_else(|| Arc::new(NoSink));
        let lasting = self.mark.clone();
        let mark = self
            .mark
            .unwrap_or_else(|| format!("{}-{:016x}", std::process::id(), entropy.next_u64()));
        let (spawner, output) = match (self.spawner, self.guardian) {
            (Some(spawner), _) => (spawner, OutputKeeper::Unknown),
            (None, Some(guardian)) => {
                let spawner = Arc::clone(&guardian) as Arc<dyn ProcessSpawner>;
                (spawner, OutputKeeper::Guardian(guardian))
            }
            (None, None) => {
                let system =
                    Arc::new(SystemSpawner::new(mark.as_str(), self.log_dir, self.subreaper)?);
                (Arc::clone(&system) as Arc<dyn ProcessSpawner>, OutputKeeper::System(system))
            }
        };
        output.tell_drops(Arc::clone(&sink));
        let cgroups = self.cgroups.map(Arc::new);
        let keeps = matches!(output, OutputKeeper::Guardian(_));
        let spawner = match &cgroups {
            Some(cgroups) => Arc::new(CgroupSpawner::new(spawner, Arc::clone(cgroups), keeps)),
            None => spawner,
        };
        let over = CancellationToken::new();
        let notify = match NotifySocket::open(lasting.as_deref(), entropy.next_u64()) {
            Ok(notify) => Some(notify),
            Err(error) => {
                // Only heartbeat probes need it, and they say what is missing when they fail.
                tracing::warn!(%error, "services cannot report over a notify socket");
                None
            }
        };
        let budget = RestartBudget::new(0, clock.monotonic());
        let shared = Arc::new(Shared {
            store: StoreQueue::start(self.store, Arc::clone(&sink)),
            clock,
            entropy,
            sink,
            spawner,
            cgroups,
            output,
            probes: self.probes.unwrap_or_else(|| Arc::new(SystemProbes::new())),
            stdio: self.stdio,
            notify,
            meter: Meter::new(Arc::from(mark.as_str())),
            health_check_interval: self.health_check_interval.unwrap_or(Duration::from_secs(5)),
            max_services: self.max_services.unwrap_or(usize::MAX),
            places: Mutex::new(HashSet::new()),
            over,
            closing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            registry: Mutex::new(Registry::default()),
            budget: Mutex::new(budget),
        });
        if let Some(notify) = &shared.notify {
            notify.listen(&shared, Arc::from(mark));
        }
        Ok(Engine { inner: Arc::new(Inner { shared }) })
    }
}
