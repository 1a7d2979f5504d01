//! The guardian's limits, its children, and the lock that makes it the only one.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use rustix::process::{Pid, Resource, WaitId, WaitIdOptions};
use supervisor_core::Signal;
use supervisor_core::exit::ExitStatus;

/// Signals the guardian does not listen to: its host ends it by closing the connection, anybody else with SIGKILL.
///
/// SIGTERM is among them because a log-off sends it to everybody: the host and the services end by it, and then the
/// guardian has nothing left to guard and ends too.
pub(super) const IGNORED: [libc::c_int; 10] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGPIPE,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// The number of the limit on open descriptors.
pub(crate) const OPEN_FILES: u32 = Resource::Nofile as u32;

/// Gives the limit of open descriptors as it was, and raises ours to the hard one.
pub(crate) fn open_files_limit() -> (u64, u64) {
    let was = rustix::process::getrlimit(Resource::Nofile);
    // Refused: then there is room for fewer services, and one too many is told so.
    _ = rustix::process::setrlimit(Resource::Nofile, crate::os::unix::raised(&was));
    (was.current.unwrap_or(u64::MAX), was.maximum.unwrap_or(u64::MAX))
}

/// Gives how many descriptors we may have.
pub(crate) fn descriptors_max() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Makes sure that a directory belongs to this user and that nobody else may enter it.
///
/// # Errors
/// The reason, with the way out.
pub(crate) fn own_directory(dir: &File) -> Result<(), String> {
    let found =
        rustix::fs::fstat(dir).map_err(|error| format!("it cannot be looked at: {error}"))?;
    let me = rustix::process::geteuid().as_raw();
    if found.st_uid != me {
        return Err(format!("it belongs to user {}, not to {me}; name another", found.st_uid));
    }
    let mode = found.st_mode & 0o7777;
    if mode & 0o077 != 0 {
        return Err(format!("others may enter it (mode {mode:04o}); chmod 700 it"));
    }
    Ok(())
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It runs.
    Running,
    /// It ended so; it still holds its pid.
    As(ExitStatus),
    /// It is no child of ours any more.
    Gone,
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Asks how a child ended and leaves its pid taken, so that its group cannot become a stranger's.
pub(crate) fn ended(pid: u32) -> Ended {
    let Some(pid) = pid_of(pid) else { return Ended::Gone };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match rustix::process::waitid(WaitId::Pid(pid), options) {
        Ok(None) | Err(rustix::io::Errno::INTR) => Ended::Running,
        Ok(Some(status)) => Ended::As(crate::os::unix::exit_status(&status)),
        Err(_) => Ended::Gone,
    }
}

/// Reaps a child that has ended.
pub(crate) fn reap(pid: u32) {
    if let Some(pid) = pid_of(pid) {
        // Of one pid, never of any child; an error means that it was reaped already.
        _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    }
}

/// Kills a child that is not reaped yet, so that its number is certainly its own.
pub(crate) fn kill_child(pid: u32) {
    if let Some(pid) = pid_of(pid) {
        // It may have ended, which is what was wanted.
        _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Signals the group of a child that is not reaped yet; an empty group is no error.
///
/// # Errors
/// What the system said.
pub(crate) fn signal_group(leader: u32, signal: Signal) -> io::Result<()> {
    let Some(pid) = pid_of(leader) else { return Ok(()) };
    match rustix::process::kill_process_group(pid, crate::os::unix::native(signal)) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        // A group of nothing but processes that ended may not be signalled there, the system says.
        Err(rustix::io::Errno::PERM) if cfg!(target_os = "macos") => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A lock on a file that the kernel takes away when its holder ends, and that names its holder.
#[derive(Debug)]
pub(crate) struct Lock {
    // Closing any descriptor of the file drops the lock, so it is opened once and kept.
    _file: File,
}

impl Lock {
    /// Takes the lock; nothing if somebody else has it.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn take(file: File) -> io::Result<Option<Self>> {
        use rustix::fs::FlockOperation;
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Names the process that holds the lock on a file, as the kernel knows it.
    #[expect(unsafe_code, reason = "asking for a lock's holder is not wrapped by anything we use")]
    pub(crate) fn holder(file: &File) -> Option<u32> {
        let mut asked = MaybeUninit::<libc::flock>::zeroed();
        // SAFETY: all zeroes is a valid `flock`; its fields are set before the call, which writes into it and keeps no
        // pointer.
        let held = unsafe {
            let lock = asked.assume_init_mut();
            lock.l_type = libc::F_WRLCK as libc::c_short;
            lock.l_whence = libc::SEEK_SET as libc::c_short;
            (libc::fcntl(file.as_raw_fd(), libc::F_GETLK, asked.as_mut_ptr()) == 0)
                .then(|| asked.assume_init())
        }?;
        let taken = held.l_type != libc::F_UNLCK as libc::c_short;
        taken.then(|| u32::try_from(held.l_pid).ok()).flatten()
    }
}
