//! Everything that can happen to a service.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::error::SpawnErrorKind;
use crate::exit::ExitStatus;
use crate::{CommandId, Incarnation, Monotonic, ProcessIdentity};

/// The time of an event: monotonic for decisions, wall clock for people and for storage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Now {
    /// Decides.
    pub monotonic: Monotonic,
    /// Is shown and stored.
    pub wall: DateTime<Utc>,
}

/// What somebody asks of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Bring it up; a service that waits or gave up is started at once with fresh counters.
    Start,
    /// Bring it down; a second stop while it stops kills at once.
    Stop,
    /// Bring it down and up again, or just up.
    Restart,
}

/// Which ceiling was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ceiling {
    /// Resident memory of the set.
    Memory,
    /// Processor time of the set.
    Cpu,
}

/// What a service reported of itself over the notify socket (the words are sd_notify's).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// `READY=1`
    Ready,
    /// `WATCHDOG=1`
    Watchdog,
    /// `WATCHDOG=trigger`: the service asks to be treated as hung.
    WatchdogTrigger,
    /// `STOPPING=1`
    Stopping,
    /// `EXTEND_TIMEOUT_USEC=`: the deadline under way ends no earlier than this from now.
    ExtendTimeout(Duration),
    /// `STATUS=`
    Status(String),
    /// `MAINPID=`, its identity checked to be in the set.
    MainPid(ProcessIdentity),
}

/// Everything that can happen to a service.
///
/// What concerns one run carries its incarnation; an event of another run changes nothing but a counter.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Somebody asks for something.
    Commanded {
        /// Ties the reply to the command.
        id: CommandId,
        /// What is asked.
        command: Command,
    },
    /// Every dependency has reached its condition.
    DependenciesMet,
    /// A dependency failed for good.
    DependencyFailed {
        /// Which, and why.
        cause: String,
    },
    /// A dependency that had failed for good has reached its condition after all.
    DependencyBack,
    /// A member of the service's group failed, and the strategy restarts this one too.
    GroupRestart {
        /// Which, and why.
        cause: String,
    },
    /// The restart budget allows the restart.
    BudgetGranted,
    /// The restart budget is used up for so long.
    BudgetDelayed {
        /// How long to wait before asking again.
        wait: Duration,
    },
    /// The process was started.
    Spawned {
        /// The run.
        incarnation: Incarnation,
        /// Its leader.
        identity: ProcessIdentity,
    },
    /// The process could not be started; nothing of it is left.
    SpawnFailed {
        /// The run.
        incarnation: Incarnation,
        /// What kind of failure.
        kind: SpawnErrorKind,
        /// Why, for people.
        reason: String,
    },
    /// The leader ended.
    Exited {
        /// The run.
        incarnation: Incarnation,
        /// How.
        status: ExitStatus,
        /// Whether nothing else of the set is left.
        set_empty: bool,
        /// The last lines of its output.
        last_lines: Vec<String>,
    },
    /// The last process of the set is gone.
    SetEmpty {
        /// The run.
        incarnation: Incarnation,
    },
    /// The set was killed and looked at again.
    SetKilled {
        /// The run.
        incarnation: Incarnation,
        /// What is still there, pid and state letter of each.
        survivors: Vec<String>,
    },
    /// A probe finished.
    ProbeCompleted {
        /// The run.
        incarnation: Incarnation,
        /// Which of the service's probes.
        probe: usize,
        /// Whether it passed.
        passed: bool,
        /// What was answered.
        detail: String,
        /// How long it took.
        latency: Duration,
    },
    /// Whether a lost liveness is the service's own doing.
    HangWeighed {
        /// The run.
        incarnation: Incarnation,
        /// The probe that was lost.
        probe: usize,
        /// Why it is not, for people; nothing when it is.
        doubt: Option<String>,
    },
    /// The channel over its own pipes is gone for good, while nobody has seen it end.
    ChannelLost {
        /// The run.
        incarnation: Incarnation,
        /// Whether the service gave no sign of life for too long; otherwise the connection itself ended.
        silent: bool,
        /// Which channel, and why.
        reason: String,
    },
    /// The service reported something of itself.
    Notified {
        /// The run.
        incarnation: Incarnation,
        /// What.
        notification: Notification,
    },
    /// The set uses more than its ceiling.
    LimitExceeded {
        /// The run.
        incarnation: Incarnation,
        /// Which ceiling.
        ceiling: Ceiling,
        /// Measured and allowed, for people.
        detail: String,
    },
    /// After a crash of the supervisor: the run in the restored state is gone, ended by us or by itself.
    FoundGone {
        /// How it ended, where that is known.
        status: Option<ExitStatus>,
    },
    /// After a crash of the supervisor: the run in the restored state is alive and ours again.
    Adopted {
        /// Its leader.
        identity: ProcessIdentity,
    },
    /// A deadline may have passed; harmless when none has.
    Tick,
}
