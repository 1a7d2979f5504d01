//! Bringing a set down: signal, grace period, kill, confirmation.

use super::machine::{DUMP_WAIT, KILL_CONFIRM};
use super::running::shown;
use super::timers::Timer;
use super::turn::Turn;
use super::{Command, CommandFailure, Effect, KILL_RETRY, Lifecycle};
use crate::Signal;
use crate::config::StopStep;
use crate::event::EventKind;
use crate::exit::{ExitReason, ExitReport, ExitStatus};
use crate::state::{Desired, Phase};

/// What follows once the set is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing; it was asked to be down.
    Down,
    /// Another run: on request, or because its group restarts for `cause`.
    Restart { cause: Option<String> },
    /// The restart policy decides, for an end with this reason.
    Judge { exit: ExitReason, text: String },
    /// It is given up.
    Fail { exit: ExitReason, text: String },
}

/// A stop under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stop {
    after: After,
    /// Why, without what is being done about it.
    base: String,
    steps: Vec<StopStep>,
    step: usize,
    killing: bool,
    /// How the leader ended, once it has.
    exited: Option<(ExitStatus, Vec<String>)>,
    /// Whether the kill found the set empty.
    emptied: bool,
    survivors: Option<Vec<String>>,
}

impl Lifecycle {
    pub(super) fn unkillable(&self) -> Option<Vec<String>> {
        self.stop.as_ref().and_then(|stop| stop.survivors.clone())
    }

    /// Begins to bring the set down.
    pub(super) fn begin_stop(
        &mut self,
        after: After,
        reason: impl Into<String>,
        cause: &'static str,
        turn: &mut Turn,
    ) {
        self.leave_running(turn);
        let (reason, mut steps) = (reason.into(), self.stop_steps.clone());
        if let After::Judge { exit: ExitReason::Hang, .. } = after
            && let Some(signal) = self.spec.dump_signal
        {
            steps.insert(0, StopStep { signal, wait: DUMP_WAIT });
        }
        self.stop = Some(Stop {
            after,
            base: reason.clone(),
            steps,
            step: 0,
            killing: false,
            exited: None,
            emptied: false,
            survivors: None,
        });
        self.enter(Phase::Stopping, reason, turn);
        turn.persist(cause);
        if self.spawned {
            self.signal_step(turn);
        }
    }

    /// The leader ended by itself and left others of its set behind: they are killed before anything else starts.
    pub(super) fn begin_sweep(
        &mut self,
        exit: ExitReason,
        text: String,
        exited: (ExitStatus, Vec<String>),
        turn: &mut Turn,
    ) {
        self.leave_running(turn);
        let reason = format!("{text}; ending what is left of its set");
        self.stop = Some(Stop {
            after: After::Judge { exit, text },
            base: reason.clone(),
            steps: Vec::new(),
            step: 0,
            killing: false,
            exited: Some(exited),
            emptied: false,
            survivors: None,
        });
        self.enter(Phase::Stopping, reason, turn);
        turn.persist("exited");
        self.kill(turn);
    }

    /// Probes, readiness and deadlines end with the run.
    pub(super) fn leave_running(&mut self, turn: &mut Turn) {
        if !self.probes.is_empty() {
            turn.act(Effect::StopProbes);
        }
        for probe in &mut self.probes {
            probe.reset();
        }
        self.timers.clear();
        self.suspected = None;
        self.channel_lost = None;
        self.ready = false;
    }

    /// The step of the stop under way that is being waited for.
    pub(super) fn stop_step(&self) -> Option<StopStep> {
        self.stop.as_ref().and_then(|stop| stop.steps.get(stop.step)).copied()
    }

    /// The process came to be after its stop was asked for.
    pub(super) fn stop_late_spawn(&mut self, turn: &mut Turn) {
        turn.persist("spawned");
        if self.stop.as_ref().is_some_and(|stop| stop.killing) {
            self.kill(turn);
        } else {
            self.signal_step(turn);
        }
    }

    pub(super) fn redirect_stop(&mut self, after: After) {
        if let Some(stop) = &mut self.stop {
            stop.after = after;
        }
    }

    /// A stop while stopping: the first one redirects a restart, the second forces.
    pub(super) fn stop_again(&mut self, turn: &mut Turn) {
        let Some(stop) = &mut self.stop else { return };
        turn.persist("stop_requested");
        if stop.after != After::Down {
            stop.after = After::Down;
            return;
        }
        if !stop.killing {
            stop.killing = true;
            "stop forced".clone_into(&mut stop.base);
            self.timers.disarm(Timer::StopStep);
            if self.spawned {
                self.kill(turn);
            }
        }
    }

    fn signal_step(&mut self, turn: &mut Turn) {
        let Some(step) = self.stop_step() else {
            self.kill(turn);
            return;
        };
        turn.act(Effect::Signal { incarnation: self.incarnation, signal: step.signal });
        if step.signal != Signal::Kill {
            // A suspended process keeps the signal pending until it is resumed.
            turn.act(Effect::Signal { incarnation: self.incarnation, signal: Signal::Cont });
        }
        self.timers.arm(Timer::StopStep, turn.now.monotonic + step.wait);
        if let Some(stop) = &self.stop {
            let next = stop.steps.get(stop.step + 1).map_or("kill", |next| next.signal.name());
            self.reason =
                format!("{}; {} sent, {next} in {}", stop.base, step.signal, shown(step.wait));
        }
    }

    pub(super) fn on_stop_step(&mut self, turn: &mut Turn) {
        if let Some(stop) = &mut self.stop {
            stop.step += 1;
            self.signal_step(turn);
        }
    }

    fn kill(&mut self, turn: &mut Turn) {
        if let Some(stop) = &mut self.stop {
            stop.killing = true;
            if stop.survivors.is_none() {
                self.reason = format!("{}; being killed", stop.base);
            }
            turn.act(Effect::KillSet { incarnation: self.incarnation, confirm: KILL_CONFIRM });
        }
    }

    pub(super) fn on_kill_retry(&mut self, turn: &mut Turn) {
        if self.unkillable().is_some() {
            self.kill(turn);
        }
    }

    /// Notes the leader's end while its set is being brought down.
    pub(super) fn leader_gone(
        &mut self,
        status: ExitStatus,
        set_empty: bool,
        last_lines: Vec<String>,
        turn: &mut Turn,
    ) {
        let Some(stop) = &mut self.stop else { return };
        if stop.exited.is_none() {
            stop.exited = Some((status, last_lines));
        }
        if set_empty || stop.emptied {
            self.set_gone(turn);
        }
    }

    pub(super) fn on_set_empty(&mut self, turn: &mut Turn) {
        let Some(stop) = &mut self.stop else { return };
        stop.emptied = true;
        if stop.exited.is_some() {
            self.set_gone(turn);
        }
    }

    pub(super) fn on_set_killed(&mut self, survivors: Vec<String>, turn: &mut Turn) {
        if survivors.is_empty() {
            self.on_set_empty(turn);
            return;
        }
        let Some(stop) = &mut self.stop else { return };
        let first = stop.survivors.is_none();
        stop.survivors = Some(survivors.clone());
        self.timers.arm(Timer::KillRetry, turn.now.monotonic + KILL_RETRY);
        if !first {
            return;
        }
        let text = format!(
            "{} process(es) survived the kill ({}); trying again every {} s, nothing is started in their place",
            survivors.len(),
            survivors.join(", "),
            KILL_RETRY.as_secs()
        );
        self.enter(Phase::Failed, text.clone(), turn);
        turn.persist("unkillable");
        turn.act(Effect::GaveUp { critical: self.spec.critical, reason: text });
        turn.publish(EventKind::ServiceUnkillable {
            service: self.id.clone(),
            incarnation: self.incarnation,
            survivors: survivors.clone(),
        });
        self.answer(turn, |_| true, &Err(CommandFailure::Unkillable { survivors }));
    }

    /// The set is empty: what was meant to follow, follows.
    fn set_gone(&mut self, turn: &mut Turn) {
        let Some(stop) = self.stop.take() else { return };
        self.timers.clear();
        self.identity = None;
        self.spawned = false;
        let (status, last_lines) =
            stop.exited.map_or((None, Vec::new()), |(status, lines)| (Some(status), lines));
        let reason = match &stop.after {
            After::Judge { exit, .. } | After::Fail { exit, .. } => *exit,
            After::Restart { cause: Some(_) } => ExitReason::GroupRestart,
            After::Down | After::Restart { cause: None } => ExitReason::Stopped,
        };
        let report = ExitReport { status, reason, last_lines };
        turn.ended(&report);
        self.last_exit = Some(report);
        self.answer(turn, |command| command == Command::Stop, &Ok(()));
        self.follow(stop.after, turn);
    }

    /// A start that was to be stopped never came to be.
    pub(super) fn never_spawned(&mut self, turn: &mut Turn) {
        let Some(stop) = self.stop.take() else { return };
        self.timers.clear();
        self.answer(turn, |command| command == Command::Stop, &Ok(()));
        self.follow(stop.after, turn);
    }

    fn follow(&mut self, after: After, turn: &mut Turn) {
        turn.persist("set_empty");
        if self.desired == Desired::Down {
            self.enter(Phase::Stopped, "stopped on request", turn);
            return;
        }
        match after {
            After::Down => self.enter(Phase::Stopped, "stopped on request", turn),
            After::Restart { cause } => {
                self.restart_cause = cause;
                self.begin_spawn(turn);
            }
            After::Judge { exit, text } => self.judge(exit, text, turn),
            After::Fail { exit: ExitReason::DependencyFailed, text } => {
                self.fail_with_dependency(text, turn);
            }
            After::Fail { text, .. } => self.fail(text, false, turn),
        }
    }
}
