//! The guardian with real processes: killed hosts, killed guardians, strangers.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod dying;
mod host;
mod hostile;
mod loss;
mod outliving;
mod random;
mod raw;
mod running;
mod support;
mod surroundings;
