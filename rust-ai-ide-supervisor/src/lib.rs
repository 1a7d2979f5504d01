#![doc = include_str!("../README.md")]

#[cfg(feature = "config-file")]
pub mod config_file;
pub mod daemon;
pub mod state_dir;
pub mod storage;
pub mod supervisor;
pub mod wrap;

pub use supervisor::{
    GuardianChoice, OperationGuard, ShutdownReport, Supervisor, SupervisorBuilder,
};
pub use supervisor_core::checkpoint::Checkpoint;
pub use supervisor_core::config::{
    RecoveryConfig, RestartPolicy, ServiceConfig, ServiceSpec, SupervisorConfig,
};
pub use supervisor_core::error::{IdeError, SupervisorError};
pub use supervisor_core::event::{EventKind, SupervisorEvent};
pub use supervisor_core::journal::Actor;
pub use supervisor_core::message::{IpcMessage, Outcome};
pub use supervisor_core::ports::SupervisorControl;
pub use supervisor_core::{ServiceId, state, status};
pub use supervisor_ipc::{Channel, IpcMonitor, Receipt};
pub use supervisor_persist::StatePersistence;
pub use supervisor_process::guardian;
