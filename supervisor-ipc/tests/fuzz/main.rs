//! Bytes that nobody would write against everything that reads what others wrote: framings, the walk over a JSON-RPC
//! message, the endpoint, and both relays.
//!
//! `supervisor_core::testing::fuzz` drives them; `cargo xtask fuzz` does so for longer.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod relays;
mod targets;

use std::path::Path;

use supervisor_core::testing::fuzz::{self, Target};

fn drive(name: &str, target: Target, words: &[&[u8]]) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    fuzz::drive(&corpus, target, words);
}

#[test]
fn no_bytes_break_the_framings() {
    drive("frames", targets::frames, targets::FRAME_WORDS);
}

#[test]
fn no_bytes_break_the_walk_over_a_message() {
    drive("envelope", targets::envelope, targets::JSON_WORDS);
}

#[test]
fn no_bytes_break_an_endpoint() {
    drive("endpoint", targets::endpoint, targets::ENDPOINT_WORDS);
}

#[test]
fn no_messages_of_either_side_break_the_relay_of_a_language_server() {
    drive("lsp", relays::lsp, relays::LSP_WORDS);
}

#[test]
fn no_messages_of_either_side_break_the_relay_of_an_mcp_server() {
    drive("mcp", relays::mcp, relays::MCP_WORDS);
}
