//! When a lost server is started again.

use std::time::Duration;

use supervisor_core::Monotonic;
use supervisor_core::config::{BeyondIntensity, RestartOn, ServiceSpec};
use supervisor_core::policy::{
    IntensityWindow, SLOW_DELAY_BASE, SLOW_DELAY_MAX, jittered, slow_delay,
};
use supervisor_ipc::relay::Loss;

/// Delays while a server dies before it is of use.
const DELAYS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1)];
/// Such deaths in [`WINDOW`] after which restarts are spaced, and in a row after which a server that never had the
/// client's state is given up: the restart intensity of a service.
const FAILURES_MAX: u32 = 5;
const WINDOW: Duration = Duration::from_secs(180);
/// Kills in a row before it is of use that are put down to somebody else; further ones may be the system's, for want
/// of memory, and count as deaths.
const KILLS_MAX: u32 = 20;
/// Immediate restarts of a server that was of use, in [`QUICK_WINDOW`]; more are spaced by [`QUICK_SPACING`].
const QUICK_MAX: u32 = 20;
const QUICK_WINDOW: Duration = Duration::from_secs(10);
const QUICK_SPACING: Duration = Duration::from_secs(1);
/// What a server is sent to end it: SIGKILL and SIGTERM.
const KILLS: [i32; 2] = [9, 15];
/// Random part of a delay that may be cut from it.
const JITTER: f64 = 0.2;
/// Starts, as long as the last one that succeeded, a request that waits is left time for.
const START_MARGIN: u32 = 2;

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
/// because of the sum of its crashes. It was of use if it answered a request of the client, or was ready for
/// `stable_after`. Only deaths since then count, and of them those it died by itself.
#[derive(Debug)]
pub(super) struct Ladder {
    /// The service as it stands in a configuration file.
    configured: Option<ServiceSpec>,
    stable_after: Duration,
    /// Losses in a row without having been of use (or, when configured, without a stable stretch).
    failures: u32,
    /// Kills in a row without having been of use, put down to somebody else.
    kills: u32,
    beyond: u32,
    ever_ready: bool,
    started_at: Option<Monotonic>,
    ready_since: Option<Monotonic>,
    /// Whether the running server answered a request of the client.
    answered: bool,
    lost_at: Option<Monotonic>,
    /// From the start of a server until it was ready, the last time.
    start_time: Duration,
    window: IntensityWindow,
    quick: IntensityWindow,
}

impl Ladder {
    /// Makes the ladder of a server that is started the first time; `spec` decides when `by_policy`.
    pub(super) fn new(spec: &ServiceSpec, by_policy: bool) -> Self {
        let window = if by_policy {
            match spec.restart_intensity.resolve(&spec.restart_policy) {
                Some((max, window, _)) => IntensityWindow::new(max, window),
                None => IntensityWindow::new(u32::MAX, Duration::ZERO),
            }
        } else {
            IntensityWindow::new(FAILURES_MAX, WINDOW)
        };
        Self {
            configured: by_policy.then(|| spec.clone()),
            stable_after: spec.stable_after,
            failures: 0,
            kills: 0,
            beyond: 0,
            ever_ready: false,
            started_at: None,
            ready_since: None,
            answered: false,
            lost_at: None,
            start_time: Duration::ZERO,
            window,
            quick: IntensityWindow::new(QUICK_MAX, QUICK_WINDOW),
        }
    }

    /// A server is being started.
    pub(super) const fn started(&mut self, now: Monotonic) {
        (self.started_at, self.ready_since, self.answered) = (Some(now), None, false);
    }

    /// The server has the client's state and answers.
    pub(super) fn ready(&mut self, now: Monotonic) {
        self.ready_since = Some(now);
        self.ever_ready = true;
        if let Some(started) = self.started_at.take() {
            self.start_time = now.since(started);
        }
    }

    /// The running server answered a request of the client.
    pub(super) const fn answered(&mut self) {
        self.answered = true;
    }

    /// Tells whether [`answered`](Self::answered) says nothing new.
    pub(super) const fn has_answered(&self) -> bool {
        self.answered
    }

    /// Forgets what it holds against the server: somebody asked for a restart.
    pub(super) fn forgive(&mut self) {
        (self.failures, self.kills, self.beyond) = (0, 0, 0);
        (self.ready_since, self.lost_at) = (None, None);
        self.window.clear();
        self.quick.clear();
    }

    /// Gives when the start planned for `planned` is due while requests wait, the oldest until `held_until`.
    ///
    /// What a person feels of a pause is what they asked for meanwhile, so that a start that can still help comes
    /// before the pause is over, though never sooner than the shortest pause after the death.
    pub(super) fn due(&self, planned: Monotonic, held_until: Option<Monotonic>) -> Monotonic {
        let (Some(until), Some(lost), None) = (held_until, self.lost_at, &self.configured) else {
            return planned;
        };
        let last_chance = until - self.start_time.saturating_mul(START_MARGIN);
        planned.min(last_chance.max(lost + SLOW_DELAY_BASE))
    }

    /// Judges a loss.
    pub(super) fn lost(&mut self, loss: &Loss, now: Monotonic, random: u64) -> Step {
        let was_ready = self.ready_since.take();
        let answered = std::mem::replace(&mut self.answered, false);
        self.lost_at = Some(now);
        if let Some(spec) = self.configured.clone() {
            return self.by_policy(&spec, loss, was_ready, now, random);
        }
        if answered || was_ready.is_some_and(|since| now.since(since) >= self.stable_after) {
            return self.after_use(now, random);
        }
        let killed = matches!(loss, Loss::Exited(status) if status.signal().is_some_and(|signal| KILLS.contains(&signal)));
        if killed && self.failures == 0 && self.kills < KILLS_MAX {
            // It had not failed by itself: nothing says that the next start would.
            self.kills += 1;
            return Step::Start(Duration::ZERO);
        }
        self.after_no_use(loss, now, random)
    }

    fn after_use(&mut self, now: Monotonic, random: u64) -> Step {
        (self.failures, self.kills, self.beyond) = (0, 0, 0);
        self.window.clear();
        let full = self.quick.is_full(now);
        self.quick.note(now);
        Step::Start(if full { jittered(QUICK_SPACING, JITTER, random) } else { Duration::ZERO })
    }

    fn after_no_use(&mut self, loss: &Loss, now: Monotonic, random: u64) -> Step {
        self.failures = self.failures.saturating_add(1);
        let full = self.window.is_full(now);
        self.window.note(now);
        let died = format!("it died {} times in a row before it was of use", self.failures);
        if !self.ever_ready && self.failures >= FAILURES_MAX {
            return Step::GiveUp { reason: format!("{died} ({loss})"), again: None };
        }
        let index = (self.failures as usize - 1).min(DELAYS.len() - 1);
        let mut delay = DELAYS[index];
        if full {
            let slow = slow_delay(self.beyond);
            self.beyond = self.beyond.saturating_add(1);
            if slow >= SLOW_DELAY_MAX {
                // Restarts go on; but a request would wait in vain, and its error can say why at once.
                let reason = format!(
                    "{died} ({loss}); it is tried again every {} s, or at once when the client restarts its server",
                    slow.as_secs()
                );
                return Step::GiveUp { reason, again: Some(slow) };
            }
            delay = delay.max(slow);
        }
        Step::Start(jittered(delay, JITTER, random))
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

    fn unconfigured() -> Ladder {
        Ladder::new(&ServiceSpec::new("a", "b").unwrap(), false)
    }

    /// A ladder whose server was ready once, two seconds after its start, and of use.
    fn ever_ready() -> Ladder {
        let mut ladder = unconfigured();
        ladder.started(at(0));
        ladder.ready(at(2));
        ladder.answered();
        assert_eq!(ladder.lost(&KILLED, at(3), 0), Step::Start(Duration::ZERO));
        ladder
    }

    /// Millis until the next start after each of `count` deaths one second after the start; `true` if given up meanwhile.
    fn deaths(ladder: &mut Ladder, loss: &Loss, count: u32) -> Vec<(u128, bool)> {
        let mut now = at(10);
        let mut steps = Vec::new();
        for _ in 0..count {
            ladder.started(now);
            now = now + Duration::from_secs(1);
            let (delay, given_up) = match ladder.lost(loss, now, 0) {
                Step::Start(delay) => (delay, false),
                Step::GiveUp { again, .. } => (again.unwrap_or_default(), true),
            };
            steps.push((delay.as_millis(), given_up));
            now = now + delay;
        }
        steps
    }

    #[test]
    fn a_server_that_was_of_use_is_back_at_once_however_often_it_dies() {
        let mut ladder = unconfigured();
        for second in 0..200 {
            ladder.started(at(second));
            ladder.ready(at(second));
            ladder.answered();
            assert_eq!(ladder.lost(&CRASHED, at(second), 0), Step::Start(Duration::ZERO));
        }
    }

    #[test]
    fn a_server_that_stayed_ready_was_of_use_even_if_nobody_asked_it_anything() {
        let mut ladder = ever_ready();
        for minute in 1..20 {
            ladder.ready(at(minute * 100));
            assert_eq!(
                ladder.lost(&CRASHED, at(minute * 100 + 60), 0),
                Step::Start(Duration::ZERO)
            );
        }
    }

    #[test]
    fn deaths_before_use_are_spaced_by_a_second_doubling_to_thirty_beyond_five_and_restarts_go_on()
    {
        let mut ladder = ever_ready();
        let steps = deaths(&mut ladder, &CRASHED, 13);
        let spaced: Vec<_> = steps.iter().map(|(delay, _)| *delay).collect();
        let slow = [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000];
        assert_eq!(spaced[..5], [0, 250, 1000, 1000, 1000]);
        assert_eq!(spaced[5..], slow);
        assert_eq!(steps.iter().position(|(_, given_up)| *given_up), Some(10));
        ladder.started(at(1000));
        ladder.answered();
        assert_eq!(ladder.lost(&CRASHED, at(1001), 0), Step::Start(Duration::ZERO));
        assert_eq!(deaths(&mut ladder, &CRASHED, 2), [(0, false), (250, false)]);
    }

    #[test]
    fn being_ready_for_a_moment_is_no_use() {
        let mut ladder = ever_ready();
        let mut last = Duration::ZERO;
        for second in 10..18 {
            ladder.ready(at(second));
            match ladder.lost(&CRASHED, at(second), 0) {
                Step::Start(delay) => last = delay,
                step @ Step::GiveUp { .. } => panic!("{step:?}"),
            }
        }
        assert_eq!(last, Duration::from_secs(4));
    }

    #[test]
    fn a_server_that_was_never_ready_is_given_up_after_five_deaths() {
        let steps = deaths(&mut unconfigured(), &CRASHED, 5);
        assert_eq!(steps, [(0, false), (250, false), (1000, false), (1000, false), (0, true)]);
    }

    #[test]
    fn kills_during_starts_are_no_crash_loop_until_there_are_very_many() {
        for kill in [9, 15] {
            let killed = Loss::Exited(ExitStatus::Signal(kill));
            let steps = deaths(&mut ever_ready(), &killed, 30);
            assert_eq!(steps.iter().filter(|step| **step == (0, false)).count(), 21, "{steps:?}");
            assert_eq!(
                steps[21..27].iter().map(|(delay, _)| *delay).collect::<Vec<_>>(),
                [250, 1000, 1000, 1000, 1000, 2000]
            );
        }
        // One that had failed by itself before is not excused.
        let mut ladder = ever_ready();
        ladder.lost(&CRASHED, at(5), 0);
        assert_eq!(ladder.lost(&KILLED, at(6), 0), Step::Start(Duration::from_millis(250)));
    }

    #[test]
    fn a_spaced_start_comes_early_enough_for_the_oldest_request_that_waits_but_not_without_a_pause()
    {
        let mut ladder = ever_ready();
        ladder.lost(&CRASHED, at(100), 0);
        let planned = at(116);
        assert_eq!(ladder.due(planned, None), planned);
        assert_eq!(ladder.due(planned, Some(at(130))), planned);
        // Twice the two seconds its start took.
        assert_eq!(ladder.due(planned, Some(at(110))), at(106));
        for too_late in [0, 100, 101, 104] {
            assert_eq!(ladder.due(planned, Some(at(too_late))), at(101));
        }
        assert_eq!(ladder.due(at(100), Some(at(110))), at(100));
    }

    #[test]
    fn whatever_dies_one_start_falls_within_the_time_a_request_waits() {
        let hold = Duration::from_secs(30);
        let mut ladder = ever_ready();
        let mut now = at(10);
        // Up to where the client is told that no server is there, and nothing waits any more.
        for _ in 0..10 {
            now = now + Duration::from_secs(1);
            let Step::Start(delay) = ladder.lost(&CRASHED, now, 0) else {
                panic!("given up");
            };
            // Asked up to 27 s before the death, which leaves the shortest pause and the start, or during the pause.
            let asked_before = (0..=27).map(|before| now + hold - Duration::from_secs(before));
            let asked_after =
                (0..=delay.as_secs()).map(|after| now + hold + Duration::from_secs(after));
            for until in asked_before.chain(asked_after) {
                let due = ladder.due(now + delay, Some(until));
                assert!(due + ladder.start_time <= until, "{due:?} {until:?}");
            }
            now = now + delay;
        }
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
        let mut ladder = Ladder::new(&spec, true);
        assert_eq!(ladder.lost(&KILLED, at(0), 0), Step::Start(Duration::from_secs(3)));
        assert_eq!(ladder.lost(&KILLED, at(1), 0), Step::Start(Duration::from_secs(3)));
        assert!(matches!(ladder.lost(&KILLED, at(2), 0), Step::GiveUp { again: None, .. }));
        let permanent = Loss::Exited(ExitStatus::Code(78));
        assert!(matches!(ladder.lost(&permanent, at(500), 0), Step::GiveUp { again: None, .. }));
    }
}
