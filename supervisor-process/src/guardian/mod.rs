//! A small process of its own that owns the children, so that the host's size or death does not matter.
//!
//! It is the same executable run again ([`run_if_asked`]) or a program that is named. It holds no policy: what becomes of
//! a set when the host is gone comes with each start. `wire.rs` and `protocol.rs` are what is said between the two,
//! `keeper/` is the guardian, `host/` the side that uses it, `exits.rs` the record they share.
//!
//! # Platform
//! **Linux.** **macOS:** the same with weaker promises (no orphan is given to it), type-checked and not run. **Windows:** the
//! same names exist and say that there is none (`elsewhere.rs`).

#[cfg(not(unix))]
mod elsewhere;
#[cfg(unix)]
mod exits;
#[cfg(unix)]
mod host;
#[cfg(unix)]
mod keeper;
#[cfg(unix)]
mod protocol;
#[cfg(all(test, unix))]
mod protocol_tests;
#[cfg(unix)]
mod wire;

use std::path::PathBuf;

use supervisor_core::ProcessIdentity;

#[cfg(unix)]
pub use becoming::run_if_asked;
#[cfg(not(unix))]
pub use elsewhere::{GuardianSpawner, Outlived, available, run_if_asked, running};
#[cfg(unix)]
pub use host::{GuardianSpawner, Outlived, available, running};

/// Which program becomes the guardian.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GuardianProgram {
    /// This program, run again. Its `main` begins with [`run_if_asked`].
    #[default]
    Itself,
    /// Another one whose `main` does, `ide-guardian` of this crate for instance.
    Named(PathBuf),
}

/// How it stands with the guardian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardianNews {
    /// It guards.
    Guarding {
        /// Which process it is.
        identity: ProcessIdentity,
        /// Whether it took the place of one that was lost, whose sets were killed so that no second copy runs.
        replaced: bool,
    },
    /// It is gone. Its sets are being killed; the next start of a service starts another.
    Lost,
}

#[cfg(unix)]
use becoming::{ARGUMENT, LOCK, SOCKET, armed};

#[cfg(unix)]
mod becoming {
    //! Becoming a guardian.

    use std::ffi::OsStr;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::keeper;

    /// First argument of a process that is to be a guardian.
    pub(super) const ARGUMENT: &str = "--ide-supervisor-guardian";
    /// Name of the socket in the state directory.
    pub(super) const SOCKET: &str = "guardian.sock";
    /// Name of the lock in the state directory; the kernel names its holder.
    pub(super) const LOCK: &str = "guardian.lock";

    /// Whether this program can be run again as a guardian.
    static ARMED: AtomicBool = AtomicBool::new(false);

    /// Makes this process a guardian if it was started to be one, and never returns then; otherwise remembers that it can.
    ///
    /// Call it first thing in `main`, before threads, windows or runtimes: a library host that does is run again, with
    /// [`GuardianProgram::Itself`](super::GuardianProgram::Itself), as the small process that owns its services. Costs a look at the arguments.
    ///
    /// ```no_run
    /// // The first line of `main`:
    /// supervisor_process::guardian::run_if_asked();
    /// ```
    ///
    /// # Platform
    /// Linux and macOS; on Windows there is no guardian and this returns at once.
    pub fn run_if_asked() {
        let mut arguments = std::env::args_os().skip(1);
        if arguments.next().as_deref() != Some(OsStr::new(ARGUMENT)) {
            ARMED.store(true, Ordering::Release);
            return;
        }
        let code = match (arguments.next(), arguments.next()) {
            (Some(state_dir), Some(mark)) => {
                let ran =
                    keeper::run(PathBuf::from(state_dir), mark.to_string_lossy().into_owned());
                i32::from(ran.is_err())
            }
            _ => 2,
        };
        leave(code)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this process is the guardian alone: everything of it was dropped, and its host's main must not run"
    )]
    fn leave(code: i32) -> ! {
        std::process::exit(code)
    }

    pub(super) fn armed() -> bool {
        ARMED.load(Ordering::Acquire)
    }
}
