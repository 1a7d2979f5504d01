//! macOS: leaders, whose end a queue of the kernel tells, and processes whose end is watched though they are not ours.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions};
use supervisor_core::exit::ExitStatus;
use supervisor_core::{ProcessIdentity, Signal};
use tokio::io::unix::AsyncFd;

use super::info::Entry;
use super::kqueue;
use crate::os::children;
use crate::os::unix::{exit_status, native, watched};

/// Pause between two questions once the end was told: it is told a moment before it can be waited for.
const LOOK: Duration = Duration::from_micros(500);

/// The leader of a set: its end is told by the kernel, and it is reaped exactly once.
#[derive(Debug)]
pub(crate) struct Leader {
    pid: Pid,
    start_time: Option<u64>,
    end: AsyncFd<OwnedFd>,
    ended: Mutex<Option<ExitStatus>>,
    _listed: children::Listed,
}

/// What a started command leaves in our hands.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) leader: Leader,
    pub(crate) stdin: Option<std::process::ChildStdin>,
    pub(crate) stdout: Option<std::process::ChildStdout>,
    pub(crate) stderr: Option<std::process::ChildStderr>,
}

/// Starts a command; nothing of it is left when this fails.
pub(crate) fn start(command: &mut Command) -> io::Result<Started> {
    let (mut child, listed) = children::listed(|| command.spawn(), std::process::Child::id)?;
    let pid = Pid::from_child(&child);
    // It is our unreaped child, so this is its own even if it has ended by now.
    let start_time = Entry::read(child.id()).map(|entry| entry.start_time);
    match kqueue::end_of(pid).and_then(watched) {
        Ok(end) => Ok(Started {
            leader: Leader { pid, start_time, end, ended: Mutex::new(None), _listed: listed },
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        }),
        Err(error) => {
            drop(child.kill());
            drop(child.wait());
            Err(error)
        }
    }
}

impl Leader {
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for the end. Any number of callers, in any order, cancelled or not, get the same answer.
    pub(crate) async fn wait(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.try_wait() {
                return status;
            }
            // An error means that the runtime is going away; nobody is left to tell.
            if self.end.readable().await.is_err() {
                return ExitStatus::Unknown;
            }
            if let Some(status) = self.try_wait() {
                return status;
            }
            // poll: the process is in the last steps of its end, which the kernel bounds.
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Reaps the leader if it has ended. One lock around asking and noting, so nobody sees it reaped and not noted.
    pub(crate) fn try_wait(&self) -> Option<ExitStatus> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.is_none() && kqueue::is_ready(self.end.get_ref()) {
            *ended = self.reaped();
        }
        *ended
    }

    /// Reaps what has ended; nothing while it is in the last steps of that.
    fn reaped(&self) -> Option<ExitStatus> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        // If somebody else reaped it, its number may be another child's.
        let ours = Entry::read(self.pid()).map(|entry| entry.start_time) == self.start_time;
        if ours && self.start_time.is_some() {
            match rustix::process::waitid(WaitId::Pid(self.pid), options) {
                Ok(None) | Err(rustix::io::Errno::INTR) => return None,
                Ok(Some(status)) => return Some(exit_status(&status)),
                Err(_) => {}
            }
        }
        // Reaped by somebody else, or SIGCHLD is ignored in this process: the kernel said how with its end.
        Some(kqueue::told(self.end.get_ref()).unwrap_or(ExitStatus::Unknown))
    }

    /// Blocks until the leader has ended and reaps it, for at most `limit`.
    pub(crate) fn reap_within(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        // poll: for the drop of a handle, which cannot wait otherwise; `limit` bounds it.
        while self.try_wait().is_none() && Instant::now() < deadline {
            std::thread::park_timeout(LOOK);
        }
    }

    /// Signals the whole group; an empty one is no error.
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        if !self.group_is_ours() {
            return Ok(());
        }
        match rustix::process::kill_process_group(self.pid, native(signal)) {
            // A group of nothing but processes that ended may not be signalled, the system says.
            Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells whether the group has no living process left.
    ///
    /// The system gives no number out that a group or session has, so a group that never became empty is still ours; one
    /// whose number is a process again after our leader was reaped is a stranger's.
    pub(crate) fn group_is_empty(&self) -> bool {
        if self.try_wait().is_none() {
            return false;
        }
        matches!(
            rustix::process::test_kill_process_group(self.pid),
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM)
        ) || !self.group_is_ours()
    }

    fn group_is_ours(&self) -> bool {
        self.try_wait().is_none()
            || rustix::process::test_kill_process(self.pid) == Err(rustix::io::Errno::SRCH)
    }
}

/// A process of a set that somebody else started: its end is told by the kernel, and how where we may ask for that.
#[derive(Debug)]
pub(crate) struct Bystander {
    end: AsyncFd<OwnedFd>,
    ended: Mutex<Option<ExitStatus>>,
}

impl Bystander {
    /// Watches exactly this process; nothing if it is gone already.
    pub(crate) fn watch(identity: &ProcessIdentity) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(identity.pid).ok()?)?;
        let queue = kqueue::queue().ok()?;
        if !kqueue::watch(&queue, pid).ok()? {
            return None;
        }
        // Checked after it is watched: the queue holds the process and not the number.
        (super::identity_of(identity.pid)? == *identity).then_some(())?;
        Some(Self { end: watched(queue).ok()?, ended: Mutex::new(None) })
    }

    /// Waits for the end. May be called again, cancelled or not.
    pub(crate) async fn wait(&self) -> ExitStatus {
        if self.end.readable().await.is_err() {
            return ExitStatus::Unknown;
        }
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *ended
            .get_or_insert_with(|| kqueue::told(self.end.get_ref()).unwrap_or(ExitStatus::Unknown))
    }
}
