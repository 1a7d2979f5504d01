//! Named histories of coming back: after giving up, after a crash of the supervisor, across jumps of either clock.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use supervisor_core::config::{RestartPolicy, ServiceSpec};
use supervisor_core::exit::ExitStatus;
use supervisor_core::lifecycle::{Command, Event, Lifecycle, Now};
use supervisor_core::state::{Phase, ServiceState};

use super::world::{World, twice};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn spec() -> ServiceSpec {
    ServiceSpec { half_open_after: Some(secs(300)), ..twice() }
}

fn given_up() -> World {
    let mut world = World::new(spec());
    world.command(Command::Start);
    for _ in 0..3 {
        world.exit(ExitStatus::Code(1));
        world.pass(secs(2));
    }
    assert_eq!(world.machine.phase(), Phase::Failed);
    world
}

/// A supervisor that took over at `now` with what the one before it stored.
fn successor(world: &World, now: Now, stored: &ServiceState) -> World {
    let mut next = World::new(world.machine.spec().as_ref().clone());
    next.time = now.monotonic.since_origin();
    next.machine =
        Lifecycle::restore(Arc::clone(world.machine.spec()), secs(5), 7, now, stored).unwrap();
    next
}

#[test]
fn giving_up_says_when_the_next_try_is_and_the_budget_is_asked_before_it() {
    let mut world = given_up();
    let state = world.machine.state();
    let due = state.next_restart_at.expect("when");
    assert_eq!((due - state.since).num_seconds(), 300);
    world.habits.budget_delays = true;
    world.pass(secs(298));
    assert_eq!(
        world.machine.phase(),
        Phase::Backoff,
        "many that gave up together do not come back together"
    );
    world.pass(secs(1));
    assert_eq!(world.machine.phase(), Phase::Running);
}

#[test]
fn a_try_that_fails_gives_up_again_and_tries_again_until_the_cure() {
    let mut world = given_up();
    for _ in 0..3 {
        world.pass(secs(301));
        assert_eq!(world.machine.phase(), Phase::Running);
        world.exit(ExitStatus::Code(1));
        assert_eq!(world.machine.phase(), Phase::Failed);
    }
    world.pass(secs(300));
    world.pass(secs(120));
    assert_eq!(world.machine.phase(), Phase::Running);
    assert_eq!(world.machine.state().attempt, 0, "stable again");
}

#[test]
fn a_retry_after_giving_up_survives_a_crash_of_the_supervisor() {
    let world = given_up();
    let stored = world.stored.clone().unwrap();
    let mut now = world.now();
    now.wall += TimeDelta::seconds(200);
    let mut next = successor(&world, now, &stored);
    assert_eq!(next.machine.phase(), Phase::Failed);
    next.pass(secs(97));
    assert!(next.starts.is_empty());
    next.pass(secs(3));
    assert_eq!(next.starts.len(), 1);
}

#[test]
fn the_spacing_beyond_the_intensity_survives_a_crash_of_the_supervisor() {
    let mut world = World::new(ServiceSpec { restart_policy: RestartPolicy::Always, ..spec() });
    world.command(Command::Start);
    for _ in 0..9 {
        world.exit(ExitStatus::Code(1));
        world.pass(secs(20));
    }
    let stored = world.stored.clone().unwrap();
    assert_eq!(stored.slow_step, 4);
    let mut next = successor(&world, world.now(), &stored);
    next.feed(Event::FoundGone { status: None });
    let died = next.time;
    next.exit(ExitStatus::Code(1));
    next.pass(secs(60));
    assert_eq!(next.starts.last().unwrap().1 - died, secs(16));
}

#[test]
fn a_wall_clock_a_day_off_moves_no_restart_and_skips_none() {
    for day in [TimeDelta::days(1), TimeDelta::days(-1)] {
        // While it waits: the monotonic clock alone decides.
        let mut world = World::new(spec());
        world.command(Command::Start);
        world.exit(ExitStatus::Code(1));
        let mut later = world.now();
        later.wall += day;
        drop(world.machine.step(later, Event::Tick));
        assert_eq!(world.machine.phase(), Phase::Backoff);
        world.pass(secs(1));
        assert_eq!(world.machine.phase(), Phase::Running);
        // Across a crash of the supervisor: at most its whole delay away, whatever the clock says.
        world.exit(ExitStatus::Code(1));
        let stored = world.stored.clone().unwrap();
        let mut now = world.now();
        now.wall += day;
        let mut next = successor(&world, now, &stored);
        next.pass(secs(31));
        assert_eq!(next.starts.len(), 1, "{day}");
    }
}

#[test]
fn a_sleep_of_the_host_during_a_backoff_a_start_and_a_stop_harms_nobody() {
    // A clock that counts the sleep; one that does not sees nothing at all.
    let sleep = secs(600);
    let mut world = World::new(spec());
    world.command(Command::Start);
    world.exit(ExitStatus::Code(1));
    world.jump(sleep);
    assert_eq!(world.starts.len(), 2, "one restart that is due, no burst");
    world.habits.ignores_signals = true;
    world.command(Command::Stop);
    world.jump(sleep);
    assert!(world.kills.is_empty(), "who slept as we did gets a moment to end");
    world.pass(secs(2));
    assert_eq!(world.kills.len(), 1);
    assert_eq!(world.machine.phase(), Phase::Stopped);
}

fn dependent() -> World {
    let mut spec = spec();
    spec.depends_on = serde_json::from_str(r#"[{"id":"other"}]"#).unwrap();
    let mut world = World::new(spec);
    world.command(Command::Start);
    assert_eq!(world.machine.phase(), Phase::Running);
    world
}

fn fell(world: &mut World) {
    world.habits.dependencies_silent = true;
    world.feed(Event::DependencyFailed { cause: "other: gone".into() });
    assert_eq!(world.machine.phase(), Phase::Failed);
    assert!(world.machine.state().felled);
}

#[test]
fn a_service_that_fell_with_its_dependency_waits_for_all_of_them_again_once_that_is_back() {
    for crashed in [false, true] {
        let mut world = dependent();
        if crashed {
            world.exit(ExitStatus::Code(1));
            assert_eq!(world.machine.phase(), Phase::Backoff);
        }
        fell(&mut world);
        world.pass(secs(3600));
        assert_eq!(world.machine.phase(), Phase::Failed, "nothing else brings it back");
        world.feed(Event::DependencyBack);
        let state = world.machine.state();
        assert_eq!((state.phase, state.felled), (Phase::Registered, false));
        assert!(state.reason.starts_with("waiting for other"), "{}", state.reason);
        world.feed(Event::DependenciesMet);
        assert_eq!(world.machine.phase(), Phase::Running);
        assert_eq!(world.machine.state().restarts, 0, "what was not its doing is no restart of it");
    }
}

#[test]
fn what_was_stopped_or_given_up_for_its_own_sake_does_not_come_back_with_a_dependency() {
    let mut world = dependent();
    fell(&mut world);
    world.command(Command::Stop);
    world.feed(Event::DependencyBack);
    assert_eq!(world.machine.phase(), Phase::Stopped);
    let mut world = given_up();
    world.feed(Event::DependencyBack);
    assert_eq!(world.machine.phase(), Phase::Failed);
    let mut world = dependent();
    world.feed(Event::DependencyBack);
    assert_eq!((world.machine.phase(), world.starts.len()), (Phase::Running, 1));
}

#[test]
fn a_crash_of_the_supervisor_does_not_forget_that_a_service_fell_with_its_dependency() {
    let mut world = dependent();
    fell(&mut world);
    let stored = world.stored.clone().unwrap();
    let read = serde_json::from_value(serde_json::to_value(&stored).unwrap()).unwrap();
    let mut next = successor(&world, world.now(), &read);
    next.feed(Event::DependencyBack);
    assert_eq!(next.machine.phase(), Phase::Running);
}
