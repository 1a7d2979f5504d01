//! The answer to `status`: one versioned shape for the program, the control socket and web pages.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::exit::{ExitReason, ExitReport};
use crate::message::ChannelStatus;
use crate::state::{Phase, ServiceState};
use crate::{CheckpointId, Incarnation, ServiceId};

/// Version of the JSON form.
pub const STATUS_VERSION: u32 = 1;

/// What a running supervisor is doing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum SupervisorPhase {
    /// Made, not monitoring yet.
    #[default]
    Idle,
    /// Restoring stored state.
    Recovering,
    /// Supervising.
    Running,
    /// Shutting down.
    ShuttingDown,
    /// Shut down.
    Stopped,
}

/// Everything `status --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Version of the JSON form, [`STATUS_VERSION`].
    pub version: u32,
    /// The supervisor itself.
    pub supervisor: SupervisorStatus,
    /// Its services, in the order they were registered.
    pub services: Vec<ServiceStatus>,
    /// Its channels, by name.
    pub channels: Vec<ChannelStatus>,
}

/// The supervisor itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// What it is doing.
    pub state: SupervisorPhase,
    /// `normal`, or a word for what works with less than it promises.
    pub mode: String,
    /// The database file.
    pub database: String,
    /// The newest checkpoint.
    pub last_checkpoint: Option<CheckpointId>,
    /// The layers that contain process sets here, strongest first, such as `process_group`.
    #[serde(default)]
    pub containment: Vec<String>,
}

/// How the last run of a service ended, flat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why, as judged.
    pub reason: ExitReason,
}

impl From<&ExitReport> for LastExit {
    fn from(report: &ExitReport) -> Self {
        Self {
            code: report.status.and_then(crate::exit::ExitStatus::code),
            signal: report.status.and_then(crate::exit::ExitStatus::signal),
            reason: report.reason,
        }
    }
}

/// What a service's set uses right now.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ResourceUsage {
    /// Processes in the set.
    pub processes: u32,
    /// Resident bytes of the set.
    pub memory: u64,
    /// Processor use since the last reading, in percent of one core.
    pub cpu_percent: f32,
}

/// Output of a service that was not kept, counted since whoever reads it began to.
///
/// A guardian begins anew with a service that was stopped and started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DroppedOutput {
    /// Lines beyond `capture.max_rate`.
    pub rate_lines: u64,
    /// Their bytes, line ends included.
    pub rate_bytes: u64,
    /// Lines longer than `capture.max_line`; they are kept up to it.
    pub cut_lines: u64,
    /// Bytes beyond it.
    pub cut_bytes: u64,
    /// Lines that could not be written, on a full disk for instance.
    pub unwritten_lines: u64,
    /// Bytes of older lines that went with the oldest file, beyond `capture.max_bytes`.
    pub aged_bytes: u64,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The service.
    pub id: ServiceId,
    /// Its name for people.
    pub name: String,
    /// What it is doing.
    pub phase: Phase,
    /// Whether it can be used.
    pub ready: bool,
    /// The leader's pid, while one runs.
    pub pid: Option<u32>,
    /// The run it is in, or was in last.
    pub incarnation: Incarnation,
    /// Restarts over its whole life.
    pub restarts: u64,
    /// Whether giving up on it shuts everything down.
    pub critical: bool,
    /// When the phase was entered.
    pub since: DateTime<Utc>,
    /// How its last run ended.
    pub last_exit: Option<LastExit>,
    /// When the next restart is due.
    pub next_restart_at: Option<DateTime<Utc>>,
    /// Why it is in this phase and what happens next.
    pub reason: String,
    /// What it uses, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ResourceUsage>,
    /// What of its output was not kept, if anything was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<DroppedOutput>,
}

impl ServiceStatus {
    /// Describes a service by its state and what its specification adds.
    #[must_use]
    pub fn of(state: &ServiceState, name: &str, critical: bool) -> Self {
        Self {
            id: state.id.clone(),
            name: name.to_owned(),
            phase: state.phase,
            ready: state.ready,
            pid: state.identity.as_ref().map(|identity| identity.pid),
            incarnation: state.incarnation,
            restarts: state.restarts,
            critical,
            since: state.since,
            last_exit: state.last_exit.as_ref().map(LastExit::from),
            next_restart_at: state.next_restart_at,
            reason: state.reason.clone(),
            usage: None,
            dropped: None,
        }
    }
}

/// One captured line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was read.
    pub at: DateTime<Utc>,
    /// Which stream it came from.
    pub stream: OutputStream,
    /// The text, invalid UTF-8 replaced.
    pub text: String,
}

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A remark of the supervisor, such as how much was dropped.
    Supervisor,
}
