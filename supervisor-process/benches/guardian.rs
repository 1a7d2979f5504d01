//! What a guardian costs and saves: starts from hosts of any size, crash to running through it, its memory.
//!
//! Size: one host program, its roles and its four measurements; split they would repeat the host.
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
use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor_core::Incarnation;
use supervisor_core::config::{HostDeathPolicy, RestartIntensity, RestartPolicy, ServiceSpec};
use supervisor_core::ports::{ProcessSpawner, SpawnRequest};
use supervisor_process::Engine;
use supervisor_process::guardian::{GuardianNews, GuardianProgram, GuardianSpawner, run_if_asked};

/// Kills measured on each side of the comparison with the floor.
const ROUNDS: usize = 200;
/// Kills before that; caches warm.
const WARM_UP: usize = 20;
/// Starts measured from a host of each size.
const STARTS: usize = 300;
/// Sets held while the guardian's memory is measured.
const SETS: usize = 500;
/// Sets taken over by a second host.
const ADOPTED: usize = 50;
/// What a child is asked to be by its first argument.
const CHILD: &str = "--be-the-child";
/// What a host of a size is asked to be.
const HOST: &str = "--be-a-host";
/// What a host that is killed is asked to be.
const VICTIM: &str = "--be-a-victim";
/// Hosts that are killed.
const VICTIMS: usize = 20;
/// Sets each of them has; a leader, a child, and a grandchild in a session of its own.
const VICTIM_SETS: usize = 20;

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

/// A directory that is this user's alone, as a state directory must be.
fn own_dir() -> tempfile::TempDir {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().unwrap()
}

async fn open(directory: &Path) -> GuardianSpawner {
    let mark = format!("bench-{}", directory.display());
    GuardianSpawner::open(directory, mark, directory.join("logs"), GuardianProgram::Itself)
        .await
        .unwrap()
}

fn request(spec: &Arc<ServiceSpec>, run: u64) -> SpawnRequest {
    SpawnRequest {
        service: spec.service_id().unwrap(),
        incarnation: Incarnation(run),
        spec: Arc::clone(spec),
        extra_environment: Vec::new(),
    }
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

async fn through_the_guardian(directory: &Path) -> Vec<Duration> {
    let fifo = directory.join("engine");
    let mut reader = reader(&fifo);
    let spawner = Arc::new(open(directory).await);
    let mark = format!("bench-{}", directory.display());
    let engine = Engine::builder().mark(mark).guardian(Arc::clone(&spawner)).build().unwrap();
    let program = std::env::current_exe().unwrap();
    let mut spec = ServiceSpec::new("svc", program.to_str().unwrap()).unwrap();
    spec.args = vec![CHILD.to_owned(), fifo.to_str().unwrap().to_owned()];
    spec.restart_policy = RestartPolicy::Always;
    spec.restart_intensity = RestartIntensity::UNLIMITED;
    let id = engine.register(spec, None).await.unwrap();
    // The budget over all services holds one restart for each of them; these are never started.
    for n in 0..ROUNDS + WARM_UP {
        let idle = ServiceSpec::new(format!("idle-{n}"), "true").unwrap();
        engine.register(idle, None).await.unwrap();
    }
    engine.start(&id).await.unwrap();
    let mut watched = engine.watch(&id).unwrap();
    let blocking = tokio::task::spawn_blocking(move || {
        let mut pid = next_pid(&mut reader);
        let mut taken = Vec::with_capacity(ROUNDS);
        for round in 0..ROUNDS + WARM_UP {
            // The engine has to have noted the run, or the kill would hit a start.
            while watched.borrow_and_update().identity.as_ref().map(|it| it.pid) != Some(pid) {
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
    let taken = blocking.await.unwrap();
    engine.shutdown(Duration::from_secs(10)).await.unwrap();
    spawner.close().await;
    taken
}

/// Runs in a process of its own: touches so much memory, starts programs, prints p50 and p99 in milliseconds.
fn host(directory: &Path, mebibytes: usize) {
    let mut ballast = vec![0_u8; mebibytes << 20];
    for page in ballast.chunks_mut(4096) {
        page[0] = 1;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let spawner = open(directory).await;
        let mut spec = ServiceSpec::new("svc", "sleep").unwrap();
        spec.args = vec!["600".into()];
        let spec = Arc::new(spec);
        let (mut taken, mut floor) = (Vec::with_capacity(STARTS), Vec::with_capacity(STARTS));
        for run in 0..STARTS + WARM_UP {
            let began = Instant::now();
            let child = spawner.spawn(request(&spec, run as u64 + 1)).await.unwrap();
            let guarded = began.elapsed();
            child.kill_set(Duration::from_secs(10)).await;
            // What the standard library's fast path takes for the same, a moment later on the same machine.
            let began = Instant::now();
            let mut own = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
            let direct = began.elapsed();
            own.kill().unwrap();
            own.wait().unwrap();
            if run >= WARM_UP {
                taken.push(guarded);
                floor.push(direct);
            }
        }
        spawner.close().await;
        let of = |taken: &mut [Duration]| [percentile(taken, 50), percentile(taken, 99)];
        let ([p50, p99], [floor_p50, floor_p99]) = (of(&mut taken), of(&mut floor));
        println!("{p50} {p99} {floor_p50} {floor_p99}");
    });
    std::hint::black_box(&ballast);
}

/// p50 and p99 through the guardian, then of the floor.
fn from_a_host_of(mebibytes: usize) -> Option<[f64; 4]> {
    let directory = own_dir();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(HOST).arg(directory.path()).arg(mebibytes.to_string());
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().ok()
}

/// Runs in a process of its own: starts sets that die with it, says so, and waits to be killed.
fn victim(directory: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let children = runtime.block_on(async {
        let spawner = open(directory).await;
        let mut children = Vec::with_capacity(VICTIM_SETS);
        for n in 0..VICTIM_SETS {
            let mut spec = ServiceSpec::new(format!("svc-{n}"), "sh").unwrap();
            spec.args = vec!["-c".into(), "(setsid sleep 600 &); sleep 600; :".into()];
            children.push(spawner.spawn(request(&Arc::new(spec), 1)).await.unwrap());
        }
        (spawner, children)
    });
    println!("ready");
    // Held for as long as this process lives.
    while children.1.len() == VICTIM_SETS {
        std::thread::park();
    }
}

/// From a host's SIGKILL to the end of the last process of its sets, escaped ones included, told by the kernel.
#[cfg(target_os = "linux")]
fn gone_with_the_host() {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use std::io::{BufRead, BufReader};
    use supervisor_core::ports::ProcessTable;
    let mut taken = Vec::with_capacity(VICTIMS);
    for _ in 0..VICTIMS {
        let directory = own_dir();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(VICTIM).arg(directory.path()).stdout(Stdio::piped());
        let mut host = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mark = format!("bench-{}", directory.path().display());
        let table = supervisor_process::SystemProcessTable::new();
        let mut found = table.marked(&mark);
        while found.len() < 3 * VICTIM_SETS {
            std::thread::yield_now();
            found = table.marked(&mark);
        }
        let pin = |pid: u32| {
            pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap()
        };
        let pinned: Vec<_> = found.iter().map(|process| pin(process.identity.pid)).collect();
        let began = Instant::now();
        kill(host.id());
        for process in &pinned {
            poll(&mut [PollFd::new(process, PollFlags::IN)], None).unwrap();
        }
        taken.push(began.elapsed());
        host.wait().unwrap();
    }
    for percent in [50, 100] {
        let value = percentile(&mut taken, percent);
        println!(
            "{{\"bench\":\"guardian_host_gone_p{percent}\",\"value\":{value:.1},\"unit\":\"ms\",\"target\":1000,\"note\":\"SIGKILL of a host to the end of all of {VICTIM_SETS} sets of 3, p{percent} of {VICTIMS}\"}}"
        );
    }
}

fn starts_by_size() {
    let Some(small) = from_a_host_of(10) else { return };
    for (mebibytes, name) in [(10, "10mb"), (1024, "1gb"), (4096, "4gb")] {
        let measured = if mebibytes == 10 { Some(small) } else { from_a_host_of(mebibytes) };
        let Some([p50, p99, direct, direct_p99]) = measured else {
            println!("skipped: there is no memory for a host of {mebibytes} MiB");
            continue;
        };
        println!(
            "{{\"bench\":\"guardian_spawn_{name}\",\"value\":{p50:.3},\"unit\":\"ms\",\"floor\":{:.3},\"ratio\":{:.3},\"target\":1.5,\"note\":\"p50 of {STARTS}, floor: the same from 10 MB; posix_spawn beside it {direct:.3}\"}}",
            small[0],
            p50 / small[0]
        );
        println!(
            "{{\"bench\":\"guardian_spawn_{name}_p99\",\"value\":{p99:.3},\"unit\":\"ms\",\"target\":5,\"note\":\"p99 of {STARTS}; posix_spawn beside it {direct_p99:.3}\"}}"
        );
    }
}

/// Private and proportional resident memory of a process, in KiB.
fn memory(pid: u32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (field("Rss:"), field("Pss:"))
}

/// Memory of a guardian with and without sets, and how long a second host takes to have all of them in its hands.
async fn held(directory: &Path) {
    let spawner = open(directory).await;
    let GuardianNews::Guarding { identity, .. } = spawner.news().borrow().clone() else { return };
    let (rss, pss) = memory(identity.pid);
    println!(
        "{{\"bench\":\"guardian_base\",\"value\":{pss},\"unit\":\"KiB\",\"target\":3072,\"note\":\"PSS; {rss} KiB resident with what it shares with other processes\"}}"
    );
    let mut children = Vec::with_capacity(SETS);
    for n in 0..SETS {
        let mut spec = ServiceSpec::new(format!("svc-{n}"), "sleep").unwrap();
        spec.args = vec!["600".into()];
        let outlives = n < ADOPTED;
        spec.on_host_death = if outlives { HostDeathPolicy::Outlive } else { HostDeathPolicy::Die };
        children.push(spawner.spawn(request(&Arc::new(spec), 1)).await.unwrap());
    }
    let (_, full) = memory(identity.pid);
    #[expect(clippy::cast_precision_loss, reason = "some thousand KiB")]
    let each = full.saturating_sub(pss) as f64 / SETS as f64;
    println!(
        "{{\"bench\":\"guardian_service\",\"value\":{each:.2},\"unit\":\"KiB\",\"target\":4,\"note\":\"PSS a set, {SETS} sets\"}}"
    );
    drop(children);
    drop(spawner);
    let began = Instant::now();
    let next = open(directory).await;
    let outlived = next.outlived().await.unwrap();
    let took = began.elapsed().as_secs_f64() * 1000.0;
    assert_eq!(outlived.len(), ADOPTED);
    println!(
        "{{\"bench\":\"guardian_adoption\",\"value\":{took:.1},\"unit\":\"ms\",\"target\":2000,\"note\":\"{ADOPTED} sets in the hands of the next host, {} others killed meanwhile\"}}",
        SETS - ADOPTED
    );
    for child in outlived.into_iter().map(supervisor_process::guardian::Outlived::into_child) {
        child.kill_set(Duration::from_secs(10)).await;
    }
    next.close().await;
}

fn percentile(taken: &mut [Duration], percent: usize) -> f64 {
    taken.sort_unstable();
    taken[(taken.len() - 1) * percent / 100].as_secs_f64() * 1000.0
}

fn main() {
    run_if_asked();
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == CHILD => return child(Path::new(&arguments.next().unwrap())),
        Some(first) if first == HOST => {
            let directory = arguments.next().unwrap();
            let size = arguments.next().unwrap().to_str().unwrap().parse().unwrap();
            return host(Path::new(&directory), size);
        }
        Some(first) if first == VICTIM => return victim(Path::new(&arguments.next().unwrap())),
        _ => {}
    }
    let (first, second) = (own_dir(), own_dir());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut floor = floor(first.path());
    let mut taken = runtime.block_on(through_the_guardian(first.path()));
    for percent in [50, 99] {
        let (value, floor) = (percentile(&mut taken, percent), percentile(&mut floor, percent));
        let (bench, target) = if percent == 50 {
            ("guardian_crash_to_running", ",\"target\":1.25")
        } else {
            ("guardian_crash_to_running_p99", "")
        };
        println!(
            "{{\"bench\":\"{bench}\",\"value\":{value:.3},\"unit\":\"ms\",\"floor\":{floor:.3},\"ratio\":{:.3}{target},\"note\":\"p{percent} of {ROUNDS}\"}}",
            value / floor
        );
    }
    #[cfg(target_os = "linux")]
    gone_with_the_host();
    starts_by_size();
    runtime.block_on(held(second.path()));
}
