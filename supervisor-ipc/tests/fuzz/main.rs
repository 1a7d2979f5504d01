//! Bytes that nobody would write against everything that reads what others wrote: framings, the walk over a JSON-RPC
//! message, the endpoint, and both relays.
//!
//! Inputs grow out of those in `corpus/`, which are tried first: what was found once stays there. One whose outcome was
//! not seen before joins them in memory and is changed further. `FUZZ_FOR` gives the seconds of each target (0.3
//! otherwise), `FUZZ_SEED` repeats a run; `cargo xtask fuzz` sets both.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "a run names its seed and what it found")]

mod mutation;
mod relays;
mod targets;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Inputs that are changed further; at the bound a random one makes room.
const POOL_MAX: usize = 4096;
/// Longest time for one input; all of them are small.
const SLOW: Duration = Duration::from_secs(5);

/// Something that takes bytes and tells their outcome in a number: the same for inputs that need not be told apart.
pub(crate) type Target = fn(&[u8]) -> u64;

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name)
}

/// Runs one input; one that panics or takes too long is kept for the next run and for a person.
fn run(name: &str, target: Target, input: &[u8]) -> u64 {
    let began = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    let took = began.elapsed();
    match outcome {
        Ok(outcome) if took < SLOW => outcome,
        outcome => {
            let what =
                if outcome.is_err() { "panics".to_owned() } else { format!("took {took:?}") };
            let kept = corpus(name).join(format!("found-{:016x}", mutation::hash(&input)));
            let place = match std::fs::write(&kept, input) {
                Ok(()) => format!("kept as {}", kept.display()),
                Err(error) => format!("not kept: {error}"),
            };
            panic!("{name}: an input {what}, {place}: {}", input.escape_ascii());
        }
    }
}

fn drive(name: &str, target: Target, words: &[&[u8]]) {
    let mut pool: Vec<Vec<u8>> = Vec::new();
    let mut seen = HashSet::new();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(corpus(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let input = std::fs::read(file).unwrap();
        seen.insert(run(name, target, &input));
        pool.push(input);
    }
    let seed = variable("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let time = Duration::from_secs_f64(variable("FUZZ_FOR").unwrap_or(0.3));
    let mut random = fastrand::Rng::with_seed(seed);
    let (began, mut inputs) = (Instant::now(), 0_u64);
    eprintln!("{name}: FUZZ_SEED={seed}");
    while began.elapsed() < time {
        let mut input = pool[random.usize(..pool.len())].clone();
        let other = &pool[random.usize(..pool.len())];
        for _ in 0..=random.usize(..4) {
            mutation::mutate(&mut input, other, words, &mut random);
        }
        inputs += 1;
        if seen.insert(run(name, target, &input)) {
            if pool.len() >= POOL_MAX {
                pool.swap_remove(random.usize(..pool.len()));
            }
            pool.push(input);
        }
    }
    eprintln!("{name}: {inputs} inputs, {} different outcomes, nothing found", seen.len());
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
