//! How an incarnation ended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the leader of an incarnation ended, as the system reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal ended it (the system's own number).
    Signal(i32),
    /// It is gone and nobody knows how (an adopted process on a system that cannot tell).
    Unknown,
}

impl ExitStatus {
    /// Gives the exit code, if it returned one.
    #[must_use]
    pub const fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            _ => None,
        }
    }

    /// Gives the signal number, if one ended it.
    #[must_use]
    pub const fn signal(self) -> Option<i32> {
        match self {
            Self::Signal(signal) => Some(signal),
            _ => None,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown exit"),
        }
    }
}

/// Why an incarnation ended, as the supervisor judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitReason {
    /// It ended by itself with a success code.
    Completed,
    /// It ended by itself and that is a failure.
    Crash,
    /// It ended with a code that says a restart is pointless.
    PermanentFailure,
    /// It was asked to stop.
    Stopped,
    /// It did not come up in time.
    StartTimeout,
    /// It stopped giving signs of life and was killed.
    Hang,
    /// The channel over its own pipes broke while it lived on; it was ended, because nothing else leads to it.
    ChannelLost,
    /// It exceeded its memory ceiling.
    MemoryLimit,
    /// It exceeded its processor ceiling.
    CpuLimit,
    /// It could not be started at all.
    SpawnFailed,
    /// A member of its group failed.
    GroupRestart,
    /// A service it depends on failed for good.
    DependencyFailed,
    /// The supervisor died, and its successor ended what was left.
    SupervisorLost,
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "completed",
            Self::Crash => "crash",
            Self::PermanentFailure => "permanent failure",
            Self::Stopped => "stopped on request",
            Self::StartTimeout => "start timeout",
            Self::Hang => "hang",
            Self::ChannelLost => "channel lost",
            Self::MemoryLimit => "memory limit",
            Self::CpuLimit => "cpu limit",
            Self::SpawnFailed => "start failed",
            Self::GroupRestart => "group restart",
            Self::DependencyFailed => "dependency failed",
            Self::SupervisorLost => "supervisor lost",
        })
    }
}

/// How and why the last incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// How the leader ended; absent when it never started.
    pub status: Option<ExitStatus>,
    /// Why, as judged.
    pub reason: ExitReason,
    /// The last lines of its output, at most 20, secrets redacted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
}

/// Most output lines an [`ExitReport`] carries.
pub const LAST_LINES_MAX: usize = 20;
