//! The plugin on Tauri's mock runtime, with its real permission files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acl;
mod commands;
mod events;
mod fake;
mod lifetime;
mod page;
