//! Named histories of what people ask for: when it is answered how, and what it forgets.

use std::time::Duration;

use supervisor_core::config::{BeyondIntensity, RestartIntensity, ServiceSpec};
use supervisor_core::exit::ExitStatus;
use supervisor_core::lifecycle::{
    Command, CommandFailure, Event, KILL_RETRY, PENDING_COMMANDS_MAX,
};
use supervisor_core::state::{Desired, Phase};

use super::world::{World, twice};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Two restarts in a row, then it is given up; the intensity allows no more either.
fn spec() -> ServiceSpec {
    ServiceSpec {
        restart_intensity: RestartIntensity::limited(2, secs(600), Some(BeyondIntensity::GiveUp)),
        ..twice()
    }
}

fn crash(world: &mut World) {
    world.exit(ExitStatus::Code(1));
    world.pass(secs(2));
}

fn answer(world: &World, of: supervisor_core::CommandId) -> &Result<(), CommandFailure> {
    let mut answers = world.replies.iter().filter(|(id, _)| *id == of);
    let (_, answer) = answers.next().expect("an answer");
    assert_eq!(answers.next(), None, "one answer each");
    answer
}

#[test]
fn one_command_more_than_may_wait_is_answered_busy_and_the_others_are_not_forgotten() {
    let mut spec = spec();
    spec.depends_on = serde_json::from_str(r#"[{"id":"other"}]"#).unwrap();
    let mut world = World::new(spec);
    world.habits.dependencies_silent = true;
    let waiting: Vec<_> =
        (0..PENDING_COMMANDS_MAX).map(|_| world.command(Command::Start)).collect();
    assert!(world.replies.is_empty());
    let late = world.command(Command::Start);
    assert_eq!(answer(&world, late), &Err(CommandFailure::Busy));
    world.feed(Event::DependenciesMet);
    for id in waiting {
        assert_eq!(answer(&world, id), &Ok(()));
    }
}

#[test]
fn whoever_asks_for_a_start_gives_a_service_all_of_its_chances_again() {
    for command in [Command::Start, Command::Restart] {
        let mut world = World::new(spec());
        world.command(Command::Start);
        // While it waits for its restart, while it runs, and after it was given up.
        world.exit(ExitStatus::Code(1));
        assert_eq!((world.machine.phase(), world.machine.state().attempt), (Phase::Backoff, 1));
        world.command(command);
        let state = world.machine.state();
        assert_eq!((state.phase, state.attempt), (Phase::Running, 0));
        assert!(state.recent_restarts.is_empty(), "{state:?}");
        crash(&mut world);
        if command == Command::Restart {
            world.command(command);
            assert_eq!(world.machine.state().attempt, 0);
            assert!(world.machine.state().recent_restarts.is_empty());
        } else {
            world.command(command);
            assert_eq!(world.machine.state().attempt, 1, "one that runs is left alone");
            crash(&mut world);
            crash(&mut world);
            assert_eq!(world.machine.phase(), Phase::Failed);
            world.command(command);
            assert_eq!(world.machine.state().attempt, 0);
        }
        for _ in 0..2 {
            crash(&mut world);
            assert_eq!(world.machine.phase(), Phase::Running);
        }
        crash(&mut world);
        assert_eq!(world.machine.phase(), Phase::Failed, "and no more than those");
    }
}

#[test]
fn what_survives_a_kill_answers_every_command_with_its_survivors_until_it_ends() {
    let mut world = World::new(spec());
    world.command(Command::Start);
    (world.habits.ignores_signals, world.habits.unkillable) = (true, true);
    let stop = world.command(Command::Stop);
    world.pass(secs(30));
    let unkillable = Err(CommandFailure::Unkillable { survivors: vec!["42 D".into()] });
    assert_eq!(answer(&world, stop), &unkillable);
    for command in [Command::Start, Command::Restart, Command::Stop] {
        let id = world.command(command);
        assert_eq!(answer(&world, id), &unkillable, "{command:?}");
        assert_eq!(world.starts.len(), 1);
    }
    assert_eq!(world.stored.as_ref().unwrap().desired, Desired::Down);
    // Asked once more while it survives, it is down for good once it has ended.
    world.habits.unkillable = false;
    world.pass(KILL_RETRY);
    assert_eq!((world.machine.phase(), world.live), (Phase::Stopped, None));
    assert_eq!(world.starts.len(), 1);
}
