//! What the plugin keeps: the supervisor, what the application declared, and the bridge to its pages.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use supervisor_core::ServiceId;
use supervisor_core::config::ServiceSpec;
use supervisor_core::error::{SecurityError, SupervisorError, chain};
use supervisor_core::journal::Actor;
use supervisor_core::ports::SupervisorControl;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::batch::BatchLimits;
use crate::bridge::{Bridge, Emit};
use crate::dto::{InitOutcome, Snapshot, SupervisorHealth};
use crate::error::PluginError;
use crate::policy::CommandPolicy;
use crate::sanitize::TauriInputSanitizer;

/// Commands of pages under way at once. One more is refused as `busy`, so that a page in a loop cannot pile up
/// work without end.
pub const COMMANDS_MAX: usize = 64;

/// A shared supervisor.
pub(crate) type Control = Arc<dyn SupervisorControl>;
/// A supervisor in the making.
pub(crate) type MakeControl =
    Pin<Box<dyn Future<Output = Result<Control, SupervisorError>> + Send>>;
/// Makes a supervisor when `init_supervisor` asks for one.
pub(crate) type Factory = Box<dyn Fn() -> MakeControl + Send + Sync>;

/// Where the supervisor comes from.
pub(crate) enum Source {
    Nothing,
    Given(Control),
    Made(Factory),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Given(_) => "Given",
            Self::Made(_) => "Made",
        })
    }
}

/// The plugin's state as Rust callers get it from [`SupervisorExt`](crate::SupervisorExt); clones share it.
#[derive(Debug, Clone)]
pub struct SupervisorHandle {
    inner: Arc<Inner>,
}

/// What the handle is made of.
pub(crate) struct Parts {
    pub(crate) source: Source,
    pub(crate) declared: BTreeMap<ServiceId, ServiceSpec>,
    pub(crate) policy: Option<Box<dyn CommandPolicy>>,
    pub(crate) limits: BatchLimits,
    pub(crate) emit: Emit,
    pub(crate) supported: bool,
}

struct Inner {
    control: OnceLock<Control>,
    parts: Parts,
    revision: Arc<AtomicU64>,
    bridge: Mutex<Option<Bridge>>,
    /// Held while a supervisor is made and while the plugin closes: the two must not overlap.
    gate: tokio::sync::Mutex<()>,
    closed: AtomicBool,
    commands: Semaphore,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("control", &self.control)
            .field("source", &self.parts.source)
            .field("declared", &self.parts.declared.keys())
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl SupervisorHandle {
    pub(crate) fn new(parts: Parts) -> Self {
        let given = match &parts.source {
            Source::Given(control) => Some(Arc::clone(control)),
            _ => None,
        };
        let handle = Self {
            inner: Arc::new(Inner {
                control: OnceLock::new(),
                parts,
                revision: Arc::new(AtomicU64::new(0)),
                bridge: Mutex::new(None),
                gate: tokio::sync::Mutex::new(()),
                closed: AtomicBool::new(false),
                commands: Semaphore::new(COMMANDS_MAX),
            }),
        };
        if let Some(control) = given
            && handle.inner.parts.supported
        {
            handle.adopt(control);
        }
        handle
    }

    /// Gives the supervisor.
    ///
    /// # Errors
    /// [`PluginError::NotInitialised`] until there is one, [`PluginError::Unsupported`] where there can be none.
    pub fn control(&self) -> Result<Arc<dyn SupervisorControl>, PluginError> {
        if !self.inner.parts.supported {
            return Err(PluginError::Unsupported);
        }
        let control = self.inner.control.get().map(Arc::clone);
        control.ok_or(PluginError::NotInitialised)
    }

    /// Makes the supervisor if there is none yet; a second call, also at the same time, changes nothing.
    ///
    /// # Errors
    /// [`PluginError::NotConfigured`] without a factory, [`PluginError::Unsupported`] where there can be no
    /// supervisor, and what the factory gave; after a failure it may be called again.
    ///
    /// # Cancel safety
    /// Safe if the factory's future is; no supervisor exists until it has finished.
    pub async fn init(&self) -> Result<InitOutcome, PluginError> {
        if !self.inner.parts.supported {
            return Err(PluginError::Unsupported);
        }
        let _gate = self.inner.gate.lock().await;
        if self.inner.closed.load(Ordering::SeqCst) {
            return Err(SupervisorError::ShuttingDown.into());
        }
        if self.inner.control.get().is_some() {
            return Ok(InitOutcome { created: false });
        }
        let Source::Made(factory) = &self.inner.parts.source else {
            return Err(PluginError::NotConfigured);
        };
        let control = factory().await?;
        self.adopt(control);
        Ok(InitOutcome { created: true })
    }

    /// Reads everything as it is, with the number of the last batch it includes.
    ///
    /// # Errors
    /// As [`control`](Self::control), and what reading the status gave.
    ///
    /// # Cancel safety
    /// Safe; it only reads.
    pub async fn snapshot(&self) -> Result<Snapshot, PluginError> {
        let control = self.control()?;
        // The number first: the status is then at least as new as the batch it names.
        let revision = self.revision();
        let status = control.status().await?;
        Ok(Snapshot { revision, status })
    }

    /// Describes how the whole is; before there is a supervisor that is an answer too, and no error.
    ///
    /// # Errors
    /// [`PluginError::Unsupported`], and what reading the status gave.
    ///
    /// # Cancel safety
    /// Safe; it only reads.
    pub async fn health(&self) -> Result<SupervisorHealth, PluginError> {
        match self.snapshot().await {
            Ok(snapshot) => Ok(SupervisorHealth::from(&snapshot)),
            Err(PluginError::NotInitialised) => Ok(SupervisorHealth::absent()),
            Err(error) => Err(error),
        }
    }

    /// Gives the number of the last batch of events sent, 0 before the first.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.inner.revision.load(Ordering::SeqCst)
    }

    /// Lists the services a page may register by name.
    pub fn declared(&self) -> impl Iterator<Item = &ServiceId> {
        self.inner.parts.declared.keys()
    }

    /// Lets one more command of a page in, for as long as the permit lives.
    pub(crate) fn admit(&self) -> Result<SemaphorePermit<'_>, PluginError> {
        let busy = |_| PluginError::Busy { limit: COMMANDS_MAX };
        self.inner.commands.try_acquire().map_err(busy)
    }

    /// Gives the specification a page may have registered: a declared one by name, or its own if a policy lets it.
    pub(crate) fn registrable(
        &self,
        service: Option<&Value>,
        spec: Option<&Value>,
    ) -> Result<ServiceSpec, PluginError> {
        match (service, spec) {
            (Some(_), None) => {
                let id = TauriInputSanitizer::service_id("service", service)?;
                let declared = self.inner.parts.declared.get(&id).cloned();
                declared.ok_or_else(|| {
                    not_permitted(&format!(
                        "the application declared no service {id}; Builder::declare_service does"
                    ))
                })
            }
            (None, Some(spec)) => {
                // Without a policy the specification is not even read.
                let policy = self.inner.parts.policy.as_ref().ok_or_else(|| {
                    not_permitted(
                        "a page may only name declared services; Builder::command_policy changes that",
                    )
                })?;
                let spec = TauriInputSanitizer::spec("spec", spec)?;
                policy.judge(&spec).map_err(|reason| not_permitted(&reason))?;
                Ok(spec)
            }
            _ => Err(SecurityError::Input {
                argument: "service".to_owned(),
                reason: "exactly one of service and spec is wanted".to_owned(),
            }
            .into()),
        }
    }

    /// Shuts the supervisor down within `deadline` (or leaves it alone) and ends the bridge; a second call changes nothing.
    pub(crate) async fn close(&self, deadline: Option<Duration>) {
        if self.inner.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(deadline) = deadline {
            match tokio::time::timeout(deadline, self.shut_down()).await {
                Ok(Ok(())) => tracing::info!("the supervisor has shut down"),
                Ok(Err(error)) => {
                    tracing::error!(error = %chain(&error), "the supervisor did not shut down cleanly");
                }
                Err(_) => {
                    tracing::error!(
                        "the supervisor did not shut down in {deadline:?}; exiting anyway"
                    );
                }
            }
        }
        let bridge = self.lock_bridge().take();
        if let Some(bridge) = bridge {
            bridge.stop().await;
        }
    }

    async fn shut_down(&self) -> Result<(), SupervisorError> {
        let _gate = self.inner.gate.lock().await;
        match self.inner.control.get() {
            Some(control) => control.shutdown(Actor::Host).await,
            None => Ok(()),
        }
    }

    fn adopt(&self, control: Control) {
        let bridge = Bridge::start(
            control.subscribe(),
            self.inner.parts.limits,
            Arc::clone(&self.inner.revision),
            Arc::clone(&self.inner.parts.emit),
        );
        *self.lock_bridge() = Some(bridge);
        // Only ever called once: from `new`, or under the gate after looking.
        drop(self.inner.control.set(control));
    }

    fn lock_bridge(&self) -> std::sync::MutexGuard<'_, Option<Bridge>> {
        // One assignment at a time: nothing can be half done after a panic elsewhere.
        self.inner.bridge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_permitted(reason: &str) -> PluginError {
    SecurityError::NotPermitted {
        action: "registering a service".to_owned(),
        reason: reason.to_owned(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use supervisor_core::error::Classified as _;

    use super::*;
    use crate::settings::Settings;

    fn handle(supported: bool) -> SupervisorHandle {
        SupervisorHandle::new(Parts {
            source: Source::Nothing,
            declared: BTreeMap::new(),
            policy: None,
            limits: Settings::default().limits().unwrap(),
            emit: Arc::new(|_| {}),
            supported,
        })
    }

    #[tokio::test]
    async fn where_nothing_can_be_supervised_every_way_in_says_so() {
        let handle = handle(false);
        assert_eq!(handle.control().unwrap_err().code(), "unsupported");
        assert_eq!(handle.init().await.unwrap_err().code(), "unsupported");
        assert_eq!(handle.snapshot().await.unwrap_err().code(), "unsupported");
        assert_eq!(handle.health().await.unwrap_err().code(), "unsupported");
    }

    #[test]
    fn one_command_more_than_the_bound_is_refused_until_one_has_answered() {
        let handle = handle(true);
        let mut admitted: Vec<_> = (0..COMMANDS_MAX).map(|_| handle.admit().unwrap()).collect();
        assert_eq!(handle.admit().unwrap_err().code(), "busy");
        admitted.pop();
        drop(handle.admit().unwrap());
    }

    #[tokio::test]
    async fn after_closing_no_supervisor_is_made() {
        let handle = handle(true);
        handle.close(Some(Duration::from_secs(1))).await;
        assert_eq!(handle.init().await.unwrap_err().code(), "shutting_down");
    }
}
