//! A small process of its own that owns the children, so that the host's size or death does not matter.
//!
//! It is the same executable run again ([`run_if_asked`]) or a program that is named. It holds no policy: what becomes of
//! a set when the host is gone comes with each start. `wire.rs` and `protocol.rs` are what is said between the two,
//! `keeper/` is the guardian, `host/` the side that uses it, `exits.rs` the record they share.
//!
//! # Platform
//! **Linux.** **macOS:** the same with weaker promises (no orphan is given to it), type-checked and not run. **Windows:** over
//! a named pipe of this user's, with sets that are job objects (`windows/`); run under Wine.

mod exits;
#[cfg(test)]
mod fuzz_tests;
mod host;
#[cfg_attr(windows, path = "windows/keeper/mod.rs")]
mod keeper;
mod numbers;
mod parts;
mod protocol;
#[cfg(test)]
mod protocol_tests;
mod wire;

use std::path::{Path, PathBuf};

use supervisor_core::{Incarnation, ProcessIdentity, ServiceId};

pub use becoming::run_if_asked;
pub use host::{GuardianSpawner, Outlived, available, running};

/// Names the runs whose end a guardian of this state directory recorded and that were not forgotten since, oldest first.
///
/// Nobody needs to guard it now. A record that cannot be read is passed over, as is a file that cannot be.
#[must_use]
pub fn recorded_runs(state_dir: &Path) -> Vec<(ServiceId, Incarnation)> {
    let records = exits::read(state_dir).map(|(records, _)| records).unwrap_or_else(|error| {
        tracing::warn!(%error, "the ends that a guardian recorded cannot be read");
        Vec::new()
    });
    records.into_iter().map(|record| (record.service, record.incarnation)).collect()
}

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

#[cfg(windows)]
use becoming::pipe_name;
use becoming::{ARGUMENT, armed};
#[cfg(unix)]
use becoming::{LOCK, SOCKET};

mod becoming {
    //! Becoming a guardian.

    use std::ffi::OsStr;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::keeper;

    /// First argument of a process that is to be a guardian.
    pub(super) const ARGUMENT: &str = "--ide-supervisor-guardian";
    /// Name of the socket in the state directory.
    #[cfg(unix)]
    pub(super) const SOCKET: &str = "guardian.sock";
    /// Name of the lock in the state directory; the kernel names its holder.
    #[cfg(unix)]
    pub(super) const LOCK: &str = "guardian.lock";

    /// Gives the name of the pipe of a state directory: the same whatever way the directory is written.
    #[cfg(windows)]
    pub(super) fn pipe_name(state_dir: &std::path::Path) -> String {
        let full = std::fs::canonicalize(state_dir)
            .or_else(|_| std::path::absolute(state_dir))
            .unwrap_or_else(|_| state_dir.to_owned());
        // FNV-1a. Who takes the name of another directory by chance or on purpose is in the way and nothing else: the
        // other end is asked who it is.
        let number = full
            .to_string_lossy()
            .to_lowercase()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        format!(r"\\.\pipe\ide-supervisor-guardian-{number:016x}")
    }

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
    /// Linux, macOS and Windows; the last two as far as the module says.
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
