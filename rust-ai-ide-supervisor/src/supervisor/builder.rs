//! Settings of a supervisor before it is made.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use supervisor_core::config::SupervisorConfig;
use supervisor_core::error::{ProcessError, SupervisorError};
use supervisor_core::ports::{Clock, Entropy};
use supervisor_core::status::SupervisorPhase;
use supervisor_process::{SystemClock, SystemEntropy};
use tokio::sync::{OnceCell, watch};

use super::bus::EventBus;
use super::guarding::GuardianChoice;
use super::operations::Operations;
use super::{Inner, Supervisor};
use crate::state_dir::STATE_DIR_NAME;

/// The mode in which everything works as promised.
const NORMAL: &str = "normal";

/// Settings of a supervisor before it is made.
#[derive(Debug, Default)]
#[must_use]
pub struct SupervisorBuilder {
    config: SupervisorConfig,
    state_dir: Option<PathBuf>,
    subreaper: bool,
    guardian: GuardianChoice,
    without_cgroups: bool,
    clock: Option<Arc<dyn Clock>>,
    entropy: Option<Arc<dyn Entropy>>,
}

impl SupervisorBuilder {
    /// Sets the supervisor's own settings.
    pub fn config(mut self, config: SupervisorConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the directory that holds database, checkpoints, logs and socket; `.ide-supervisor` in the working
    /// directory otherwise.
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(path.into());
        self
    }

    /// Adopts orphaned descendants of services, so that a double fork does not escape; needed where there is no guardian.
    ///
    /// It is a setting of the whole process (`PR_SET_CHILD_SUBREAPER`), so a library host decides; the program asks for it.
    ///
    /// # Platform
    /// Linux only; ignored elsewhere.
    pub fn subreaper(mut self, wanted: bool) -> Self {
        self.subreaper = wanted;
        self
    }

    /// Sets who owns the services' processes; [`GuardianChoice::IfPossible`] otherwise.
    ///
    /// # Platform
    /// Linux and macOS; on Windows this process owns them.
    pub fn guardian(mut self, choice: GuardianChoice) -> Self {
        self.guardian = choice;
        self
    }

    /// Sets whether every run is put into a cgroup v2 of its own where one is delegated; it is otherwise.
    ///
    /// Nothing leaves such a group, and one write kills all of it, also what an earlier supervisor left behind. No start
    /// waits for it. Whether it is in force stands in the status.
    ///
    /// # Platform
    /// Linux; elsewhere there is none.
    pub fn cgroups(mut self, wanted: bool) -> Self {
        self.without_cgroups = !wanted;
        self
    }

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

    /// Makes the supervisor; nothing is opened or started yet.
    ///
    /// # Errors
    /// [`SupervisorError::Config`] naming the field, or [`ProcessError::Os`] when there is no working directory.
    pub fn build(self) -> Result<Supervisor, SupervisorError> {
        self.config.validate()?;
        let wanted = self.state_dir.unwrap_or_else(|| STATE_DIR_NAME.into());
        let state_dir = std::path::absolute(&wanted).map_err(|source| ProcessError::Os {
            action: format!("finding the state directory {}", wanted.display()),
            source: source.into(),
        })?;
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let entropy = self.entropy.unwrap_or_else(|| Arc::new(SystemEntropy::new()));
        let inner = Inner {
            config: self.config,
            state_dir,
            subreaper: self.subreaper,
            guardian: self.guardian,
            cgroups: !self.without_cgroups,
            started_at: clock.wall(),
            bus: EventBus::new(Arc::clone(&clock), Arc::clone(&entropy)),
            operations: Operations::new(Arc::clone(&clock), Arc::clone(&entropy)),
            clock,
            entropy,
            parts: OnceCell::new(),
            phase: watch::Sender::new(SupervisorPhase::Idle),
            culprits: watch::Sender::new(Vec::new()),
            finished: watch::Sender::new(None),
            mode: Mutex::new(NORMAL.to_owned()),
            gate: tokio::sync::Mutex::new(()),
        };
        Ok(Supervisor { inner: Arc::new(inner) })
    }
}
