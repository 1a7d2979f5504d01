//! The plugin for Rust callers.

use tauri::{Manager, Runtime};

use crate::handle::SupervisorHandle;

/// Gives application code the plugin's state: `app.supervisor().control()?.status().await`.
pub trait SupervisorExt<R: Runtime> {
    /// Gives the plugin's state.
    ///
    /// # Panics
    /// When the plugin is not registered, as Tauri's own `state` does.
    fn supervisor(&self) -> &SupervisorHandle;
}

impl<R: Runtime, T: Manager<R>> SupervisorExt<R> for T {
    fn supervisor(&self) -> &SupervisorHandle {
        self.state::<SupervisorHandle>().inner()
    }
}
