//! A Tauri 2 plugin.
