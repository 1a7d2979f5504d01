//! What is started, what may go wrong on the way, and what comes of it.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

pub(crate) use crate::os::step::Step;

/// A start that failed: where, and what the system said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) step: Step,
    pub(crate) errno: i32,
}

/// What is started, and as what.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) arguments: &'a [CString],
    pub(crate) environment: &'a [CString],
    pub(crate) working_dir: &'a CStr,
    /// Become standard input, output and error; nothing else stays open.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Resource, soft and hard value; in this order.
    pub(crate) limits: &'a [(u32, u64, u64)],
    /// Niceness; inherited when absent.
    pub(crate) nice: Option<i32>,
    /// How soon it is ended for want of memory; inherited when absent.
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) umask: u32,
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: u32,
    /// Readable once it has ended.
    pub(crate) end: OwnedFd,
    /// What the system said to niceness and OOM score, 0 where it granted them: neither is a reason not to start.
    pub(crate) refused: [i32; 2],
}

/// Gives an array as `execve` wants it; it is valid as long as the strings are where they are.
pub(in crate::os) fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// The null device, for standard input of services without a channel.
pub(crate) struct NullDevice;

impl NullDevice {
    /// Puts the null device in the place of our own standard descriptors and gives what was standard input.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn take_over() -> io::Result<OwnedFd> {
        let given = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let flags = rustix::fs::OFlags::RDWR;
        let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        Ok(given)
    }
}
