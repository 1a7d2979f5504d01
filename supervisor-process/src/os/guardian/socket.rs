//! Sockets that carry bytes and descriptors.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, SendAncillaryBuffer, SendAncillaryMessage,
};

use super::system::{self, RECEIVE, SEND, address};

/// Most descriptors that travel with one message.
const DESCRIPTORS_MAX: usize = 2;

/// Connects to a socket in a directory.
///
/// # Errors
/// What the system said.
pub(crate) fn connect(dir: &File, name: &str) -> io::Result<OwnedFd> {
    let socket = system::socket()?;
    rustix::net::connect(&socket, &address(dir, name)?)?;
    Ok(socket)
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
        let socket = system::socket()?;
        rustix::net::bind(&socket, &address(dir, name)?)?;
        rustix::net::listen(&socket, 8)?;
        Ok(Self(socket))
    }

    /// Gives the next connection, if one waits.
    pub(crate) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match system::accept(&self.0) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
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
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SEND).map_err(Into::into)
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
    let received = rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RECEIVE)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            with.extend(descriptors.map(system::received));
        }
    }
    Ok(received.bytes)
}
