//! Windows: every set is a job object, death is told by the system, a stop is asked for by a break event.

mod console;
pub(crate) mod guardian;
mod job;
mod leader;
mod pipes;
mod process;
mod start;

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use supervisor_core::error::SpawnErrorKind;
use windows_sys::Win32::Foundation as codes;

pub(crate) use crate::command_line::spellings;
pub(crate) use leader::Leader;
pub(crate) use pipes::{Pipe, PipeHandle, PipeReader};
pub(crate) use process::{
    Bystander, Entry, Pinned, Snapshot, age, boot_id, identity_of, marking, ticks, usage,
};
pub(crate) use start::{Command, Started, no_stdio, own_group, set_stdio, start};

/// Names the layers that contain sets here.
pub(crate) fn containment(_subreaper: bool) -> Vec<String> {
    vec!["job_object".to_owned()]
}

/// Gives the time since the first question, suspend included.
pub(crate) fn since_boot() -> Duration {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed()
}

pub(crate) fn become_subreaper() -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "sub-reapers exist on Linux only"))
}

/// Tells whether a file may be a program; whether it is one is seen when it is started.
pub(crate) fn executable(program: &Path) -> io::Result<()> {
    if std::fs::metadata(program)?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    Ok(())
}

/// Sorts what the system said about a start.
pub(crate) fn spawn_error_kind(error: &io::Error) -> SpawnErrorKind {
    let kind = match error.raw_os_error().map(i32::cast_unsigned) {
        Some(codes::ERROR_FILE_NOT_FOUND | codes::ERROR_PATH_NOT_FOUND) => SpawnErrorKind::NotFound,
        Some(codes::ERROR_ACCESS_DENIED | codes::ERROR_ELEVATION_REQUIRED) => {
            SpawnErrorKind::PermissionDenied
        }
        Some(
            codes::ERROR_BAD_EXE_FORMAT
            | codes::ERROR_EXE_MACHINE_TYPE_MISMATCH
            | codes::ERROR_BAD_FORMAT
            | codes::ERROR_FILENAME_EXCED_RANGE
            | codes::ERROR_INVALID_PARAMETER,
        ) => SpawnErrorKind::BadExecutable,
        Some(
            codes::ERROR_TOO_MANY_OPEN_FILES
            | codes::ERROR_NOT_ENOUGH_MEMORY
            | codes::ERROR_OUTOFMEMORY
            | codes::ERROR_NO_SYSTEM_RESOURCES
            | codes::ERROR_NOT_ENOUGH_QUOTA
            | codes::ERROR_COMMITMENT_LIMIT,
        ) => SpawnErrorKind::ResourceExhausted,
        Some(codes::ERROR_SHARING_VIOLATION | codes::ERROR_LOCK_VIOLATION) => SpawnErrorKind::Busy,
        _ => SpawnErrorKind::Other,
    };
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::ArgumentListTooLong => {
            SpawnErrorKind::BadExecutable
        }
        _ => kind,
    }
}

/// Tells whether a start failed because arguments and environment are too large.
pub(crate) fn is_too_large(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ArgumentListTooLong
        || error.raw_os_error() == Some(codes::ERROR_FILENAME_EXCED_RANGE.cast_signed())
}

/// Nothing is started that a set's job does not list.
pub(crate) const fn children_of(_pid: u32) -> Vec<Entry> {
    Vec::new()
}

/// Handles are not scarce here: a process may have sixteen million.
pub(crate) const fn reserve_descriptors() {}

/// What a process's environment says about who started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marking {
    pub(crate) mark: String,
    pub(crate) service: String,
    pub(crate) incarnation: u64,
}

/// A moment; all are the same, because a job needs no looking for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment;

/// What is left of a set outside its job: nothing ever is.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) pids: Vec<u32>,
}

impl Left {
    pub(crate) const fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }
}

/// Looks for what is left of sets outside their jobs, where nothing ever is.
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

/// The socket services report to; its protocol is one of Unix sockets.
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
    let text = "there is no limit of open descriptors to raise here";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

/// Limits the number of processes in a leader's job; what else is asked for and cannot be had is reported.
///
/// A ceiling of memory is measured and acted upon, not made a limit of the job: beyond that one an allocation fails,
/// which takes the decision what to do about it out of the specification's hands.
pub(crate) fn limit(pid: u32, limits: &supervisor_core::config::ResourceLimits) {
    if limits.open_files.is_some() || limits.core_dump.is_some() || limits.file_size.is_some() {
        tracing::warn!("limits of open files, core dumps and file sizes are unknown to Windows");
    }
    if let Err(error) = limit_to(pid, &rlimits(limits)) {
        tracing::warn!(pid, %error, "a limit of processes was refused");
    }
}

/// Sets these limits of a leader's set, as far as this process holds it.
pub(crate) fn limit_to(leader: u32, limits: &[(u32, u64, u64)]) -> io::Result<()> {
    let Some(set) = job::known().get(&leader).cloned() else { return Ok(()) };
    for (_, max, _) in limits.iter().filter(|(kind, ..)| *kind == PROCESSES) {
        set.job.limit(Some(u32::try_from(*max).unwrap_or(u32::MAX)))?;
    }
    Ok(())
}

/// Stands for the limit of processes, the one kind that is known here.
const PROCESSES: u32 = 1;

/// Gives the limits of a service that a guardian can set: what, and twice the value.
pub(crate) fn rlimits(limits: &supervisor_core::config::ResourceLimits) -> Vec<(u32, u64, u64)> {
    limits.processes.map(|max| (PROCESSES, max, max)).into_iter().collect()
}

pub(crate) fn diagnosis(pid: u32) -> String {
    usage(pid).map_or_else(
        || "nothing known of what it does".to_owned(),
        |(resident, used)| {
            format!(
                "{} MiB resident, {:.1} s of processor time",
                resident >> 20,
                ticks(used).as_secs_f64()
            )
        },
    )
}

/// One thread at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) had: Duration,
    pub(crate) waited: Duration,
    pub(crate) state: char,
}

/// How long threads waited for a processor is not told here, so every hang is believed.
pub(crate) const fn threads(_set: &[u32]) -> Option<Vec<Thread>> {
    None
}

pub(crate) const fn slowdown() -> f64 {
    1.0
}

pub(crate) fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}
