//! One set in the guardian's hands: its leader in its job, how it ended, and starting one.

use std::io;
use std::os::windows::io::OwnedHandle;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor_core::Signal;
use supervisor_core::config::{CaptureLimits, HostDeathPolicy};
use supervisor_core::exit::{ExitStatus, LAST_LINES_MAX};
use supervisor_core::status::OutputStream;
use supervisor_core::text::ByteSize;
use supervisor_core::{Incarnation, ServiceId};
use tokio::sync::mpsc;

use super::super::protocol::{Capture, Exit, Held, RequestId, SetId, Spawn};
use super::Event;
use crate::capture::{CaptureThread, Output, Pipes};
use crate::os::guardian as os;
use crate::os::{self as system, Entry, Leader};

/// How long the end of the output is waited for after the leader's end, should somebody else hold it open.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// One run of a service and whatever it started.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) id: SetId,
    pub(super) service: ServiceId,
    pub(super) incarnation: Incarnation,
    pub(super) policy: HostDeathPolicy,
    pub(super) leader: Arc<Leader>,
    pub(super) start_time: u64,
    pub(super) output: Output,
    /// Our copies of a channel's pipes, kept for the next host of a set that outlives this one.
    pub(super) channel: Option<[OwnedHandle; 2]>,
    pub(super) status: Option<ExitStatus>,
    /// Nothing of it is left.
    pub(super) emptied: bool,
    pub(super) told_exit: bool,
    pub(super) told_emptied: bool,
    /// Who waits for it to be empty, and until when.
    pub(super) waiting: Vec<(RequestId, Instant)>,
    pub(super) killed: u32,
    /// Nobody wants to know of it once it is empty.
    pub(super) forget: bool,
}

impl Set {
    /// What there is to tell of its end.
    pub(super) fn exit(&self) -> Option<Exit> {
        let status = self.status?;
        Some(Exit { status, empty: self.emptied, lines: self.output.last_lines(LAST_LINES_MAX) })
    }

    /// What the next host is told.
    pub(super) fn held(&self) -> Held {
        Held {
            set: self.id,
            service: self.service.clone(),
            incarnation: self.incarnation,
            policy: self.policy,
            pid: self.leader.pid(),
            start_time: self.start_time,
            channel: self.channel.is_some(),
            exit: self.exit(),
        }
    }

    /// Whether anything of it may be alive.
    pub(super) const fn may_live(&self) -> bool {
        self.status.is_none() || !self.emptied
    }

    /// Kills everything in it.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.killed = self.killed.max(self.leader.members());
        self.leader.signal_group(Signal::Kill)
    }

    /// Offers what the host needs of it: its job, and its channel if it has one.
    pub(super) fn offer(&self) -> io::Result<Vec<u64>> {
        let mut handles = vec![self.leader.job_handle()?];
        for end in self.channel.iter().flatten() {
            handles.push(end.try_clone()?);
        }
        Ok(handles.into_iter().map(os::offer).collect())
    }
}

/// Starts what is asked for; gives the set, and what to offer the host.
///
/// # Errors
/// What the system said; nothing of it is left.
pub(super) fn start(
    id: SetId,
    spawn: Spawn,
    known: Option<Output>,
    capture: &CaptureThread,
    events: mpsc::Sender<Event>,
) -> io::Result<(Set, Vec<u64>)> {
    let mut command = system::Command::new(PathBuf::from(text(spawn.program)?));
    for argument in spawn.arguments.into_iter().skip(1) {
        command.args([text(argument)?]);
    }
    for variable in spawn.environment {
        let variable = text(variable)?;
        // A first equals sign belongs to the name.
        let at = variable.char_indices().skip(1).find(|(_, c)| *c == '=').map(|(at, _)| at);
        let (name, value) = variable.split_at(at.ok_or(io::ErrorKind::InvalidInput)?);
        command.envs([(name, &value[1..])]);
    }
    command.current_dir(text(spawn.working_dir)?);
    system::set_stdio(&mut command, spawn.channel);
    let mut started = system::start(&mut command)?;
    let leader = Arc::new(started.leader);
    // Should this fail, the last handle to the job goes, and with it what was started.
    system::limit_to(leader.pid(), &spawn.limits)?;
    // Its handle is held, so there is an entry even if it has ended by now.
    let start_time = Entry::read(leader.pid()).map_or(0, |entry| entry.start_time);
    let output = begin(&spawn.capture, known);
    let mut pipes = Pipes::default();
    let mut offered = vec![os::offer(leader.job_handle()?)];
    let mut channel = None;
    match (started.stdin.take(), started.stdout.take()) {
        (Some(stdin), Some(stdout)) => {
            let ends = [OwnedHandle::from(stdin), OwnedHandle::from(stdout)];
            if spawn.policy == HostDeathPolicy::Outlive {
                channel = Some([ends[0].try_clone()?, ends[1].try_clone()?]);
            }
            offered.extend(ends.map(os::offer));
        }
        (_, Some(stdout)) => {
            capture.read(stdout, OutputStream::Stdout, &output, &mut pipes, false);
        }
        _ => {}
    }
    if let Some(stderr) = started.stderr.take() {
        capture.read(stderr, OutputStream::Stderr, &output, &mut pipes, false);
    }
    let watched = Arc::clone(&leader);
    // Ends with the leader, which the guardian either outlives or ends.
    drop(tokio::spawn(async move {
        let status = watched.wait().await;
        pipes.last_words(LAST_WORDS).await;
        // The guardian is over: nobody is left to tell.
        drop(events.send(Event::Exited(id, status)).await);
    }));
    let set = Set {
        id,
        service: spawn.service,
        incarnation: spawn.incarnation,
        policy: spawn.policy,
        leader,
        start_time,
        output,
        channel,
        status: None,
        emptied: false,
        told_exit: false,
        told_emptied: false,
        waiting: Vec::new(),
        killed: 0,
        forget: false,
    };
    Ok((set, offered))
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Begins a run's output, in the place of an earlier run of its service if that is known.
fn begin(capture: &Capture, known: Option<Output>) -> Output {
    let output = known.unwrap_or_else(|| {
        let directory = String::from_utf8_lossy(&capture.directory).into_owned();
        Output::new(Some(PathBuf::from(directory)))
    });
    let limits = CaptureLimits {
        max_bytes: ByteSize(capture.max_bytes),
        files: capture.files,
        max_line: ByteSize(capture.max_line),
        max_rate: capture.max_rate.map(ByteSize),
    };
    let secrets = capture.secrets.iter().cloned();
    output.begin_run(&limits, secrets.filter_map(|it| String::from_utf8(it).ok()).collect(), None);
    output
}
