//! Carrying out a request to start a program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use supervisor_core::config::HostDeathPolicy;
use supervisor_core::status::OutputStream;

use super::super::protocol::{SetId, Spawn};
use super::output::{self, Source};
use super::set::Set;
use crate::capture::Output;
use crate::os::Entry;
use crate::os::guardian::{self as os, Plan, Refused, Step};

/// What a started program leaves in our hands.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) set: Set,
    /// The host's ends of a channel: what it writes to and what it reads.
    pub(super) channel: Option<[OwnedFd; 2]>,
    /// Niceness and OOM score, as far as the system refused them.
    pub(super) refused: [i32; 2],
}

/// Our end and the child's end of each standard stream.
struct Pipes {
    stdin: (Option<OwnedFd>, OwnedFd),
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
}

fn pipes(channel: bool) -> io::Result<Pipes> {
    let stdin = if channel {
        let (reads, writes) = os::pipe()?;
        (Some(writes), reads)
    } else {
        (None, rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?)
    };
    Ok(Pipes { stdin, stdout: os::pipe()?, stderr: os::pipe()? })
}

fn refused(step: Step, error: &io::Error) -> Refused {
    Refused { step, errno: error.raw_os_error().unwrap_or(0) }
}

fn strings(values: Vec<Vec<u8>>) -> Result<Vec<CString>, Refused> {
    values.into_iter().map(string).collect()
}

fn string(value: Vec<u8>) -> Result<CString, Refused> {
    let errno = rustix::io::Errno::INVAL.raw_os_error();
    CString::new(value).map_err(|_| Refused { step: Step::Exec, errno })
}

/// Starts what is asked for.
///
/// # Errors
/// [`Refused`]; nothing of it is left.
pub(super) fn start(
    id: SetId,
    spawn: Spawn,
    umask: u32,
    known: Option<Output>,
) -> Result<Started, Refused> {
    let pipes = pipes(spawn.channel).map_err(|error| refused(Step::Descriptors, &error))?;
    let (program, working_dir) = (string(spawn.program)?, string(spawn.working_dir)?);
    let (arguments, environment) = (strings(spawn.arguments)?, strings(spawn.environment)?);
    let launched = os::launch(&Plan {
        program: &program,
        arguments: &arguments,
        environment: &environment,
        working_dir: &working_dir,
        stdio: [pipes.stdin.1.as_fd(), pipes.stdout.1.as_fd(), pipes.stderr.1.as_fd()],
        limits: &spawn.limits,
        nice: spawn.nice,
        oom_score_adj: spawn.oom_score_adj,
        umask,
    })?;
    // It is our unreaped child, so there is an entry even if it has ended by now.
    let start_time = Entry::read(launched.pid).map_or(0, |entry| entry.start_time);
    let mut set = Set {
        id,
        service: spawn.service,
        incarnation: spawn.incarnation,
        policy: spawn.policy,
        leader: launched.pid,
        start_time,
        end: Some(launched.end),
        output: output::begin(&spawn.capture, known),
        sources: [None, None],
        channel: None,
        status: None,
        emptied: false,
        told_exit: false,
        told_emptied: false,
        kill: None,
        forget: false,
    };
    // A pipe that cannot be read without blocking is closed by being dropped; the service sees a closed pipe.
    set.sources[1] = Source::new(pipes.stderr.0, OutputStream::Stderr, &set.output).ok();
    let channel = match pipes.stdin.0 {
        Some(stdin) => Some([stdin, pipes.stdout.0]),
        None => {
            set.sources[0] = Source::new(pipes.stdout.0, OutputStream::Stdout, &set.output).ok();
            None
        }
    };
    if let Some([stdin, stdout]) = &channel
        && set.policy == HostDeathPolicy::Outlive
    {
        set.channel = copies(stdin, stdout).ok();
    }
    Ok(Started { set, channel, refused: launched.refused })
}

/// Copies of a channel's ends.
pub(super) fn copies(stdin: &OwnedFd, stdout: &OwnedFd) -> io::Result<[OwnedFd; 2]> {
    let copy = |end: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(end, 3);
    Ok([copy(stdin)?, copy(stdout)?])
}
