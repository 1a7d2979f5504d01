//! Watching a run: what probes, the service itself and its ceilings say, and what is done about it.

use std::time::Duration;

use super::machine::{CHANNEL_EXIT_WAIT, EXTEND_MAX, WEIGH_MAX};
use super::stopping::After;
use super::timers::Timer;
use super::turn::Turn;
use super::{Ceiling, Effect, Lifecycle, Notification};
use crate::config::{BeyondLimit, ProbeKind, ProbeRole};
use crate::event::EventKind;
use crate::exit::ExitReason;
use crate::state::Phase;

/// Longest status text kept of what a service says of itself, in characters.
const STATUS_TEXT_MAX: usize = 200;

impl Lifecycle {
    pub(super) fn on_startup_deadline(&mut self, turn: &mut Turn) {
        if self.phase == Phase::Starting && self.spawned {
            let text = "did not pass its startup probe in time".to_owned();
            let after = After::Judge { exit: ExitReason::StartTimeout, text: text.clone() };
            self.begin_stop(after, text, "startup_timeout", turn);
        }
    }

    pub(super) fn on_probe_due(&mut self, probe: usize, turn: &mut Turn) {
        if !self.spawned
            || !matches!(self.phase, Phase::Starting | Phase::Running | Phase::Unhealthy)
        {
            return;
        }
        let incarnation = self.incarnation;
        let fold = &mut self.probes[probe];
        fold.rearm(turn.now.monotonic);
        if fold.kind == ProbeKind::Heartbeat {
            let beaten = fold.take_beat();
            fold.fold(beaten);
            self.evaluate(probe, "no heartbeat", turn);
        } else if !fold.in_flight {
            fold.in_flight = true;
            turn.act(Effect::RunProbe { incarnation, probe, timeout: fold.timeout });
        }
    }

    pub(super) fn on_probe(
        &mut self,
        probe: usize,
        passed: bool,
        detail: String,
        latency: Duration,
        turn: &mut Turn,
    ) {
        if !matches!(self.phase, Phase::Starting | Phase::Running | Phase::Unhealthy) {
            return;
        }
        let Some(fold) = self.probes.get_mut(probe).filter(|fold| fold.in_flight) else {
            return;
        };
        let (role, kind) = (fold.role, fold.kind);
        if passed {
            fold.note_latency(latency);
        }
        if fold.fold(passed) {
            self.evaluate(probe, &detail, turn);
        }
        turn.publish(EventKind::HealthCheckCompleted {
            service: self.id.clone(),
            incarnation: self.incarnation,
            role,
            kind,
            passed,
            latency_us: u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
            detail,
        });
    }

    /// Acts on what the probes of one role add up to now.
    fn evaluate(&mut self, probe: usize, detail: &str, turn: &mut Turn) {
        let role = self.probes[probe].role;
        let of_role = || self.probes.iter().filter(|probe| probe.role == role);
        let all_healthy = of_role().all(|probe| probe.healthy == Some(true));
        let any_lost = of_role().any(|probe| probe.healthy == Some(false));
        match role {
            ProbeRole::Startup if self.phase == Phase::Starting => {
                if any_lost {
                    self.timers.disarm(Timer::Startup);
                    let text = format!("startup probe failed: {detail}");
                    let after = After::Judge { exit: ExitReason::StartTimeout, text: text.clone() };
                    self.begin_stop(after, text, "startup_failed", turn);
                } else if all_healthy {
                    for fold in
                        self.probes.iter_mut().filter(|fold| fold.role == ProbeRole::Startup)
                    {
                        fold.reset();
                    }
                    self.enter_running(turn);
                }
            }
            ProbeRole::Startup => {}
            ProbeRole::Readiness if all_healthy => self.on_readiness(true, "up", turn),
            ProbeRole::Readiness if any_lost => {
                self.on_readiness(false, &format!("up, not ready: {detail}"), turn);
            }
            ProbeRole::Readiness => {}
            ProbeRole::Liveness if any_lost => self.suspect(detail, turn),
            ProbeRole::Liveness => self.weigh_liveness(probe, detail, turn),
        }
    }

    fn on_readiness(&mut self, ready: bool, reason: &str, turn: &mut Turn) {
        // What its liveness says weighs more.
        if self.phase == Phase::Running {
            reason.clone_into(&mut self.reason);
        }
        self.set_ready(ready, turn);
    }

    /// The first rungs of the ladder: late is said aloud before anything is done about it.
    fn weigh_liveness(&mut self, probe: usize, detail: &str, turn: &mut Turn) {
        let fold = &self.probes[probe];
        let (failures, threshold) = (fold.failures, fold.failure_threshold);
        let failing =
            self.probes.iter().any(|fold| fold.role == ProbeRole::Liveness && fold.failures > 0);
        if failing && self.phase == Phase::Running {
            let text = format!(
                "liveness failed {failures} of {threshold} times: {detail}; stopped as a hang at {threshold}"
            );
            self.become_unhealthy(text, turn);
        } else if !failing && self.phase == Phase::Unhealthy {
            let reason = if self.ready { "up" } else { "up, not ready" };
            self.enter(Phase::Running, reason, turn);
            turn.persist("liveness_back");
        }
    }

    fn become_unhealthy(&mut self, text: String, turn: &mut Turn) {
        self.enter(Phase::Unhealthy, text.clone(), turn);
        turn.persist("liveness_late");
        self.degraded(text, turn);
    }

    fn degraded(&self, reason: String, turn: &mut Turn) {
        turn.publish(EventKind::ServiceDegraded {
            service: self.id.clone(),
            incarnation: self.incarnation,
            reason,
        });
    }

    /// Liveness is lost. Before the service is blamed, it is asked whether it ever got a processor.
    fn suspect(&mut self, detail: &str, turn: &mut Turn) {
        let lost = |fold: &super::probes::ProbeFold| {
            fold.role == ProbeRole::Liveness && fold.healthy == Some(false)
        };
        let Some(probe) = self.probes.iter().position(lost) else { return };
        if self.suspected.is_some() {
            return;
        }
        self.suspected = Some((probe, detail.to_owned()));
        self.timers.arm(Timer::Weigh, turn.now.monotonic + WEIGH_MAX);
        let text =
            format!("liveness lost: {detail}; stopped as a hang unless the host is overloaded");
        self.become_unhealthy(text, turn);
        let fold = &self.probes[probe];
        turn.act(Effect::WeighHang {
            incarnation: self.incarnation,
            probe,
            usual: fold.usual,
            timeout: fold.timeout,
        });
    }

    pub(super) fn on_hang_weighed(&mut self, probe: usize, doubt: Option<String>, turn: &mut Turn) {
        let Some((_, detail)) = self.suspected.take_if(|(suspected, _)| *suspected == probe) else {
            return;
        };
        self.timers.disarm(Timer::Weigh);
        if self.probes[probe].healthy != Some(false) {
            // It came back meanwhile.
            return;
        }
        let Some(doubt) = doubt else {
            self.hang(&detail, turn);
            return;
        };
        self.probes[probe].doubt();
        let text = format!("liveness lost ({detail}), but not stopped: {doubt}; asked again");
        self.reason.clone_from(&text);
        self.degraded(text, turn);
    }

    pub(super) fn on_weigh_overdue(&mut self, turn: &mut Turn) {
        if let Some((probe, _)) = self.suspected {
            self.on_hang_weighed(probe, None, turn);
        }
    }

    fn hang(&mut self, detail: &str, turn: &mut Turn) {
        let text = format!("hang: {detail}");
        turn.act(Effect::Diagnose { incarnation: self.incarnation });
        let after = After::Judge { exit: ExitReason::Hang, text: text.clone() };
        self.begin_stop(after, text, "hang", turn);
    }

    /// Nothing can be said to the service any more: a silent one hangs; of another one the end is waited for, because it
    /// usually is what ended the channel.
    pub(super) fn on_channel_lost(&mut self, silent: bool, reason: String, turn: &mut Turn) {
        if self.stop.is_some()
            || !self.spawned
            || self.channel_lost.is_some()
            || !matches!(self.phase, Phase::Starting | Phase::Running | Phase::Unhealthy)
        {
            return;
        }
        if silent {
            self.hang(&reason, turn);
            return;
        }
        self.timers.arm(Timer::Channel, turn.now.monotonic + CHANNEL_EXIT_WAIT);
        self.channel_lost = Some(reason.into());
    }

    pub(super) fn on_channel_overdue(&mut self, turn: &mut Turn) {
        let Some(reason) = self.channel_lost.take() else { return };
        let text = format!("channel lost: {reason}");
        let after = After::Judge { exit: ExitReason::ChannelLost, text: text.clone() };
        self.begin_stop(after, text, "channel_lost", turn);
    }

    pub(super) fn on_notified(&mut self, notification: Notification, turn: &mut Turn) {
        if !matches!(
            self.phase,
            Phase::Starting | Phase::Running | Phase::Unhealthy | Phase::Stopping
        ) {
            return;
        }
        match notification {
            Notification::Ready => {
                for probe in 0..self.probes.len() {
                    let fold = &mut self.probes[probe];
                    fold.beat();
                    if fold.kind == ProbeKind::Heartbeat
                        && fold.role != ProbeRole::Liveness
                        && self.stop.is_none()
                    {
                        fold.fold(true);
                        self.evaluate(probe, "READY=1", turn);
                    }
                }
            }
            Notification::Watchdog => {
                self.probes.iter_mut().for_each(super::probes::ProbeFold::beat);
            }
            Notification::WatchdogTrigger => {
                if self.stop.is_none() && self.spawned {
                    self.hang("the service asked to be treated as hung", turn);
                }
            }
            Notification::Stopping => self.note("it says that it is stopping"),
            Notification::ExtendTimeout(by) => {
                let until = turn.now.monotonic + by.min(EXTEND_MAX);
                for timer in [Timer::Startup, Timer::StopStep] {
                    if self.timers.get(timer).is_some_and(|at| at < until) {
                        self.timers.arm(timer, until);
                    }
                }
            }
            Notification::Status(text) => {
                let text: String =
                    text.chars().filter(|c| !c.is_control()).take(STATUS_TEXT_MAX).collect();
                self.note(&format!("it says: {text}"));
            }
            Notification::MainPid(identity) => {
                if self.spawned {
                    self.identity = Some(identity);
                    turn.persist("main_pid");
                }
            }
        }
    }

    /// Adds what the service says of itself to why it is where it is; it never hides what is being done about it.
    fn note(&mut self, words: &str) {
        let base = match (self.phase, self.ready) {
            (Phase::Running, true) => "up",
            (Phase::Running, false) => "up, not ready",
            (Phase::Starting, _) => "started, waiting for its startup probe",
            _ => return,
        };
        self.reason = format!("{base}; {words}");
    }

    pub(super) fn on_limit(&mut self, ceiling: Ceiling, detail: &str, turn: &mut Turn) {
        if self.stop.is_some() || !self.spawned {
            return;
        }
        let (exit, name) = match ceiling {
            Ceiling::Memory => (ExitReason::MemoryLimit, "memory"),
            Ceiling::Cpu => (ExitReason::CpuLimit, "cpu"),
        };
        let text = format!("{name} limit exceeded: {detail}");
        match self.spec.limits.beyond {
            BeyondLimit::Report => self.degraded(text, turn),
            BeyondLimit::Restart => {
                self.begin_stop(
                    After::Judge { exit, text: text.clone() },
                    text,
                    "limit_exceeded",
                    turn,
                );
            }
            BeyondLimit::Fail => {
                self.begin_stop(
                    After::Fail { exit, text: text.clone() },
                    text,
                    "limit_exceeded",
                    turn,
                );
            }
        }
    }
}
