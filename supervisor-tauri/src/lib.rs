#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod batch;
mod bridge;
mod builder;
mod commands;
mod dto;
mod error;
mod ext;
mod handle;
mod policy;
pub mod sanitize;
mod settings;

pub use builder::Builder;
pub use dto::{BATCH_VERSION, EventBatch, InitOutcome, PROBLEMS_MAX, Snapshot, SupervisorHealth};
pub use error::{CommandError, PluginError};
pub use ext::SupervisorExt;
pub use handle::{COMMANDS_MAX, SupervisorHandle};
pub use policy::CommandPolicy;
pub use sanitize::TauriInputSanitizer;
pub use settings::Settings;

/// The plugin's name: in permissions (`supervisor-tauri:default`), in commands
/// (`plugin:supervisor-tauri|snapshot`) and in `tauri.conf.json` (`plugins.supervisor-tauri`).
pub const NAME: &str = "supervisor-tauri";

/// The event that carries an [`EventBatch`].
pub const EVENTS: &str = "supervisor-tauri://events";
