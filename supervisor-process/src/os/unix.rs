//! Linux and macOS: what the two have in common when programs are started, signalled, and told apart by their marks.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::Access;
use rustix::process::{Resource, Rlimit, WaitIdStatus};
use supervisor_core::Signal;
use supervisor_core::error::SpawnErrorKind;
use supervisor_core::exit::ExitStatus;
use tokio::io::unix::AsyncFd;

/// Gives the names a command may stand for: its own.
pub(crate) fn spellings(command: &str) -> Vec<String> {
    vec![command.to_owned()]
}

#[cfg(target_os = "macos")]
pub(crate) use std::process::Command;

/// Gives a child no streams at all.
#[cfg(target_os = "macos")]
pub(crate) fn no_stdio(command: &mut Command) {
    use std::process::Stdio;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
}

/// Tells whether a file can be executed by us.
pub(crate) fn executable(program: &Path) -> io::Result<()> {
    let found = fs::metadata(program)?;
    if found.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    // Root may execute whatever has any execute bit; access(2) says so, but not for a file with none.
    if found.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    rustix::fs::access(program, Access::EXEC_OK).map_err(Into::into)
}

/// Sorts what the system said about a start.
pub(crate) fn spawn_error_kind(error: &io::Error) -> SpawnErrorKind {
    use rustix::io::Errno;
    let Some(code) = Errno::from_io_error(error) else { return SpawnErrorKind::Other };
    match code {
        Errno::NOENT | Errno::NOTDIR => SpawnErrorKind::NotFound,
        Errno::ACCESS | Errno::PERM => SpawnErrorKind::PermissionDenied,
        #[cfg(target_os = "linux")]
        Errno::LIBBAD => SpawnErrorKind::BadExecutable,
        Errno::NOEXEC | Errno::INVAL | Errno::ISDIR | Errno::TOOBIG => {
            SpawnErrorKind::BadExecutable
        }
        Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM | Errno::NOSPC => {
            SpawnErrorKind::ResourceExhausted
        }
        Errno::TXTBSY => SpawnErrorKind::Busy,
        _ => SpawnErrorKind::Other,
    }
}

/// Tells whether a start failed because arguments and environment are too large.
pub(crate) fn is_too_large(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::TOOBIG)
}

/// Prepares a command so that it starts in a group of its own.
///
/// A group is set through `posix_spawn`'s own attribute; anything that needs a hook between fork and exec would
/// make the standard library fork, which costs as much as the host has page tables.
#[cfg(target_os = "macos")]
pub(crate) fn own_group(command: &mut Command) {
    std::os::unix::process::CommandExt::process_group(command, 0);
}

/// Registers an owned descriptor with the event loop.
#[expect(unsafe_code, reason = "tokio's registration asks for a promise about the descriptor")]
pub(super) fn watched<T: std::os::fd::AsRawFd + std::os::fd::AsFd>(
    owned: T,
) -> io::Result<AsyncFd<T>>
where
    OwnedFd: From<T>,
{
    // SAFETY: `T` owns its descriptor (it turns into an `OwnedFd`), `AsRawFd` of an owner always gives that same
    // descriptor, and `AsyncFd` owns `T` from here on, so it stays open and the same until it is deregistered.
    unsafe { AsyncFd::register_with_interest(owned, tokio::io::Interest::READABLE) }
        .map_err(io::Error::from)
}

pub(super) fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    if let Some(code) = status.exit_status() {
        ExitStatus::Code(code)
    } else if let Some(signal) = status.terminating_signal() {
        ExitStatus::Signal(signal)
    } else {
        ExitStatus::Unknown
    }
}

/// Reads the form wait(2) uses: the signal in the low seven bits, the code above the low byte.
pub(super) const fn from_wait_status(status: i32) -> ExitStatus {
    match status & 0x7f {
        0 => ExitStatus::Code((status >> 8) & 0xff),
        signal => ExitStatus::Signal(signal),
    }
}

/// Gives the system's own signal.
pub(crate) const fn native(signal: Signal) -> rustix::process::Signal {
    use rustix::process::Signal as Native;
    match signal {
        Signal::Hup => Native::HUP,
        Signal::Int => Native::INT,
        Signal::Quit => Native::QUIT,
        Signal::Abrt => Native::ABORT,
        Signal::Usr1 => Native::USR1,
        Signal::Usr2 => Native::USR2,
        Signal::Kill => Native::KILL,
        Signal::Stop => Native::STOP,
        Signal::Cont => Native::CONT,
        Signal::Term => Native::TERM,
    }
}

/// What a process's environment says about who started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marking {
    pub(crate) mark: String,
    pub(crate) service: String,
    pub(crate) incarnation: u64,
}

/// Finds the marks in a process's variables.
pub(super) fn marking_in(environment: &[u8]) -> Option<Marking> {
    Some(Marking {
        mark: variable(environment, crate::command::MARK_VARIABLE)?.to_owned(),
        service: variable(environment, crate::command::SERVICE_VARIABLE)?.to_owned(),
        incarnation: variable(environment, crate::command::INCARNATION_VARIABLE)?.parse().ok()?,
    })
}

/// Finds one variable among those of a process, each ended by a NUL.
pub(crate) fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a str> {
    environment
        .split(|byte| *byte == 0)
        .filter_map(|pair| std::str::from_utf8(pair).ok())
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Gives the limits of a service as the system names them: resource, soft and hard value.
pub(crate) fn rlimits(limits: &supervisor_core::config::ResourceLimits) -> Vec<(u32, u64, u64)> {
    let bytes = |size: Option<supervisor_core::text::ByteSize>| {
        size.map(supervisor_core::text::ByteSize::bytes)
    };
    let wanted = [
        (Resource::Nofile, limits.open_files),
        (Resource::Core, bytes(limits.core_dump)),
        (Resource::Fsize, bytes(limits.file_size)),
        (Resource::Nproc, limits.processes),
    ];
    wanted
        .into_iter()
        .filter_map(|(resource, value)| Some((resource as u32, value?, value?)))
        .collect()
}

/// Gives the limit of open descriptors with its soft value raised as far as the system allows.
pub(super) fn raised(was: &Rlimit) -> Rlimit {
    let ceiling = super::descriptors_ceiling();
    let current = match (was.maximum, ceiling) {
        (Some(hard), Some(ceiling)) => Some(hard.min(ceiling)),
        (hard, ceiling) => hard.or(ceiling),
    };
    Rlimit { current, maximum: was.maximum }
}

/// Sets the pipes of a child: none for input unless it has a channel, ours for output.
#[cfg(target_os = "macos")]
pub(crate) fn set_stdio(command: &mut Command, channel: bool) {
    use std::process::Stdio;
    command.stdin(if channel { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped());
    command.stderr(Stdio::piped());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_is_read_as_wait_reads_it() {
        assert_eq!(from_wait_status(37 << 8), ExitStatus::Code(37));
        assert_eq!(from_wait_status(9), ExitStatus::Signal(9));
        assert_eq!(from_wait_status(0x80 | 11), ExitStatus::Signal(11), "with a core dump");
        assert_eq!(from_wait_status(0), ExitStatus::Code(0));
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let environment = b"AB=1\0A=2\0";
        assert_eq!(variable(environment, "A"), Some("2"));
        assert_eq!(variable(environment, "B"), None);
    }
}
