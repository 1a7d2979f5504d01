//! One server behind one client, restarted so that the client does not notice.
//!
//! [`Wrap`] drives a [`Relay`]: it moves bytes, starts and ends the server's set, and keeps time. What is said to
//! either side is the relay's decision, when the server is started again is `ladder`'s.

mod alarm;
mod drive;
mod face;
mod files;
mod ladder;
mod letters;
mod life;
mod pipe;
mod recorded;
mod running;
mod spin;
mod writing;

use std::sync::Arc;
use std::time::Duration;

pub use files::LocalFiles;
pub use letters::Requeue;
pub use recorded::{RECORDS_DIR, Recorder};
use supervisor_core::Generation;
use supervisor_core::config::{
    ChannelBinding, EnvironmentInheritance, FramingKind, ServiceSpec, TransportKind,
};
use supervisor_core::error::{ConfigError, SpawnError};
use supervisor_core::exit::ExitStatus;
use supervisor_core::message::ChannelState;
use supervisor_core::ports::{Clock, Entropy, ProcessSpawner};
use supervisor_ipc::relay::{Letter, Loss, RecoveryReport, Relay};
use tokio::sync::{Notify, mpsc};

/// Something a person may want to know of.
#[derive(Debug)]
pub enum Observed<'a> {
    /// An incident is over.
    Report(&'a RecoveryReport),
    /// Servers died of something, and none is given it any more.
    DeadLetter(&'a Letter),
    /// Something that is no incident.
    Notice(&'a str),
    /// A server was started.
    Started {
        /// Its leader.
        pid: u32,
        /// Its run.
        generation: Generation,
    },
    /// A server is gone with its set.
    Lost {
        /// Its run.
        generation: Generation,
        /// Why.
        loss: &'a Loss,
        /// Whether none follows it, because the session is ending.
        ending: bool,
    },
    /// The health of the whole changed.
    State {
        /// What it was.
        from: ChannelState,
        /// What it is.
        to: ChannelState,
        /// The newest run.
        generation: Generation,
        /// Messages that wait for a server.
        held: usize,
    },
}

/// Is told what happens; must not block.
pub trait Observer: Send {
    /// Takes one thing that happened.
    fn observe(&mut self, what: &Observed<'_>);
}

/// How a session ended.
#[derive(Debug)]
pub enum WrapEnd {
    /// The client left; how the server ended, if it did by itself.
    ClientLeft(Option<ExitStatus>),
    /// The server was never of use and is given up; why.
    GaveUp(String),
    /// The client's bytes cannot be read; why, and what to do.
    BadClient(String),
    /// The server cannot be started at all.
    NoServer(SpawnError),
}

/// The numbers of one session; everything but the program has a default.
#[derive(Debug, Clone)]
pub struct WrapOptions {
    /// What to run, and as whom.
    pub spec: ServiceSpec,
    /// How messages are cut on both sides.
    pub framing: FramingKind,
    /// Whether restarts follow the policy of `spec`; else a server that was of use is restarted at once.
    pub by_policy: bool,
    /// Largest message of either side, checked before anything is allocated.
    pub frame_max: usize,
    /// Junk skipped before a message.
    pub junk_max: usize,
    /// How long a server that does nothing may take no byte.
    pub write_deadline: Duration,
    /// The same for one that works.
    pub write_deadline_busy: Duration,
    /// How long the rest of a dead server's output is read when somebody else holds it open.
    pub drain: Duration,
    /// How long a server may take to end by itself once its input is closed.
    pub leave: Duration,
    /// Cores this process may use; with more than one, what a side says that answers at once is looked for
    /// without sleeping, for at most 100 us.
    pub cores: usize,
}

impl WrapOptions {
    /// Makes the options of a server that sees the whole environment of this process, as without a wrap.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field. A retry does not help.
    pub fn new(mut spec: ServiceSpec, framing: FramingKind) -> Result<Self, ConfigError> {
        spec.channel = Some(ChannelBinding::new(TransportKind::Stdio, framing));
        spec.validate()?;
        Ok(Self {
            spec,
            framing,
            by_policy: false,
            frame_max: 64 << 20,
            junk_max: 64 << 10,
            write_deadline: Duration::from_secs(5),
            write_deadline_busy: Duration::from_secs(300),
            drain: Duration::from_millis(200),
            leave: Duration::from_secs(1),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        })
    }

    /// Makes the specification of a program nothing is configured about.
    ///
    /// # Errors
    /// [`ConfigError`] naming `id`, `command` or `args`. A retry does not help.
    pub fn plain_spec(
        id: &str,
        command: &str,
        args: Vec<String>,
    ) -> Result<ServiceSpec, ConfigError> {
        let mut spec = ServiceSpec::new(id, command)?;
        spec.args = args;
        spec.inherit_environment = EnvironmentInheritance::All;
        spec.shutdown_timeout = Duration::from_secs(2);
        Ok(spec)
    }
}

/// One server behind one client.
#[derive(Debug)]
pub struct Wrap {
    /// Decides what is said.
    pub relay: Box<dyn Relay>,
    /// The numbers.
    pub options: WrapOptions,
    /// Starts the server.
    pub spawner: Arc<dyn ProcessSpawner>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Spreads delays.
    pub entropy: Arc<dyn Entropy>,
    /// Notified when somebody asks for another server now.
    pub restart: Arc<Notify>,
    /// Gives what somebody asks to be tried again, if anybody can ask.
    pub requeue: Option<mpsc::Receiver<Requeue>>,
}
