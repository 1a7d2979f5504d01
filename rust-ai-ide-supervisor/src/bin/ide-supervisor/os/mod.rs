//! What differs between systems, behind one interface.

#[cfg(not(target_os = "linux"))]
mod alone;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "linux")]
mod pair;
#[cfg(unix)]
mod unix;
#[cfg(not(target_os = "linux"))]
pub(crate) use alone::*;
#[cfg(target_os = "linux")]
pub(crate) use pair::*;
#[cfg(unix)]
pub(crate) use unix::*;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::*;
