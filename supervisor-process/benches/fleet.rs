//! A thousand services: started, a hundred killed at once, left alone, measured, stopped.
#![cfg_attr(not(target_os = "linux"), expect(unused, reason = "measured on Linux only"))]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking, reports by printing and uses a part of what all share"
)]

mod common;

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use common::{Fifo, kill, memory, millis, percentile, report, report_ratio};
use rustix::process::{Resource, Rlimit, Signal};
use supervisor_process::Engine;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Services that are started, left alone, measured and stopped.
const SERVICES: usize = 1000;
/// Services killed at once: all there are in one fleet, and some of a thousand.
const KILLED: usize = 100;
/// Runs of a large fleet and of a small one; the median counts.
const RUNS: [usize; 2] = [3, 15];
/// How long it is looked at for doing nothing.
const IDLE: Duration = Duration::from_secs(10);

/// What one run took, on one side.
#[derive(Default)]
struct Taken {
    started: Vec<Duration>,
    back: Vec<Duration>,
    stopped: Vec<Duration>,
}

/// One thread with nothing but system calls.
fn floor(fifo: &mut Fifo, services: usize, taken: &mut Taken) {
    let began = Instant::now();
    let mut children: Vec<Child> = (0..services).map(|_| fifo.start()).collect();
    wait_for(fifo, services);
    taken.started.push(began.elapsed());

    let began = Instant::now();
    for child in &children[..KILLED] {
        kill(child.id(), Signal::KILL);
    }
    for child in &mut children[..KILLED] {
        child.wait().unwrap();
        *child = fifo.start();
    }
    wait_for(fifo, KILLED);
    taken.back.push(began.elapsed());

    let began = Instant::now();
    for child in &children {
        kill(child.id(), Signal::TERM);
    }
    for child in &mut children {
        child.wait().unwrap();
    }
    taken.stopped.push(began.elapsed());
}

fn wait_for(fifo: &mut Fifo, children: usize) -> Vec<u32> {
    (0..children).map(|_| fifo.next_pid()).collect()
}

struct Footprint {
    base: u64,
    each: u64,
    ticks: u64,
}

fn supervised(
    runtime: &Runtime,
    fifo: &mut Fifo,
    logs: &Path,
    services: usize,
    taken: &mut Taken,
    look: bool,
) -> Option<Footprint> {
    let engine = runtime.block_on(async { Engine::builder().log_dir(logs).build() }).unwrap();
    let base = memory("smaps_rollup", "Pss:");
    let ids: Vec<_> = runtime.block_on(async {
        let mut ids = Vec::with_capacity(services);
        for n in 0..services {
            ids.push(engine.register(fifo.service(&format!("svc-{n}")), None).await.unwrap());
        }
        ids
    });

    let began = Instant::now();
    let mut starts = JoinSet::new();
    for id in ids {
        let engine = engine.clone();
        starts.spawn_on(async move { engine.start(&id).await.unwrap() }, runtime.handle());
    }
    let pids = wait_for(fifo, services);
    taken.started.push(began.elapsed());
    runtime.block_on(starts.join_all());

    let footprint = look.then(|| {
        let each = memory("smaps_rollup", "Pss:").saturating_sub(base) / services as u64;
        let before = ticks();
        common::let_pass(IDLE);
        Footprint { base, each, ticks: ticks() - before }
    });

    let began = Instant::now();
    for pid in &pids[..KILLED] {
        kill(*pid, Signal::KILL);
    }
    wait_for(fifo, KILLED);
    taken.back.push(began.elapsed());

    let began = Instant::now();
    runtime.block_on(engine.shutdown(Duration::from_secs(30))).unwrap();
    taken.stopped.push(began.elapsed());
    footprint
}

/// Processor time this process has used, in clock ticks.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let rest = &stat[stat.rfind(')').unwrap() + 1..];
    rest.split_ascii_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn main() {
    common::be_the_child_if_asked();
    raise_descriptor_limit();
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let mut fifo = Fifo::new(directory.path().join("fifo"));
    let mut footprint = None;
    let mut fleets = Vec::new();
    // The large one first, before anything has left its traces in memory.
    for (services, runs) in [SERVICES, KILLED].into_iter().zip(RUNS) {
        let (mut least, mut taken) = (Taken::default(), Taken::default());
        for run in 0..runs {
            let logs = directory.path().join(format!("logs-{services}-{run}"));
            let look = footprint.is_none();
            let looked = supervised(&runtime, &mut fifo, &logs, services, &mut taken, look);
            footprint = footprint.or(looked);
            floor(&mut fifo, services, &mut least);
        }
        fleets.push((taken, least));
    }
    let ratio = |bench: &str, taken: &mut [Duration], least: &mut [Duration], target, of: &str| {
        let values = (millis(percentile(taken, 50)), millis(percentile(least, 50)));
        let note = format!("{of}, median of {}, floor with one thread", taken.len());
        report_ratio(bench, values, "ms", target, &note);
    };
    let [(large, large_least), (small, small_least)] = &mut fleets[..] else { return };
    ratio("start_1000", &mut large.started, &mut large_least.started, Some(1.15), "1000");
    ratio("killed_100_back", &mut small.back, &mut small_least.back, Some(0.8), "of 100");
    ratio("killed_100_of_1000_back", &mut large.back, &mut large_least.back, None, "of 1000");
    ratio("stop_1000", &mut large.stopped, &mut large_least.stopped, Some(1.43), "1000");
    let footprint = footprint.unwrap();
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    report(
        "memory_base",
        kib(footprint.base),
        "KiB",
        12288.0,
        false,
        "PSS with an engine and no service",
    );
    report(
        "memory_each",
        kib(footprint.each),
        "KiB",
        8.0,
        false,
        "PSS a service, capture on, 1000 services",
    );
    report(
        "idle_ticks",
        footprint.ticks as f64,
        "ticks",
        0.0,
        false,
        "10 s, 1000 services without probes",
    );
}
