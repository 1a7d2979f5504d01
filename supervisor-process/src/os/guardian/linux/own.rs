//! The guardian's own process on Linux: an orphan's new parent, told of every end by one descriptor.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use super::super::process::IGNORED;

/// Whether orphans of our children become our own children.
pub(crate) const ADOPTS: bool = true;

/// Readable when something of ours has ended.
#[derive(Debug)]
pub(crate) struct ChildSignals(OwnedFd);

impl ChildSignals {
    /// Takes what waits there. What it says of one end is not enough, for several may be one signal; that there was one
    /// is.
    pub(crate) fn drain(&self) {
        let mut bytes = [0_u8; 512];
        while rustix::io::read(&self.0, &mut bytes).is_ok_and(|read| read > 0) {}
    }

    /// Asks to be told of the end of an orphan, and tells whether it is there; orphans are children here, whose end is
    /// told unasked.
    pub(crate) const fn watch(&self, _pid: u32) -> bool {
        true
    }
}

impl AsFd for ChildSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes this process fit to be a guardian, and gives what tells when a child has ended, and the file mode mask it was
/// started with.
///
/// Its own session, every descriptor of its host closed, signals clean, orphans of its children given to it.
///
/// # Errors
/// What the system said.
#[expect(unsafe_code, reason = "signal dispositions and masks of the whole process")]
pub(crate) fn prepare() -> io::Result<(ChildSignals, u32)> {
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
        crate::os::launch::default_signals();
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
        // One thread starts one program at a time.
        crate::os::launch::prepare(1);
        Ok((ChildSignals(OwnedFd::from_raw_fd(fd)), umask))
    }
}

/// A limit nobody comes near (2^60 microseconds of real-time scheduling), with a set's number in it.
///
/// Children inherit it whatever they do to their environment, session and group, and it can be read from outside, so it
/// tells whose an orphan is.
const TAG: u64 = 1 << 60;

/// Gives the limit that tags a set.
pub(crate) const fn tag(set: u32) -> Option<(u32, u64, u64)> {
    Some((libc::RLIMIT_RTTIME, TAG | set as u64, libc::RLIM_INFINITY))
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
