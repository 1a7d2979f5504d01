//! Starting one program: everything between fork and exec happens here, in a child that borrows our memory.
//!
//! The child is made with `CLONE_VM | CLONE_VFORK`, as `posix_spawn` makes its own: nothing is copied, we stand still
//! until it has become the program, and what went wrong is simply written where we can read it.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::super::plan::{Launched, Plan, Refused, Step, pointers};

/// Bytes of stack the child gets until it is the program; it calls a dozen system calls and nothing deep.
const STACK: usize = 64 * 1024;
/// Highest signal number there is, real-time ones included.
const SIGNAL_MAX: c_int = 64;

/// The plan as the child needs it: pointers made before there is a child, which must not allocate.
struct Shared {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    working_dir: *const c_char,
    stdio: [RawFd; 3],
    limits: *const (u32, u64, u64),
    limit_count: usize,
    nice: Option<c_int>,
    /// The score in digits.
    oom_score: *const c_char,
    oom_score_len: usize,
    umask: u32,
    refused: [c_int; 2],
    failed_step: u8,
    failed_errno: c_int,
}

/// Starts a program in a session of its own, with clean signals and only the three descriptors of the plan.
///
/// # Errors
/// [`Refused`]; nothing of the child is left.
#[expect(unsafe_code, reason = "clone with a child function is not wrapped by anything we use")]
pub(crate) fn launch(plan: &Plan<'_>) -> Result<Launched, Refused> {
    let (arguments, environment) = (pointers(plan.arguments), pointers(plan.environment));
    let oom_score = plan.oom_score_adj.map(|score| score.to_string()).unwrap_or_default();
    let mut shared = Shared {
        program: plan.program.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        working_dir: plan.working_dir.as_ptr(),
        stdio: plan.stdio.map(|end| end.as_raw_fd()),
        limits: plan.limits.as_ptr(),
        limit_count: plan.limits.len(),
        nice: plan.nice,
        oom_score: oom_score.as_ptr().cast(),
        oom_score_len: oom_score.len(),
        umask: plan.umask,
        refused: [0; 2],
        failed_step: 0,
        failed_errno: 0,
    };
    let mut stack = Box::<[u128]>::new_uninit_slice(STACK / size_of::<u128>());
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: `become_program` gets a pointer to `shared`, which outlives the child's use of our memory: with
    // CLONE_VFORK this call returns only after the child executed a program or ended. The stack is ours, aligned to
    // 16 bytes, used by nobody else, and its end is passed because it grows downwards. `pidfd` receives CLONE_PIDFD's
    // descriptor. Every signal is blocked in this thread or ignored (the guardian is single-threaded and has no
    // handlers), so none of our code runs in the child.
    let pid = unsafe {
        libc::clone(
            become_program,
            stack.as_mut_ptr_range().end.cast(),
            flags,
            (&raw mut shared).cast::<c_void>(),
            &raw mut pidfd,
        )
    };
    let Ok(number) = u32::try_from(pid) else {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        return Err(Refused { step: Step::Fork, errno });
    };
    // SAFETY: the call above succeeded and wrote a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    if shared.failed_errno != 0 {
        super::super::reap(number);
        let step = Step::from_number(shared.failed_step).unwrap_or(Step::Exec);
        return Err(Refused { step, errno: shared.failed_errno });
    }
    Ok(Launched { pid: number, end: pidfd, refused: shared.refused })
}

/// Runs in the child; calls only what is safe between fork and exec, and touches no memory but `Shared`.
#[expect(unsafe_code, reason = "raw system calls between fork and exec")]
extern "C" fn become_program(argument: *mut c_void) -> c_int {
    // SAFETY: `launch` passes a valid, exclusive `Shared` and stands still while we use it. Every call below is a plain
    // system call on values prepared by `launch`; the strings and arrays are NUL-terminated or counted.
    unsafe {
        let plan = &mut *argument.cast::<Shared>();
        // The table of dispositions is our own (no CLONE_SIGHAND); what the guardian ignores must not be inherited.
        default_signals();
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::setsid();
        libc::umask(plan.umask);
        rank(plan);
        if let Err(step) = arrange(plan) {
            plan.failed_step = step as u8;
            plan.failed_errno = (*libc::__errno_location()).max(1);
            libc::_exit(127);
        }
        libc::execve(plan.program, plan.arguments, plan.environment);
        plan.failed_step = Step::Exec as u8;
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
        // SAFETY: the kernel reads the structure and writes nothing; the mask's size is the one it knows (8 bytes).
        // SIGKILL and SIGSTOP are refused, which is as good.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8_usize,
            );
        }
    }
}

/// Sets niceness and OOM score, and notes what was refused. Before the limits, which may leave no descriptor to open.
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
            // Ours alone although the memory is the guardian's for now: a child of vfork has a score of its own.
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
unsafe fn arrange(plan: &Shared) -> Result<(), Step> {
    // SAFETY: as for the caller, which hands its own `Shared` through.
    unsafe {
        // Ours are all above 2 (the guardian keeps 0 to 2 on the null device), so none is overwritten before its turn.
        for (target, source) in plan.stdio.iter().enumerate() {
            if libc::dup2(*source, c_int::try_from(target).unwrap_or(c_int::MAX)) < 0 {
                return Err(Step::Descriptors);
            }
        }
        // Closed at exec, not now: nothing depends on the order, and an old kernel without the call loses nothing
        // because every descriptor of the guardian is marked so already.
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if libc::chdir(plan.working_dir) != 0 {
            return Err(Step::WorkingDir);
        }
        for n in 0..plan.limit_count {
            let (resource, soft, hard) = *plan.limits.add(n);
            // Lowered to what we may give: a wish beyond it is no reason not to start.
            let mut own = libc::rlimit { rlim_cur: hard, rlim_max: hard };
            libc::getrlimit(resource, &raw mut own);
            let limit =
                libc::rlimit { rlim_cur: soft.min(own.rlim_max), rlim_max: hard.min(own.rlim_max) };
            if libc::setrlimit(resource, &raw const limit) != 0 {
                return Err(Step::Limit);
            }
        }
    }
    Ok(())
}
