//! Misbehaviour on request: what crashes, hangs, leaks and floods look like from outside.

use std::io::Write as _;
use std::process;
use std::thread;
use std::time::Duration;

/// Most memory a leak takes, in bytes; enough to cross any ceiling worth setting, little enough to spare the machine.
const LEAK_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Memory a leak takes at each step, in bytes.
const LEAK_STEP: usize = 4 * 1024 * 1024;
/// Pause between two steps of a leak, so that it is a leak and not a spike.
const LEAK_PAUSE: Duration = Duration::from_millis(20);
/// Most a flood writes, in bytes; four times what is kept of a service's output by default.
const FLOOD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Stop answering while the process stays alive.
    Hang,
    /// End at once with SIGABRT.
    Crash,
    /// Take more and more memory.
    Leak,
    /// Write a great deal of output.
    Flood,
}

impl Fault {
    /// Reads the name of a fault.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "hang" => Some(Self::Hang),
            "crash" => Some(Self::Crash),
            "leak" => Some(Self::Leak),
            "flood" => Some(Self::Flood),
            _ => None,
        }
    }

    /// Misbehaves. Crash and hang do not return; leak and flood go on in a thread of their own.
    pub(super) fn commit(self) {
        match self {
            Self::Crash => process::abort(),
            Self::Hang => hang(),
            Self::Leak => background(leak),
            Self::Flood => background(flood),
        }
    }
}

/// The thread has no owner on purpose: a fault ends with its process.
fn background(work: fn()) {
    drop(thread::spawn(work));
}

fn hang() {
    loop {
        thread::park();
    }
}

fn leak() {
    let mut held = Vec::new();
    while held.len() * LEAK_STEP < LEAK_BYTES_MAX {
        // Pages that are only reserved cost nothing: each must be written to.
        held.push(vec![1_u8; LEAK_STEP]);
        thread::park_timeout(LEAK_PAUSE);
    }
    std::hint::black_box(&held);
    hang();
}

fn flood() {
    let mut log = std::io::stderr().lock();
    let mut written = 0;
    let mut n = 0_u64;
    while written < FLOOD_BYTES_MAX {
        let line = format!("flood {n}: the quick brown fox jumps over the lazy dog\n");
        if log.write_all(line.as_bytes()).is_err() {
            return;
        }
        written += line.len();
        n += 1;
    }
}
