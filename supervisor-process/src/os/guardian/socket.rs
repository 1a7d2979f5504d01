//! Sockets that carry bytes and descriptors, and the guardian's own event loop.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Most descriptors that travel with one message.
const DESCRIPTORS_MAX: usize = 2;

/// Makes a connected pair of stream sockets; both are closed at exec.
///
/// # Errors
/// What the system said.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(Into::into)
}

/// The short name of a file below an open directory: a socket's address holds about a hundred bytes, a path more.
fn address(dir: &File, name: &str) -> io::Result<SocketAddrUnix> {
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    SocketAddrUnix::new(Path::new(&path)).map_err(Into::into)
}

/// Connects to a socket in a directory.
///
/// # Errors
/// What the system said.
pub(crate) fn connect(dir: &File, name: &str) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address(dir, name)?)?;
    Ok(socket)
}

/// Names who is at the other end: user and process, as the kernel knows them.
///
/// # Errors
/// What the system said.
pub(crate) fn peer(socket: &OwnedFd) -> io::Result<(u32, u32)> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    Ok((peer.uid.as_raw(), peer.pid.as_raw_nonzero().get().unsigned_abs()))
}

/// A listening socket in a directory.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Listens; what stood there before is replaced, which only the holder of the lock may do.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn bind(dir: &File, name: &str) -> io::Result<Self> {
        match rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &address(dir, name)?)?;
        rustix::net::listen(&socket, 8)?;
        Ok(Self(socket))
    }

    /// Gives the next connection, if one waits.
    pub(crate) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::accept_with(&self.0, flags) {
            Ok(socket) => Ok(Some(socket)),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Tells whether the other end of a connection is closed, without reading from it.
pub(crate) fn is_gone(socket: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags};
    let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

/// Sends bytes, and descriptors with the first of them; gives how many went.
///
/// # Errors
/// What the system said; `WouldBlock` when there is no room.
pub(crate) fn send(socket: &impl AsFd, bytes: &[u8], with: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !with.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(with)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags).map_err(Into::into)
}

/// Receives bytes into `buffer`, and descriptors into `with`; gives how many bytes came, none at the end.
///
/// # Errors
/// What the system said; `WouldBlock` when there is nothing.
pub(crate) fn receive(
    socket: &impl AsFd,
    buffer: &mut [u8],
    with: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(socket, &mut parts, &mut ancillary, flags)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            with.extend(descriptors);
        }
    }
    Ok(received.bytes)
}

/// What became ready in an event loop: what it was registered as.
pub(crate) type Ready = u64;

/// An event loop over descriptors.
pub(crate) struct Epoll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoll").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Epoll {
    /// Makes a loop that gives at most `batch` events at a time.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn new(batch: usize) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(batch) })
    }

    /// Waits for a descriptor to become readable, or writable too.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN).map_err(Into::into)
    }

    /// Changes what a descriptor is waited for.
    pub(crate) fn change(&self, fd: impl AsFd, token: u64, read: bool, write: bool) {
        let mut flags = EventFlags::RDHUP;
        flags.set(EventFlags::IN, read);
        flags.set(EventFlags::OUT, write);
        // It fails for a descriptor that was never added, which is a bug that the loop survives.
        _ = epoll::modify(&self.epoll, fd, EventData::new_u64(token), flags);
    }

    /// Waits no more for a descriptor.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something is ready, for at most `limit`; for ever without.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> Vec<Ready> {
        let timeout = limit.map(|limit| rustix::event::Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        self.events.clear();
        let room = rustix::buffer::spare_capacity(&mut self.events);
        // Interrupted or failed: nothing is ready, and the next round asks again.
        _ = epoll::wait(&self.epoll, room, timeout.as_ref());
        self.events.iter().map(|event| event.data.u64()).collect()
    }
}
