//! From a kill to the first instruction of the next run, against the least a system call loop needs for the same.
#![cfg_attr(not(target_os = "linux"), expect(unused, reason = "measured on Linux only"))]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    dead_code,
    reason = "a benchmark fails by panicking, reports by printing and uses a part of what all share"
)]

mod common;

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use common::{Fifo, kill, millis, percentile, report_ratio};
use rustix::process::Signal;
use supervisor_core::ServiceId;
use supervisor_core::config::ServiceSpec;
use supervisor_core::state::ServiceState;
use supervisor_process::Engine;
use tokio::sync::watch;

/// Kills before anything is measured; caches warm.
const WARM_UP: usize = 20;
/// Kills of a service that was up for a moment only.
const ROUNDS: usize = 200;
/// Kills of a service that lived for [`LIVED`].
const LIVED_ROUNDS: usize = 60;
/// A life that is neither a start that failed nor a stable service.
const LIVED: Duration = Duration::from_millis(100);

/// Kill, `waitid` and `posix_spawn` in a loop: what nothing that restarts a process can beat.
struct Floor {
    fifo: Fifo,
    running: Child,
}

impl Floor {
    fn new(directory: &Path) -> Self {
        let mut fifo = Fifo::new(directory.join("floor"));
        let running = fifo.start();
        fifo.next_pid();
        Self { fifo, running }
    }

    fn round(&mut self) -> Duration {
        let began = Instant::now();
        kill(self.running.id(), Signal::KILL);
        self.running.wait().unwrap();
        self.running = self.fifo.start();
        self.fifo.next_pid();
        began.elapsed()
    }

    fn end(mut self) {
        self.running.kill().unwrap();
        self.running.wait().unwrap();
    }
}

/// A service of an engine.
struct Supervised {
    fifo: Fifo,
    watched: watch::Receiver<ServiceState>,
    pid: u32,
}

impl Supervised {
    async fn new(engine: &Engine, directory: &Path) -> Self {
        let mut fifo = Fifo::new(directory.join("engine"));
        let id: ServiceId = engine.register(fifo.service("svc"), None).await.unwrap();
        // The budget over all services holds one restart for each of them; these are never started.
        for n in 0..ROUNDS + LIVED_ROUNDS + 2 * WARM_UP {
            let idle = ServiceSpec::new(format!("idle-{n}"), "true").unwrap();
            engine.register(idle, None).await.unwrap();
        }
        engine.start(&id).await.unwrap();
        let pid = fifo.next_pid();
        Self { fifo, watched: engine.watch(&id).unwrap(), pid }
    }

    fn round(&mut self) -> Duration {
        let began = Instant::now();
        kill(self.pid, Signal::KILL);
        self.pid = self.fifo.next_pid();
        let taken = began.elapsed();
        // The engine has to have noted the run, or the next kill would hit a start.
        while self.watched.borrow_and_update().identity.as_ref().map(|identity| identity.pid)
            != Some(self.pid)
        {
            std::thread::yield_now();
        }
        taken
    }
}

/// Takes turns, so that what else the machine does hits both alike.
fn measure(
    floor: &mut Floor,
    service: &mut Supervised,
    rounds: usize,
    lives: Duration,
) -> (Vec<Duration>, Vec<Duration>) {
    let (mut least, mut taken) = (Vec::new(), Vec::new());
    for round in 0..rounds + WARM_UP {
        common::let_pass(lives);
        let (a, b) = (floor.round(), service.round());
        if round >= WARM_UP {
            least.push(a);
            taken.push(b);
        }
    }
    (least, taken)
}

fn main() {
    common::be_the_child_if_asked();
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let engine = runtime
        .block_on(async { Engine::builder().log_dir(directory.path().join("logs")).build() })
        .unwrap();
    let mut service = runtime.block_on(Supervised::new(&engine, directory.path()));
    let mut floor = Floor::new(directory.path());
    for (name, rounds, lives) in [
        ("crash_to_running", ROUNDS, Duration::ZERO),
        ("crash_to_running_lived_100ms", LIVED_ROUNDS, LIVED),
    ] {
        let (mut least, mut taken) = measure(&mut floor, &mut service, rounds, lives);
        for (percent, target) in [(50, Some(1.15)), (90, None)] {
            let name = if percent == 50 { name.to_owned() } else { format!("{name}_p{percent}") };
            let values =
                (millis(percentile(&mut taken, percent)), millis(percentile(&mut least, percent)));
            let note = format!("p{percent} of {rounds}, taking turns with the floor");
            report_ratio(&name, values, "ms", target, &note);
        }
    }
    floor.end();
    runtime.block_on(engine.shutdown(Duration::from_secs(10))).unwrap();
}
