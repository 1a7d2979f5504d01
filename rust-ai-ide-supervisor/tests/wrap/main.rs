//! `ide-supervisor wrap` in front of language servers that die, hang, and talk nonsense.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says its seed and what it leaves out"
)]

mod client;
mod crashes;
mod early;
mod fake;
mod gone;
mod letters;
mod nonsense;
mod plumbing;
mod real;
mod shared;
mod silence;
mod stalls;

/// The scripted server, when this program was started as one; nothing otherwise.
#[test]
fn serves_when_started_as_a_server() {
    fake::serve();
}
