//! What people ask of a service, and what its neighbours do to it.

use std::time::Duration;

use super::running::shown;
use super::stopping::After;
use super::timers::Timer;
use super::turn::Turn;
use super::{Command, CommandFailure, Effect, Lifecycle, PENDING_COMMANDS_MAX};
use crate::CommandId;
use crate::exit::{ExitReason, ExitReport};
use crate::state::{Desired, Phase};

/// What brings a service back that is given up, beside a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Revival {
    ByCommand,
    HalfOpen,
    WithDependency,
}

impl Lifecycle {
    pub(super) fn on_command(&mut self, id: CommandId, command: Command, turn: &mut Turn) {
        if self.pending.len() >= PENDING_COMMANDS_MAX {
            turn.reply(id, Err(CommandFailure::Busy));
            return;
        }
        match command {
            Command::Start => self.on_start(id, command, turn),
            Command::Stop => self.on_stop(id, turn),
            Command::Restart => self.on_restart(id, turn),
        }
    }

    fn on_start(&mut self, id: CommandId, command: Command, turn: &mut Turn) {
        if let Some(survivors) = self.unkillable() {
            turn.reply(id, Err(CommandFailure::Unkillable { survivors }));
            return;
        }
        let asked_anew = self.desired == Desired::Down;
        self.desired = Desired::Up;
        match self.phase {
            Phase::Registered if self.waiting => self.pending.push((id, command)),
            Phase::Registered | Phase::Stopped | Phase::Failed => {
                self.pending.push((id, command));
                self.forget_failures();
                self.begin_start(turn);
            }
            Phase::Backoff => {
                self.pending.push((id, command));
                self.forget_failures();
                self.begin_spawn(turn);
            }
            Phase::Starting if !self.spawned => self.pending.push((id, command)),
            Phase::Starting | Phase::Running | Phase::Unhealthy => {
                if asked_anew {
                    turn.persist("start_requested");
                }
                turn.reply(id, Ok(()));
            }
            Phase::Stopping => {
                self.pending.push((id, command));
                self.redirect_stop(After::Restart { cause: None });
                turn.persist("start_requested");
            }
        }
    }

    fn on_restart(&mut self, id: CommandId, turn: &mut Turn) {
        if !matches!(self.phase, Phase::Starting | Phase::Running | Phase::Unhealthy) {
            self.on_start(id, Command::Restart, turn);
            return;
        }
        self.desired = Desired::Up;
        self.pending.push((id, Command::Restart));
        self.forget_failures();
        self.begin_stop(
            After::Restart { cause: None },
            "restart requested",
            "restart_requested",
            turn,
        );
    }

    fn on_stop(&mut self, id: CommandId, turn: &mut Turn) {
        self.desired = Desired::Down;
        self.answer(turn, |command| command != Command::Stop, &Err(CommandFailure::Superseded));
        match self.phase {
            Phase::Failed if self.unkillable().is_some() => {
                let survivors = self.unkillable().unwrap_or_default();
                turn.persist("stop_requested");
                turn.reply(id, Err(CommandFailure::Unkillable { survivors }));
            }
            Phase::Registered | Phase::Stopped | Phase::Failed | Phase::Backoff => {
                self.timers.clear();
                self.waiting = false;
                self.lost = false;
                self.restart_cause = None;
                self.enter(Phase::Stopped, "stopped on request", turn);
                turn.persist("stop_requested");
                turn.reply(id, Ok(()));
            }
            Phase::Starting | Phase::Running | Phase::Unhealthy => {
                self.pending.push((id, Command::Stop));
                self.begin_stop(After::Down, "stop requested", "stop_requested", turn);
            }
            Phase::Stopping => {
                self.pending.push((id, Command::Stop));
                self.stop_again(turn);
            }
        }
    }

    /// Answers the waiting commands that `which` picks.
    pub(super) fn answer(
        &mut self,
        turn: &mut Turn,
        which: impl Fn(Command) -> bool,
        result: &Result<(), CommandFailure>,
    ) {
        self.pending.retain(|(id, command)| {
            let picked = which(*command);
            if picked {
                turn.reply(*id, result.clone());
            }
            !picked
        });
    }

    /// A person asked: earlier failures no longer count.
    fn forget_failures(&mut self) {
        self.attempt = 0;
        self.slow_step = 0;
        self.starved = 0;
        self.window.clear();
        self.restart_cause = None;
    }

    /// Starts, after the dependencies if there are any.
    pub(super) fn begin_start(&mut self, turn: &mut Turn) {
        self.lost = false;
        if self.spec.depends_on.is_empty() {
            self.begin_spawn(turn);
            return;
        }
        self.timers.clear();
        self.waiting = true;
        let needs: Vec<_> = self.spec.depends_on.iter().map(ToString::to_string).collect();
        self.enter(
            Phase::Registered,
            format!("waiting for {}, starts then", needs.join(", ")),
            turn,
        );
        turn.persist("waiting");
        turn.act(Effect::AwaitDependencies);
    }

    pub(super) fn on_dependencies_met(&mut self, turn: &mut Turn) {
        if self.waiting {
            self.begin_spawn(turn);
        }
    }

    pub(super) fn on_dependency_failed(&mut self, cause: &str, turn: &mut Turn) {
        let text = format!("dependency failed: {cause}");
        match self.phase {
            Phase::Registered if self.waiting => {
                self.waiting = false;
                self.last_exit = Some(ExitReport {
                    status: None,
                    reason: ExitReason::DependencyFailed,
                    last_lines: Vec::new(),
                });
                self.fail_with_dependency(text, turn);
            }
            Phase::Backoff => self.fail_with_dependency(text, turn),
            Phase::Starting | Phase::Running | Phase::Unhealthy => {
                let after = After::Fail { exit: ExitReason::DependencyFailed, text: text.clone() };
                self.begin_stop(after, text, "dependency_failed", turn);
            }
            Phase::Registered | Phase::Stopping | Phase::Stopped | Phase::Failed => {}
        }
    }

    /// What it was down for is over: it starts again, which waits for every other dependency too.
    pub(super) fn on_dependency_back(&mut self, turn: &mut Turn) {
        if self.phase == Phase::Failed && self.felled && self.desired == Desired::Up {
            self.begin_start(turn);
        }
    }

    pub(super) fn on_group_restart(&mut self, cause: &str, turn: &mut Turn) {
        if matches!(self.phase, Phase::Starting | Phase::Running | Phase::Unhealthy) {
            let text = format!("restarted with its group: {cause}");
            self.begin_stop(
                After::Restart { cause: Some(text.clone()) },
                text,
                "group_restart",
                turn,
            );
        }
    }

    pub(super) fn on_half_open(&mut self, turn: &mut Turn) {
        if self.phase == Phase::Failed && self.desired == Desired::Up && self.unkillable().is_none()
        {
            // Through the budget: many that gave up together must not come back together.
            self.schedule(Duration::ZERO, "half-open retry after giving up".to_owned(), turn);
        }
    }

    /// Gives the service up until its dependency is back.
    pub(super) fn fail_with_dependency(&mut self, why: String, turn: &mut Turn) {
        self.give_up(why, Revival::WithDependency, turn);
    }

    /// Gives the service up.
    pub(super) fn fail(&mut self, why: impl Into<String>, half_open: bool, turn: &mut Turn) {
        let revival = if half_open { Revival::HalfOpen } else { Revival::ByCommand };
        self.give_up(why.into(), revival, turn);
    }

    fn give_up(&mut self, why: String, revival: Revival, turn: &mut Turn) {
        self.timers.clear();
        self.restart_cause = None;
        let half_open = self.spec.half_open_after.filter(|_| revival == Revival::HalfOpen);
        let pause = half_open.map(|pause| {
            crate::policy::jittered(pause, self.spec.jitter(), self.random.next_u64())
        });
        let next = match (pause, revival) {
            (Some(pause), _) => format!("one more try in {}", shown(pause)),
            (None, Revival::WithDependency) => "starts again when that is back".to_owned(),
            (None, _) => "stays down until it is started again".to_owned(),
        };
        let text = format!("{why}; {next}");
        self.enter(Phase::Failed, text.clone(), turn);
        self.felled = revival == Revival::WithDependency;
        if let Some(pause) = pause {
            self.timers.arm(Timer::HalfOpen, turn.now.monotonic + pause);
            self.next_restart_at = Some(super::machine::add(turn.now.wall, pause));
        }
        turn.persist("gave_up");
        turn.act(Effect::GaveUp { critical: self.spec.critical, reason: why });
        turn.publish(crate::event::EventKind::ServiceGaveUp {
            service: self.id.clone(),
            critical: self.spec.critical,
            reason: text.clone(),
            exit: self.last_exit.clone(),
        });
        self.answer(turn, |command| command == Command::Stop, &Ok(()));
        self.answer(turn, |_| true, &Err(CommandFailure::Ended { reason: text }));
    }
}
