//! What the supervisor tells its subscribers.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::{ProbeKind, ProbeRole};
use crate::exit::ExitReport;
use crate::message::{ChannelState, Lane};
use crate::state::Phase;
use crate::{CheckpointId, Generation, Incarnation, Sequence, ServiceId};

/// Version of the JSON form; raised when a field changes its meaning or goes away.
pub const EVENT_VERSION: u32 = 1;

/// One thing that happened, as subscribers, `events --json` and web pages get it.
///
/// The JSON form is flat: `{"version","id","sequence","at","type",…}`, where `type` is the name of the
/// [`EventKind`] variant. New kinds and new fields may be added; readers ignore what they do not know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SupervisorEvent {
    /// Version of the JSON form, [`EVENT_VERSION`].
    pub version: u32,
    /// Names the event.
    pub id: Uuid,
    /// Its place in the order. A gap in a live stream is announced as missed; stored events leave out passed probes.
    pub sequence: Sequence,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
#[non_exhaustive]
pub enum EventKind {
    /// A service entered another phase, or its readiness changed.
    ServiceStateChanged {
        /// The service.
        service: ServiceId,
        /// The run.
        incarnation: Incarnation,
        /// The phase before.
        from: Phase,
        /// The phase after.
        to: Phase,
        /// Whether it can be used.
        ready: bool,
        /// The leader's pid, while one runs.
        #[serde(default)]
        pid: Option<u32>,
        /// Why, and what happens next.
        reason: String,
        /// How the last run ended, when this change is about an end.
        #[serde(default)]
        exit: Option<ExitReport>,
    },
    /// A probe finished.
    HealthCheckCompleted {
        /// The service.
        service: ServiceId,
        /// The run.
        incarnation: Incarnation,
        /// What the answer decides.
        role: ProbeRole,
        /// How it asked.
        kind: ProbeKind,
        /// Whether it passed.
        passed: bool,
        /// How long it took, in microseconds.
        latency_us: u64,
        /// What was answered, for people.
        detail: String,
    },
    /// A service is up again after an end nobody asked for.
    ServiceRestarted {
        /// The service.
        service: ServiceId,
        /// The new run.
        incarnation: Incarnation,
        /// Restarts over the service's whole life.
        restarts: u64,
        /// Consecutive restarts without a stable stretch.
        attempt: u32,
        /// Why it was restarted.
        reason: String,
    },
    /// A channel's health changed.
    IpcChannelStateChanged {
        /// The channel.
        channel: String,
        /// The health before.
        from: ChannelState,
        /// The health after.
        to: ChannelState,
        /// Successful connections so far.
        generation: Generation,
        /// Why.
        reason: String,
    },
    /// A service was given up.
    ServiceGaveUp {
        /// The service.
        service: ServiceId,
        /// Whether the system shuts down because of it.
        critical: bool,
        /// Why.
        reason: String,
        /// How its last run ended.
        #[serde(default)]
        exit: Option<ExitReport>,
    },
    /// A service is late, overloaded or over a ceiling; nothing was done yet.
    ServiceDegraded {
        /// The service.
        service: ServiceId,
        /// The run.
        incarnation: Incarnation,
        /// What is wrong, and what happens next.
        reason: String,
    },
    /// Processes survived the kill of their set.
    ServiceUnkillable {
        /// The service.
        service: ServiceId,
        /// The run.
        incarnation: Incarnation,
        /// Pid and state letter of each.
        survivors: Vec<String>,
    },
    /// A channel came back, and what that took.
    ChannelRecovered {
        /// The channel.
        channel: String,
        /// The new generation.
        generation: Generation,
        /// Microseconds from the loss to being ready.
        took_us: u64,
        /// Why it was lost.
        cause: String,
        /// Messages delivered again.
        redelivered: u64,
        /// Messages whose outcome had to be reported as lost or unknown.
        lost: u64,
        /// Microseconds of that spent waiting before attempts, an open circuit included.
        #[serde(default)]
        waited_us: u64,
        /// Microseconds of that spent connecting.
        #[serde(default)]
        connecting_us: u64,
        /// Microseconds of that spent restoring the peer's state.
        #[serde(default)]
        syncing_us: u64,
        /// Attempts to connect.
        #[serde(default)]
        attempts: u32,
        /// Messages that ended meanwhile, by outcome.
        #[serde(default)]
        outcomes: BTreeMap<String, u64>,
    },
    /// A message reached nobody: its time was up, it was dropped for a newer one, or the servers it was given to died of it.
    IpcMessageDropped {
        /// The channel.
        channel: String,
        /// The message.
        message: Uuid,
        /// The queue it waited in.
        lane: Lane,
        /// How it ended, as `Outcome::name` spells it.
        outcome: String,
        /// Why.
        reason: String,
    },
    /// A checkpoint was taken.
    CheckpointCreated {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Services in it.
        services: u64,
        /// Pending operations in it.
        pending_operations: u64,
    },
    /// A stored snapshot is damaged and was put aside.
    CheckpointQuarantined {
        /// What was damaged.
        source: String,
        /// How that was noticed.
        reason: String,
    },
    /// The supervisor started from stored state.
    Recovered {
        /// What it started from, `checkpoint <id>` or `empty`.
        source: String,
        /// Services whose counters were restored.
        services: u64,
        /// Pending operations found.
        pending_operations: u64,
        /// Processes of the previous supervisor that were ended.
        swept: u64,
        /// What was passed over on the way.
        rejected: Vec<String>,
    },
    /// A backup was made and proven.
    BackupCompleted {
        /// Its name.
        backup: String,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A backup could not be made or proven.
    BackupFailed {
        /// Why.
        reason: String,
    },
    /// A part of the system works with less than it promises, or again as promised.
    ModeChanged {
        /// `normal` or a word for what is missing, such as `storage_degraded`.
        mode: String,
        /// Why, and the way back.
        reason: String,
    },
    /// The system is shutting down.
    ShutdownStarted {
        /// Why.
        reason: String,
        /// The critical service that caused it, if one did.
        #[serde(default)]
        culprit: Option<ServiceId>,
    },
    /// The system has shut down.
    ShutdownCompleted {
        /// Whether everything ended in time and nothing is left.
        clean: bool,
        /// Microseconds it took.
        took_us: u64,
    },
    /// This subscriber was too slow, or a bound was reached; so many events are missing here.
    EventsDropped {
        /// How many.
        missed: u64,
    },
}

impl EventKind {
    /// Gives the name of the kind as the JSON form has it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ServiceStateChanged { .. } => "ServiceStateChanged",
            Self::HealthCheckCompleted { .. } => "HealthCheckCompleted",
            Self::ServiceRestarted { .. } => "ServiceRestarted",
            Self::IpcChannelStateChanged { .. } => "IpcChannelStateChanged",
            Self::ServiceGaveUp { .. } => "ServiceGaveUp",
            Self::ServiceDegraded { .. } => "ServiceDegraded",
            Self::ServiceUnkillable { .. } => "ServiceUnkillable",
            Self::ChannelRecovered { .. } => "ChannelRecovered",
            Self::IpcMessageDropped { .. } => "IpcMessageDropped",
            Self::CheckpointCreated { .. } => "CheckpointCreated",
            Self::CheckpointQuarantined { .. } => "CheckpointQuarantined",
            Self::Recovered { .. } => "Recovered",
            Self::BackupCompleted { .. } => "BackupCompleted",
            Self::BackupFailed { .. } => "BackupFailed",
            Self::ModeChanged { .. } => "ModeChanged",
            Self::ShutdownStarted { .. } => "ShutdownStarted",
            Self::ShutdownCompleted { .. } => "ShutdownCompleted",
            Self::EventsDropped { .. } => "EventsDropped",
        }
    }

    /// Gives the service the event is about, if it is about one.
    #[must_use]
    pub const fn service(&self) -> Option<&ServiceId> {
        match self {
            Self::ServiceStateChanged { service, .. }
            | Self::HealthCheckCompleted { service, .. }
            | Self::ServiceRestarted { service, .. }
            | Self::ServiceGaveUp { service, .. }
            | Self::ServiceDegraded { service, .. }
            | Self::ServiceUnkillable { service, .. } => Some(service),
            _ => None,
        }
    }
}
