//! Systems without sub-reapers: a session is one process, and nobody is left to end its server when that is killed.

use std::ffi::OsString;
use std::io;

/// Gives the command line as it is: nobody starts workers here.
pub(crate) fn worker_of(words: impl Iterator<Item = OsString>) -> (Option<u32>, Vec<OsString>) {
    (None, words.collect())
}

/// Starts no second process.
pub(crate) const fn watch() -> Option<u8> {
    None
}

/// Nobody watches here.
#[derive(Debug)]
pub(crate) struct Watcher;

impl Watcher {
    /// Finds none.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn find(_: u32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Waits for ever.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn ended(&mut self) {
        std::future::pending().await
    }
}

/// Does nothing: handles end what they hold.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn end_descendants() {}
