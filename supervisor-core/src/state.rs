//! The state of one service as it is stored, shown and restored.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::exit::ExitReport;
use crate::{Incarnation, ProcessIdentity, Sequence, ServiceId};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// Keep it running.
    Up,
    /// Keep it stopped.
    #[default]
    Down,
}

/// What is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Known, not started yet; also while waiting for a dependency.
    #[default]
    Registered,
    /// Its process is being started or has not passed its startup probe.
    Starting,
    /// Up; whether it is ready is a flag beside it.
    Running,
    /// Up, but its liveness is failing; it will recover or be stopped.
    Unhealthy,
    /// Down, with a restart scheduled.
    Backoff,
    /// Being stopped.
    Stopping,
    /// Down, as asked for or because it completed.
    Stopped,
    /// Down for good, or until the half-open retry.
    Failed,
}

impl Phase {
    /// Every phase, in the order a service usually meets them.
    pub const ALL: [Self; 8] = [
        Self::Registered,
        Self::Starting,
        Self::Running,
        Self::Unhealthy,
        Self::Backoff,
        Self::Stopping,
        Self::Stopped,
        Self::Failed,
    ];

    /// Gives the word used in output and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Backoff => "backoff",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Tells whether a process of the service may exist.
    #[must_use]
    pub const fn may_be_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Unhealthy | Self::Stopping)
    }

    /// Tells whether the service counts against `max_concurrent_services`.
    #[must_use]
    pub const fn counts_as_up(self) -> bool {
        matches!(
            self,
            Self::Starting | Self::Running | Self::Unhealthy | Self::Stopping | Self::Backoff
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of one service as it is stored, shown and restored.
///
/// **Invariant:** holds no environment value and no argument; it can be logged, sent and kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// The service.
    pub id: ServiceId,
    /// What was asked for.
    pub desired: Desired,
    /// What is.
    pub phase: Phase,
    /// Whether it can be used.
    pub ready: bool,
    /// The run it is in, or was in last.
    pub incarnation: Incarnation,
    /// The leader of the run, while one may be alive.
    pub identity: Option<ProcessIdentity>,
    /// Consecutive restarts without a stable stretch; the exponent of the backoff.
    pub attempt: u32,
    /// Restarts over the service's whole life.
    pub restarts: u64,
    /// Wall-clock times of the restarts that still count against the restart intensity, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent_restarts: Vec<DateTime<Utc>>,
    /// Restarts beyond the restart intensity since it was last stable; the exponent of their spacing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slow_step: u32,
    /// Whether it is down only because a dependency failed; it starts again when that is back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub felled: bool,
    /// When the phase was entered.
    pub since: DateTime<Utc>,
    /// How the last run ended.
    pub last_exit: Option<ExitReport>,
    /// When the next restart is due, if one is.
    pub next_restart_at: Option<DateTime<Utc>>,
    /// Why it is in this phase and what happens next, for people.
    pub reason: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl ServiceState {
    /// Describes a service that was never started.
    #[must_use]
    pub fn registered(id: ServiceId, at: DateTime<Utc>) -> Self {
        Self {
            id,
            desired: Desired::Down,
            phase: Phase::Registered,
            ready: false,
            incarnation: Incarnation::ZERO,
            identity: None,
            attempt: 0,
            restarts: 0,
            recent_restarts: Vec::new(),
            slow_step: 0,
            felled: false,
            since: at,
            last_exit: None,
            next_restart_at: None,
            reason: "registered, not started yet".to_owned(),
        }
    }
}

/// What kind of command is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Starting a service.
    Start,
    /// Stopping a service.
    Stop,
    /// Restarting a service.
    Restart,
    /// Shutting the system down.
    Shutdown,
    /// A message waiting for its outcome.
    Message,
    /// Anything the host wants to remember.
    Host,
}

/// Something that was begun and not finished when the snapshot was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingOperation {
    /// Names the operation, so that finishing it twice has one effect.
    pub id: Uuid,
    /// What it is.
    pub kind: OperationKind,
    /// The service it concerns, if one.
    #[serde(default)]
    pub service: Option<ServiceId>,
    /// When it was asked for.
    pub requested_at: DateTime<Utc>,
    /// Whatever its owner needs to resume it; holds no secret.
    #[serde(default)]
    pub detail: serde_json::Value,
}

/// Where a channel stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChannelPosition {
    /// Successful connections so far.
    pub generation: crate::Generation,
    /// Last sequence handed to the peer.
    pub sent: Sequence,
    /// Last sequence the peer acknowledged.
    pub acknowledged: Sequence,
}
