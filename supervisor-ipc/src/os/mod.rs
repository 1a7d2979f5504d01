//! Transports that only one kind of system has.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::UnixTransport;
#[cfg(windows)]
pub use windows::PipeTransport;
