//! The machine's data, its dispatch, its deadlines, and its way into and out of storage.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::probes::ProbeFold;
use super::stopping::Stop;
use super::timers::{Timer, TimerTable};
use super::turn::Turn;
use super::{Command, Effect, Event, Now};
use crate::config::{ServiceSpec, StopStep};
use crate::error::ConfigError;
use crate::exit::{ExitReason, ExitReport};
use crate::policy::{IntensityWindow, SplitMix};
use crate::state::{Desired, Phase, ServiceState};
use crate::{CommandId, Incarnation, Monotonic, ProcessIdentity, ServiceId};

/// How long a killed set is looked at before its survivors are reported.
///
/// A process that outlives SIGKILL this long sits in uninterruptible sleep; longer would only delay the report.
pub const KILL_CONFIRM: Duration = Duration::from_secs(5);
/// Pause between two tries to get rid of what survived a kill.
pub const KILL_RETRY: Duration = Duration::from_secs(10);
/// A deadline noticed later than this means that we stood still ourselves, and nobody else is blamed for it.
///
/// Far above the delays of a loaded machine's scheduler, far below any probe's patience; doubling it would
/// let a two-second freeze of the host count as three missed heartbeats.
pub const LATE_MAX: Duration = Duration::from_secs(2);
/// Commands that may wait for one service; one more is answered `Busy`.
pub const PENDING_COMMANDS_MAX: usize = 64;
/// How long the dump of a service that hangs may take before it is asked to stop.
///
/// A runtime writes its stacks in milliseconds; a second is enough on a loaded machine and no loss for a hung service.
pub const DUMP_WAIT: Duration = Duration::from_secs(1);
/// How long the answer whether a hang is believable may take; without one the hang is believed.
pub(super) const WEIGH_MAX: Duration = Duration::from_secs(5);
/// How long a service whose channel ended may take to end itself; most channels end because their service does, and its
/// exit code then says more than the channel can. Noticing an exit takes milliseconds, on a loaded machine some hundred.
pub(super) const CHANNEL_EXIT_WAIT: Duration = Duration::from_secs(1);
/// Longest extension of a deadline a service may ask for at a time.
pub(super) const EXTEND_MAX: Duration = Duration::from_secs(3600);
/// Deadlines handled in one step; the rest waits for the next tick.
const DUE_PER_STEP_MAX: usize = 64;

/// The lifecycle of one service.
///
/// # Ordering
/// `now` never goes back between calls; a spurious [`Event::Tick`] is harmless. Call
/// [`step`](Self::step) with [`Event::Tick`] when [`next_deadline`](Self::next_deadline) has passed.
#[derive(Debug, Clone, PartialEq)]
pub struct Lifecycle {
    pub(super) id: ServiceId,
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) stop_steps: Vec<StopStep>,
    pub(super) desired: Desired,
    pub(super) phase: Phase,
    pub(super) ready: bool,
    pub(super) incarnation: Incarnation,
    /// Whether the process of this incarnation is known to have been started.
    pub(super) spawned: bool,
    pub(super) identity: Option<ProcessIdentity>,
    pub(super) attempt: u32,
    pub(super) restarts: u64,
    pub(super) window: IntensityWindow,
    /// Restarts made beyond the intensity since the service was last stable.
    pub(super) slow_step: u32,
    /// Starts that failed for lack of resources in a row.
    pub(super) starved: u32,
    pub(super) timers: TimerTable,
    pub(super) probes: Vec<ProbeFold>,
    pub(super) stop: Option<Stop>,
    /// The liveness probe that was lost and what it said, while it is being weighed.
    pub(super) suspected: Option<(usize, String)>,
    /// Which channel of the run ended and why, while its own end is waited for.
    pub(super) channel_lost: Option<Box<str>>,
    pub(super) waiting: bool,
    pub(super) budget_asked: bool,
    /// Why the start under way is a restart, if it is one.
    pub(super) restart_cause: Option<String>,
    /// Whether the scheduled start is another try of one that lacked resources and was no restart: it is none either.
    pub(super) retrying: bool,
    /// Whether it is down only because a dependency failed, and starts again when that is back.
    pub(super) felled: bool,
    /// Whether the restored state speaks of a run nobody has accounted for yet.
    pub(super) lost: bool,
    pub(super) last_exit: Option<ExitReport>,
    pub(super) since: DateTime<Utc>,
    pub(super) next_restart_at: Option<DateTime<Utc>>,
    pub(super) reason: String,
    pub(super) pending: Vec<(CommandId, Command)>,
    pub(super) random: SplitMix,
    now: Now,
    stale: u64,
}

impl Lifecycle {
    /// Makes the machine of a service that was never started.
    ///
    /// `probe_period` is the period of probes that name none; `seed` makes jitter repeatable.
    ///
    /// # Errors
    /// [`ConfigError`] when the specification is invalid.
    pub fn new(
        spec: Arc<ServiceSpec>,
        probe_period: Duration,
        seed: u64,
        now: Now,
    ) -> Result<Self, ConfigError> {
        spec.validate()?;
        let id = spec.service_id()?;
        let (max, length, _) = spec.restart_intensity.resolve(&spec.restart_policy).unwrap_or((
            0,
            Duration::ZERO,
            crate::config::BeyondIntensity::Slow,
        ));
        Ok(Self {
            id,
            stop_steps: spec.stop_steps(),
            probes: ProbeFold::all(&spec, probe_period),
            window: IntensityWindow::new(max, length),
            spec,
            desired: Desired::Down,
            phase: Phase::Registered,
            ready: false,
            incarnation: Incarnation::ZERO,
            spawned: false,
            identity: None,
            attempt: 0,
            restarts: 0,
            slow_step: 0,
            starved: 0,
            timers: TimerTable::default(),
            stop: None,
            suspected: None,
            channel_lost: None,
            waiting: false,
            budget_asked: false,
            restart_cause: None,
            retrying: false,
            felled: false,
            lost: false,
            last_exit: None,
            since: now.wall,
            next_restart_at: None,
            reason: "registered, not started yet".to_owned(),
            pending: Vec::new(),
            random: SplitMix::new(seed),
            now,
            stale: 0,
        })
    }

    /// Makes the machine of a service a dead supervisor left in `state`: counters go on where they stood.
    ///
    /// A run that may have been alive waits for [`Event::FoundGone`] or [`Event::Adopted`]; a restart that
    /// was scheduled stays scheduled, at most its whole delay away whatever the wall clock did.
    ///
    /// # Errors
    /// [`ConfigError`] when the specification is invalid.
    pub fn restore(
        spec: Arc<ServiceSpec>,
        probe_period: Duration,
        seed: u64,
        now: Now,
        state: &ServiceState,
    ) -> Result<Self, ConfigError> {
        let mut machine = Self::new(spec, probe_period, seed, now)?;
        machine.desired = state.desired;
        machine.incarnation = state.incarnation;
        machine.attempt = state.attempt;
        machine.restarts = state.restarts;
        machine.slow_step = state.slow_step;
        machine.last_exit.clone_from(&state.last_exit);
        machine.since = state.since;
        for at in &state.recent_restarts {
            let ago = (now.wall - *at).to_std().unwrap_or(Duration::ZERO);
            machine.window.note(now.monotonic - ago);
        }
        match state.phase {
            Phase::Starting | Phase::Running | Phase::Unhealthy | Phase::Stopping => {
                machine.lost = true;
                "was up when the supervisor was lost".clone_into(&mut machine.reason);
            }
            Phase::Backoff => {
                let longest = machine
                    .spec
                    .restart_policy
                    .delay(state.attempt.saturating_sub(1))
                    .unwrap_or_default();
                let longest = longest.max(crate::policy::SLOW_DELAY_MAX);
                let left = state
                    .next_restart_at
                    .and_then(|at| (at - now.wall).to_std().ok())
                    .unwrap_or_default();
                let left = left.min(longest);
                machine.phase = Phase::Backoff;
                machine.timers.arm(Timer::Backoff, now.monotonic + left);
                machine.next_restart_at = Some(add(now.wall, left));
                machine.reason.clone_from(&state.reason);
                machine.restart_cause = Some(machine.reason.clone());
                // Every other way into a backoff counts an attempt first.
                machine.retrying = state.attempt == 0
                    && state
                        .last_exit
                        .as_ref()
                        .is_some_and(|exit| exit.reason == ExitReason::SpawnFailed);
            }
            Phase::Registered | Phase::Stopped | Phase::Failed => {
                machine.phase = state.phase;
                machine.felled = state.felled;
                machine.reason.clone_from(&state.reason);
                machine.restore_half_open(state);
            }
        }
        Ok(machine)
    }

    /// A retry that was due after giving up stays due, at most its whole pause away.
    fn restore_half_open(&mut self, state: &ServiceState) {
        let Some((pause, at)) = self.spec.half_open_after.zip(state.next_restart_at) else {
            return;
        };
        if state.phase == Phase::Failed && state.desired == Desired::Up {
            let left = (at - self.now.wall).to_std().unwrap_or_default().min(pause);
            self.timers.arm(Timer::HalfOpen, self.now.monotonic + left);
            self.next_restart_at = Some(add(self.now.wall, left));
        }
    }

    /// Takes one event and gives what is to be done, in order.
    #[must_use]
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut turn = Turn::begin(now, self.phase, self.ready);
        self.forgive_if_late(now);
        self.now = now;
        self.dispatch(event, &mut turn);
        self.handle_due(&mut turn);
        turn.finish(self)
    }

    /// Gives the time of the next deadline, nothing if the machine waits for events only.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Monotonic> {
        let probes = self.probes.iter().filter_map(ProbeFold::due).min();
        [self.timers.earliest(), probes].into_iter().flatten().min()
    }

    /// Gives the state as it is stored and shown.
    #[must_use]
    pub fn state(&self) -> ServiceState {
        let now = self.now;
        ServiceState {
            id: self.id.clone(),
            desired: self.desired,
            phase: self.phase,
            ready: self.ready,
            incarnation: self.incarnation,
            identity: self.identity.clone(),
            attempt: self.attempt,
            restarts: self.restarts,
            recent_restarts: self
                .window
                .iter()
                .map(|at| {
                    now.wall - TimeDelta::from_std(now.monotonic.since(at)).unwrap_or_default()
                })
                .collect(),
            slow_step: self.slow_step,
            felled: self.felled,
            since: self.since,
            last_exit: self.last_exit.clone(),
            next_restart_at: self.next_restart_at,
            reason: self.reason.clone(),
        }
    }

    /// Gives the service's specification.
    #[must_use]
    pub const fn spec(&self) -> &Arc<ServiceSpec> {
        &self.spec
    }

    /// Gives the phase.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Tells whether processes of the run may exist, those that survived a kill included.
    #[must_use]
    pub fn may_have_processes(&self) -> bool {
        self.phase.may_be_alive() || self.unkillable().is_some()
    }

    /// Tells whether the service can be used.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    /// Gives the current run's number.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Counts the events of other runs that were ignored.
    #[must_use]
    pub const fn stale_events(&self) -> u64 {
        self.stale
    }

    pub(super) fn enter(&mut self, phase: Phase, reason: impl Into<String>, turn: &Turn) {
        if self.phase != phase {
            self.since = turn.now.wall;
        }
        self.phase = phase;
        self.felled &= phase == Phase::Failed;
        self.reason = reason.into();
        if phase != Phase::Backoff {
            self.next_restart_at = None;
            self.budget_asked = false;
        }
    }

    /// Tells whether an event belongs to the run under way, and counts it if not.
    pub(super) fn is_current(&mut self, incarnation: Incarnation) -> bool {
        let current = incarnation == self.incarnation;
        if !current {
            self.stale = self.stale.saturating_add(1);
        }
        current
    }

    fn dispatch(&mut self, event: Event, turn: &mut Turn) {
        match event {
            Event::Commanded { id, command } => self.on_command(id, command, turn),
            Event::DependenciesMet => self.on_dependencies_met(turn),
            Event::DependencyFailed { cause } => self.on_dependency_failed(&cause, turn),
            Event::DependencyBack => self.on_dependency_back(turn),
            Event::GroupRestart { cause } => self.on_group_restart(&cause, turn),
            Event::BudgetGranted => self.on_budget_granted(turn),
            Event::BudgetDelayed { wait } => self.on_budget_delayed(wait, turn),
            Event::FoundGone { status } => self.on_found_gone(status, turn),
            Event::Adopted { identity } => self.on_adopted(identity, turn),
            Event::Tick => {}
            Event::Spawned { incarnation, .. }
            | Event::SpawnFailed { incarnation, .. }
            | Event::Exited { incarnation, .. }
            | Event::SetEmpty { incarnation }
            | Event::SetKilled { incarnation, .. }
            | Event::ProbeCompleted { incarnation, .. }
            | Event::HangWeighed { incarnation, .. }
            | Event::ChannelLost { incarnation, .. }
            | Event::Notified { incarnation, .. }
            | Event::LimitExceeded { incarnation, .. } => {
                if self.is_current(incarnation) {
                    self.dispatch_run(event, turn);
                }
            }
        }
    }

    fn dispatch_run(&mut self, event: Event, turn: &mut Turn) {
        match event {
            Event::Spawned { identity, .. } => self.on_spawned(identity, turn),
            Event::SpawnFailed { kind, reason, .. } => self.on_spawn_failed(kind, &reason, turn),
            Event::Exited { status, set_empty, last_lines, .. } => {
                self.on_exited(status, set_empty, last_lines, turn);
            }
            Event::SetEmpty { .. } => self.on_set_empty(turn),
            Event::SetKilled { survivors, .. } => self.on_set_killed(survivors, turn),
            Event::ProbeCompleted { probe, passed, detail, latency, .. } => {
                self.on_probe(probe, passed, detail, latency, turn);
            }
            Event::HangWeighed { probe, doubt, .. } => self.on_hang_weighed(probe, doubt, turn),
            Event::ChannelLost { silent, reason, .. } => {
                self.on_channel_lost(silent, reason, turn);
            }
            Event::Notified { notification, .. } => self.on_notified(notification, turn),
            Event::LimitExceeded { ceiling, detail, .. } => self.on_limit(ceiling, &detail, turn),
            _ => {}
        }
    }

    fn handle_due(&mut self, turn: &mut Turn) {
        for _ in 0..DUE_PER_STEP_MAX {
            let Some(timer) = self.timers.take_due(turn.now.monotonic) else {
                break;
            };
            match timer {
                Timer::Startup => self.on_startup_deadline(turn),
                Timer::StopStep => self.on_stop_step(turn),
                Timer::KillRetry => self.on_kill_retry(turn),
                Timer::Backoff => self.on_backoff_over(turn),
                Timer::Stable => self.on_stable(turn),
                Timer::HalfOpen => self.on_half_open(turn),
                Timer::Weigh => self.on_weigh_overdue(turn),
                Timer::Channel => self.on_channel_overdue(turn),
            }
        }
        for probe in 0..self.probes.len() {
            if self.probes[probe].is_due(turn.now.monotonic) {
                self.on_probe_due(probe, turn);
            }
        }
    }

    /// If a deadline passed long ago, we were suspended, stopped or starved: give every judgement of the
    /// service's silence a fresh start instead of blaming it for ours.
    fn forgive_if_late(&mut self, now: Now) {
        let Some(deadline) = self.next_deadline() else {
            return;
        };
        let late = now.monotonic.since(deadline);
        if late <= LATE_MAX {
            return;
        }
        for probe in &mut self.probes {
            probe.forgive(now.monotonic);
        }
        if let Some(startup) = self.timers.get(Timer::Startup) {
            self.timers.arm(Timer::Startup, startup + late);
        }
        // What was asked to end may have slept as we did: it gets a moment to do so, never more than it had.
        if let Some((at, step)) = self.timers.get(Timer::StopStep).zip(self.stop_step()) {
            self.timers.arm(Timer::StopStep, at.max(now.monotonic + step.wait.min(LATE_MAX)));
        }
    }
}

/// Adds a duration to a wall-clock time, staying in range.
pub(super) fn add(at: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(by)
        .ok()
        .and_then(|by| at.checked_add_signed(by))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}
