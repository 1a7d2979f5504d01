//! Linux: fast spawning, death told by the kernel through a pidfd, signals to groups and to pinned processes.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use supervisor_core::exit::ExitStatus;
use supervisor_core::{ProcessIdentity, Signal};
use tokio::io::unix::AsyncFd;

use super::proc_fs::{Entry, environment};
use super::unix::{Marking, exit_status, marking_in, native, variable, watched};
use super::{children, reserve};

/// Names the layers that contain sets here.
pub(crate) fn containment(subreaper: bool) -> Vec<String> {
    let mut layers = vec!["process_group".to_owned(), "marked_descendants".to_owned()];
    if subreaper {
        layers.insert(1, "subreaper".to_owned());
    }
    layers
}

/// Gives the time since boot, suspend included.
pub(crate) fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Makes orphaned descendants children of this process; a setting of the whole process.
pub(crate) fn become_subreaper() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Into::into)
}

/// The leader of a set: pinned by a pidfd, reaped exactly once.
#[derive(Debug)]
pub(crate) struct Leader {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    ended: Mutex<Option<ExitStatus>>,
    _listed: children::Listed,
}

impl Leader {
    pub(super) fn new(pid: Pid, pidfd: AsyncFd<OwnedFd>, listed: children::Listed) -> Self {
        Self { pid, pidfd, ended: Mutex::new(None), _listed: listed }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for the end. Any number of callers, in any order, cancelled or not, get the same answer.
    pub(crate) async fn wait(&self) -> ExitStatus {
        loop {
            if let Some(status) = *self.ended() {
                return status;
            }
            // Asked only once the kernel has told that there is an answer: whoever waits begins to wait again and again.
            let told = self.pidfd.readable().await;
            if let Some(status) = self.try_wait() {
                return status;
            }
            // An error means that the runtime is going away; nobody is left to tell.
            if told.is_err() {
                return ExitStatus::Unknown;
            }
        }
    }

    fn ended(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reaps the leader if it has ended. One lock around asking and noting, so nobody sees it reaped and not noted.
    pub(crate) fn try_wait(&self) -> Option<ExitStatus> {
        let mut ended = self.ended();
        if ended.is_none() {
            use std::os::fd::AsFd;
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            *ended =
                match rustix::process::waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options)
                {
                    Ok(None) | Err(rustix::io::Errno::INTR) => None,
                    Ok(Some(status)) => Some(exit_status(&status)),
                    // Somebody else reaped it, or SIGCHLD is ignored in this process: the kernel may still know how.
                    Err(_) => is_gone(self.pidfd.get_ref()).then(|| {
                        super::exit_info::exit_of(self.pidfd.get_ref())
                            .unwrap_or(ExitStatus::Unknown)
                    }),
                };
        }
        *ended
    }

    /// Blocks until the leader has ended and reaps it, for at most `limit`.
    pub(crate) fn reap_within(&self, limit: Duration) {
        let mut fds = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        let nanos = i64::from(limit.subsec_nanos());
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: nanos };
        // Whether it ended or the time is up, asking once more is all that is left to do.
        _ = rustix::event::poll(&mut fds, Some(&timeout));
        self.try_wait();
    }

    /// Signals the whole group; an empty one is no error.
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        if !self.group_is_ours() {
            return Ok(());
        }
        match rustix::process::kill_process_group(self.pid, native(signal)) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells whether the group has no process left.
    ///
    /// The kernel keeps a number from being given out while a group has it, so a group that never became empty is
    /// still ours; one whose number is a process again after our leader was reaped is a stranger's.
    pub(crate) fn group_is_empty(&self) -> bool {
        if self.try_wait().is_none() {
            return false;
        }
        matches!(rustix::process::test_kill_process_group(self.pid), Err(rustix::io::Errno::SRCH))
            || !self.group_is_ours()
    }

    fn group_is_ours(&self) -> bool {
        self.try_wait().is_none()
            || rustix::process::test_kill_process(self.pid) == Err(rustix::io::Errno::SRCH)
    }
}

fn is_gone(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// A process held by a pidfd, so that its pid cannot become somebody else's while we act.
#[derive(Debug)]
pub(crate) struct Pinned(OwnedFd);

impl Pinned {
    /// Pins exactly this process; nothing if it is gone or its pid is somebody else's by now.
    pub(crate) fn new(identity: &ProcessIdentity) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(identity.pid).ok()?)?;
        let pidfd = reserve::with(|| {
            rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(Into::into)
        });
        let pidfd = pidfd.ok()?;
        // Checked after pinning: from here on the identity cannot change.
        let found = super::identity_of(identity.pid)?;
        (found == *identity && !found.boot_id.is_empty()).then_some(Self(pidfd))
    }

    /// Reaps it if it has ended and is our child; tells whether it has ended, whoever's child it is.
    pub(crate) fn reap(&self) -> bool {
        use std::os::fd::AsFd;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match rustix::process::waitid(WaitId::PidFd(self.0.as_fd()), options) {
            Ok(ended) => ended.is_some(),
            // Not our child, or somebody in this process reaped it.
            Err(_) => is_gone(&self.0),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.0, native(signal)) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Lists the living children of a process, as far as it is still there.
pub(crate) fn children_of(pid: u32) -> Vec<Entry> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        })
        .filter_map(Entry::read)
        .filter(Entry::is_alive)
        .collect()
}

/// Reads the marks of a process; nothing if it has none or is not ours to read.
pub(crate) fn marking(pid: u32) -> Option<Marking> {
    marking_in(&environment(pid))
}

/// Reads whose guardian a process is, or was about to stop being: between fork and exec it still says so.
pub(crate) fn guardian_mark(pid: u32) -> Option<String> {
    variable(&environment(pid), crate::command::GUARDIAN_VARIABLE).map(str::to_owned)
}

/// A datagram socket with an abstract name whose senders the kernel names.
#[derive(Debug)]
pub(crate) struct CredentialSocket(AsyncFd<OwnedFd>);

impl CredentialSocket {
    pub(crate) fn bind(name: &str) -> io::Result<Self> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_passcred(&socket, true)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        watched(socket).map(Self)
    }

    /// Waits for a datagram and gives its sender's pid and its text, cut at 4 KiB.
    pub(crate) async fn receive(&self) -> io::Result<(u32, String)> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|socket| receive_once(socket.get_ref())) {
                Ok(Ok(Some(received))) => return Ok(received),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

fn receive_once(socket: &OwnedFd) -> io::Result<Option<(u32, String)>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let mut bytes = [0; 4096];
    let mut space =
        [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(&mut bytes)];
    let received =
        rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut sender = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmCredentials(credentials) = message {
            sender = Some(credentials.pid.as_raw_nonzero().get().unsigned_abs());
        }
    }
    let text = String::from_utf8_lossy(&bytes[..received.bytes.min(4096)]).into_owned();
    Ok(sender.map(|pid| (pid, text)))
}

/// Gives the length of so many clock ticks.
pub(crate) fn ticks(n: u64) -> Duration {
    Duration::from_secs(n)
        / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100).max(1)
}

/// Gives how long ago a process was started.
pub(crate) fn age(process: &ProcessIdentity) -> Duration {
    since_boot().saturating_sub(ticks(process.start_time))
}
