//! The guardian's own process, its children, and the lock that makes it the only one.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, WaitId, WaitIdOptions};
use supervisor_core::Signal;
use supervisor_core::exit::ExitStatus;

/// Signals the guardian does not listen to: its host ends it by closing the connection, anybody else with SIGKILL.
///
/// SIGTERM is among them because a log-off sends it to everybody: the host and the services end by it, and then the
/// guardian has nothing left to guard and ends too.
const IGNORED: [libc::c_int; 10] = [
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

/// Makes this process fit to be a guardian, and gives a descriptor that is readable when a child has ended, and the
/// file mode mask it was started with.
///
/// Its own session, every descriptor of its host closed, signals clean, orphans of its children given to it.
///
/// # Errors
/// What the system said.
#[expect(unsafe_code, reason = "signal dispositions and masks of the whole process")]
pub(crate) fn prepare() -> io::Result<(OwnedFd, u32)> {
    // Refused to who leads a group already, which is as good.
    _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let umask = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077)).bits();
    rustix::process::chdir("/")?;
    // SAFETY: plain system calls on values of our own; this process has one thread and no handlers of its own, and
    // nothing in it owns a descriptor above 2 yet.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0);
        libc::prctl(libc::PR_SET_NAME, c"ide-guardian".as_ptr());
        super::launch::default_signals();
        for signal in IGNORED {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(fd), umask))
    }
}

/// The number of the limit on open descriptors.
pub(crate) const OPEN_FILES: u32 = libc::RLIMIT_NOFILE;

/// A limit nobody comes near (2^60 microseconds of real-time scheduling), with a set's number in it.
///
/// Children inherit it whatever they do to their environment, session and group, and it can be read from outside, so it
/// tells whose an orphan is.
const TAG: u64 = 1 << 60;

/// Gives the limit that tags a set.
pub(crate) const fn tag(set: u32) -> (u32, u64, u64) {
    (libc::RLIMIT_RTTIME, TAG | set as u64, libc::RLIM_INFINITY)
}

/// Reads the set a process is tagged with.
#[expect(unsafe_code, reason = "reading another process's limit is not wrapped by anything we use")]
pub(crate) fn tagged(pid: u32) -> Option<u32> {
    let pid = i32::try_from(pid).ok()?;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call sets nothing (a null pointer), writes one `rlimit` into our own, and keeps no pointer.
    let read = unsafe { libc::prlimit(pid, libc::RLIMIT_RTTIME, std::ptr::null(), &raw mut limit) };
    let set = limit.rlim_cur ^ TAG;
    (read == 0).then(|| u32::try_from(set).ok()).flatten()
}

/// Gives the limit of open descriptors as it was, and raises ours to the hard one.
pub(crate) fn open_files_limit() -> (u64, u64) {
    use rustix::process::{Resource, Rlimit};
    let was = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: was.maximum, maximum: was.maximum };
    // Refused: then there is room for fewer services, and one too many is told so.
    _ = rustix::process::setrlimit(Resource::Nofile, raised);
    (was.current.unwrap_or(u64::MAX), was.maximum.unwrap_or(u64::MAX))
}

/// Gives how many descriptors we may have.
pub(crate) fn descriptors_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
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
        Err(error) => Err(error.into()),
    }
}

/// The list of our children, read again and again through one descriptor, so that it can be read when none are left.
#[derive(Debug)]
pub(crate) struct Children {
    file: File,
    text: String,
}

impl Children {
    /// Opens the list.
    ///
    /// # Errors
    /// What the system said; a kernel without `CONFIG_PROC_CHILDREN` has none.
    pub(crate) fn open() -> io::Result<Self> {
        let path = format!("/proc/self/task/{}/children", std::process::id());
        Ok(Self { file: File::open(path)?, text: String::new() })
    }

    /// Gives every child's pid, ended ones included.
    pub(crate) fn list(&mut self) -> impl Iterator<Item = u32> + '_ {
        self.text.clear();
        let read = io::Seek::rewind(&mut self.file)
            .and_then(|()| self.file.read_to_string(&mut self.text));
        if read.is_err() {
            self.text.clear();
        }
        self.text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok())
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
