//! Starting a run, and deciding what follows its end.

use std::time::Duration;

use super::machine::add;
use super::stopping::After;
use super::timers::Timer;
use super::turn::Turn;
use super::{Command, CommandFailure, Effect, Lifecycle};
use crate::ProcessIdentity;
use crate::config::{BeyondIntensity, ProbeRole, RestartOn, RestartPolicy};
use crate::error::SpawnErrorKind;
use crate::event::EventKind;
use crate::exit::{ExitReason, ExitReport, ExitStatus};
use crate::policy::{jittered, slow_delay};
use crate::state::{Desired, Phase};
use crate::text::format_duration;

/// First delay after a start that failed for lack of resources; doubles to [`STARVED_DELAY_MAX`] and burns no attempt.
const STARVED_DELAY_BASE: Duration = Duration::from_millis(100);
/// Longest delay after a start that failed for lack of resources.
const STARVED_DELAY_MAX: Duration = Duration::from_secs(5);

impl Lifecycle {
    /// Begins a new run. The caller has made sure that nothing of the run before is left.
    pub(super) fn begin_spawn(&mut self, turn: &mut Turn) {
        self.incarnation = self.incarnation.next();
        self.spawned = false;
        self.identity = None;
        self.ready = false;
        self.waiting = false;
        self.lost = false;
        self.stop = None;
        self.suspected = None;
        self.channel_lost = None;
        self.timers.clear();
        for probe in &mut self.probes {
            probe.reset();
        }
        if std::mem::take(&mut self.retrying) {
            self.restart_cause = None;
        }
        if self.restart_cause.is_some() {
            self.restarts = self.restarts.saturating_add(1);
            self.window.note(turn.now.monotonic);
        }
        self.enter(Phase::Starting, "being started", turn);
        turn.persist("starting");
        turn.act(Effect::Spawn { incarnation: self.incarnation });
    }

    pub(super) fn on_spawned(&mut self, identity: ProcessIdentity, turn: &mut Turn) {
        if self.spawned || !matches!(self.phase, Phase::Starting | Phase::Stopping) {
            return;
        }
        self.spawned = true;
        self.starved = 0;
        self.identity = Some(identity);
        if self.phase == Phase::Stopping {
            self.stop_late_spawn(turn);
            return;
        }
        turn.persist("spawned");
        self.begin_watch(turn);
        if let Some(reason) = self.restart_cause.take() {
            turn.publish(EventKind::ServiceRestarted {
                service: self.id.clone(),
                incarnation: self.incarnation,
                restarts: self.restarts,
                attempt: self.attempt,
                reason,
            });
        }
        self.answer(turn, |command| command != Command::Stop, &Ok(()));
    }

    fn begin_watch(&mut self, turn: &mut Turn) {
        if !self.has(ProbeRole::Startup) {
            self.enter_running(turn);
            return;
        }
        let allowance = self
            .probes
            .iter()
            .map(super::probes::ProbeFold::startup_allowance)
            .max()
            .unwrap_or_default();
        let deadline = allowance.max(self.spec.health_check_timeout);
        self.timers.arm(Timer::Startup, turn.now.monotonic + deadline);
        self.begin_probes(|role| role == ProbeRole::Startup, turn);
        self.reason = format!("started, waiting at most {} for its startup probe", shown(deadline));
    }

    pub(super) fn enter_running(&mut self, turn: &mut Turn) {
        self.timers.disarm(Timer::Startup);
        self.begin_probes(|role| role != ProbeRole::Startup, turn);
        if self.has(ProbeRole::Readiness) {
            self.enter(Phase::Running, "up, not ready yet", turn);
        } else {
            self.enter(Phase::Running, "up", turn);
            self.set_ready(true, turn);
        }
        turn.persist("running");
    }

    fn has(&self, role: ProbeRole) -> bool {
        self.probes.iter().any(|probe| probe.role == role)
    }

    fn begin_probes(&mut self, which: impl Fn(ProbeRole) -> bool, turn: &Turn) {
        for probe in self.probes.iter_mut().filter(|probe| which(probe.role)) {
            #[expect(
                clippy::cast_precision_loss,
                reason = "only the spread of first probes depends on it"
            )]
            let offset = (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
            probe.begin(turn.now.monotonic, offset);
        }
    }

    pub(super) fn set_ready(&mut self, ready: bool, turn: &Turn) {
        if ready == self.ready {
            return;
        }
        self.ready = ready;
        if ready {
            self.timers.arm(Timer::Stable, turn.now.monotonic + self.spec.stable_after);
        } else {
            self.timers.disarm(Timer::Stable);
        }
    }

    pub(super) fn on_stable(&mut self, turn: &mut Turn) {
        if self.attempt > 0 || self.slow_step > 0 {
            self.attempt = 0;
            self.slow_step = 0;
            turn.persist("stable");
        }
    }

    pub(super) fn on_spawn_failed(&mut self, kind: SpawnErrorKind, reason: &str, turn: &mut Turn) {
        if self.spawned {
            return;
        }
        if self.phase == Phase::Stopping {
            self.never_spawned(turn);
            return;
        }
        if self.phase != Phase::Starting {
            return;
        }
        let report =
            ExitReport { status: None, reason: ExitReason::SpawnFailed, last_lines: Vec::new() };
        turn.ended(&report);
        self.last_exit = Some(report);
        let failure = CommandFailure::SpawnFailed { kind, reason: reason.to_owned() };
        self.answer(turn, |command| command != Command::Stop, &Err(failure));
        match kind {
            SpawnErrorKind::ResourceExhausted
            | SpawnErrorKind::Busy
            | SpawnErrorKind::SpawnerUnavailable => {
                let factor = 1_u32.checked_shl(self.starved).unwrap_or(u32::MAX);
                self.starved = self.starved.saturating_add(1);
                let delay = STARVED_DELAY_BASE.saturating_mul(factor).min(STARVED_DELAY_MAX);
                let restart = self.restart_cause.is_some();
                if restart {
                    // Nothing ran, and the service is not to blame: this try counts against no limit.
                    self.restarts = self.restarts.saturating_sub(1);
                    self.window.take_back();
                }
                self.retrying = !restart;
                self.schedule(delay, reason.to_owned(), turn);
            }
            _ if !kind.class().retryable() => {
                self.fail(format!("cannot be started: {reason}"), false, turn);
            }
            _ => self.judge(ExitReason::SpawnFailed, format!("start failed: {reason}"), turn),
        }
    }

    pub(super) fn on_exited(
        &mut self,
        status: ExitStatus,
        set_empty: bool,
        last_lines: Vec<String>,
        turn: &mut Turn,
    ) {
        if self.stop.is_some() {
            self.leader_gone(status, set_empty, last_lines, turn);
            return;
        }
        if !self.spawned
            || !matches!(self.phase, Phase::Starting | Phase::Running | Phase::Unhealthy)
        {
            return;
        }
        let exit = self.reason_of(status);
        let text = format!("{exit} ({status})");
        if !set_empty {
            self.begin_sweep(exit, text, (status, last_lines), turn);
            return;
        }
        self.leave_running(turn);
        self.spawned = false;
        self.identity = None;
        let report = ExitReport { status: Some(status), reason: exit, last_lines };
        turn.ended(&report);
        self.last_exit = Some(report);
        turn.persist("exited");
        self.judge(exit, text, turn);
    }

    fn reason_of(&self, status: ExitStatus) -> ExitReason {
        match status.code() {
            Some(code) if self.spec.permanent_exit_codes.contains(&code) => {
                ExitReason::PermanentFailure
            }
            Some(code) if self.spec.success_exit_codes.contains(&code) => ExitReason::Completed,
            _ => ExitReason::Crash,
        }
    }

    /// Decides what follows an end nobody asked for.
    pub(super) fn judge(&mut self, exit: ExitReason, text: String, turn: &mut Turn) {
        if self.desired == Desired::Down {
            self.enter(Phase::Stopped, "stopped on request", turn);
            return;
        }
        let never = self.spec.restart_policy == RestartPolicy::Never;
        if exit == ExitReason::Completed && (never || self.spec.restart_on == RestartOn::Failure) {
            self.enter(Phase::Stopped, "completed", turn);
            turn.persist("completed");
            return;
        }
        if exit == ExitReason::PermanentFailure {
            self.fail(format!("{text}; this code means that a restart is pointless"), false, turn);
            return;
        }
        if never {
            self.fail(format!("{text}; its restart policy is never"), false, turn);
            return;
        }
        self.plan_restart(&text, turn);
    }

    fn plan_restart(&mut self, text: &str, turn: &mut Turn) {
        let Some(mut delay) = self.spec.restart_policy.delay(self.attempt) else {
            self.fail(
                format!("{text}; given up after {} restarts in a row", self.attempt),
                true,
                turn,
            );
            return;
        };
        if let Some((max, window, beyond)) =
            self.spec.restart_intensity.resolve(&self.spec.restart_policy)
        {
            let full = self.window.is_full(turn.now.monotonic);
            match beyond {
                BeyondIntensity::GiveUp if full => {
                    let limit = format!("{max} restarts in {}", format_duration(window));
                    self.fail(format!("{text}; given up beyond {limit}"), true, turn);
                    return;
                }
                BeyondIntensity::Slow if full || self.slow_step > 0 => {
                    delay = delay.max(slow_delay(self.slow_step));
                    self.slow_step = self.slow_step.saturating_add(1);
                }
                _ => {}
            }
        }
        let delay = jittered(delay, self.spec.jitter(), self.random.next_u64());
        self.attempt = self.attempt.saturating_add(1);
        self.schedule(delay, text.to_owned(), turn);
    }

    /// Waits for `delay`, then asks the budget; at once if there is nothing to wait for.
    pub(super) fn schedule(&mut self, delay: Duration, cause: String, turn: &mut Turn) {
        let when =
            if delay.is_zero() { "at once".to_owned() } else { format!("in {}", shown(delay)) };
        self.enter(Phase::Backoff, format!("{cause}; restarting {when}"), turn);
        self.restart_cause = Some(cause);
        self.next_restart_at = Some(add(turn.now.wall, delay));
        turn.persist("backoff");
        if delay.is_zero() {
            self.on_backoff_over(turn);
        } else {
            self.timers.arm(Timer::Backoff, turn.now.monotonic + delay);
        }
    }

    pub(super) fn on_backoff_over(&mut self, turn: &mut Turn) {
        if self.phase == Phase::Backoff && !self.budget_asked {
            self.budget_asked = true;
            turn.act(Effect::AcquireBudget);
        }
    }

    pub(super) fn on_budget_granted(&mut self, turn: &mut Turn) {
        if self.phase == Phase::Backoff && self.budget_asked {
            self.begin_spawn(turn);
        }
    }

    pub(super) fn on_budget_delayed(&mut self, wait: Duration, turn: &mut Turn) {
        if self.phase == Phase::Backoff && self.budget_asked {
            self.budget_asked = false;
            let cause = self.restart_cause.as_deref().unwrap_or("down");
            self.reason = format!("{cause}; waiting for the restart budget, in {}", shown(wait));
            self.next_restart_at = Some(add(turn.now.wall, wait));
            self.timers.arm(Timer::Backoff, turn.now.monotonic + wait);
        }
    }

    pub(super) fn on_found_gone(&mut self, status: Option<ExitStatus>, turn: &mut Turn) {
        if !std::mem::replace(&mut self.lost, false) {
            return;
        }
        let report =
            ExitReport { status, reason: ExitReason::SupervisorLost, last_lines: Vec::new() };
        turn.ended(&report);
        self.last_exit = Some(report);
        if self.desired == Desired::Up {
            self.begin_start(turn);
        } else {
            self.enter(Phase::Stopped, "stopped on request", turn);
            turn.persist("found_gone");
        }
    }

    pub(super) fn on_adopted(&mut self, identity: ProcessIdentity, turn: &mut Turn) {
        if !std::mem::replace(&mut self.lost, false) {
            return;
        }
        self.spawned = true;
        self.identity = Some(identity);
        turn.persist("adopted");
        if self.desired == Desired::Up {
            self.enter_running(turn);
        } else {
            self.begin_stop(
                After::Down,
                "stop requested before the supervisor was lost",
                "adopted",
                turn,
            );
        }
    }
}

/// Rounds to milliseconds: nobody reads nanoseconds in a sentence.
pub(super) fn shown(delay: Duration) -> String {
    let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).max(1);
    format_duration(Duration::from_millis(millis))
}
