//! Sets as job objects, with real processes: on Windows, or under Wine (`cargo xtask cross windows test`).

#![cfg(windows)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod guarding;
mod role;
mod sets;
mod support;
