//! Transports that only one kind of system has.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::UnixTransport;
#[cfg(unix)]
pub(crate) use unix::{LocalEar, end_dead_connections};
#[cfg(windows)]
pub use windows::PipeTransport;
#[cfg(windows)]
pub(crate) use windows::{LocalEar, end_dead_connections};
