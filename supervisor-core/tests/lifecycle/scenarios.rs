//! Named histories: what a reader of the vocabulary expects of each phase.

use std::sync::Arc;
use std::time::Duration;

use supervisor_core::config::{
    BeyondIntensity, BeyondLimit, ProbeKind, ProbeRole, ProbeSpec, RestartIntensity, RestartOn,
    RestartPolicy, ServiceSpec,
};
use supervisor_core::error::SpawnErrorKind;
use supervisor_core::event::EventKind;
use supervisor_core::exit::{ExitReason, ExitStatus};
use supervisor_core::lifecycle::{
    Ceiling, Command, CommandFailure, Event, Lifecycle, Notification,
};
use supervisor_core::state::Phase;

use super::world::World;

fn spec() -> ServiceSpec {
    ServiceSpec { restart_jitter: Some(0.0), ..ServiceSpec::new("svc", "program").unwrap() }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn last_reason(world: &World) -> ExitReason {
    world.machine.state().last_exit.expect("an exit").reason
}

#[test]
fn a_crash_waits_its_backoff_and_starts_a_new_incarnation() {
    let mut world = World::new(spec());
    world.command(Command::Start);
    world.exit(ExitStatus::Signal(9));
    let state = world.machine.state();
    assert_eq!(state.phase, Phase::Backoff);
    assert!(
        state.next_restart_at.is_some() && state.reason.contains("restarting in 1s"),
        "{}",
        state.reason
    );
    world.pass(Duration::from_millis(999));
    assert_eq!(world.starts.len(), 1);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.starts.len(), 2);
    assert_eq!(world.machine.state().restarts, 1);
    assert!(
        world
            .published
            .iter()
            .any(|event| matches!(event, EventKind::ServiceRestarted { restarts: 1, .. }))
    );
}

#[test]
fn delays_double_until_stable_and_then_start_over() {
    let mut world = World::new(spec());
    world.command(Command::Start);
    let mut delays = Vec::new();
    for _ in 0..3 {
        let died = world.time;
        world.exit(ExitStatus::Code(1));
        world.pass(secs(10));
        delays.push((world.starts.last().unwrap().1 - died).as_secs());
    }
    assert_eq!(delays, [1, 2, 4]);
    world.pass(secs(60));
    let died = world.time;
    world.exit(ExitStatus::Code(1));
    world.pass(secs(10));
    assert_eq!((world.starts.last().unwrap().1 - died).as_secs(), 1);
}

#[test]
fn attempts_used_up_give_the_service_up_and_half_open_tries_once_more() {
    let mut world = World::new(ServiceSpec {
        restart_policy: RestartPolicy::ExponentialBackoff {
            base_delay: secs(1),
            max_delay: secs(1),
            max_attempts: 2,
        },
        half_open_after: Some(secs(300)),
        critical: true,
        ..spec()
    });
    world.command(Command::Start);
    for _ in 0..3 {
        world.exit(ExitStatus::Code(1));
        world.pass(secs(2));
    }
    assert_eq!(world.machine.phase(), Phase::Failed);
    assert!(world.trace.iter().any(|line| line.contains("gave up critical=true")));
    assert!(
        world.machine.state().reason.contains("one more try in 5m"),
        "{}",
        world.machine.state().reason
    );
    world.pass(secs(300));
    assert_eq!(world.machine.phase(), Phase::Running);
}

#[test]
fn always_restarts_at_once_then_slows_beyond_the_intensity_and_never_gives_up() {
    let mut world = World::new(ServiceSpec { restart_policy: RestartPolicy::Always, ..spec() });
    world.command(Command::Start);
    let mut delays = Vec::new();
    for _ in 0..12 {
        let died = world.time;
        world.exit(ExitStatus::Code(1));
        world.pass(secs(31));
        delays.push((world.starts.last().unwrap().1 - died).as_secs());
        world.time = world.starts.last().unwrap().1;
    }
    assert_eq!(delays, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 30, 30]);
}

#[test]
fn a_completed_one_shot_is_stopped_and_a_failed_one_is_failed() {
    for (code, phase) in [(0, Phase::Stopped), (1, Phase::Failed)] {
        let mut world = World::new(ServiceSpec { restart_policy: RestartPolicy::Never, ..spec() });
        world.command(Command::Start);
        world.exit(ExitStatus::Code(code));
        assert_eq!(world.machine.phase(), phase);
    }
}

#[test]
fn exit_codes_decide_between_success_failure_and_for_good() {
    let base = ServiceSpec {
        restart_on: RestartOn::Failure,
        success_exit_codes: vec![0, 3],
        permanent_exit_codes: vec![78],
        ..spec()
    };
    for (code, phase) in [(3, Phase::Stopped), (1, Phase::Backoff), (78, Phase::Failed)] {
        let mut world = World::new(base.clone());
        world.command(Command::Start);
        world.exit(ExitStatus::Code(code));
        assert_eq!(world.machine.phase(), phase, "code {code}");
    }
}

#[test]
fn a_program_that_is_missing_fails_at_once_with_the_reason() {
    let mut world = World::new(spec());
    world.habits.spawn_error = Some(SpawnErrorKind::NotFound);
    let id = world.command(Command::Start);
    assert_eq!(world.machine.phase(), Phase::Failed);
    let (_, result) = world.replies.iter().find(|(of, _)| *of == id).unwrap();
    assert!(matches!(
        result,
        Err(CommandFailure::SpawnFailed { kind: SpawnErrorKind::NotFound, .. })
    ));
}

#[test]
fn lack_of_resources_burns_no_attempt() {
    let mut world = World::new(spec());
    world.habits.spawn_error = Some(SpawnErrorKind::ResourceExhausted);
    world.command(Command::Start);
    world.pass(secs(60));
    assert_eq!(world.machine.state().attempt, 0);
    assert!(world.starts.len() > 10);
    world.habits.spawn_error = None;
    world.pass(secs(5));
    assert_eq!(world.machine.phase(), Phase::Running);
}

#[test]
fn starts_that_lacked_resources_count_as_no_restarts() {
    let mut spec = spec();
    spec.restart_policy = RestartPolicy::Always;
    let (max, window) = (2, secs(180));
    spec.restart_intensity = RestartIntensity::limited(max, window, Some(BeyondIntensity::GiveUp));
    let mut world = World::new(spec);
    world.command(Command::Start);
    world.habits.spawn_error = Some(SpawnErrorKind::ResourceExhausted);
    world.exit(ExitStatus::Code(1));
    world.pass(secs(60));
    assert!(world.starts.len() > 10, "it is tried again and again");
    world.habits.spawn_error = None;
    world.pass(secs(10));
    assert_eq!(world.machine.phase(), Phase::Running);
    assert_eq!(
        world.machine.state().restarts,
        1,
        "the crash was one restart, however long it took"
    );
    world.exit(ExitStatus::Code(1));
    assert_eq!(world.machine.phase(), Phase::Running, "{}", world.machine.state().reason);
}

#[test]
fn a_first_start_that_lacked_resources_is_no_restart_however_often_it_is_tried() {
    let mut world = World::new(spec());
    world.habits.spawn_error = Some(SpawnErrorKind::ResourceExhausted);
    world.command(Command::Start);
    world.pass(secs(60));
    let stored = world.stored.clone().unwrap();
    let mut next = World::new(spec());
    next.time = world.time;
    next.machine = Lifecycle::restore(Arc::new(spec()), secs(5), 7, world.now(), &stored).unwrap();
    // In the same supervisor, and in the next one after a crash.
    for mut world in [world, next] {
        world.habits.spawn_error = None;
        world.pass(secs(10));
        let state = world.machine.state();
        assert_eq!((state.phase, state.restarts, state.attempt), (Phase::Running, 0, 0));
        assert!(state.recent_restarts.is_empty());
        let restarted =
            world.published.iter().any(|event| matches!(event, EventKind::ServiceRestarted { .. }));
        assert!(!restarted, "nothing ran before");
        world.exit(ExitStatus::Code(1));
        world.pass(secs(10));
        assert_eq!(world.machine.state().restarts, 1, "a crash after it is one");
    }
}

#[test]
fn a_stop_signals_waits_its_grace_and_kills() {
    let mut world = World::new(spec());
    world.habits.ignores_signals = true;
    world.command(Command::Start);
    let id = world.command(Command::Stop);
    world.pass(Duration::from_millis(9_999));
    assert_eq!(world.machine.phase(), Phase::Stopping);
    assert!(world.kills.is_empty());
    world.pass(Duration::from_millis(1));
    assert_eq!(world.machine.phase(), Phase::Stopped);
    assert!(world.replies.contains(&(id, Ok(()))));
    assert_eq!(world.machine.state().last_exit.unwrap().status, Some(ExitStatus::Signal(9)));
}

#[test]
fn a_leader_that_leaves_does_not_cut_the_grace_of_its_set_short() {
    let mut world = World::new(spec());
    world.habits.leaves_grandchild = true;
    world.command(Command::Start);
    world.command(Command::Stop);
    world.pass(secs(9));
    assert_eq!(world.machine.phase(), Phase::Stopping, "the grandchild is still there");
    world.pass(secs(1));
    assert_eq!(world.machine.phase(), Phase::Stopped);
    assert_eq!(world.kills.len(), 1);
}

#[test]
fn a_second_stop_kills_at_once() {
    let mut world = World::new(spec());
    world.habits.ignores_signals = true;
    world.command(Command::Start);
    world.command(Command::Stop);
    world.command(Command::Stop);
    assert_eq!(world.machine.phase(), Phase::Stopped);
    assert_eq!(world.replies.len(), 3);
}

#[test]
fn a_stop_during_backoff_cancels_the_restart() {
    let mut world = World::new(spec());
    world.command(Command::Start);
    world.exit(ExitStatus::Code(1));
    world.command(Command::Stop);
    world.pass(secs(3600));
    assert_eq!(world.starts.len(), 1);
    assert_eq!(world.machine.phase(), Phase::Stopped);
}

#[test]
fn a_crashed_leader_is_not_replaced_before_its_set_is_empty() {
    let mut world = World::new(spec());
    world.habits.leaves_grandchild = true;
    world.command(Command::Start);
    world.exit(ExitStatus::Code(1));
    assert_eq!(world.kills.len(), 1);
    assert_eq!(world.machine.phase(), Phase::Backoff);
    assert_eq!(last_reason(&world), ExitReason::Crash);
}

#[test]
fn what_survives_a_kill_is_reported_and_nothing_takes_its_place() {
    let mut world = World::new(spec());
    world.habits.ignores_signals = true;
    world.habits.unkillable = true;
    world.command(Command::Start);
    let stop = world.command(Command::Stop);
    world.pass(secs(11));
    assert_eq!(world.machine.phase(), Phase::Failed);
    let failed = world
        .replies
        .iter()
        .any(|(id, r)| *id == stop && matches!(r, Err(CommandFailure::Unkillable { .. })));
    assert!(failed);
    let start = world.command(Command::Start);
    assert!(world.replies.iter().any(|(id, r)| *id == start && r.is_err()));
    assert_eq!(world.starts.len(), 1);
    world.habits.unkillable = false;
    world.pass(secs(10));
    assert_eq!(world.live, None);
    assert_eq!(world.machine.phase(), Phase::Stopped);
}

#[test]
fn startup_gates_the_other_probes_and_losing_it_restarts() {
    let probe =
        |role| ProbeSpec { period: Some(secs(1)), ..ProbeSpec::new(role, ProbeKind::Process) };
    let mut world = World::new(ServiceSpec {
        probes: vec![
            probe(ProbeRole::Startup),
            probe(ProbeRole::Readiness),
            probe(ProbeRole::Liveness),
        ],
        ..spec()
    });
    world.habits.probes_pass = false;
    world.command(Command::Start);
    assert_eq!(world.machine.phase(), Phase::Starting);
    let asked: Vec<_> =
        world.trace.iter().filter(|line| line.contains("probe #")).cloned().collect();
    assert_eq!(asked, ["  probe #1 0"]);
    world.pass(secs(2));
    assert_eq!(world.machine.phase(), Phase::Backoff);
    assert_eq!(last_reason(&world), ExitReason::StartTimeout);
    world.habits.probes_pass = true;
    world.pass(secs(3));
    assert_eq!(world.machine.phase(), Phase::Running);
    assert!(world.machine.state().ready);
}

#[test]
fn lost_liveness_is_said_first_then_diagnosed_then_stopped_as_a_hang() {
    let mut world = World::new(ServiceSpec {
        probes: vec![ProbeSpec {
            period: Some(secs(1)),
            ..ProbeSpec::new(ProbeRole::Liveness, ProbeKind::Process)
        }],
        ..spec()
    });
    world.command(Command::Start);
    world.pass(secs(5));
    world.habits.probes_pass = false;
    world.pass(secs(1));
    assert_eq!(world.machine.phase(), Phase::Unhealthy);
    assert!(world.published.iter().any(|event| matches!(event, EventKind::ServiceDegraded { .. })));
    world.habits.probes_pass = true;
    world.pass(secs(1));
    assert_eq!(world.machine.phase(), Phase::Running);
    world.habits.probes_pass = false;
    world.pass(secs(3));
    assert_eq!(last_reason(&world), ExitReason::Hang);
    assert!(world.trace.iter().any(|line| line.contains("diagnose #1")));
    let cont = world.trace.iter().position(|line| line.contains("SIGCONT"));
    assert!(cont.is_some(), "a suspended process must be resumed to see its stop signal");
}

#[test]
fn a_missed_heartbeat_is_a_hang_and_a_reported_one_is_not() {
    let probe = ProbeSpec {
        period: Some(secs(1)),
        failure_threshold: 2,
        ..ProbeSpec::new(ProbeRole::Liveness, ProbeKind::Heartbeat)
    };
    let mut world = World::new(ServiceSpec { probes: vec![probe], ..spec() });
    world.command(Command::Start);
    for _ in 0..10 {
        let incarnation = world.machine.incarnation();
        world.feed(Event::Notified { incarnation, notification: Notification::Watchdog });
        world.pass(secs(1));
    }
    assert_eq!(world.starts.len(), 1);
    world.pass(secs(3));
    assert_eq!(last_reason(&world), ExitReason::Hang);
}

#[test]
fn readiness_by_heartbeat_waits_for_the_word() {
    let probe = ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Heartbeat);
    let mut world = World::new(ServiceSpec { probes: vec![probe], ..spec() });
    world.command(Command::Start);
    world.pass(secs(60));
    assert!(!world.machine.state().ready);
    let incarnation = world.machine.incarnation();
    world.feed(Event::Notified { incarnation, notification: Notification::Ready });
    assert!(world.machine.state().ready);
}

#[test]
fn a_ceiling_exceeded_is_restarted_with_that_reason() {
    let mut base = spec();
    base.limits.beyond = BeyondLimit::Restart;
    let mut world = World::new(base);
    world.command(Command::Start);
    let incarnation = world.machine.incarnation();
    world.feed(Event::LimitExceeded {
        incarnation,
        ceiling: Ceiling::Memory,
        detail: "3 GiB of 2 GiB".into(),
    });
    assert_eq!(last_reason(&world), ExitReason::MemoryLimit);
    assert_eq!(world.machine.phase(), Phase::Backoff);
}

#[test]
fn a_restart_while_stopping_wins_and_a_stop_after_it_wins_again() {
    let mut world = World::new(spec());
    world.habits.ignores_signals = true;
    world.command(Command::Start);
    world.command(Command::Stop);
    world.command(Command::Restart);
    world.pass(secs(10));
    assert_eq!(world.machine.phase(), Phase::Running);
    assert_eq!(world.starts.len(), 2);
    world.command(Command::Restart);
    world.command(Command::Stop);
    world.pass(secs(10));
    assert_eq!(world.machine.phase(), Phase::Stopped);
    assert_eq!(world.starts.len(), 2);
}

#[test]
fn a_set_found_empty_before_its_leaders_end_is_known_waits_for_the_exit_status() {
    let mut world = World::new(spec());
    world.habits.ignores_signals = true;
    world.habits.unkillable = true;
    world.command(Command::Start);
    world.command(Command::Stop);
    let incarnation = world.machine.incarnation();
    let now = world.now();
    let early = world.machine.step(now, Event::SetKilled { incarnation, survivors: Vec::new() });
    assert!(early.is_empty(), "{early:?}");
    assert_eq!(world.machine.phase(), Phase::Stopping);
    let status = ExitStatus::Signal(9);
    let exited = Event::Exited { incarnation, status, set_empty: false, last_lines: Vec::new() };
    assert!(!world.machine.step(now, exited).is_empty());
    assert_eq!(world.machine.phase(), Phase::Stopped);
    assert_eq!(world.machine.state().last_exit.unwrap().status, Some(status));
}
