//! How much one loss of a server says about what it had been given.

use super::Loss;

/// Blame at which a thing is given to no server any more: two crashes over it, or eight kills, of which any may be
/// somebody else's.
pub(crate) const BLAME_MAX: u8 = 8;
/// What a crash over a thing adds to its blame.
pub(crate) const CRASH: u8 = 4;
/// What a kill over a thing adds to its blame.
const KILL: u8 = 1;
/// The signal that ends without a word: a person's, or the system's for want of memory.
const SIGKILL: i32 = 9;

impl Loss {
    /// Tells whether somebody, or the system, killed the server: it may not have died of anything it was given.
    pub(crate) fn is_kill(&self) -> bool {
        matches!(self, Self::Exited(status) if status.signal() == Some(SIGKILL))
    }

    /// Gives what is added to the blame of a thing the server may have died of.
    pub(crate) fn weight(&self) -> u8 {
        if self.is_kill() { KILL } else { CRASH }
    }
}
