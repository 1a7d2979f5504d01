//! Captured output: how fast, and in how much memory, against a pipe copied to a file.
#![cfg_attr(not(target_os = "linux"), expect(unused, reason = "measured on Linux only"))]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "a benchmark fails by panicking, reports by printing and uses a part of what all share"
)]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{memory, own_program, percentile, report, report_ratio};
use supervisor_core::config::{RestartPolicy, ServiceSpec};
use supervisor_core::state::Phase;
use supervisor_process::Engine;

/// Bytes written by the service.
const BYTES: usize = 200_000_000;
/// Bytes of a line, its end included.
const LINE: usize = 100;
/// Runs of each side; the median counts.
const RUNS: usize = 5;
/// What a child is asked to be by its first argument.
const FLOOD: &str = "--write-lines";

/// Writes lines as fast as they are taken.
fn flood() {
    let line: Vec<u8> = std::iter::repeat_n(b'x', LINE - 1).chain([b'\n']).collect();
    let block = line.repeat(640);
    let mut out = std::io::stdout().lock();
    let mut left = BYTES;
    while left > 0 {
        let now = left.min(block.len());
        out.write_all(&block[..now]).unwrap();
        left -= now;
    }
    out.flush().unwrap();
}

fn floor(directory: &Path) -> Duration {
    let mut file = File::create(directory.join("floor")).unwrap();
    let began = Instant::now();
    let mut child = Command::new(own_program()).arg(FLOOD).stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = pipe.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        file.write_all(&buffer[..read]).unwrap();
    }
    child.wait().unwrap();
    began.elapsed()
}

async fn captured(engine: &Engine, run: usize) -> Duration {
    let mut spec = ServiceSpec::new(format!("svc-{run}"), own_program().to_str().unwrap()).unwrap();
    spec.args = vec![FLOOD.to_owned()];
    spec.restart_policy = RestartPolicy::Never;
    spec.success_exit_codes = vec![0];
    let id = engine.register(spec, None).await.unwrap();
    let mut watched = engine.watch(&id).unwrap();
    let began = Instant::now();
    engine.start(&id).await.unwrap();
    watched.wait_for(|state| !state.phase.may_be_alive()).await.unwrap();
    let taken = began.elapsed();
    let state = engine.state(&id).unwrap();
    assert_eq!(state.phase, Phase::Stopped, "{state:?}");
    assert_eq!(state.last_exit.unwrap().last_lines.len(), 20);
    taken
}

fn main() {
    if std::env::args().nth(1).is_some_and(|first| first == FLOOD) {
        return flood();
    }
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let engine = runtime
        .block_on(async { Engine::builder().log_dir(directory.path().join("logs")).build() })
        .unwrap();
    let (mut least, mut taken) = (Vec::new(), Vec::new());
    let before = memory("status", "VmHWM:");
    for run in 0..RUNS {
        taken.push(runtime.block_on(captured(&engine, run)));
        if run == 0 {
            let grown = memory("status", "VmHWM:").saturating_sub(before);
            let note = "growth of the largest resident size while 200 MB were captured";
            report("output_memory", grown as f64 / 1024.0, "KiB", 8192.0, false, note);
        }
        least.push(floor(directory.path()));
    }
    let rate = |taken: Duration| BYTES as f64 / taken.as_secs_f64() / 1e6;
    let (value, floor) = (rate(percentile(&mut taken, 50)), rate(percentile(&mut least, 50)));
    let note = format!("{LINE}-byte lines, median of {RUNS}; the floor copies a pipe to a file");
    report("output_rate", value, "MB/s", 600.0, true, &note);
    report_ratio("output_time", (1000.0 / value, 1000.0 / floor), "ms/GB", None, &note);
    runtime.block_on(engine.shutdown(Duration::from_secs(10))).unwrap();
}
