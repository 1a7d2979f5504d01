//! Linux: a service's or probe's program started as a child of this process, pinned from its first moment on.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::pipe::PipeFlags;
use supervisor_core::ProcessIdentity;
use supervisor_core::config::ResourceLimits;

use super::children;
use super::guardian::Refused;
use super::launch::{Leads, Plan, end_unwatched, launch, prepare};
use super::linux::Leader;
use super::proc_fs::{Entry, boot_id};
use super::rlimits::open_files_before;
use super::unix::{rlimits, watched};
use crate::importance::Refusals;

/// What a program's standard streams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streams {
    Nothing,
    Output,
    Channel,
}

/// What is to be started; the part of the standard library's builder that is needed here. It inherits nothing that is not
/// named, no descriptor and no signal that is blocked or ignored here, and leads a group of its own.
#[derive(Debug)]
pub(crate) struct Command {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: Option<PathBuf>,
    streams: Streams,
    limits: ResourceLimits,
}

impl Command {
    /// Names a program by its whole path; nothing is searched for.
    pub(crate) fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            directory: None,
            streams: Streams::Nothing,
            limits: ResourceLimits::default(),
        }
    }

    pub(crate) fn args<S: AsRef<OsStr>>(&mut self, list: impl IntoIterator<Item = S>) -> &mut Self {
        self.arguments.extend(list.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Nothing is inherited here that is not named.
    pub(crate) fn env_clear(&mut self) -> &mut Self {
        self.environment.clear();
        self
    }

    pub(crate) fn envs(&mut self, list: BTreeMap<OsString, OsString>) -> &mut Self {
        self.environment.extend(list);
        self
    }

    pub(crate) fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }
}

/// Sets the pipes of a child: none for input unless it has a channel, ours for output.
pub(crate) const fn set_stdio(command: &mut Command, channel: bool) {
    command.streams = if channel { Streams::Channel } else { Streams::Output };
}

/// Gives a child no streams at all.
pub(crate) const fn no_stdio(command: &mut Command) {
    command.streams = Streams::Nothing;
}

/// Every program is started in a group of its own here.
pub(crate) const fn own_group(_command: &mut Command) {}

/// Sets the limits and the rank a program has from its first instruction on.
pub(crate) fn set_limits(command: &mut Command, limits: &ResourceLimits) {
    command.limits = limits.clone();
}

/// Keeps descriptors back for starting, looking and ending; done by whoever is going to start services.
pub(crate) fn reserve_descriptors() {
    super::reserve::fill();
    prepare(std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
}

/// What a started command leaves in our hands.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) leader: Leader,
    pub(crate) stdin: Option<std::process::ChildStdin>,
    pub(crate) stdout: Option<std::process::ChildStdout>,
    pub(crate) stderr: Option<std::process::ChildStderr>,
    identity: ProcessIdentity,
    refused: [i32; 2],
}

/// Names what was started.
pub(crate) fn identity_of_started(started: &Started) -> Option<ProcessIdentity> {
    Some(started.identity.clone())
}

/// Gives what was refused of the limits and the rank that were set before there was a program.
pub(crate) fn limit_started(started: &Started, _limits: &ResourceLimits) -> Refusals {
    Refusals::of_errnos(started.refused)
}

/// Our end and the child's end of each standard stream that is not the null device.
#[derive(Debug, Default)]
struct Pipes {
    stdin: Option<(OwnedFd, OwnedFd)>,
    stdout: Option<(OwnedFd, OwnedFd)>,
    stderr: Option<(OwnedFd, OwnedFd)>,
}

impl Pipes {
    fn new(streams: Streams) -> io::Result<Self> {
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
        let mut pipes = Self::default();
        if streams == Streams::Channel {
            let (reads, writes) = pipe()?;
            pipes.stdin = Some((writes, reads));
        }
        if streams != Streams::Nothing {
            (pipes.stdout, pipes.stderr) = (Some(pipe()?), Some(pipe()?));
        }
        Ok(pipes)
    }
}

fn string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(Into::into)
}

fn assignment((name, value): (&OsString, &OsString)) -> io::Result<CString> {
    let mut text = name.clone().into_vec();
    text.reserve_exact(value.len() + 2);
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    CString::new(text).map_err(Into::into)
}

/// Gives the time as the system notes it of a process that starts now.
fn start_time_now() -> u64 {
    let tick = super::ticks(1).as_nanos().max(1);
    u64::try_from(super::since_boot().as_nanos() / tick).unwrap_or(u64::MAX)
}

/// Names a child that was started after that time.
///
/// Asking `/proc` costs the start and the end of a process some 10 µs, and a host whose children are reaped by others may
/// come too late. Mostly it need not be asked: a process that started between two looks at the same tick started in it.
fn identity(pid: u32, not_before: u64) -> ProcessIdentity {
    let start_time = if start_time_now() == not_before {
        not_before
    } else {
        // One that is gone is nobody any more, and nobody will ever have this identity.
        Entry::read(pid).map_or(not_before, |entry| entry.start_time)
    };
    ProcessIdentity { boot_id: boot_id().to_owned(), pid, start_time }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::from_raw_os_error(refused.errno)
    }
}

/// Starts a command; nothing of it is left when this fails.
pub(crate) fn start(command: &mut Command) -> io::Result<Started> {
    let pipes = Pipes::new(command.streams)?;
    let program = string(command.program.as_os_str())?;
    let arguments = std::iter::once(Ok(program.clone()))
        .chain(command.arguments.iter().map(|argument| string(argument)))
        .collect::<io::Result<Vec<_>>>()?;
    let environment = command.environment.iter().map(assignment).collect::<io::Result<Vec<_>>>()?;
    let working_dir = command.directory.as_deref().map(Path::as_os_str).map(string).transpose()?;
    // What raised our own limit is no business of a service; its own wish, if it has one, comes after it.
    let limits: Vec<_> = open_files_before().into_iter().chain(rlimits(&command.limits)).collect();
    let ends = [&pipes.stdin, &pipes.stdout, &pipes.stderr];
    let plan = Plan {
        program: &program,
        arguments: &arguments,
        environment: &environment,
        working_dir: working_dir.as_deref(),
        stdio: ends.map(|pipe| pipe.as_ref().map(|(_, theirs)| theirs.as_fd())),
        limits: &limits,
        nice: command.limits.nice,
        oom_score_adj: command.limits.oom_score_adj,
        umask: None,
        leads: Leads::Group,
    };
    let before = start_time_now();
    let (launched, listed) = children::listed(|| launch(&plan), |launched| launched.number())?;
    let identity = identity(launched.number(), before);
    let pid = launched.pid;
    match watched(launched.pidfd) {
        Ok(pidfd) => Ok(Started {
            leader: Leader::new(pid, pidfd, listed),
            stdin: pipes.stdin.map(|(ours, _)| ours.into()),
            stdout: pipes.stdout.map(|(ours, _)| ours.into()),
            stderr: pipes.stderr.map(|(ours, _)| ours.into()),
            identity,
            refused: launched.refused,
        }),
        Err(error) => {
            // It is our unreaped child, so its pid is certainly still its own.
            end_unwatched(pid);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_child_is_named_as_the_system_names_it_whether_or_not_a_tick_passed() {
        for _ in 0..30 {
            let mut command = Command::new("/bin/sh");
            set_stdio(command.args(["-c", "read line"]), true);
            let started = start(&mut command).unwrap();
            let pid = started.leader.pid();
            let named = crate::os::identity_of(pid).unwrap();
            assert_eq!(started.identity, named);
            let late = identity(pid, named.start_time.saturating_sub(5));
            assert_eq!(late, named, "asked for when a tick passed");
            drop(started.stdin);
            started.leader.reap_within(Duration::from_secs(30));
        }
        assert_eq!(identity(u32::MAX, 5).start_time, 5, "of one that is gone");
    }
}
