//! What the benchmarks share: children that say when they run, a look at this process, and the lines they report.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use supervisor_core::config::{RestartIntensity, RestartPolicy, ServiceSpec};

/// What a child is asked to be by its first argument.
const CHILD: &str = "--be-the-child";

/// Becomes a child if that is what was asked for: says that it runs, with its pid, and waits to be killed.
pub(crate) fn be_the_child_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == CHILD) {
        let mut file =
            File::options().write(true).open(PathBuf::from(arguments.next().unwrap())).unwrap();
        file.write_all(&std::process::id().to_ne_bytes()).unwrap();
        drop(file);
        loop {
            std::thread::park();
        }
    }
}

/// Where children say that they run.
pub(crate) struct Fifo {
    path: PathBuf,
    reader: File,
}

impl Fifo {
    /// Opened for writing too, so that it is never at its end.
    pub(crate) fn new(path: PathBuf) -> Self {
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let reader = File::options().read(true).write(true).open(&path).unwrap();
        Self { path, reader }
    }

    /// Waits for the first instruction of a child.
    pub(crate) fn next_pid(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.reader.read_exact(&mut bytes).unwrap();
        u32::from_ne_bytes(bytes)
    }

    /// Starts a child the plainest way there is.
    pub(crate) fn start(&self) -> Child {
        let mut command = Command::new(own_program());
        command.args([CHILD.as_ref(), self.path.as_os_str()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// A service that is a child, restarted at once and for ever.
    pub(crate) fn service(&self, id: &str) -> ServiceSpec {
        let mut spec = ServiceSpec::new(id, own_program().to_str().unwrap()).unwrap();
        spec.args = vec![CHILD.to_owned(), self.path.to_str().unwrap().to_owned()];
        spec.restart_policy = RestartPolicy::Always;
        spec.restart_intensity = RestartIntensity::UNLIMITED;
        spec
    }
}

pub(crate) fn own_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

pub(crate) fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Lets time pass, which is what is measured.
pub(crate) fn let_pass(duration: Duration) {
    let began = Instant::now();
    while let Some(left) = duration.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// The value below which so many percent lie.
pub(crate) fn percentile(taken: &mut [Duration], percent: usize) -> Duration {
    taken.sort_unstable();
    taken[(taken.len() - 1) * percent / 100]
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Prints one measurement beside its floor.
pub(crate) fn report_ratio(
    bench: &str,
    (value, floor): (f64, f64),
    unit: &str,
    target: Option<f64>,
    note: &str,
) {
    let ratio = value / floor;
    let target = target.map(|target| format!(",\"target\":{target}")).unwrap_or_default();
    println!(
        "{{\"bench\":\"{bench}\",\"value\":{value:.3},\"unit\":\"{unit}\",\"floor\":{floor:.3},\"ratio\":{ratio:.3}{target},\"note\":\"{note}\"}}"
    );
}

/// Prints one measurement that has no floor but nothing at all.
pub(crate) fn report(bench: &str, value: f64, unit: &str, target: f64, higher: bool, note: &str) {
    let better = if higher { ",\"better\":\"higher\"" } else { "" };
    println!(
        "{{\"bench\":\"{bench}\",\"value\":{value:.3},\"unit\":\"{unit}\",\"target\":{target}{better},\"note\":\"{note}\"}}"
    );
}

/// Bytes of one line of a file below `/proc/self`, given there in kB.
pub(crate) fn memory(file: &str, line: &str) -> u64 {
    let text = std::fs::read_to_string(Path::new("/proc/self").join(file)).unwrap();
    let found = text.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    found.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}
