//! Sockets and pipes on Linux: what is made is closed at exec from its first moment.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// How is sent: without waiting, and without a signal if nobody reads.
pub(in super::super) const SEND: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);
/// How is received.
pub(in super::super) const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC.union(RecvFlags::DONTWAIT);

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Makes a connected pair of stream sockets; both are closed at exec.
///
/// # Errors
/// What the system said.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)
        .map_err(Into::into)
}

/// Makes a pipe, reading end first; both are closed at exec.
///
/// # Errors
/// What the system said.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(Into::into)
}

pub(in super::super) fn socket() -> io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)
        .map_err(Into::into)
}

pub(in super::super) fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    rustix::net::accept_with(listener, FLAGS).map_err(Into::into)
}

/// Makes a descriptor that came over a socket ours; it is closed at exec already.
pub(in super::super) const fn received(descriptor: OwnedFd) -> OwnedFd {
    descriptor
}

/// The short name of a file below an open directory: a socket's address holds about a hundred bytes, a path more.
pub(in super::super) fn address(dir: &File, name: &str) -> io::Result<SocketAddrUnix> {
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    SocketAddrUnix::new(Path::new(&path)).map_err(Into::into)
}

/// Names who is at the other end: user and process, as the kernel knows them.
///
/// # Errors
/// What the system said.
pub(crate) fn peer(socket: &OwnedFd) -> io::Result<(u32, u32)> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    Ok((peer.uid.as_raw(), peer.pid.as_raw_nonzero().get().unsigned_abs()))
}

/// Tells whether the other end of a connection is closed, without reading from it.
pub(crate) fn is_gone(socket: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags};
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// Names the file of this program, whatever became of its path since it was started.
///
/// # Errors
/// None here.
pub(crate) fn own_program() -> io::Result<PathBuf> {
    Ok(PathBuf::from("/proc/self/exe"))
}
