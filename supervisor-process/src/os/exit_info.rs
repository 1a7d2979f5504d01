//! Linux: how a process ended that is not ours to wait for.
//!
//! Since Linux 6.15 a pidfd tells the exit status of its process after whoever was its parent has reaped it. That is
//! how the status of a main process that is no child of ours is known, and of a child that somebody else in the host
//! reaped or whose status the host throws away by ignoring SIGCHLD.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::ioctl::{Updater, ioctl, opcode};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use supervisor_core::ProcessIdentity;
use supervisor_core::exit::ExitStatus;
use tokio::io::unix::AsyncFd;

/// `struct pidfd_info` of linux/pidfd.h, its first version.
#[repr(C)]
#[derive(Debug, Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: the exit code is asked for, or given.
const EXIT: u64 = 1 << 3;
/// `PIDFD_GET_INFO`, `_IOWR(0xFF, 11, struct pidfd_info)`.
const GET_INFO: rustix::ioctl::Opcode = opcode::read_write::<Info>(0xFF, 11);

/// Pause between two looks whether the parent has reaped it; only while it is a zombie.
const LOOK: Duration = Duration::from_millis(5);
/// Looks before its status is called unknown.
const LOOKS: u32 = 20;

/// Asks how a reaped process ended; nothing if it is not reaped yet or the kernel does not tell.
#[expect(unsafe_code, reason = "an ioctl nobody wraps")]
pub(super) fn exit_of(pidfd: impl AsFd) -> Option<ExitStatus> {
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the opcode belongs to pidfds and carries the size of `Info`, which has the layout the kernel writes; on
    // any other descriptor, and on an older kernel, the call fails and writes nothing.
    unsafe { ioctl(pidfd, Updater::<GET_INFO, Info>::new(&mut info)) }.ok()?;
    (info.mask & EXIT != 0).then(|| super::unix::from_wait_status(info.exit_code))
}

/// A process of a set that somebody else started: its end is told by the kernel, and how, where that can be known.
#[derive(Debug)]
pub(crate) struct Bystander(AsyncFd<OwnedFd>);

impl Bystander {
    /// Watches exactly this process; nothing if it is gone already.
    pub(crate) fn watch(identity: &ProcessIdentity) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(identity.pid).ok()?)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
        // Checked after it is pinned: from here on the identity cannot change.
        (super::identity_of(identity.pid)? == *identity).then_some(())?;
        super::unix::watched(pidfd).ok().map(Self)
    }

    /// Waits for the end. May be called again, cancelled or not.
    pub(crate) async fn wait(&self) -> ExitStatus {
        if self.0.readable().await.is_err() {
            return ExitStatus::Unknown;
        }
        for _ in 0..LOOKS {
            if let Some(status) = self.status() {
                return status;
            }
            tokio::time::sleep(LOOK).await;
        }
        ExitStatus::Unknown
    }

    fn status(&self) -> Option<ExitStatus> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        // An orphan that was given to us is our child, and ours to reap.
        match rustix::process::waitid(WaitId::PidFd(self.0.get_ref().as_fd()), options) {
            Ok(Some(status)) => Some(super::unix::exit_status(&status)),
            _ => exit_of(self.0.get_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(size_of::<Info>(), 64, "PIDFD_INFO_SIZE_VER0");
        assert_eq!(std::mem::offset_of!(Info, exit_code), 60);
    }

    #[test]
    fn the_status_of_a_child_somebody_else_reaped_is_known_where_the_kernel_tells() {
        let mut child = std::process::Command::new("sh").args(["-c", "exit 37"]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        match exit_of(&pidfd) {
            None => println!("left out: this kernel does not tell (it takes Linux 6.15)"),
            status => assert_eq!(status, Some(ExitStatus::Code(37))),
        }
    }
}
