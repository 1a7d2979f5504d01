//! The dashboard's own half: one supervisor, made of a configuration file or of two sleeping services.

use std::path::PathBuf;
use std::sync::Arc;

use rust_ai_ide_supervisor::config_file::ConfigFile;
use rust_ai_ide_supervisor::{
    ServiceConfig, ServiceSpec, Supervisor, SupervisorConfig, SupervisorControl,
};
use supervisor_tauri::SupervisorExt as _;
use tauri::Runtime;
use tauri::plugin::TauriPlugin;

/// What the application was started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The services' configuration file; two sleeping services without one.
    pub config: Option<PathBuf>,
    /// Where the supervisor keeps its state.
    pub state_dir: PathBuf,
}

/// Makes the supervisor the window looks at; nothing is started yet.
///
/// # Errors
/// What is wrong with the configuration or the state directory.
pub async fn supervisor(
    options: &Options,
) -> Result<Arc<dyn SupervisorControl>, Box<dyn std::error::Error>> {
    let (settings, services) = match &options.config {
        Some(path) => {
            let file = ConfigFile::load(path)?;
            (file.supervisor, file.services)
        }
        None => (SupervisorConfig::default(), sleepers()?),
    };
    let supervisor =
        Supervisor::builder().config(settings).state_dir(&options.state_dir).build()?;
    for service in services {
        supervisor.register_service(service).await?;
    }
    Ok(Arc::new(supervisor))
}

fn sleepers() -> Result<Vec<ServiceSpec>, Box<dyn std::error::Error>> {
    ["first", "second"]
        .into_iter()
        .map(|id| {
            let config =
                ServiceConfig { args: vec!["86400".into()], ..ServiceConfig::new(id, "sleep")? };
            Ok(ServiceSpec::from(config))
        })
        .collect()
}

/// Gives the plugin over a supervisor. The page may look and operate; what runs was decided before there was a page.
pub fn plugin<R: Runtime>(
    control: Arc<dyn SupervisorControl>,
) -> TauriPlugin<R, Option<supervisor_tauri::Settings>> {
    supervisor_tauri::Builder::new().control(control).build()
}

/// Gives what Tauri made of the configuration, the capabilities and the page.
#[expect(
    clippy::disallowed_methods,
    reason = "the macro's own code ends the process when its assets are broken"
)]
#[must_use]
pub fn context<R: Runtime>() -> tauri::Context<R> {
    tauri::generate_context!()
}

/// Runs the application until its window is closed.
///
/// # Errors
/// What is wrong with the configuration, the state directory or the window system.
pub fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let control = tauri::async_runtime::block_on(supervisor(options))?;
    tauri::async_runtime::block_on(control.start_monitoring())?;
    let app = tauri::Builder::default().plugin(plugin(control)).build(context())?;
    debug_assert_eq!(app.supervisor().declared().count(), 0);
    app.run(|_, _| {});
    Ok(())
}
