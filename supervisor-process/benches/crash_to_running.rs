//! From a kill to the first instruction of the next run, against the least a system call loop needs for the same.
#![cfg_attr(not(target_os = "linux"), expect(unused, reason = "measured on Linux only"))]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking and reports by printing"
)]

use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use supervisor_core::config::{RestartIntensity, RestartPolicy, ServiceSpec};
use supervisor_process::Engine;

/// Kills measured on each side.
const ROUNDS: usize = 200;
/// Kills before that; caches warm.
const WARM_UP: usize = 20;
/// What a child is asked to be by its first argument.
const CHILD: &str = "--be-the-child";

/// Says that it runs, with its pid, and waits to be killed.
fn child(fifo: &Path) {
    use std::io::Write;
    let mut file = File::options().write(true).open(fifo).unwrap();
    file.write_all(&std::process::id().to_ne_bytes()).unwrap();
    drop(file);
    loop {
        std::thread::park();
    }
}

/// The reading end; opened for writing too, so that it is never at its end.
fn reader(fifo: &Path) -> File {
    assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    File::options().read(true).write(true).open(fifo).unwrap()
}

fn next_pid(reader: &mut File) -> u32 {
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).unwrap();
    u32::from_ne_bytes(bytes)
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Kill, `waitid` and `posix_spawn` in a loop: what nothing that restarts a process can beat.
fn floor(directory: &Path) -> Vec<Duration> {
    let fifo = directory.join("floor");
    let mut reader = reader(&fifo);
    let start = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([CHILD.as_ref(), fifo.as_os_str()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut running = start();
    next_pid(&mut reader);
    let mut taken = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS + WARM_UP {
        let began = Instant::now();
        kill(running.id());
        assert_eq!(running.wait().unwrap().signal(), Some(9));
        running = start();
        next_pid(&mut reader);
        if round >= WARM_UP {
            taken.push(began.elapsed());
        }
    }
    running.kill().unwrap();
    running.wait().unwrap();
    taken
}

async fn engine(directory: &Path) -> Vec<Duration> {
    let fifo = directory.join("engine");
    let mut reader = reader(&fifo);
    let engine = Engine::builder().log_dir(directory.join("logs")).build().unwrap();
    let mut spec =
        ServiceSpec::new("svc", std::env::current_exe().unwrap().to_str().unwrap()).unwrap();
    spec.args = vec![CHILD.to_owned(), fifo.to_str().unwrap().to_owned()];
    spec.restart_policy = RestartPolicy::Always;
    spec.restart_intensity = RestartIntensity::UNLIMITED;
    let id = engine.register(spec, None).await.unwrap();
    // The budget over all services holds one restart for each of them; these are never started.
    for n in 0..ROUNDS + WARM_UP {
        engine
            .register(ServiceSpec::new(format!("idle-{n}"), "true").unwrap(), None)
            .await
            .unwrap();
    }
    engine.start(&id).await.unwrap();
    let mut watched = engine.watch(&id).unwrap();
    let taken = {
        let blocking = tokio::task::spawn_blocking(move || {
            let mut pid = next_pid(&mut reader);
            let mut taken = Vec::with_capacity(ROUNDS);
            for round in 0..ROUNDS + WARM_UP {
                // The engine has to have noted the run, or the kill would hit a start.
                while watched.borrow_and_update().identity.as_ref().map(|identity| identity.pid)
                    != Some(pid)
                {
                    std::thread::yield_now();
                }
                let began = Instant::now();
                kill(pid);
                pid = next_pid(&mut reader);
                if round >= WARM_UP {
                    taken.push(began.elapsed());
                }
            }
            taken
        });
        blocking.await.unwrap()
    };
    engine.shutdown(Duration::from_secs(10)).await.unwrap();
    taken
}

fn percentile(taken: &mut [Duration], percent: usize) -> f64 {
    taken.sort_unstable();
    taken[(taken.len() - 1) * percent / 100].as_secs_f64() * 1000.0
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == CHILD) {
        return child(Path::new(&arguments.next().unwrap()));
    }
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut floor = floor(directory.path());
    let mut taken = runtime.block_on(engine(directory.path()));
    for percent in [50, 99] {
        let (value, floor) = (percentile(&mut taken, percent), percentile(&mut floor, percent));
        let (bench, target) = if percent == 50 {
            ("crash_to_running", ",\"target\":1.15")
        } else {
            ("crash_to_running_p99", "")
        };
        println!(
            "{{\"bench\":\"{bench}\",\"value\":{value:.3},\"unit\":\"ms\",\"floor\":{floor:.3},\"ratio\":{:.3}{target},\"note\":\"p{percent} of {ROUNDS}\"}}",
            value / floor
        );
    }
}
