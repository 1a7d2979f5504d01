//! The socket itself: a Unix socket or a Windows named pipe, open to its owner only.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(super) use unix::{Listener, Stream, connect};
#[cfg(windows)]
pub(super) use windows::{ClientStream, Listener, Stream, connect};
#[cfg(unix)]
pub(super) type ClientStream = Stream;
