//! The guardian's own process on macOS: told of ends by a queue of the kernel, and given no orphans.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::kqueue::Event;
use rustix::process::Pid;

use super::super::process::IGNORED;
use crate::os::macos::kqueue;
use crate::os::{Entry, processes};

/// Whether orphans of our children become our own children.
pub(crate) const ADOPTS: bool = false;

/// Ends taken from the kernel at a time.
const BATCH: usize = 64;
/// Lists taken in a row while processes vanish under the look.
const LISTS_MAX: u32 = 16;

/// Readable when something has ended whose end was asked for.
#[derive(Debug)]
pub(crate) struct ChildSignals(OwnedFd);

impl ChildSignals {
    /// Takes what waits there; that something ended is all that is wanted.
    pub(crate) fn drain(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            let mut events: Vec<Event> = Vec::with_capacity(BATCH);
            let room = rustix::buffer::spare_capacity(&mut events);
            if kqueue::take(&self.0, &[], room, Some(&now)).is_err() || events.len() < BATCH {
                return;
            }
        }
    }

    /// Asks to be told of the end of an orphan, and tells whether it is there.
    pub(crate) fn watch(&self, pid: u32) -> bool {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
        // What may not be watched is found to have ended by the next look, whatever causes it.
        kqueue::watch(&self.0, pid).unwrap_or(true)
    }
}

impl AsFd for ChildSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes this process fit to be a guardian, and gives what tells when an orphan has ended, and the file mode mask it was
/// started with.
///
/// Its own session, every descriptor of its host closed, signals clean.
///
/// # Errors
/// What the system said.
#[expect(unsafe_code, reason = "descriptors, signal dispositions and masks of the whole process")]
pub(crate) fn prepare() -> io::Result<(ChildSignals, u32)> {
    // Refused to who leads a group already, which is as good.
    _ = rustix::process::setsid();
    let umask = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077)).bits();
    rustix::process::chdir("/")?;
    let open: Vec<i32> = std::fs::read_dir("/dev/fd")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // SAFETY: nothing in this process owns a descriptor above 2 yet; the list's own was closed above, and closing it
    // again fails. Plain system calls on values of our own otherwise; this process has one thread and no handlers.
    unsafe {
        for fd in open.into_iter().filter(|fd| *fd > 2) {
            libc::close(fd);
        }
        super::launch::default_signals();
        for signal in IGNORED {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok((ChildSignals(kqueue::queue()?), umask.into()))
}

/// Tags a set; there is no limit here that could carry a number and be read from outside.
pub(crate) const fn tag(_set: u32) -> Option<(u32, u64, u64)> {
    None
}

/// Reads the set a process is tagged with; none is here.
pub(crate) const fn tagged(_pid: u32) -> Option<u32> {
    None
}

/// What may have come from our children: every process of the user that is younger than we are.
///
/// Only an ended leader's orphans are wanted, but nothing tells them from others before they are looked at: their parent
/// is process 1 like everybody's.
#[derive(Debug)]
pub(crate) struct Children {
    born: u64,
}

impl Children {
    /// Makes ready to list them.
    ///
    /// # Errors
    /// When the system does not say when we were started.
    pub(crate) fn open() -> io::Result<Self> {
        let own = Entry::read(std::process::id());
        let born = own.ok_or_else(|| io::Error::other("the system does not tell our own start"))?;
        Ok(Self { born: born.start_time })
    }

    /// Gives every such pid, parents before their children, ended ones included.
    ///
    /// The system lists its processes in one step; what ends between the list and the look may have started something in
    /// between, and then the list is taken again.
    pub(crate) fn list(&mut self) -> impl Iterator<Item = u32> + '_ {
        let mut young: Vec<Entry> = Vec::new();
        for _ in 0..LISTS_MAX {
            young.clear();
            let mut settled = true;
            for pid in processes() {
                match Entry::read(pid) {
                    Some(entry) => young.push(entry),
                    // Another user's is there and not ours to read.
                    None => settled &= exists(pid),
                }
            }
            if settled {
                break;
            }
        }
        young.retain(|entry| entry.start_time >= self.born && entry.pid != std::process::id());
        young.sort_by_key(|entry| entry.start_time);
        young.into_iter().map(|entry| entry.pid)
    }
}

/// Tells whether there is such a process, another user's included.
fn exists(pid: u32) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}
