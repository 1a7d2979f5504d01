//! macOS and Windows with what the standard library gives: the same names, weaker promises.
//!
//! Only what this process started itself is known: an identity counts from this process's own start, so nothing of an
//! earlier supervisor is found, and no stranger is ever mistaken for a child. A leader's end is asked for every
//! [`LOOK`]. What leaves a leader's group (macOS) or is started by it (Windows) is not found again.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use supervisor_core::error::SpawnErrorKind;
use supervisor_core::exit::ExitStatus;
use supervisor_core::{ProcessIdentity, Signal};
use tokio::sync::watch;

/// Pause between two questions whether a leader has ended: what a death is noticed late by, at most.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes a reading thread hands over at a time.
const CHUNK: usize = 64 * 1024;

pub(crate) fn containment(_subreaper: bool) -> Vec<String> {
    vec![if cfg!(unix) { "process_group" } else { "leader_only" }.to_owned()]
}

/// Gives the time since the first question; there is no portable clock that counts suspend.
pub(crate) fn since_boot() -> Duration {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed()
}

pub(crate) fn become_subreaper() -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "sub-reapers exist on Linux only"))
}

pub(crate) fn executable(program: &Path) -> io::Result<()> {
    let found = std::fs::metadata(program)?;
    if found.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o111 == 0 {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    Ok(())
}

pub(crate) fn spawn_error_kind(error: &io::Error) -> SpawnErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SpawnErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => SpawnErrorKind::PermissionDenied,
        io::ErrorKind::InvalidInput
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::ArgumentListTooLong => SpawnErrorKind::BadExecutable,
        io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => SpawnErrorKind::ResourceExhausted,
        io::ErrorKind::ExecutableFileBusy => SpawnErrorKind::Busy,
        _ => SpawnErrorKind::Other,
    }
}

pub(crate) fn is_too_large(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ArgumentListTooLong
}

pub(crate) fn own_group(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(windows)]
    {
        /// Keeps a Ctrl-C of our console from reaching the service.
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
        std::os::windows::process::CommandExt::creation_flags(command, CREATE_NEW_PROCESS_GROUP);
    }
}

pub(crate) fn set_stdio(command: &mut Command, channel: bool) {
    command.stdin(if channel { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped());
    command.stderr(Stdio::piped());
}

/// When each child that is not reaped yet was started, in nanoseconds since this process asked first.
fn started() -> MutexGuard<'static, HashMap<u32, u64>> {
    static STARTED: OnceLock<Mutex<HashMap<u32, u64>>> = OnceLock::new();
    STARTED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The leader of a set.
#[derive(Debug)]
pub(crate) struct Leader {
    pid: u32,
    child: Mutex<(Child, Option<ExitStatus>)>,
}

/// What a started command leaves in our hands.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) leader: Leader,
    pub(crate) stdin: Option<std::process::ChildStdin>,
    pub(crate) stdout: Option<std::process::ChildStdout>,
    pub(crate) stderr: Option<std::process::ChildStderr>,
}

pub(crate) fn start(command: &mut Command) -> io::Result<Started> {
    let mut child = command.spawn()?;
    let pid = child.id();
    started().insert(pid, u64::try_from(since_boot().as_nanos()).unwrap_or(u64::MAX));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    Ok(Started { leader: Leader { pid, child: Mutex::new((child, None)) }, stdin, stdout, stderr })
}

impl Leader {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the end, noticed within [`LOOK`].
    pub(crate) async fn wait(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.try_wait() {
                return status;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) fn try_wait(&self) -> Option<ExitStatus> {
        let mut guard = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let (child, ended) = &mut *guard;
        if ended.is_none() {
            *ended = match child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(exit_status(status)),
                // Somebody else reaped it: it is gone, and how is unknown.
                Err(_) => Some(ExitStatus::Unknown),
            };
            if ended.is_some() {
                started().remove(&self.pid);
            }
        }
        *ended
    }

    /// Blocks until the leader has ended and reaps it, for at most `limit`.
    pub(crate) fn reap_within(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.try_wait().is_none() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    #[cfg(unix)]
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        let Some(group) = self.group() else { return Ok(()) };
        match rustix::process::kill_process_group(group, native(signal)) {
            // macOS refuses to signal a group of nothing but zombies.
            Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// There is no polite way to end a program without a window: whatever asks it to end ends it at once.
    #[cfg(windows)]
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        if matches!(signal, Signal::Term | Signal::Int | Signal::Quit | Signal::Abrt | Signal::Kill)
            && self.try_wait().is_none()
        {
            return self.child.lock().unwrap_or_else(PoisonError::into_inner).0.kill();
        }
        Ok(())
    }

    #[cfg(unix)]
    pub(crate) fn group_is_empty(&self) -> bool {
        let Some(group) = self.group() else { return true };
        self.try_wait().is_some()
            && matches!(
                rustix::process::test_kill_process_group(group),
                Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM)
            )
    }

    #[cfg(windows)]
    pub(crate) fn group_is_empty(&self) -> bool {
        self.try_wait().is_some()
    }

    /// The group, unless its number is a process again after our leader was reaped.
    #[cfg(unix)]
    fn group(&self) -> Option<rustix::process::Pid> {
        let pid = rustix::process::Pid::from_raw(self.pid.cast_signed())?;
        let ours = self.try_wait().is_none()
            || rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
        ours.then_some(pid)
    }
}

fn exit_status(status: std::process::ExitStatus) -> ExitStatus {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return ExitStatus::Signal(signal);
    }
    status.code().map_or(ExitStatus::Unknown, ExitStatus::Code)
}

#[cfg(unix)]
const fn native(signal: Signal) -> rustix::process::Signal {
    use rustix::process::Signal as Native;
    match signal {
        Signal::Hup => Native::HUP,
        Signal::Int => Native::INT,
        Signal::Quit => Native::QUIT,
        Signal::Abrt => Native::ABORT,
        Signal::Usr1 => Native::USR1,
        Signal::Usr2 => Native::USR2,
        Signal::Kill => Native::KILL,
        Signal::Stop => Native::STOP,
        Signal::Cont => Native::CONT,
        Signal::Term => Native::TERM,
    }
}

/// One child of this process; others are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pid: u32,
    pub(crate) state: char,
    pub(crate) group: u32,
    pub(crate) start_time: u64,
}

impl Entry {
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let start_time = *started().get(&pid)?;
        Some(Self { pid, state: '?', group: pid, start_time })
    }

    pub(crate) const fn is_alive(&self) -> bool {
        true
    }

    pub(crate) fn identity(&self) -> ProcessIdentity {
        /// Stands for the boot: identities mean something to this process alone.
        static RUN: OnceLock<String> = OnceLock::new();
        let run =
            RUN.get_or_init(|| format!("run-{}-{:016x}", std::process::id(), fastrand::u64(..)));
        ProcessIdentity { boot_id: run.clone(), pid: self.pid, start_time: self.start_time }
    }
}

/// Every child of this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) entries: Vec<Entry>,
}

impl Snapshot {
    pub(crate) fn take() -> Self {
        let pids: Vec<u32> = started().keys().copied().collect();
        Self { entries: pids.into_iter().filter_map(Entry::read).collect() }
    }

    /// Descendants are not known here.
    pub(crate) const fn close_over_descendants(&self, _picked: &mut Vec<Entry>) {}
}

pub(crate) fn identity_of(pid: u32) -> Option<ProcessIdentity> {
    Entry::read(pid).map(|entry| entry.identity())
}

/// A pinned process; nothing can be pinned here, leaders are signalled through their handle.
#[derive(Debug)]
pub(crate) struct Pinned(std::convert::Infallible);

impl Pinned {
    pub(crate) const fn new(_identity: &ProcessIdentity) -> Option<Self> {
        None
    }

    pub(crate) const fn signal(&self, _signal: Signal) -> io::Result<()> {
        match self.0 {}
    }
}

/// Descendants are not known here.
pub(crate) const fn children_of(_pid: u32) -> Vec<Entry> {
    Vec::new()
}

/// Nothing is kept back here: what runs out of descriptors is told so.
pub(crate) const fn reserve_descriptors() {}

/// A moment; all are the same, because nothing is looked for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment;

/// What is left of a set besides its leader's group; nothing is known of it here.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) pids: Vec<u32>,
}

impl Left {
    pub(crate) const fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }
}

/// Looks for what is left of sets; descendants are not known here.
#[derive(Debug)]
pub(crate) struct Census;

impl Census {
    pub(crate) const fn new(_subreaper: bool) -> Self {
        Self
    }

    pub(crate) const fn moment(&self) -> Moment {
        Moment
    }

    pub(crate) const fn left(
        &self,
        _key: &crate::scan::SetKey,
        _leader: u32,
        _born: Moment,
    ) -> Left {
        Left { pids: Vec::new() }
    }

    pub(crate) const fn reaped(&self, _pid: u32) {}

    pub(crate) const fn reap(&self) {}
}

/// What a process's environment says about who started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marking {
    pub(crate) mark: String,
    pub(crate) service: String,
    pub(crate) incarnation: u64,
}

/// The environment of another process cannot be read here.
pub(crate) const fn marking(_pid: u32) -> Option<Marking> {
    None
}

/// A pipe that a thread can read.
pub(crate) trait Pipe: Read + Send + 'static {}
impl<T: Read + Send + 'static> Pipe for T {}

/// Reads pipes, each on a thread of its own, which ends with the pipe.
#[derive(Debug)]
pub(crate) struct PipeReader;

/// A pipe that is being read.
#[derive(Debug)]
pub(crate) struct PipeHandle(watch::Receiver<bool>);

impl PipeReader {
    pub(crate) const fn start() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn add(
        &self,
        mut pipe: impl Pipe,
        mut take: Box<dyn super::Take>,
    ) -> io::Result<PipeHandle> {
        let (at_end, watched) = watch::channel(false);
        let read = move || {
            let mut buffer = vec![0; CHUNK];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => take.chunk(&buffer[..read]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        tracing::debug!(%error, "reading a service's output ended");
                        break;
                    }
                }
            }
            take.end();
            at_end.send_replace(true);
        };
        std::thread::Builder::new().name("supervisor-pipe".to_owned()).spawn(read)?;
        Ok(PipeHandle(watched))
    }
}

impl PipeHandle {
    /// Waits until the pipe was read to its end, for at most `limit`: somebody else may hold it open.
    pub(crate) async fn last_words(&self, limit: Duration) {
        let mut at_end = self.0.clone();
        drop(tokio::time::timeout(limit, at_end.wait_for(|at_end| *at_end)).await);
    }
}

/// The socket services report to; there are no abstract names and no kernel-told senders here.
#[derive(Debug)]
pub(crate) struct CredentialSocket(std::convert::Infallible);

impl CredentialSocket {
    pub(crate) fn bind(_name: &str) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "heartbeats are reported on Linux only"))
    }

    pub(crate) async fn receive(&self) -> io::Result<(u32, String)> {
        match self.0 {}
    }
}

pub(crate) fn raise_open_files() -> io::Result<u64> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "the limit of open descriptors is raised on Linux only",
    ))
}

/// Limits of a running process cannot be set here; asking for one is reported.
pub(crate) fn limit(_pid: u32, limits: &supervisor_core::config::ResourceLimits) {
    if limits.open_files.is_some()
        || limits.core_dump.is_some()
        || limits.file_size.is_some()
        || limits.processes.is_some()
    {
        tracing::warn!("resource limits are enforced on Linux only");
    }
}

/// Use is not measured here.
pub(crate) const fn usage(_pid: u32) -> Option<(u64, u64)> {
    None
}

pub(crate) fn age(process: &ProcessIdentity) -> Duration {
    since_boot().saturating_sub(Duration::from_nanos(process.start_time))
}

/// A process of a set that somebody else started; none is known here.
#[derive(Debug)]
pub(crate) struct Bystander(std::convert::Infallible);

impl Bystander {
    pub(crate) const fn watch(_identity: &ProcessIdentity) -> Option<Self> {
        None
    }

    pub(crate) async fn wait(&self) -> ExitStatus {
        match self.0 {}
    }
}

pub(crate) const fn ticks(n: u64) -> Duration {
    Duration::from_millis(n * 10)
}

pub(crate) fn diagnosis(_pid: u32) -> String {
    "nothing known of what it does".to_owned()
}

/// One thread at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) had: Duration,
    pub(crate) waited: Duration,
    pub(crate) state: char,
}

/// Processor time is not counted here, so every hang is believed.
pub(crate) const fn threads(_set: &[u32]) -> Option<Vec<Thread>> {
    None
}

pub(crate) const fn slowdown() -> f64 {
    1.0
}

pub(crate) const fn processors() -> u32 {
    1
}
