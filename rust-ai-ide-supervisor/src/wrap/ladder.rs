//! When a lost server is started again.

use std::time::Duration;

use supervisor_core::Monotonic;
use supervisor_core::config::{BeyondIntensity, RestartOn, ServiceSpec};
use supervisor_core::policy::{IntensityWindow, jittered, slow_delay};
use supervisor_ipc::relay::Loss;

/// Delays while a server dies before it is of use.
const DELAYS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4)];
/// Deaths in a row before it is of use, after which starting it stops for a while.
const FAILURES_MAX: u32 = 5;
/// The same for kills, which may be somebody else's and then say nothing about the server.
const KILLS_MAX: u32 = 20;
/// Immediate restarts of a server that was of use, in [`QUICK_WINDOW`]; more are spaced by [`QUICK_SPACING`].
const QUICK_MAX: u32 = 20;
const QUICK_WINDOW: Duration = Duration::from_secs(10);
const QUICK_SPACING: Duration = Duration::from_secs(1);
/// First pause after giving up before one more try, and the longest.
const OPEN_BASE: Duration = Duration::from_secs(60);
const OPEN_MAX: Duration = Duration::from_secs(300);
/// What ends without a word: a person's kill, or the system's for want of memory.
const SIGKILL: i32 = 9;
/// Random part of a delay that may be cut from it.
const JITTER: f64 = 0.2;

/// What follows a loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Start again after this time.
    Start(Duration),
    /// Do not, or only once after a pause.
    GiveUp {
        /// Why, and what a person can do.
        reason: String,
        /// The pause.
        again: Option<Duration>,
    },
}

/// When a lost server is started again.
///
/// Without a configured policy a server that was of use is back at once, however often it dies: a session must not end
/// because of the sum of its crashes. Only deaths in a row before being of use count.
#[derive(Debug)]
pub(super) struct Ladder {
    /// The service as it stands in a configuration file.
    configured: Option<ServiceSpec>,
    /// Losses in a row without having been of use (or, when configured, without a stable stretch).
    failures: u32,
    beyond: u32,
    opened: u32,
    ready_since: Option<Monotonic>,
    window: IntensityWindow,
}

impl Ladder {
    pub(super) fn new(configured: Option<ServiceSpec>) -> Self {
        let limits =
            configured.as_ref().map(|spec| spec.restart_intensity.resolve(&spec.restart_policy));
        let window = match limits {
            None => IntensityWindow::new(QUICK_MAX, QUICK_WINDOW),
            Some(Some((max, window, _))) => IntensityWindow::new(max, window),
            Some(None) => IntensityWindow::new(u32::MAX, Duration::ZERO),
        };
        Self { configured, failures: 0, beyond: 0, opened: 0, ready_since: None, window }
    }

    /// The server has the client's state and answers.
    pub(super) fn ready(&mut self, now: Monotonic) {
        self.ready_since = Some(now);
        self.opened = 0;
        if self.configured.is_none() {
            self.failures = 0;
        }
    }

    /// Forgets what it holds against the server: somebody asked for a restart.
    pub(super) const fn forgive(&mut self) {
        (self.failures, self.beyond, self.opened, self.ready_since) = (0, 0, 0, None);
    }

    /// Judges a loss.
    pub(super) fn lost(&mut self, loss: &Loss, now: Monotonic, random: u64) -> Step {
        let was_ready = self.ready_since.take();
        match self.configured.clone() {
            Some(spec) => self.by_policy(&spec, loss, was_ready, now, random),
            None => self.by_use(loss, was_ready.is_some(), now, random),
        }
    }

    fn by_use(&mut self, loss: &Loss, was_ready: bool, now: Monotonic, random: u64) -> Step {
        if was_ready {
            let full = self.window.is_full(now);
            self.window.note(now);
            return Step::Start(if full {
                jittered(QUICK_SPACING, JITTER, random)
            } else {
                Duration::ZERO
            });
        }
        self.failures += 1;
        let killed = matches!(loss, Loss::Exited(status) if status.signal() == Some(SIGKILL));
        let most = if killed { KILLS_MAX } else { FAILURES_MAX };
        if self.failures >= most || matches!(loss, Loss::NotStarted(_)) {
            let why = if matches!(loss, Loss::NotStarted(_)) {
                loss.to_string()
            } else {
                format!("it died {} times in a row before it was of use ({loss})", self.failures)
            };
            let pause = OPEN_BASE.saturating_mul(1 << self.opened.min(8)).min(OPEN_MAX);
            self.opened += 1;
            // The half-open try has to succeed; one more death opens again.
            self.failures = most - 1;
            let reason = format!(
                "{why}; it is tried again in {} s, or at once when the client restarts its server",
                pause.as_secs()
            );
            return Step::GiveUp { reason, again: Some(pause) };
        }
        let index = (self.failures as usize - 1).min(DELAYS.len() - 1);
        Step::Start(jittered(DELAYS[index], JITTER, random))
    }

    fn by_policy(
        &mut self,
        spec: &ServiceSpec,
        loss: &Loss,
        was_ready: Option<Monotonic>,
        now: Monotonic,
        random: u64,
    ) -> Step {
        if was_ready.is_some_and(|since| now.since(since) >= spec.stable_after) {
            (self.failures, self.beyond) = (0, 0);
        }
        let give_up = |why: String| Step::GiveUp { reason: why, again: spec.half_open_after };
        if let Loss::Exited(status) = loss {
            let code = status.code();
            if code.is_some_and(|code| spec.permanent_exit_codes.contains(&code)) {
                return Step::GiveUp { reason: format!("{loss}, which is permanent"), again: None };
            }
            if spec.restart_on == RestartOn::Failure
                && code.is_some_and(|code| spec.success_exit_codes.contains(&code))
            {
                return Step::GiveUp {
                    reason: format!("{loss}, which is no failure"),
                    again: None,
                };
            }
        }
        let Some(delay) = spec.restart_policy.delay(self.failures) else {
            return give_up(format!("its restart policy allows no further restart ({loss})"));
        };
        self.failures = self.failures.saturating_add(1);
        let mut delay = jittered(delay, spec.jitter(), random);
        if let Some((max, window, beyond)) = spec.restart_intensity.resolve(&spec.restart_policy)
            && self.window.is_full(now)
        {
            if beyond == BeyondIntensity::GiveUp {
                return give_up(format!(
                    "more than {max} restarts in {} s ({loss})",
                    window.as_secs()
                ));
            }
            delay = delay.max(slow_delay(self.beyond));
            self.beyond += 1;
        }
        self.window.note(now);
        Step::Start(delay)
    }
}

#[cfg(test)]
mod tests {
    use supervisor_core::config::{RestartIntensity, RestartPolicy};
    use supervisor_core::exit::ExitStatus;

    use super::*;

    fn at(secs: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_secs(secs))
    }

    const KILLED: Loss = Loss::Exited(ExitStatus::Signal(9));
    const CRASHED: Loss = Loss::Exited(ExitStatus::Signal(11));

    #[test]
    fn a_server_that_was_of_use_is_back_at_once_however_often_it_dies() {
        let mut ladder = Ladder::new(None);
        for second in 0..200 {
            ladder.ready(at(second));
            assert_eq!(ladder.lost(&KILLED, at(second), 0), Step::Start(Duration::ZERO));
        }
    }

    #[test]
    fn a_server_that_is_never_of_use_is_given_up_and_tried_again_ever_more_seldom() {
        let mut ladder = Ladder::new(None);
        let mut steps = Vec::new();
        for _ in 0..8 {
            steps.push(match ladder.lost(&CRASHED, at(0), 0) {
                Step::Start(delay) => delay.as_millis(),
                Step::GiveUp { again, .. } => again.unwrap().as_millis(),
            });
        }
        assert_eq!(steps, [0, 250, 1000, 4000, 60_000, 120_000, 240_000, 300_000]);
        ladder.ready(at(1));
        assert_eq!(ladder.lost(&KILLED, at(2), 0), Step::Start(Duration::ZERO));
    }

    #[test]
    fn a_configured_policy_decides_alone() {
        let spec = ServiceSpec {
            restart_policy: RestartPolicy::FixedDelay { delay: Duration::from_secs(3) },
            restart_intensity: RestartIntensity::limited(
                2,
                Duration::from_secs(100),
                Some(BeyondIntensity::GiveUp),
            ),
            permanent_exit_codes: vec![78],
            ..ServiceSpec::new("a", "b").unwrap()
        };
        let mut ladder = Ladder::new(Some(spec));
        assert_eq!(ladder.lost(&KILLED, at(0), 0), Step::Start(Duration::from_secs(3)));
        assert_eq!(ladder.lost(&KILLED, at(1), 0), Step::Start(Duration::from_secs(3)));
        assert!(matches!(ladder.lost(&KILLED, at(2), 0), Step::GiveUp { again: None, .. }));
        let permanent = Loss::Exited(ExitStatus::Code(78));
        assert!(matches!(ladder.lost(&permanent, at(500), 0), Step::GiveUp { again: None, .. }));
    }
}
