//! What can go wrong while starting, watching or stopping a process.

use std::io;
use std::time::Duration;

use super::{Cause, Classified, ErrorClass};
use crate::{Incarnation, ServiceId};

/// Why a program could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SpawnErrorKind {
    /// No such program in the child's PATH, or no such file.
    NotFound,
    /// The file may not be executed, or a directory on the way may not be entered.
    PermissionDenied,
    /// The file is no program, or the interpreter its first line names is missing.
    BadExecutable,
    /// The working directory is missing or no directory.
    BadWorkingDir,
    /// Descriptors, memory or process slots are used up right now (EMFILE, ENFILE, EAGAIN, ENOMEM); burns no crash budget.
    ResourceExhausted,
    /// The program file is being written (ETXTBSY), or the disk answered with an error.
    Busy,
    /// The machinery that spawns is gone (a guardian that died, a runtime that shut down).
    SpawnerUnavailable,
    /// Anything else the system said.
    Other,
}

impl SpawnErrorKind {
    /// Tells whether trying again unchanged may help.
    #[must_use]
    pub const fn class(self) -> ErrorClass {
        match self {
            Self::NotFound | Self::PermissionDenied | Self::BadExecutable | Self::BadWorkingDir => {
                ErrorClass::Permanent
            }
            Self::ResourceExhausted | Self::Busy | Self::SpawnerUnavailable | Self::Other => {
                ErrorClass::Transient
            }
        }
    }
}

/// A start that failed: nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {program:?}: {reason}")]
pub struct SpawnError {
    /// What kind of failure it is.
    pub kind: SpawnErrorKind,
    /// The program that was asked for.
    pub program: String,
    /// One phrase for people, with the way out where there is one.
    pub reason: String,
    /// What the system said.
    #[source]
    pub source: Option<io::Error>,
}

impl Classified for SpawnError {
    fn code(&self) -> &'static str {
        match self.kind {
            SpawnErrorKind::NotFound => "spawn_not_found",
            SpawnErrorKind::PermissionDenied => "spawn_permission_denied",
            SpawnErrorKind::BadExecutable => "spawn_bad_executable",
            SpawnErrorKind::BadWorkingDir => "spawn_bad_working_dir",
            SpawnErrorKind::ResourceExhausted => "spawn_resource_exhausted",
            SpawnErrorKind::Busy => "spawn_busy",
            SpawnErrorKind::SpawnerUnavailable => "spawn_unavailable",
            SpawnErrorKind::Other => "spawn_failed",
        }
    }

    fn class(&self) -> ErrorClass {
        self.kind.class()
    }
}

/// An error of the supervision engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// A service could not be started.
    #[error("service {service}: start failed")]
    Spawn {
        /// The service.
        service: ServiceId,
        /// Why.
        #[source]
        source: SpawnError,
    },
    /// A stop ended with processes still alive after the kill.
    #[error("service {service}: {} process(es) survived the kill: {survivors:?}", survivors.len())]
    Unkillable {
        /// The service.
        service: ServiceId,
        /// Pid and state letter of each survivor, such as `4711 D`.
        survivors: Vec<String>,
    },
    /// The deadline of an operation passed.
    #[error("service {service}: {operation} did not finish within {limit:?}")]
    TimedOut {
        /// The service.
        service: ServiceId,
        /// What was going on.
        operation: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// A signal could not be sent, or identity could not be proven, so nothing was signalled.
    #[error("service {service} incarnation {incarnation}: cannot signal its set")]
    Signal {
        /// The service.
        service: ServiceId,
        /// The incarnation.
        incarnation: Incarnation,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The service gave up, or waits for something, and the command cannot be carried out.
    #[error("service {service}: {reason}")]
    Refused {
        /// The service.
        service: ServiceId,
        /// Why, with the way out.
        reason: String,
    },
    /// The engine is shutting down or gone.
    #[error("the supervision engine has shut down")]
    ShutDown,
    /// The command queue of a service is full; the service is busy with earlier commands.
    #[error("service {service}: too many commands are waiting")]
    Busy {
        /// The service.
        service: ServiceId,
    },
    /// The system refused something else.
    #[error("{action} failed")]
    Os {
        /// What was tried.
        action: String,
        /// What the system said.
        #[source]
        source: Cause,
    },
}

impl Classified for ProcessError {
    fn code(&self) -> &'static str {
        match self {
            Self::Spawn { source, .. } => source.code(),
            Self::Unkillable { .. } => "process_unkillable",
            Self::TimedOut { .. } => "process_timed_out",
            Self::Signal { .. } => "process_signal_failed",
            Self::Refused { .. } => "process_refused",
            Self::ShutDown => "process_shut_down",
            Self::Busy { .. } => "process_busy",
            Self::Os { .. } => "process_os",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Spawn { source, .. } => source.class(),
            Self::TimedOut { .. } | Self::Busy { .. } | Self::Os { .. } => ErrorClass::Transient,
            Self::Unkillable { .. }
            | Self::Signal { .. }
            | Self::Refused { .. }
            | Self::ShutDown => ErrorClass::Permanent,
        }
    }
}
