//! Processes by identity, and the sets this process holds.

#![expect(unsafe_code, reason = "calls of the system about processes")]

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use supervisor_core::exit::ExitStatus;
use supervisor_core::{ProcessIdentity, Signal};
use windows_sys::Wdk::System::SystemInformation::{
    NtQuerySystemInformation, SystemTimeOfDayInformation,
};
use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::Threading::{
    GetProcessTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE,
    PROCESS_TERMINATE, TerminateProcess,
};

use super::Marking;
use super::job::{KILLED, known};
use super::leader::{End, wait_for};

/// Seconds between the system's first year and 1970.
const TO_UNIX: u64 = 11_644_473_600;
/// The system's clock ticks in a second.
const TICKS: u64 = 10_000_000;

/// Times of one process, in ticks: when it was made, and what it used.
#[derive(Debug, Clone, Copy)]
struct Times {
    made: u64,
    used: u64,
}

fn times(process: &OwnedHandle) -> io::Result<Times> {
    let (mut made, mut ended) = (FILETIME::default(), FILETIME::default());
    let (mut kernel, mut user) = (FILETIME::default(), FILETIME::default());
    // SAFETY: the handle is open, and the four structures are written to.
    let done = unsafe {
        GetProcessTimes(
            process.as_raw_handle(),
            &raw mut made,
            &raw mut ended,
            &raw mut kernel,
            &raw mut user,
        )
    };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    let ticks =
        |time: FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
    Ok(Times { made: ticks(made), used: ticks(kernel) + ticks(user) })
}

pub(super) fn open(pid: u32, rights: u32) -> io::Result<OwnedHandle> {
    // SAFETY: takes numbers; the handle is not to be inherited.
    let handle = unsafe { OpenProcess(rights, 0, pid) };
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above made it, and nobody else has it.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// Tells one boot from another: the time the system started at, as it was taken then.
pub(crate) fn boot_id() -> &'static str {
    /// What the system says of its clock. The start moves with a clock that is set; the bias takes that out again.
    #[repr(C)]
    #[derive(Default)]
    struct TimeOfDay {
        boot: i64,
        now: i64,
        zone_bias: i64,
        zone: u32,
        reserved: u32,
        boot_bias: i64,
        sleep_bias: i64,
    }
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let mut found = TimeOfDay::default();
        let length = u32::try_from(size_of_val(&found)).unwrap_or(0);
        // SAFETY: the class fills this structure or the first part of it, `length` is its size, and no length is asked
        // back.
        let status = unsafe {
            NtQuerySystemInformation(
                SystemTimeOfDayInformation,
                ptr::from_mut(&mut found).cast(),
                length,
                ptr::null_mut(),
            )
        };
        // An identity without a boot is never acted upon.
        if status < 0 { String::new() } else { format!("{:016x}", found.boot - found.boot_bias) }
    })
}

/// One process at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pid: u32,
    /// `R` for one that lives, `Z` for one that somebody only holds a handle to.
    pub(crate) state: char,
    /// The leader of its set, as far as this process holds that; else 0.
    pub(crate) group: u32,
    /// Ticks of 100 ns since 1601.
    pub(crate) start_time: u64,
}

impl Entry {
    /// Looks at a process; nothing if there is none or it is not ours to look at.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let group = if known().contains_key(&pid) { pid } else { 0 };
        Self::of_group(pid, group)
    }

    fn of_group(pid: u32, group: u32) -> Option<Self> {
        let process = open(pid, PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE).ok()?;
        let state = if wait_for(&process, 0) { 'Z' } else { 'R' };
        Some(Self { pid, state, group, start_time: times(&process).ok()?.made })
    }

    pub(crate) const fn is_alive(&self) -> bool {
        self.state != 'Z'
    }

    pub(crate) fn identity(&self) -> ProcessIdentity {
        let boot_id = boot_id().to_owned();
        ProcessIdentity { boot_id, pid: self.pid, start_time: self.start_time }
    }
}

/// Reads the identity a pid has now.
pub(crate) fn identity_of(pid: u32) -> Option<ProcessIdentity> {
    Entry::read(pid).map(|entry| entry.identity())
}

/// Every process of every set this process holds. A set is a job, so what it started is in it, and nothing else is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) entries: Vec<Entry>,
}

impl Snapshot {
    pub(crate) fn take() -> Self {
        let sets: Vec<_> = known().iter().map(|(leader, set)| (*leader, set.job.clone())).collect();
        let entries = sets.iter().flat_map(|(leader, job)| {
            job.pids().into_iter().filter_map(|pid| Entry::of_group(pid, *leader))
        });
        Self { entries: entries.filter(Entry::is_alive).collect() }
    }

    /// Descendants are in the job of what started them.
    pub(crate) const fn close_over_descendants(&self, _picked: &mut Vec<Entry>) {}
}

/// Gives the marks of the set a process is in, if this process holds it.
pub(crate) fn marking(pid: u32) -> Option<Marking> {
    let sets: Vec<_> = known().values().cloned().collect();
    sets.into_iter().find(|set| set.job.pids().contains(&pid)).and_then(|set| set.marking)
}

/// A process held by a handle, so that its pid cannot become somebody else's while we act.
#[derive(Debug)]
pub(crate) struct Pinned(OwnedHandle);

impl Pinned {
    /// Pins exactly this process; nothing if it is gone or its pid is somebody else's by now.
    pub(crate) fn new(identity: &ProcessIdentity) -> Option<Self> {
        let rights = PROCESS_TERMINATE | PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE;
        let process = open(identity.pid, rights).ok()?;
        let same = times(&process).is_ok_and(|times| times.made == identity.start_time);
        (same && !boot_id().is_empty() && identity.boot_id == boot_id()).then_some(Self(process))
    }

    /// Kills it; nothing else can be said to a process by its handle.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        if signal != Signal::Kill {
            return Ok(());
        }
        terminate(&self.0)
    }
}

/// Tells when a process was made.
pub(super) fn made(process: &OwnedHandle) -> io::Result<u64> {
    times(process).map(|times| times.made)
}

/// Ends a process by its handle, which was opened with the right to do that; one that is gone is no error.
pub(super) fn terminate(process: &OwnedHandle) -> io::Result<()> {
    if wait_for(process, 0) {
        return Ok(());
    }
    // SAFETY: the handle is open and was opened with the right to do this.
    let done = unsafe { TerminateProcess(process.as_raw_handle(), KILLED) };
    // One that is ending already refuses; it is gone in a moment.
    if done == 0 && !wait_for(process, 0) {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A process of a set that is not its leader, whose end is told.
#[derive(Debug)]
pub(crate) struct Bystander(End);

impl Bystander {
    pub(crate) fn watch(identity: &ProcessIdentity) -> Option<Self> {
        End::watch(Pinned::new(identity)?.0).ok().map(Self)
    }

    pub(crate) async fn wait(&self) -> ExitStatus {
        self.0.wait().await
    }
}

/// Gives resident bytes and processor ticks of a process.
pub(crate) fn usage(pid: u32) -> Option<(u64, u64)> {
    let process = open(pid, PROCESS_QUERY_LIMITED_INFORMATION).ok()?;
    let mut memory = PROCESS_MEMORY_COUNTERS::default();
    let length = u32::try_from(size_of_val(&memory)).unwrap_or(0);
    // SAFETY: the handle is open, and the structure of `length` bytes is written to.
    let done = unsafe { K32GetProcessMemoryInfo(process.as_raw_handle(), &raw mut memory, length) };
    let resident = if done == 0 { return None } else { memory.WorkingSetSize };
    Some((u64::try_from(resident).ok()?, times(&process).ok()?.used))
}

/// Gives the length of so many ticks.
pub(crate) const fn ticks(n: u64) -> Duration {
    Duration::new(n / TICKS, (n % TICKS * 100) as u32)
}

/// Gives how long ago a process was started.
pub(crate) fn age(process: &ProcessIdentity) -> Duration {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since_1970 + Duration::from_secs(TO_UNIX)).saturating_sub(ticks(process.start_time))
}
