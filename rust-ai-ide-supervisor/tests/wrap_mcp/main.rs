//! `ide-supervisor wrap` in front of MCP servers that die, hang, and talk nonsense.
#![cfg(all(target_os = "linux", feature = "cli"))]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it leaves out"
)]

mod client;
mod crashes;
mod fake;
mod hostile;
mod letters;
#[path = "../wrap/plumbing.rs"]
mod plumbing;
mod real;
mod silence;

/// The scripted server, when this program was started as one; nothing otherwise.
#[test]
fn serves_when_started_as_a_server() {
    fake::serve();
}
