//! The engine with real processes: started, killed, hung, stopped; after every test nothing is left of them.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod cgroups;
mod containment;
mod fixture;
mod groups;
mod hangs;
mod host;
mod leftovers;
mod light;
mod output;
mod probes;
mod random;
mod reports;
mod resources;
mod restarting;
mod starting;
mod stopping;
mod support;
