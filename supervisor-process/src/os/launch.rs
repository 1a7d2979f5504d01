//! Linux: starting one program: everything between fork and exec happens here, in a child that borrows our memory.
//!
//! The child is made with `CLONE_VM | CLONE_VFORK`, as `posix_spawn` makes its own: nothing is copied, this thread stands
//! still until the child has become the program, and what went wrong is simply written where we can read it. It also
//! borrows our table of descriptors and lets go of it with a copy of the lowest few, so that a start costs the same with
//! three descriptors open and with thirty thousand; that is what `slots` are for.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

use super::guardian::{Refused, Step, pointers};
use super::slots::{Slot, Slots, Way};

/// Highest signal number there is, real-time ones included.
const SIGNAL_MAX: c_int = 64;
/// Bytes of a set of signals, as the kernel counts.
const SIGNALS_SIZE: usize = 8;

static SLOTS: Slots = Slots::new();

/// What a child leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leads {
    /// A group of its own in our session.
    Group,
    /// A session of its own.
    Session,
}

/// What is started, and as what.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) arguments: &'a [CString],
    pub(crate) environment: &'a [CString],
    /// Ours if there is none.
    pub(crate) working_dir: Option<&'a CStr>,
    /// Become standard input, output and error, the null device where there is none; nothing else stays open.
    pub(crate) stdio: [Option<BorrowedFd<'a>>; 3],
    /// Resource, soft and hard value; in this order.
    pub(crate) limits: &'a [(u32, u64, u64)],
    /// Ours if there is none.
    pub(crate) nice: Option<i32>,
    /// Ours if there is none.
    pub(crate) oom_score_adj: Option<i32>,
    /// Ours if there is none.
    pub(crate) umask: Option<u32>,
    pub(crate) leads: Leads,
}

/// A program that runs: its pid, and a descriptor that pins it.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// What the system said to niceness and OOM score, 0 where it granted them: neither is a reason not to start.
    pub(crate) refused: [i32; 2],
}

impl Launched {
    pub(crate) fn number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }
}

/// The plan as the child needs it: pointers made before there is a child, which must not allocate.
struct Shared {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    /// Null if it stays where it is.
    working_dir: *const c_char,
    stdio: [RawFd; 3],
    /// The lowest number above which nothing of ours is needed.
    above: c_uint,
    way: Way,
    /// Numbers to be closed one by one.
    listed: *const c_int,
    listed_count: usize,
    limits: *const (u32, u64, u64),
    limit_count: usize,
    nice: Option<c_int>,
    /// The score in digits.
    oom_score: *const c_char,
    oom_score_len: usize,
    umask: Option<u32>,
    leads: Leads,
    refused: [c_int; 2],
    failed_at: Failed,
    failed_errno: c_int,
}

/// Where a child failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    At(Step),
    /// The system does not let it have a table of descriptors in this way.
    Table,
}

/// Makes room for so many starts at once, so that the numbers their descriptors get are low; done by whoever is going
/// to start services.
pub(crate) fn prepare(at_once: usize) {
    SLOTS.fill(at_once);
}

/// Starts a program in a group or session of its own, with clean signals and only the three descriptors of the plan.
///
/// # Errors
/// [`Refused`]; nothing of the child is left.
pub(crate) fn launch(plan: &Plan<'_>) -> Result<Launched, Refused> {
    launch_from(&SLOTS, plan)
}

fn launch_from(slots: &Slots, plan: &Plan<'_>) -> Result<Launched, Refused> {
    let mut slot = slots.take(&plan.stdio).map_err(|error| Refused {
        step: Step::Descriptors,
        errno: error.raw_os_error().unwrap_or(0),
    })?;
    let launched = loop {
        let way = slots.way();
        match attempt(plan, &mut slot, way) {
            Ok(launched) => break Ok(launched),
            Err((Failed::Table, errno)) if Way::is_refusal(errno) && way != Way::LAST => {
                tracing::debug!(?way, errno, "the system refuses the quick way to start a program");
                slots.give_up(way);
            }
            Err((Failed::At(step), errno)) => break Err(Refused { step, errno }),
            Err((Failed::Table, errno)) => break Err(Refused { step: Step::Descriptors, errno }),
        }
    };
    slots.put_back(slot, &plan.stdio);
    launched
}

fn attempt(plan: &Plan<'_>, slot: &mut Slot, way: Way) -> Result<Launched, (Failed, i32)> {
    let (arguments, environment) = (pointers(plan.arguments), pointers(plan.environment));
    let listed = if way == Way::Listed { super::slots::inheritable() } else { Vec::new() };
    let oom_score = plan.oom_score_adj.map(|score| score.to_string()).unwrap_or_default();
    let mut shared = Shared {
        program: plan.program.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        working_dir: plan.working_dir.map_or(std::ptr::null(), CStr::as_ptr),
        stdio: slot.numbers(),
        above: slot.above(),
        way,
        listed: listed.as_ptr(),
        listed_count: listed.len(),
        limits: plan.limits.as_ptr(),
        limit_count: plan.limits.len(),
        nice: plan.nice,
        oom_score: oom_score.as_ptr().cast(),
        oom_score_len: oom_score.len(),
        umask: plan.umask,
        leads: plan.leads,
        refused: [0; 2],
        failed_at: Failed::At(Step::Fork),
        failed_errno: 0,
    };
    let (pid, pidfd) = clone(&mut shared, slot).map_err(|errno| {
        // A filter of system calls may know the flags of `posix_spawn` and no others.
        let at = if way == Way::Shared { Failed::Table } else { Failed::At(Step::Fork) };
        (if Way::is_refusal(errno) { at } else { Failed::At(Step::Fork) }, errno)
    })?;
    if shared.failed_errno != 0 {
        reap(pid);
        return Err((shared.failed_at, shared.failed_errno));
    }
    if let Some(pidfd) = pidfd {
        return Ok(Launched { pid, pidfd, refused: shared.refused });
    }
    // A kernel that knows the call and not the flag (before Linux 5.2).
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Launched { pid, pidfd, refused: shared.refused }),
        Err(error) => {
            end_unwatched(pid);
            Err((Failed::At(Step::Descriptors), error.raw_os_error()))
        }
    }
}

/// Ends a child that nobody can watch; it is not reaped yet, so that its number is certainly its own.
pub(super) fn end_unwatched(pid: Pid) {
    // It may have ended, which is what was wanted.
    _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    reap(pid);
}

/// Of one pid, never of any child; an error means that somebody else in the host reaped it.
fn reap(pid: Pid) {
    let ended = || rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    while matches!(ended(), Err(rustix::io::Errno::INTR)) {}
}

#[expect(unsafe_code, reason = "clone with a child function is not wrapped by anything we use")]
fn clone(shared: &mut Shared, slot: &mut Slot) -> Result<(Pid, Option<OwnedFd>), i32> {
    let mut pidfd: c_int = -1;
    let mut flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    if shared.way == Way::Shared {
        flags |= libc::CLONE_FILES;
    }
    let blocked = Blocked::all();
    // SAFETY: `become_program` gets a pointer to `shared`, which outlives the child's use of our memory: with
    // CLONE_VFORK this call returns only after the child executed a program or ended, and this thread, whose
    // thread-local data the child borrows too, does nothing until then. The stack is the slot's, aligned to 16 bytes,
    // used by nobody else while we hold the slot, and its end is passed because it grows downwards. `pidfd` receives
    // CLONE_PIDFD's descriptor. Every signal is blocked in this thread and so in the child, which lets none in before
    // it has given each its default disposition: no handler of the host ever runs in the child.
    let pid = unsafe {
        libc::clone(
            become_program,
            slot.stack_end().cast(),
            flags,
            std::ptr::from_mut(shared).cast::<c_void>(),
            &raw mut pidfd,
        )
    };
    let failed = io::Error::last_os_error();
    drop(blocked);
    let Some(pid) = (pid > 0).then_some(pid).and_then(Pid::from_raw) else {
        return Err(failed.raw_os_error().unwrap_or(0));
    };
    // SAFETY: the call above succeeded; unless the kernel did not know the flag, it wrote a new descriptor that nobody
    // else owns.
    let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    Ok((pid, pidfd))
}

/// Every signal blocked in this thread, the two included that the C library keeps for itself; undone when dropped.
struct Blocked {
    before: u64,
}

impl Blocked {
    fn all() -> Self {
        Self { before: set_blocked(u64::MAX) }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        set_blocked(self.before);
    }
}

/// Sets which signals are blocked in this thread and gives what was; the C library's own call leaves two signals out.
#[expect(unsafe_code, reason = "the C library's own call leaves two signals out")]
fn set_blocked(signals: u64) -> u64 {
    let mut before = 0_u64;
    // SAFETY: the kernel reads and writes one set each of the size that is passed, and keeps no pointer.
    unsafe {
        let (new, old) = (&raw const signals, &raw mut before);
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, new, old, SIGNALS_SIZE);
    }
    before
}

/// Runs in the child; calls only what is safe between fork and exec, and touches no memory but `Shared`.
#[expect(unsafe_code, reason = "raw system calls between fork and exec")]
extern "C" fn become_program(argument: *mut c_void) -> c_int {
    // SAFETY: `clone` passes a valid, exclusive `Shared` and stands still while we use it. Every call below is a plain
    // system call on values prepared by `attempt`; the strings and arrays are NUL-terminated or counted.
    unsafe {
        let plan = &mut *argument.cast::<Shared>();
        // The table of dispositions is our own (no CLONE_SIGHAND); what the host ignores must not be inherited.
        default_signals();
        set_blocked(0);
        match plan.leads {
            Leads::Group => _ = libc::setpgid(0, 0),
            Leads::Session => _ = libc::setsid(),
        }
        if let Some(umask) = plan.umask {
            libc::umask(umask);
        }
        plan.failed_at = match arrange(plan) {
            Ok(()) => {
                libc::execve(plan.program, plan.arguments, plan.environment);
                Failed::At(Step::Exec)
            }
            Err(failed) => failed,
        };
        plan.failed_errno = (*libc::__errno_location()).max(1);
        libc::_exit(127)
    }
}

/// Gives every signal its default disposition, the two included that the C library keeps for itself and refuses to touch:
/// a host may have been started with them ignored.
#[expect(unsafe_code, reason = "the C library's own call leaves two signals out")]
pub(super) fn default_signals() {
    // Handler, flags, restorer and mask, all zero: the default. Its size is the largest of the 64-bit systems.
    let default = [0_u64; 4];
    for signal in 1..=SIGNAL_MAX {
        // SAFETY: the kernel reads the structure and writes nothing; the mask's size is the one it knows.
        // SIGKILL and SIGSTOP are refused, which is as good.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SIGNALS_SIZE,
            );
        }
    }
}

/// Sets niceness and OOM score, and notes what was refused. Before the limits, which may leave no descriptor to open, and
/// after the table of descriptors is the child's own.
#[expect(unsafe_code, reason = "raw system calls between fork and exec")]
unsafe fn rank(plan: &mut Shared) {
    // SAFETY: as for the caller, which hands its own `Shared` through; the score's digits are counted.
    unsafe {
        if let Some(nice) = plan.nice
            && libc::setpriority(libc::PRIO_PROCESS, 0, nice) != 0
        {
            plan.refused[0] = (*libc::__errno_location()).max(1);
        }
        if plan.oom_score_len > 0 {
            // Ours alone although the memory is the host's for now: a child of vfork has a score of its own.
            let path = c"/proc/self/oom_score_adj".as_ptr();
            let file = libc::open(path, libc::O_WRONLY | libc::O_CLOEXEC);
            if file < 0 || libc::write(file, plan.oom_score.cast(), plan.oom_score_len) < 0 {
                plan.refused[1] = (*libc::__errno_location()).max(1);
            }
            libc::close(file);
        }
    }
}

#[expect(unsafe_code, reason = "raw system calls between fork and exec")]
unsafe fn arrange(plan: &mut Shared) -> Result<(), Failed> {
    // SAFETY: as for the caller, which hands its own `Shared` through.
    unsafe {
        // Until here the table of descriptors is the host's: nothing may be changed in it.
        if plan.way == Way::Shared && close_range(plan.above, libc::CLOSE_RANGE_UNSHARE) != 0 {
            return Err(Failed::Table);
        }
        // Slots are all above 2, so none is overwritten before its turn.
        for (target, source) in plan.stdio.iter().enumerate() {
            if libc::dup2(*source, c_int::try_from(target).unwrap_or(c_int::MAX)) < 0 {
                return Err(Failed::At(Step::Descriptors));
            }
        }
        if plan.way == Way::Listed {
            for n in 0..plan.listed_count {
                libc::close(*plan.listed.add(n));
            }
        } else if close_range(3, 0) != 0 {
            return Err(Failed::Table);
        }
        if !plan.working_dir.is_null() && libc::chdir(plan.working_dir) != 0 {
            return Err(Failed::At(Step::WorkingDir));
        }
        rank(plan);
        for n in 0..plan.limit_count {
            let (resource, soft, hard) = *plan.limits.add(n);
            // Lowered to what we may give: a wish beyond it is no reason not to start.
            let mut own = libc::rlimit { rlim_cur: hard, rlim_max: hard };
            libc::getrlimit(resource, &raw mut own);
            let limit =
                libc::rlimit { rlim_cur: soft.min(own.rlim_max), rlim_max: hard.min(own.rlim_max) };
            if libc::setrlimit(resource, &raw const limit) != 0 {
                return Err(Failed::At(Step::Limit));
            }
        }
    }
    Ok(())
}

/// Closes every descriptor from one number on, in a table of our own; see close_range(2) for the flags.
#[expect(unsafe_code, reason = "raw system calls between fork and exec")]
unsafe fn close_range(from: c_uint, flags: c_uint) -> libc::c_long {
    // SAFETY: a plain system call on numbers; whose descriptors they are is the caller's care.
    unsafe { libc::syscall(libc::SYS_close_range, from, c_uint::MAX, flags) }
}

#[cfg(test)]
#[path = "launch_tests.rs"]
mod tests;
