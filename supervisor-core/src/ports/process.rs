//! Starting, watching and ending processes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::{ProbeSpec, ServiceSpec};
use crate::error::{ProcessError, SpawnError};
use crate::event::EventKind;
use crate::exit::ExitStatus;
use crate::{Incarnation, ProcessIdentity, ServiceId, Signal};

/// What a spawner needs to start one incarnation.
#[derive(Debug, Clone)]
pub struct SpawnRequest {
    /// The service.
    pub service: ServiceId,
    /// The run.
    pub incarnation: Incarnation,
    /// What to run, already validated.
    pub spec: Arc<ServiceSpec>,
    /// Variables the engine adds on top of the service's own, such as the notify socket.
    pub extra_environment: Vec<(String, String)>,
}

/// The pipes of a child whose channel runs over standard input and output.
///
/// The std types are plain owners of a descriptor or handle; any runtime can take them over.
#[derive(Debug)]
pub struct ChildStdio {
    /// Writes to the child's standard input.
    pub stdin: std::process::ChildStdin,
    /// Reads the child's standard output.
    pub stdout: std::process::ChildStdout,
}

/// A process that was still there after the kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Which process.
    pub identity: ProcessIdentity,
    /// The system's state letter, `D` for uninterruptible sleep.
    pub state: char,
}

impl std::fmt::Display for Survivor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.identity.pid, self.state)
    }
}

/// What a kill of a set achieved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KillReport {
    /// Processes that were signalled.
    pub killed: u32,
    /// Processes still there at the end of the confirmation time; empty means the set is empty.
    pub survivors: Vec<Survivor>,
}

/// Starts one incarnation of a service.
///
/// Promise: returns a child whose set contains every process it starts, or an error after which nothing of it exists.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait ProcessSpawner: Send + Sync + std::fmt::Debug {
    /// Starts the program.
    ///
    /// # Errors
    /// [`SpawnError`], whose class says whether a retry may help.
    ///
    /// # Cancel safety
    /// When dropped, a child that was started already is killed with its set.
    async fn spawn(&self, request: SpawnRequest) -> Result<Box<dyn ChildHandle>, SpawnError>;

    /// Names the layers that contain sets here, strongest first, such as `process_group`.
    fn containment(&self) -> Vec<String>;
}

/// One running incarnation.
///
/// Promise: [`wait`](Self::wait) may be called again after a cancel, by several callers, with the same answer;
/// signals and kills act on the whole set and never on a stranger. Dropping the handle kills the set.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait ChildHandle: Send + Sync + std::fmt::Debug {
    /// Names the leader.
    fn identity(&self) -> ProcessIdentity;

    /// Waits until the leader has ended; pipes that others hold open do not matter.
    ///
    /// # Cancel safety
    /// Safe; nothing is lost.
    async fn wait(&self) -> ExitStatus;

    /// Sends a signal to every process of the set; an empty set is no error.
    ///
    /// # Errors
    /// What the system said; identity that cannot be proven is an error and nothing is signalled.
    ///
    /// # Cancel safety
    /// Safe; the signal may or may not have been sent.
    async fn signal_set(&self, signal: Signal) -> io::Result<()>;

    /// Kills every process of the set and confirms that it is empty, for at most `confirm`.
    ///
    /// # Cancel safety
    /// Safe; call it again to confirm.
    async fn kill_set(&self, confirm: Duration) -> KillReport;

    /// Tells whether the set is empty now, leader included.
    fn set_is_empty(&self) -> bool;

    /// Gives the processes of the set, as far as they can be seen.
    fn members(&self) -> Vec<ProcessIdentity>;

    /// Hands over the pipes of a stdio channel, once.
    fn take_stdio(&self) -> Option<ChildStdio>;

    /// Gives the last lines of output, at most `max`, newest last, secrets redacted.
    fn last_lines(&self, max: usize) -> Vec<String>;

    /// Tells whether the system killed the set for its memory ceiling.
    fn killed_for_memory(&self) -> bool {
        false
    }
}

/// Takes over the pipes of a service's stdio channel each time the service starts.
///
/// Promises: pipes are kept until somebody takes them over or a later incarnation's come, then closed; those of an earlier
/// incarnation that come late are closed and change nothing. `testing::stdio_contract` asks for them.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
pub trait StdioReceiver: Send + Sync + std::fmt::Debug {
    /// Is given the pipes of a new incarnation; those of earlier ones are dead. Never blocks.
    fn attach(&self, service: &ServiceId, incarnation: Incarnation, stdio: ChildStdio);
}

/// Takes in what a channel over a service's own pipes finds out about the service, and answers for the service's silence.
///
/// Promise: [`lost`](Self::lost) of a run that has ended, or is being ended, changes nothing.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait ChannelWatch: Send + Sync + std::fmt::Debug {
    /// Tells why this run may be silent without being dead, for people: it is at work, or kept from it by others. Nothing
    /// when its silence is to be believed, or the run is another one by now.
    ///
    /// # Cancel safety
    /// Safe.
    async fn excuse(&self, service: &ServiceId, incarnation: Incarnation) -> Option<String>;

    /// Is told that the channel to this run is gone for good; `silent` when it was given up for want of a sign of life.
    /// Never blocks.
    fn lost(&self, service: &ServiceId, incarnation: Incarnation, silent: bool, reason: &str);
}

/// A process that carries a supervisor's mark in its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedProcess {
    /// Which process.
    pub identity: ProcessIdentity,
    /// The service it was started for.
    pub service: ServiceId,
    /// The run it was started for.
    pub incarnation: Incarnation,
}

/// Looks processes up by identity, and finds what a dead supervisor left behind.
///
/// Promise: never answers or acts on the strength of a pid alone; what cannot be read is a stranger.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait ProcessTable: Send + Sync + std::fmt::Debug {
    /// Tells whether exactly this process is still there (a zombie is not).
    fn is_alive(&self, identity: &ProcessIdentity) -> bool;

    /// Finds every process, descendants included, that carries `mark`, this user's only.
    fn marked(&self, mark: &str) -> Vec<MarkedProcess>;

    /// Ends these processes and their descendants: terminate, `grace`, kill, confirm.
    ///
    /// # Errors
    /// [`ProcessError::Unkillable`] or [`ProcessError::Os`]; a retry may help with the latter.
    ///
    /// # Cancel safety
    /// Safe; call it again to go on.
    async fn end(
        &self,
        processes: &[ProcessIdentity],
        grace: Duration,
    ) -> Result<KillReport, ProcessError>;
}

/// What a probe is asked to do.
#[derive(Debug, Clone)]
pub struct ProbeRequest {
    /// The service.
    pub service: ServiceId,
    /// The run.
    pub incarnation: Incarnation,
    /// Its leader.
    pub identity: ProcessIdentity,
    /// The service, for the environment and directory of an exec probe.
    pub spec: Arc<ServiceSpec>,
    /// How to ask.
    pub probe: ProbeSpec,
    /// How long it may take.
    pub timeout: Duration,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// Whether it passed.
    pub passed: bool,
    /// What was answered, for people; at most 200 characters.
    pub detail: String,
    /// How long it took.
    pub latency: Duration,
}

/// Runs one check of a service's health.
///
/// Promise: answers within the timeout, never later, and leaves no process behind.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[async_trait]
pub trait ProbeRunner: Send + Sync + std::fmt::Debug {
    /// Runs the check.
    ///
    /// # Cancel safety
    /// Safe; a command it started is killed with its tree.
    async fn run(&self, request: ProbeRequest) -> ProbeOutcome;
}

/// Takes events from the machines to the subscribers.
///
/// Promise: never blocks; what cannot be kept is counted and reported as missed.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
pub trait EventSink: Send + Sync + std::fmt::Debug {
    /// Publishes one event; the sink adds id, sequence and time.
    fn publish(&self, event: EventKind);
}
