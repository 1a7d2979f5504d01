//! Puts the plugin together and takes it apart again.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::ServiceId;
use supervisor_core::config::ServiceSpec;
use supervisor_core::error::{ConfigError, SupervisorError};
use supervisor_core::ports::SupervisorControl;
use tauri::plugin::{PluginApi, TauriPlugin};
use tauri::{AppHandle, Emitter as _, Manager as _, RunEvent, Runtime};

use crate::handle::{Parts, Source, SupervisorHandle};
use crate::policy::CommandPolicy;
use crate::settings::Settings;
use crate::{EVENTS, NAME, commands};

/// Time the supervisor gets at exit unless the application says otherwise: a little more than the default
/// `global_shutdown_timeout`, so that the supervisor's own deadline decides.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(35);

/// Configures the plugin; the crate's documentation shows the whole.
#[must_use]
pub struct Builder {
    source: Source,
    declared: Vec<ServiceSpec>,
    policy: Option<Box<dyn CommandPolicy>>,
    shutdown: Option<Duration>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("source", &self.source)
            .field("declared", &self.declared.len())
            .field("policy", &self.policy.is_some())
            .field("shutdown", &self.shutdown)
            .finish()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// Starts with no supervisor, no declared service, no policy, and a shutdown at exit within 35 s.
    pub const fn new() -> Self {
        Self {
            source: Source::Nothing,
            declared: Vec::new(),
            policy: None,
            shutdown: Some(SHUTDOWN_DEADLINE),
        }
    }

    /// Uses a supervisor that exists; `init_supervisor` then changes nothing.
    pub fn control(mut self, control: Arc<dyn SupervisorControl>) -> Self {
        self.source = Source::Given(control);
        self
    }

    /// Makes the supervisor when `init_supervisor` is called; after a failure it may be called again.
    pub fn factory<F, Made>(mut self, factory: F) -> Self
    where
        F: Fn() -> Made + Send + Sync + 'static,
        Made: Future<Output = Result<Arc<dyn SupervisorControl>, SupervisorError>> + Send + 'static,
    {
        self.source = Source::Made(Box::new(move || Box::pin(factory())));
        self
    }

    /// Lets pages register this service by its id. It is checked when the plugin is set up.
    pub fn declare_service(mut self, service: impl Into<ServiceSpec>) -> Self {
        self.declared.push(service.into());
        self
    }

    /// Lets pages describe services themselves, as far as `policy` accepts them.
    pub fn command_policy(mut self, policy: impl CommandPolicy) -> Self {
        self.policy = Some(Box::new(policy));
        self
    }

    /// Shuts the supervisor down when the application exits, within `deadline`; 35 s unless set.
    ///
    /// Beyond it the exit goes on and what is left is logged. A signal (SIGTERM, Ctrl-C, the end of the session)
    /// ends a Tauri application without any exit event: catching signals is the supervisor's job, or the application's.
    pub const fn shutdown_deadline(mut self, deadline: Duration) -> Self {
        self.shutdown = Some(deadline);
        self
    }

    /// Leaves the supervisor running when the application exits; its owner shuts it down.
    pub const fn keep_running_at_exit(mut self) -> Self {
        self.shutdown = None;
        self
    }

    /// Makes the plugin.
    ///
    /// Setting it up fails, with the reason, when a declared service or a setting is not valid.
    #[must_use]
    pub fn build<R: Runtime>(self) -> TauriPlugin<R, Option<Settings>> {
        let shutdown = self.shutdown;
        let setup = move |app: &AppHandle<R>, settings: Option<Settings>| {
            let limits = settings.unwrap_or_default().limits()?;
            let declared = check_declared(self.declared)?;
            let pages = app.clone();
            app.manage(SupervisorHandle::new(Parts {
                source: self.source,
                declared,
                policy: self.policy,
                limits,
                emit: Arc::new(move |batch| {
                    if let Err(error) = pages.emit(EVENTS, batch) {
                        tracing::warn!(%error, "a batch of events was not sent; pages heal by snapshot");
                    }
                }),
                supported: cfg!(desktop),
            }));
            Ok::<(), ConfigError>(())
        };
        tauri::plugin::Builder::new(NAME)
            .invoke_handler(commands::handler())
            .setup(move |app: &AppHandle<R>, api: PluginApi<R, Option<Settings>>| {
                Ok(setup(app, api.config().clone())?)
            })
            .on_event(move |app, event| {
                if let RunEvent::Exit = event {
                    close(app, shutdown);
                }
            })
            .on_drop(move |app| close(&app, shutdown))
            .build()
    }
}

fn check_declared(
    services: Vec<ServiceSpec>,
) -> Result<BTreeMap<ServiceId, ServiceSpec>, ConfigError> {
    let mut declared = BTreeMap::new();
    for spec in services {
        spec.validate()?;
        let id = spec.service_id()?;
        if declared.insert(id.clone(), spec).is_some() {
            return Err(ConfigError::DuplicateId { id: id.into() });
        }
    }
    Ok(declared)
}

/// Closes the plugin and waits; does nothing the second time.
fn close<R: Runtime>(app: &AppHandle<R>, shutdown: Option<Duration>) {
    let Some(handle) = app.try_state::<SupervisorHandle>() else {
        return;
    };
    let handle = handle.inner().clone();
    // A thread of its own: the caller may be inside a runtime of the application, where blocking is refused.
    let closing = std::thread::Builder::new()
        .name("supervisor-exit".to_owned())
        .spawn(move || tauri::async_runtime::block_on(handle.close(shutdown)));
    match closing.map(std::thread::JoinHandle::join) {
        Ok(Ok(())) => {}
        Ok(Err(_)) => tracing::error!("shutting down panicked"),
        Err(error) => tracing::error!(%error, "no thread for shutting down"),
    }
}
