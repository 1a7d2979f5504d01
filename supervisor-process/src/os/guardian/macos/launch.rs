//! Starting one program: everything between fork and exec happens here.
//!
//! The guardian is small and has one thread, so a fork costs little and its child may do what it likes until it becomes
//! the program; what goes wrong comes back through a pipe that exec closes.

use std::ffi::{c_char, c_int};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};

use rustix::process::Pid;

use super::super::plan::{Launched, Plan, Refused, Step, pointers};
use crate::os::macos::kqueue;

/// Highest signal number there is.
const SIGNAL_MAX: c_int = 31;
/// Bytes of one thing that comes back: the step, and the system's number of the error.
const WORD: usize = 1 + size_of::<c_int>();
/// In the place of a step: the niceness was refused, which is no reason not to start.
const NICE: u8 = u8::MAX;

/// The plan as the child needs it.
struct Prepared<'a> {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    working_dir: *const c_char,
    stdio: [RawFd; 3],
    limits: &'a [(u32, u64, u64)],
    nice: Option<c_int>,
    umask: u32,
    back: RawFd,
}

/// Starts a program in a session of its own, with clean signals and only the three descriptors of the plan.
///
/// # Errors
/// [`Refused`]; nothing of the child is left.
#[expect(unsafe_code, reason = "forking is not wrapped by anything we use")]
pub(crate) fn launch(plan: &Plan<'_>) -> Result<Launched, Refused> {
    let (arguments, environment) = (pointers(plan.arguments), pointers(plan.environment));
    let (reads, writes) = super::pipe().map_err(|error| refused(Step::Descriptors, &error))?;
    let prepared = Prepared {
        program: plan.program.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        working_dir: plan.working_dir.as_ptr(),
        stdio: plan.stdio.map(|end| end.as_raw_fd()),
        limits: plan.limits,
        nice: plan.nice,
        umask: plan.umask,
        back: writes.as_raw_fd(),
    };
    // SAFETY: this process has one thread, so the child's copy of its memory is consistent; the child calls nothing but
    // system calls and then executes a program or ends, so no destructor of ours runs twice.
    let forked = unsafe {
        let forked = libc::fork();
        if forked == 0 {
            become_program(&prepared);
        }
        forked
    };
    let Some((number, pid)) = u32::try_from(forked).ok().zip(Pid::from_raw(forked.max(0))) else {
        return Err(refused(Step::Fork, &io::Error::last_os_error()));
    };
    drop(writes);
    let mut said = Vec::with_capacity(2 * WORD);
    // Its end comes with exec or with the child's end. One that cannot be read says nothing, and then the child's end
    // tells.
    drop(File::from(reads).take(2 * WORD as u64).read_to_end(&mut said));
    // There is no score for want of memory that one could ask for.
    let mut ranks = [0, plan.oom_score_adj.map_or(0, |_| libc::ENOTSUP)];
    for word in said.as_chunks::<WORD>().0 {
        let [step, errno @ ..] = *word;
        let errno = c_int::from_ne_bytes(errno);
        if step == NICE {
            ranks[0] = errno;
            continue;
        }
        super::super::reap(number);
        let step = Step::from_number(step).unwrap_or(Step::Exec);
        return Err(Refused { step, errno });
    }
    match kqueue::end_of(pid) {
        Ok(end) => Ok(Launched { pid: number, end, refused: ranks }),
        Err(error) => {
            super::super::kill_child(number);
            super::super::reap(number);
            Err(refused(Step::Descriptors, &error))
        }
    }
}

fn refused(step: Step, error: &io::Error) -> Refused {
    Refused { step, errno: error.raw_os_error().unwrap_or(0) }
}

/// Runs in the child; calls only what is safe between fork and exec.
#[expect(unsafe_code, reason = "raw system calls between fork and exec")]
fn become_program(plan: &Prepared<'_>) -> ! {
    // SAFETY: every call below is a plain system call on values prepared by `launch`; the strings and arrays are
    // NUL-terminated or counted, and are the child's own copies.
    unsafe {
        // What the guardian ignores must not be inherited.
        default_signals();
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::setsid();
        libc::umask(libc::mode_t::try_from(plan.umask & 0o777).unwrap_or(0o077));
        if let Some(nice) = plan.nice
            && libc::setpriority(libc::PRIO_PROCESS, 0, nice) != 0
        {
            tell(plan.back, NICE);
        }
        let step = match arrange(plan) {
            Err(step) => step,
            Ok(()) => {
                libc::execve(plan.program, plan.arguments, plan.environment);
                Step::Exec
            }
        };
        tell(plan.back, step as u8);
        libc::_exit(127)
    }
}

/// Says what the last call failed with.
#[expect(unsafe_code, reason = "raw system calls between fork and exec")]
fn tell(back: RawFd, step: u8) {
    // SAFETY: the descriptor is open until exec, the array is our own and counted. A pipe takes so few bytes whole.
    unsafe {
        let mut word = [step; WORD];
        word[1..].copy_from_slice(&(*libc::__error()).max(1).to_ne_bytes());
        libc::write(back, word.as_ptr().cast(), WORD);
    }
}

/// Gives every signal its default disposition.
#[expect(unsafe_code, reason = "signal dispositions of the whole process")]
pub(super) fn default_signals() {
    for signal in 1..=SIGNAL_MAX {
        // SAFETY: no handler is set; SIGKILL and SIGSTOP are refused, which is as good.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

#[expect(unsafe_code, reason = "raw system calls between fork and exec")]
unsafe fn arrange(plan: &Prepared<'_>) -> Result<(), Step> {
    // SAFETY: as for the caller, which hands its own plan through.
    unsafe {
        // Ours are all above 2 (the guardian keeps 0 to 2 on the null device), so none is overwritten before its turn.
        // Every other descriptor of the guardian is closed at exec.
        for (target, source) in plan.stdio.iter().enumerate() {
            if libc::dup2(*source, c_int::try_from(target).unwrap_or(c_int::MAX)) < 0 {
                return Err(Step::Descriptors);
            }
        }
        if libc::chdir(plan.working_dir) != 0 {
            return Err(Step::WorkingDir);
        }
        for (resource, soft, hard) in plan.limits {
            let resource = c_int::try_from(*resource).unwrap_or(c_int::MAX);
            // Lowered to what we may give: a wish beyond it is no reason not to start.
            let mut own = libc::rlimit { rlim_cur: *hard, rlim_max: *hard };
            libc::getrlimit(resource, &raw mut own);
            let limit = libc::rlimit {
                rlim_cur: (*soft).min(own.rlim_max),
                rlim_max: (*hard).min(own.rlim_max),
            };
            if libc::setrlimit(resource, &raw const limit) != 0 {
                return Err(Step::Limit);
            }
        }
    }
    Ok(())
}
