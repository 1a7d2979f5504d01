//! The shapes that only pages see; everything else they get is core's own JSON, as `status --json` prints it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use supervisor_core::event::SupervisorEvent;
use supervisor_core::message::ChannelState;
use supervisor_core::state::Phase;
use supervisor_core::status::{StatusReport, SupervisorPhase};

/// Version of the JSON form of [`EventBatch`]; raised when a field changes its meaning or goes away.
pub const BATCH_VERSION: u32 = 1;

/// Most sentences in [`SupervisorHealth::problems`]; the rest are counted in the last one.
pub const PROBLEMS_MAX: usize = 20;

/// The events of one tick, as listeners of `supervisor-tauri://events` get them.
///
/// A page that sees a `revision` other than the one after its last, or `missed` above zero, has a gap: it asks
/// for a [`Snapshot`] and goes on from there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventBatch {
    /// Version of this form, [`BATCH_VERSION`].
    pub version: u32,
    /// Number of this batch; grows by one with each, starting at 1.
    pub revision: u64,
    /// The events, oldest first.
    pub events: Vec<SupervisorEvent>,
    /// Events that belong here and are not, because a bound was reached.
    pub missed: u64,
    /// No batch follows: the supervisor is gone.
    pub closed: bool,
}

/// Everything as it is, and the batch it is not older than.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The last batch whose events `status` includes; a page ignores batches up to this one.
    pub revision: u64,
    /// Everything as it is.
    pub status: StatusReport,
}

/// What `init_supervisor` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitOutcome {
    /// Whether this call made the supervisor; `false` when there was one already.
    pub created: bool,
}

/// How the whole is, in a few words and numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorHealth {
    /// Whether a supervisor exists; everything below is empty until it does.
    pub initialised: bool,
    /// Whether everything works as promised.
    pub healthy: bool,
    /// What the supervisor is doing.
    pub state: Option<SupervisorPhase>,
    /// `normal`, or a word for what works with less than it promises.
    pub mode: Option<String>,
    /// Registered services.
    pub services: u64,
    /// Services that can be used.
    pub ready: u64,
    /// Services by what they are doing.
    pub phases: BTreeMap<Phase, u64>,
    /// What is wrong, one sentence each, at most [`PROBLEMS_MAX`].
    pub problems: Vec<String>,
    /// The last batch of events sent.
    pub revision: u64,
}

impl SupervisorHealth {
    /// Describes an application that has no supervisor yet.
    #[must_use]
    pub const fn absent() -> Self {
        Self {
            initialised: false,
            healthy: false,
            state: None,
            mode: None,
            services: 0,
            ready: 0,
            phases: BTreeMap::new(),
            problems: Vec::new(),
            revision: 0,
        }
    }
}

impl From<&Snapshot> for SupervisorHealth {
    fn from(snapshot: &Snapshot) -> Self {
        let status = &snapshot.status;
        let mut phases = BTreeMap::new();
        for service in &status.services {
            *phases.entry(service.phase).or_insert(0) += 1;
        }
        let problems = problems(status);
        Self {
            initialised: true,
            healthy: problems.is_empty(),
            state: Some(status.supervisor.state),
            mode: Some(status.supervisor.mode.clone()),
            services: status.services.len() as u64,
            ready: status.services.iter().filter(|service| service.ready).count() as u64,
            phases,
            problems,
            revision: snapshot.revision,
        }
    }
}

fn problems(status: &StatusReport) -> Vec<String> {
    let mut found = Vec::new();
    if status.supervisor.state != SupervisorPhase::Running {
        let state = match status.supervisor.state {
            SupervisorPhase::Idle => "not monitoring yet",
            SupervisorPhase::Recovering => "recovering",
            SupervisorPhase::Running => "running",
            SupervisorPhase::ShuttingDown => "shutting down",
            SupervisorPhase::Stopped => "stopped",
        };
        found.push(format!("the supervisor is {state}"));
    }
    if status.supervisor.mode != "normal" {
        found.push(format!("mode {}", status.supervisor.mode));
    }
    for service in &status.services {
        let bad = matches!(service.phase, Phase::Unhealthy | Phase::Backoff | Phase::Failed);
        if bad || (service.phase == Phase::Running && !service.ready) {
            let said = if bad { service.phase.as_str() } else { "running and not ready" };
            found.push(format!("{} is {said}: {}", service.id, service.reason));
        }
    }
    for channel in &status.channels {
        if matches!(
            channel.state,
            ChannelState::Suspect | ChannelState::Backoff | ChannelState::Open
        ) {
            found.push(format!("channel {} is {}", channel.name, channel.state));
        }
    }
    if found.len() > PROBLEMS_MAX {
        let more = found.len() - (PROBLEMS_MAX - 1);
        found.truncate(PROBLEMS_MAX - 1);
        found.push(format!("and {more} more"));
    }
    found
}
