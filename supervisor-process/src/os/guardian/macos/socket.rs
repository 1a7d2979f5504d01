//! Sockets and pipes on macOS: closed at exec from a moment after they were made, which matters to nobody in a process
//! of one thread, and in a host as little as for any other descriptor there.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// How is sent: without waiting. Every socket was told to raise no signal if nobody reads.
pub(in super::super) const SEND: SendFlags = SendFlags::DONTWAIT;
/// How is received.
pub(in super::super) const RECEIVE: RecvFlags = RecvFlags::DONTWAIT;

/// Bytes a path of a socket may have (`sun_path` without its end).
const PATH_MAX: usize = 103;

fn own(socket: OwnedFd) -> io::Result<OwnedFd> {
    rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::sockopt::set_socket_nosigpipe(&socket, true)?;
    Ok(socket)
}

/// Makes a connected pair of stream sockets; both are closed at exec.
///
/// # Errors
/// What the system said.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::empty(),
        None,
    )?;
    Ok((own(one)?, own(other)?))
}

/// Makes a pipe, reading end first; both are closed at exec.
///
/// # Errors
/// What the system said.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reads, writes) = rustix::pipe::pipe()?;
    rustix::io::fcntl_setfd(&reads, FdFlags::CLOEXEC)?;
    rustix::io::fcntl_setfd(&writes, FdFlags::CLOEXEC)?;
    Ok((reads, writes))
}

pub(in super::super) fn socket() -> io::Result<OwnedFd> {
    own(rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?)
}

pub(in super::super) fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    own(rustix::net::accept(listener)?)
}

/// Makes a descriptor that came over a socket ours.
pub(in super::super) fn received(descriptor: OwnedFd) -> OwnedFd {
    // It can only fail for what is no descriptor.
    _ = rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC);
    descriptor
}

/// The name of a file below an open directory, wherever that is by now.
///
/// # Errors
/// What the system said, or that the name is longer than a socket's may be, with the way out.
pub(in super::super) fn address(dir: &File, name: &str) -> io::Result<SocketAddrUnix> {
    use std::os::unix::ffi::OsStrExt;
    let directory = rustix::fs::getpath(dir)?;
    let path = Path::new(std::ffi::OsStr::from_bytes(directory.as_bytes())).join(name);
    let length = path.as_os_str().len();
    if length > PATH_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "the path of its socket has {length} bytes and may have {PATH_MAX}; name a shorter state directory"
            ),
        ));
    }
    SocketAddrUnix::new(&path).map_err(Into::into)
}

/// Names who is at the other end: user and process, as the kernel knows them.
///
/// # Errors
/// What the system said.
#[expect(unsafe_code, reason = "who is at the other end is told by nothing we use")]
pub(crate) fn peer(socket: &OwnedFd) -> io::Result<(u32, u32)> {
    let (mut user, mut group) = (0, 0);
    // SAFETY: the descriptor is borrowed; the call writes two numbers into our own and keeps no pointer.
    if unsafe { libc::getpeereid(socket.as_raw_fd(), &raw mut user, &raw mut group) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut pid: libc::pid_t = 0;
    let mut size = libc::socklen_t::try_from(size_of::<libc::pid_t>()).unwrap_or(0);
    // SAFETY: the descriptor is borrowed; the call writes at most `size` bytes into our own number and keeps no pointer.
    let read = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_LOCAL as c_int,
            libc::LOCAL_PEERPID,
            (&raw mut pid).cast::<c_void>(),
            &raw mut size,
        )
    };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((user, pid.unsigned_abs()))
}

/// Tells whether the other end of a connection is closed, without reading from it.
pub(crate) fn is_gone(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let asked = rustix::event::poll(&mut fds, Some(&timeout));
    asked.is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// Names the file of this program.
///
/// # Errors
/// What the system said.
pub(crate) fn own_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}
