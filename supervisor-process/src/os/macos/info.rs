//! macOS: what the system says about processes; what it does not tell us is treated as a stranger.

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Pid;
use supervisor_core::ProcessIdentity;

/// Room for processes that come to be between asking how many there are and asking for them.
const MORE: usize = 64;
/// Most bytes of arguments and variables the system hands out (`ARG_MAX`, and the number of arguments before them).
const ARGUMENTS_MAX: usize = 1024 * 1024 + size_of::<c_int>();
/// Room for a program that is replaced by one with longer variables meanwhile.
const ARGUMENTS_MORE: usize = 4096;

/// What is known of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pid: u32,
    /// As `ps` shows it: `I` being made, `R`, `S`, `T` stopped, `Z` ended; most that live say `R` here, asleep or not.
    pub(crate) state: char,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
    /// Nanoseconds since boot, sleep not counted: the wall clock may be set, and then younger would seem older.
    pub(crate) start_time: u64,
}

impl Entry {
    /// Reads one process; nothing if it is another user's and we are not root.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let number = i32::try_from(pid).ok()?;
        let info = bsd_info(number)?;
        let start_time = nanos(resources(number)?.ri_proc_start_abstime);
        let session = rustix::process::getsid(Pid::from_raw(number)).ok();
        let session = session.map_or(0, |session| session.as_raw_nonzero().get().unsigned_abs());
        Some(Self {
            pid,
            state: state(info.pbi_status),
            parent: info.pbi_ppid,
            group: info.pbi_pgid,
            session,
            start_time,
        })
    }

    /// One that has ended holds nothing any more but its exit status.
    pub(crate) const fn is_alive(&self) -> bool {
        self.state != 'Z'
    }

    pub(crate) fn identity(&self) -> ProcessIdentity {
        let boot_id = boot_id().to_owned();
        ProcessIdentity { boot_id, pid: self.pid, start_time: self.start_time }
    }
}

const fn state(status: u32) -> char {
    match status {
        1 => 'I',
        libc::SRUN => 'R',
        libc::SSLEEP => 'S',
        libc::SSTOP => 'T',
        libc::SZOMB => 'Z',
        _ => '?',
    }
}

/// Every process of a moment that is ours to look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) entries: Vec<Entry>,
}

impl Snapshot {
    pub(crate) fn take() -> Self {
        let entries = processes().into_iter().filter_map(Entry::read).filter(Entry::is_alive);
        Self { entries: entries.collect() }
    }

    /// Adds every descendant of the processes picked so far.
    pub(crate) fn close_over_descendants(&self, picked: &mut Vec<Entry>) {
        let mut next = 0;
        while next < picked.len() {
            let parent = picked[next].pid;
            for entry in self.entries.iter().filter(|entry| entry.parent == parent) {
                if !picked.iter().any(|known| known.pid == entry.pid) {
                    picked.push(entry.clone());
                }
            }
            next += 1;
        }
    }
}

/// Names this boot; empty where the kernel does not tell, and then no identity ever matches one of another boot.
pub(crate) fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| text(c"kern.bootsessionuuid").unwrap_or_default())
}

/// Names the process that has this pid now.
pub(crate) fn identity_of(pid: u32) -> Option<ProcessIdentity> {
    Entry::read(pid).map(|entry| entry.identity())
}

/// Lists the living children of a process, as far as it is still there.
pub(crate) fn children_of(pid: u32) -> Vec<Entry> {
    let Ok(pid) = i32::try_from(pid) else { return Vec::new() };
    let children = listed(|buffer, size| {
        #[expect(unsafe_code, reason = "libproc is not wrapped by anything we use")]
        // SAFETY: the buffer has `size` bytes that may be written to, or is null and `size` zero.
        unsafe {
            libc::proc_listchildpids(pid, buffer, size)
        }
    });
    children.into_iter().filter_map(Entry::read).filter(Entry::is_alive).collect()
}

/// Lists every process there is, those that ended and are not reaped included.
pub(in crate::os) fn processes() -> Vec<u32> {
    listed(|buffer, size| {
        #[expect(unsafe_code, reason = "libproc is not wrapped by anything we use")]
        // SAFETY: the buffer has `size` bytes that may be written to, or is null and `size` zero.
        unsafe {
            libc::proc_listallpids(buffer, size)
        }
    })
}

/// Asks for a list of numbers: without a buffer how many there may be, then with one that has room for more.
fn listed(list: impl Fn(*mut c_void, c_int) -> c_int) -> Vec<u32> {
    let expected = usize::try_from(list(std::ptr::null_mut(), 0)).unwrap_or(0);
    let mut pids: Vec<c_int> = vec![0; expected + MORE];
    let bytes = c_int::try_from(size_of_val(pids.as_slice())).unwrap_or(c_int::MAX);
    let found = usize::try_from(list(pids.as_mut_ptr().cast(), bytes)).unwrap_or(0);
    pids.truncate(found);
    pids.into_iter().filter_map(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0).collect()
}

/// Memory a process is charged with, as the system's own monitor shows it, and microseconds of processor time it had.
pub(crate) fn usage(pid: u32) -> Option<(u64, u64)> {
    let used = resources(i32::try_from(pid).ok()?)?;
    let time = nanos(used.ri_user_time) + nanos(used.ri_system_time);
    Some((used.ri_phys_footprint, time / 1000))
}

/// Gives the length of so many ticks of [`usage`].
pub(crate) const fn ticks(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// Gives how long ago a process was started, sleep not counted.
pub(crate) fn age(process: &ProcessIdentity) -> Duration {
    Duration::from_nanos(uptime().saturating_sub(process.start_time))
}

/// Nanoseconds since boot, sleep not counted: the clock start times are read from.
pub(in crate::os) fn uptime() -> u64 {
    u64::try_from(clock(libc::CLOCK_UPTIME_RAW).as_nanos()).unwrap_or(u64::MAX)
}

/// Says what a process that hangs is doing, as far as the kernel tells.
pub(crate) fn diagnosis(pid: u32) -> String {
    let entry = Entry::read(pid);
    let task = i32::try_from(pid).ok().and_then(task_info);
    let (Some(entry), Some(task)) = (entry, task) else {
        return "nothing known of what it does".to_owned();
    };
    format!(
        "state {}, {} threads of which {} run, {} bytes resident, {} system calls so far",
        entry.state,
        task.pti_threadnum,
        task.pti_numrunning,
        task.pti_resident_size,
        i64::from(task.pti_syscalls_unix) + i64::from(task.pti_syscalls_mach),
    )
}

#[expect(unsafe_code, reason = "this clock is not wrapped by anything we use")]
pub(super) fn clock(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec` into our own and keeps no pointer; should it fail, that stays zero.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Turns the kernel's own unit of time into nanoseconds; always the same for the same number.
fn nanos(units: u64) -> u64 {
    static UNIT: OnceLock<(u32, u32)> = OnceLock::new();
    let (numerator, denominator) = *UNIT.get_or_init(unit);
    let nanos = u128::from(units) * u128::from(numerator) / u128::from(denominator);
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// Gives the nanoseconds of the kernel's own unit of time, as a fraction: 1 on Intel, 125/3 on Apple's processors.
#[expect(unsafe_code, reason = "the unit is not told by anything we use")]
#[expect(deprecated, reason = "one call is no reason for another package")]
fn unit() -> (u32, u32) {
    let mut unit = libc::mach_timebase_info { numer: 1, denom: 1 };
    // SAFETY: the call writes one structure into our own and keeps no pointer.
    unsafe { libc::mach_timebase_info(&raw mut unit) };
    (unit.numer, unit.denom.max(1))
}

/// Asks for one of libproc's structures, which are given whole or not at all.
#[expect(unsafe_code, reason = "libproc is not wrapped by anything we use")]
fn info<T: Copy>(pid: i32, flavor: c_int, argument: u64) -> Option<T> {
    let mut info = MaybeUninit::<T>::zeroed();
    let size = c_int::try_from(size_of::<T>()).ok()?;
    // SAFETY: the call writes at most `size` bytes into our own `T` and keeps no pointer.
    let written =
        unsafe { libc::proc_pidinfo(pid, flavor, argument, info.as_mut_ptr().cast(), size) };
    // SAFETY: both structures this is used for are numbers and arrays of numbers, of which any bytes are a value; the
    // kernel wrote all of them.
    (written == size).then(|| unsafe { info.assume_init() })
}

fn bsd_info(pid: i32) -> Option<libc::proc_bsdinfo> {
    // The argument asks for one that has ended and is not reaped, too.
    info(pid, libc::PROC_PIDTBSDINFO, 1)
}

fn task_info(pid: i32) -> Option<libc::proc_taskinfo> {
    info(pid, libc::PROC_PIDTASKINFO, 0)
}

#[expect(unsafe_code, reason = "libproc is not wrapped by anything we use")]
fn resources(pid: i32) -> Option<libc::rusage_info_v0> {
    /// Names the structure (`RUSAGE_INFO_V0`).
    const FIRST: c_int = 0;
    let mut used = MaybeUninit::<libc::rusage_info_v0>::zeroed();
    // SAFETY: the call writes one structure of the version it is asked for into our own and keeps no pointer; that its
    // parameter is a pointer to a pointer is how the header spells "any version".
    let result = unsafe { libc::proc_pid_rusage(pid, FIRST, used.as_mut_ptr().cast()) };
    // SAFETY: it is numbers and arrays of numbers, of which any bytes are a value.
    (result == 0).then(|| unsafe { used.assume_init() })
}

/// Reads the arguments and variables a process was started with, as the system lays them out.
///
/// # Errors
/// What the system said: it is gone, another user's, or just being replaced.
#[expect(unsafe_code, reason = "sysctl is not wrapped by anything we use")]
pub(super) fn arguments(pid: u32) -> io::Result<Vec<u8>> {
    let pid = c_int::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut name = [libc::CTL_KERN, libc::KERN_PROCARGS2, pid];
    let mut ask = |buffer: *mut c_void, size: &mut usize| {
        // SAFETY: the name has three numbers; the buffer has `size` bytes that may be written to, or is null; nothing
        // is set. No pointer is kept.
        let result =
            unsafe { libc::sysctl(name.as_mut_ptr(), 3, buffer, size, std::ptr::null_mut(), 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let mut room = 0;
    ask(std::ptr::null_mut(), &mut room)?;
    room = (room + ARGUMENTS_MORE).min(ARGUMENTS_MAX);
    loop {
        let mut buffer = vec![0_u8; room];
        let mut given = room;
        ask(buffer.as_mut_ptr().cast(), &mut given)?;
        // Filled to the brim it was cut: it became another program meanwhile.
        if given < room || room == ARGUMENTS_MAX {
            buffer.truncate(given);
            return Ok(buffer);
        }
        room = ARGUMENTS_MAX;
    }
}

/// Reads a text the system keeps under a name.
#[expect(unsafe_code, reason = "sysctl is not wrapped by anything we use")]
fn text(name: &CStr) -> Option<String> {
    let mut buffer = [0_u8; 256];
    let mut size = buffer.len();
    // SAFETY: the name ends with a NUL, the buffer has `size` bytes that may be written to, nothing is set, and no
    // pointer is kept.
    let result = unsafe {
        libc::sysctlbyname(
            name.as_ptr(),
            buffer.as_mut_ptr().cast(),
            &raw mut size,
            std::ptr::null_mut(),
            0,
        )
    };
    let text = CStr::from_bytes_until_nul(buffer.get(..size)?).ok()?;
    (result == 0).then(|| text.to_str().ok().map(str::to_owned)).flatten()
}

/// Reads a number the system keeps under a name.
#[expect(unsafe_code, reason = "sysctl is not wrapped by anything we use")]
pub(super) fn number(name: &CStr) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut size = size_of::<c_int>();
    // SAFETY: the name ends with a NUL, the buffer is one number of `size` bytes, nothing is set, and no pointer is
    // kept.
    let result = unsafe {
        libc::sysctlbyname(
            name.as_ptr(),
            (&raw mut value).cast(),
            &raw mut size,
            std::ptr::null_mut(),
            0,
        )
    };
    (result == 0 && size == size_of::<c_int>()).then_some(value)
}
