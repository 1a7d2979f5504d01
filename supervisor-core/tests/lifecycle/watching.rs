//! Named histories of health: who is blamed, and who is not.

use std::time::Duration;

use supervisor_core::Signal;
use supervisor_core::config::{ProbeKind, ProbeRole, ProbeSpec, ServiceSpec};
use supervisor_core::event::EventKind;
use supervisor_core::exit::{ExitReason, ExitStatus};
use supervisor_core::lifecycle::{Command, DUMP_WAIT, Event, Notification};
use supervisor_core::state::Phase;

use super::world::World;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn watched(kind: ProbeKind) -> ServiceSpec {
    let probe = ProbeSpec {
        period: Some(secs(1)),
        failure_threshold: 2,
        ..ProbeSpec::new(ProbeRole::Liveness, kind)
    };
    ServiceSpec {
        restart_jitter: Some(0.0),
        probes: vec![probe],
        ..ServiceSpec::new("svc", "program").unwrap()
    }
}

#[test]
fn a_service_that_is_late_because_the_host_is_overloaded_is_not_restarted_and_one_that_stays_late_after_it_is()
 {
    for kind in [ProbeKind::Process, ProbeKind::Heartbeat] {
        let mut world = World::new(watched(kind));
        world.command(Command::Start);
        world.habits.probes_pass = false;
        world.habits.host_overloaded = true;
        world.pass(secs(120));
        assert_eq!(world.starts.len(), 1, "{kind:?}");
        let state = world.machine.state();
        assert_eq!(state.phase, Phase::Unhealthy);
        assert!(state.reason.contains("others use it all"), "{}", state.reason);
        let degraded = |event: &EventKind| matches!(event, EventKind::ServiceDegraded { .. });
        assert!(world.published.iter().any(degraded));
        world.habits.host_overloaded = false;
        world.pass(secs(5));
        assert_eq!(world.starts.len(), 2, "{kind:?}");
        assert_eq!(world.machine.state().last_exit.unwrap().reason, ExitReason::Hang);
    }
}

#[test]
fn a_service_that_answers_again_while_its_hang_is_weighed_is_left_alone() {
    let mut world = World::new(watched(ProbeKind::Process));
    world.command(Command::Start);
    world.pass(secs(3));
    let incarnation = world.machine.incarnation();
    let answer = |passed| Event::ProbeCompleted {
        incarnation,
        probe: 0,
        passed,
        detail: "answer".into(),
        latency: Duration::from_millis(1),
    };
    let asked = |world: &mut World, passed| {
        let due = world.machine.next_deadline().unwrap().since_origin();
        world.time = world.time.max(due);
        let now = world.now();
        drop(world.machine.step(now, Event::Tick));
        world.machine.step(now, answer(passed))
    };
    drop(asked(&mut world, false));
    drop(asked(&mut world, false));
    assert!(world.machine.state().reason.contains("liveness lost"), "{:?}", world.machine.state());
    drop(asked(&mut world, true));
    let verdict = Event::HangWeighed { incarnation, probe: 0, doubt: None };
    let effects = world.machine.step(world.now(), verdict);
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(world.machine.phase(), Phase::Running);
}

#[test]
fn a_hang_nobody_weighs_is_believed_after_five_seconds() {
    let mut world = World::new(watched(ProbeKind::Heartbeat));
    world.command(Command::Start);
    let (started, now) = (world.time, |time: Duration| super::world::at(time));
    // Two silent seconds, and nobody answers the question.
    for silent in 1..=2 {
        drop(world.machine.step(now(started + secs(silent)), Event::Tick));
    }
    assert_eq!(world.machine.phase(), Phase::Unhealthy);
    for silent in 3..=7 {
        drop(world.machine.step(now(started + secs(silent)), Event::Tick));
    }
    assert_eq!(world.machine.phase(), Phase::Stopping);
    assert!(world.machine.state().reason.starts_with("hang"), "{:?}", world.machine.state());
}

#[test]
fn a_service_that_hangs_is_asked_for_its_stacks_a_second_before_it_is_asked_to_stop() {
    let mut spec = watched(ProbeKind::Process);
    spec.dump_signal = Some(Signal::Quit);
    let mut world = World::new(spec);
    world.habits.ignores_signals = true;
    world.command(Command::Start);
    world.habits.probes_pass = false;
    world.pass(secs(30));
    let sent: Vec<_> = world
        .signals
        .iter()
        .filter(|(of, signal, _)| of.get() == 1 && *signal != Signal::Cont)
        .map(|(_, signal, at)| (*signal, *at))
        .collect();
    assert_eq!(
        sent.iter().map(|(signal, _)| *signal).collect::<Vec<_>>(),
        [Signal::Quit, Signal::Term]
    );
    assert_eq!(sent[1].1 - sent[0].1, DUMP_WAIT);
    // An ordinary stop asks for no stacks.
    world.habits = super::world::Habits { ignores_signals: true, ..Default::default() };
    world.pass(secs(60));
    let before = world.signals.len();
    world.command(Command::Stop);
    world.pass(secs(20));
    assert!(world.signals[before..].iter().all(|(_, signal, _)| *signal != Signal::Quit));
}

#[test]
fn a_service_may_ask_for_more_time_to_start_and_to_stop() {
    let startup = ProbeSpec::new(ProbeRole::Startup, ProbeKind::Heartbeat);
    let mut spec = watched(ProbeKind::Process);
    spec.probes = vec![startup];
    spec.health_check_timeout = secs(30);
    let mut world = World::new(spec);
    world.habits.ignores_signals = true;
    world.command(Command::Start);
    let extend = |world: &mut World, by| {
        let incarnation = world.machine.incarnation();
        let notification = Notification::ExtendTimeout(by);
        world.feed(Event::Notified { incarnation, notification });
    };
    world.pass(secs(29));
    extend(&mut world, secs(60));
    world.pass(secs(59));
    assert_eq!(world.machine.phase(), Phase::Starting);
    let incarnation = world.machine.incarnation();
    world.feed(Event::Notified { incarnation, notification: Notification::Ready });
    assert_eq!(world.machine.phase(), Phase::Running);
    world.command(Command::Stop);
    world.pass(secs(9));
    extend(&mut world, secs(20));
    world.pass(secs(19));
    assert!(world.kills.is_empty(), "its grace period was extended");
    world.pass(secs(1));
    assert_eq!(world.kills.len(), 1);
}

#[test]
fn what_a_service_says_of_itself_never_hides_what_is_being_done_about_it() {
    let mut world = World::new(watched(ProbeKind::Process));
    world.habits.ignores_signals = true;
    world.command(Command::Start);
    let say = |world: &mut World, notification| {
        let incarnation = world.machine.incarnation();
        world.feed(Event::Notified { incarnation, notification });
    };
    say(&mut world, Notification::Status("indexing 40 %\u{1b}[31m".into()));
    assert_eq!(world.machine.state().reason, "up; it says: indexing 40 %[31m");
    world.command(Command::Stop);
    let why = world.machine.state().reason;
    assert_eq!(why, "stop requested; SIGTERM sent, kill in 10s");
    say(&mut world, Notification::Status("all is well".into()));
    say(&mut world, Notification::Stopping);
    assert_eq!(world.machine.state().reason, why);
}

fn lose_channel(world: &mut World, silent: bool) {
    let incarnation = world.machine.incarnation();
    world.feed(Event::ChannelLost { incarnation, silent, reason: "svc: it is gone".into() });
}

fn last_reason(world: &World) -> ExitReason {
    world.machine.state().last_exit.unwrap().reason
}

#[test]
fn a_service_whose_channel_fell_silent_is_restarted_once_as_a_hang_that_names_the_channel() {
    // Its liveness probe finds out at the same time.
    let mut world = World::new(watched(ProbeKind::Process));
    world.command(Command::Start);
    world.habits.probes_pass = false;
    world.pass(secs(1));
    lose_channel(&mut world, true);
    lose_channel(&mut world, true);
    world.habits.probes_pass = true;
    world.pass(secs(60));
    assert_eq!((world.starts.len(), last_reason(&world)), (2, ExitReason::Hang));
    let restarted = world.published.iter().find_map(|event| match event {
        EventKind::ServiceRestarted { reason, .. } => Some(reason.as_str()),
        _ => None,
    });
    assert_eq!(restarted, Some("hang: svc: it is gone"));
}

#[test]
fn a_service_that_lives_on_without_its_channel_is_ended_and_one_that_ends_is_judged_by_its_own_end()
{
    let mut world = World::new(watched(ProbeKind::Process));
    world.command(Command::Start);
    lose_channel(&mut world, false);
    world.pass(Duration::from_millis(900));
    assert_eq!(world.machine.phase(), Phase::Running, "its own end is waited for");
    world.pass(secs(60));
    assert_eq!((world.starts.len(), last_reason(&world)), (2, ExitReason::ChannelLost));
    lose_channel(&mut world, false);
    world.pass(Duration::from_millis(100));
    world.exit(ExitStatus::Code(3));
    assert_eq!(last_reason(&world), ExitReason::Crash);
    world.pass(secs(60));
    assert_eq!(world.starts.len(), 3, "and nothing of the wait is left");
}

#[test]
fn a_channel_that_ends_with_a_stop_is_no_reason_for_a_restart() {
    let mut world = World::new(watched(ProbeKind::Process));
    world.habits.ignores_signals = true;
    world.command(Command::Start);
    lose_channel(&mut world, false);
    world.command(Command::Stop);
    lose_channel(&mut world, false);
    lose_channel(&mut world, true);
    world.pass(secs(60));
    assert_eq!((world.starts.len(), world.machine.phase()), (1, Phase::Stopped));
}
