//! Properties over random histories.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use supervisor_core::config::{
    BeyondIntensity, ProbeKind, ProbeRole, ProbeSpec, RestartIntensity, RestartPolicy, ServiceSpec,
};
use supervisor_core::error::SpawnErrorKind;
use supervisor_core::exit::ExitStatus;
use supervisor_core::lifecycle::{Command, Event, KILL_CONFIRM, Lifecycle};
use supervisor_core::state::{Desired, Phase};
use supervisor_core::{Incarnation, Signal};

use super::world::{Habits, World, describe, identity};

/// One thing that happens in a history.
#[derive(Debug, Clone)]
enum Move {
    Pass(u64),
    Jump(u64),
    Command(Command),
    Exit(ExitStatus),
    Habits(Habits),
    Stale(u64, u8),
    Dependency(bool),
    Group,
    Limit,
    Channel(bool),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let command = prop_oneof![Just(Command::Start), Just(Command::Stop), Just(Command::Restart)];
    let status = prop_oneof![
        Just(ExitStatus::Code(0)),
        Just(ExitStatus::Code(1)),
        Just(ExitStatus::Code(78)),
        Just(ExitStatus::Signal(9)),
        Just(ExitStatus::Unknown),
    ];
    let spawn_error = prop_oneof![
        6 => Just(None),
        1 => Just(Some(SpawnErrorKind::ResourceExhausted)),
        1 => Just(Some(SpawnErrorKind::NotFound)),
        1 => Just(Some(SpawnErrorKind::Other)),
    ];
    let habits = (spawn_error, any::<bool>(), any::<bool>(), prop::bool::weighted(0.7)).prop_map(
        |(spawn_error, ignores_signals, leaves_grandchild, probes_pass)| Habits {
            spawn_error,
            ignores_signals,
            leaves_grandchild,
            probes_pass,
            ..Habits::default()
        },
    );
    let one = prop_oneof![
        6 => (0_u64..20_000).prop_map(Move::Pass),
        1 => (0_u64..10_000_000).prop_map(Move::Jump),
        5 => command.prop_map(Move::Command),
        6 => status.prop_map(Move::Exit),
        2 => habits.prop_map(Move::Habits),
        2 => (0_u64..5, 0_u8..6).prop_map(|(back, kind)| Move::Stale(back, kind)),
        1 => any::<bool>().prop_map(Move::Dependency),
        1 => Just(Move::Group),
        1 => Just(Move::Limit),
        1 => any::<bool>().prop_map(Move::Channel),
    ];
    prop::collection::vec(one, 0..60)
}

fn specs() -> impl Strategy<Value = ServiceSpec> {
    let policy = prop_oneof![
        Just(RestartPolicy::Never),
        Just(RestartPolicy::Always),
        Just(RestartPolicy::FixedDelay { delay: Duration::from_millis(300) }),
        Just(RestartPolicy::default()),
        Just(RestartPolicy::ExponentialBackoff {
            base_delay: Duration::from_millis(1),
            max_delay: Duration::from_secs(3600),
            max_attempts: u32::MAX,
        }),
    ];
    let probe = |role| {
        prop::option::of((
            1_u32..4,
            prop_oneof![Just(ProbeKind::Process), Just(ProbeKind::Heartbeat)],
        ))
        .prop_map(move |made| {
            made.map(|(failure_threshold, kind)| ProbeSpec {
                failure_threshold,
                ..ProbeSpec::new(role, kind)
            })
        })
    };
    let probes =
        (probe(ProbeRole::Startup), probe(ProbeRole::Readiness), probe(ProbeRole::Liveness));
    (policy, probes, any::<bool>(), prop_oneof![Just(0_u64), Just(50), Just(10_000)], any::<bool>())
        .prop_map(|(restart_policy, probes, half_open, grace, dependency)| {
            let mut spec = ServiceSpec::new("svc", "program").unwrap();
            spec.restart_policy = restart_policy;
            spec.probes = [probes.0, probes.1, probes.2].into_iter().flatten().collect();
            spec.half_open_after = half_open.then_some(Duration::from_secs(30));
            spec.shutdown_timeout = Duration::from_millis(grace);
            spec.permanent_exit_codes = vec![78];
            if dependency {
                spec.depends_on = serde_json::from_str(r#"[{"id":"other"}]"#).unwrap();
            }
            spec
        })
}

fn play(world: &mut World, moves: &[Move]) {
    for one in moves {
        match one {
            Move::Pass(ms) => world.pass(Duration::from_millis(*ms)),
            Move::Jump(ms) => world.jump(Duration::from_millis(*ms)),
            Move::Command(command) => {
                world.command(*command);
            }
            Move::Exit(status) => world.exit(*status),
            Move::Habits(habits) => world.habits = *habits,
            Move::Stale(back, kind) => {
                let current = world.machine.incarnation().get();
                let incarnation = Incarnation(current.saturating_sub(*back + 1));
                if incarnation.get() != current {
                    stale(world, incarnation, *kind);
                }
            }
            Move::Dependency(true) => world.feed(Event::DependenciesMet),
            Move::Dependency(false) => {
                world.feed(Event::DependencyFailed { cause: "other".into() });
            }
            Move::Group => world.feed(Event::GroupRestart { cause: "other".into() }),
            Move::Limit => world.feed(Event::LimitExceeded {
                incarnation: world.machine.incarnation(),
                ceiling: supervisor_core::lifecycle::Ceiling::Memory,
                detail: "2 of 1".into(),
            }),
            Move::Channel(silent) => world.feed(Event::ChannelLost {
                incarnation: world.machine.incarnation(),
                silent: *silent,
                reason: "svc: gone".into(),
            }),
        }
    }
}

/// Feeds an event of another run and demands that nothing but a counter changes.
fn stale(world: &mut World, incarnation: Incarnation, kind: u8) {
    let event = match kind {
        0 => Event::Spawned { incarnation, identity: identity(incarnation) },
        1 => Event::Exited {
            incarnation,
            status: ExitStatus::Code(1),
            set_empty: true,
            last_lines: Vec::new(),
        },
        2 => Event::SetKilled { incarnation, survivors: vec!["1 D".into()] },
        3 => Event::ProbeCompleted {
            incarnation,
            probe: 0,
            passed: false,
            detail: String::new(),
            latency: Duration::ZERO,
        },
        4 => Event::ChannelLost { incarnation, silent: true, reason: "svc: gone".into() },
        _ => Event::SetEmpty { incarnation },
    };
    let (state, seen) = (world.machine.state(), world.machine.stale_events());
    let effects = world.machine.step(world.now(), event);
    assert!(effects.is_empty(), "a stale event had effects: {effects:?}");
    assert_eq!(world.machine.state(), state);
    assert_eq!(world.machine.stale_events(), seen + 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Commands race with crashes, with the end of a backoff, with the budget and with waits for dependencies. Whatever
    /// the order: the last command wins, what was stopped stays stopped, every state has a way out, and nothing runs
    /// twice (the world checks that at every step).
    #[test]
    fn in_any_order_of_commands_crashes_and_waits_the_last_command_wins(
        dependency in any::<bool>(),
        always in any::<bool>(),
        races in prop::collection::vec(races(), 1..25),
        last in prop_oneof![Just(Command::Start), Just(Command::Stop), Just(Command::Restart)],
    ) {
        let mut spec = ServiceSpec::new("svc", "program").unwrap();
        spec.shutdown_timeout = Duration::from_millis(500);
        spec.restart_intensity = RestartIntensity::UNLIMITED;
        spec.restart_policy =
            if always { RestartPolicy::Always } else { RestartPolicy::FixedDelay { delay: Duration::from_millis(300) } };
        if dependency {
            spec.depends_on = serde_json::from_str(r#"[{"id":"other"}]"#).unwrap();
        }
        let mut world = World::new(spec);
        world.silent = true;
        world.habits.dependencies_silent = true;
        for race in &races {
            run(&mut world, race);
        }
        world.habits = Habits::default();
        world.command(last);
        // A wait that was under way before the last command ends; one that began with it is answered at once.
        world.feed(Event::DependenciesMet);
        world.pass(Duration::from_secs(30));
        let state = world.machine.state();
        let (phase, live) = if last == Command::Stop { (Phase::Stopped, false) } else { (Phase::Running, true) };
        prop_assert_eq!(state.phase, phase, "{}", state.reason);
        prop_assert_eq!(world.live.is_some(), live);
        prop_assert_eq!(state.desired == Desired::Down, last == Command::Stop);
        let mut answered: Vec<_> = world.replies.iter().map(|(id, _)| id.get()).collect();
        answered.sort_unstable();
        let given: Vec<_> = (1..=world.commands_given()).collect();
        prop_assert_eq!(answered, given, "each command has exactly one reply");
        let starts = world.starts.len();
        world.pass(Duration::from_secs(3600));
        prop_assert_eq!(world.starts.len(), starts, "what was decided stays decided");
    }
}

/// One thing that races with the others.
#[derive(Debug, Clone)]
enum Race {
    Command(Command),
    Crash,
    Pass(u64),
    DependencyMet,
    DependencyFailed,
    Ignores(bool),
    Leaves(bool),
    BudgetDelays,
    SpawnFails(bool),
}

fn races() -> impl Strategy<Value = Race> {
    let command = prop_oneof![Just(Command::Start), Just(Command::Stop), Just(Command::Restart)];
    prop_oneof![
        6 => command.prop_map(Race::Command),
        4 => Just(Race::Crash),
        // Around the backoff of 300 ms and the grace period of 500 ms, and to the millisecond of both.
        4 => prop_oneof![Just(0_u64), Just(1), Just(299), Just(300), Just(500), 0_u64..600].prop_map(Race::Pass),
        2 => Just(Race::DependencyMet),
        1 => Just(Race::DependencyFailed),
        1 => any::<bool>().prop_map(Race::Ignores),
        1 => any::<bool>().prop_map(Race::Leaves),
        1 => Just(Race::BudgetDelays),
        1 => any::<bool>().prop_map(Race::SpawnFails),
    ]
}

fn run(world: &mut World, race: &Race) {
    match race {
        Race::Command(command) => {
            world.command(*command);
        }
        Race::Crash => world.exit(ExitStatus::Signal(11)),
        Race::Pass(ms) => world.pass(Duration::from_millis(*ms)),
        Race::DependencyMet => world.feed(Event::DependenciesMet),
        Race::DependencyFailed => {
            world.feed(Event::DependencyFailed { cause: "other: gone".into() });
        }
        Race::Ignores(ignores) => world.habits.ignores_signals = *ignores,
        Race::Leaves(leaves) => world.habits.leaves_grandchild = *leaves,
        Race::BudgetDelays => world.habits.budget_delays = true,
        Race::SpawnFails(fails) => {
            world.habits.spawn_error = fails.then_some(SpawnErrorKind::ResourceExhausted);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Also checked after every step by the world: one live run at most, no start beside a live set, a stopped
    /// service has no deadline, no counter changes unstored.
    #[test]
    fn any_history_ends_stopped_when_asked_with_one_reply_per_command(spec in specs(), moves in moves()) {
        let grace = spec.shutdown_timeout;
        let mut world = World::new(spec);
        play(&mut world, &moves);
        world.command(Command::Stop);
        world.pass(grace + KILL_CONFIRM + Duration::from_millis(1));
        prop_assert_eq!(world.machine.phase(), Phase::Stopped);
        prop_assert_eq!(world.live, None);
        let mut answered: Vec<_> = world.replies.iter().map(|(id, _)| id.get()).collect();
        answered.sort_unstable();
        let given: Vec<_> = (1..=world.commands_given()).collect();
        prop_assert_eq!(answered, given, "each command has exactly one reply");
    }

    #[test]
    fn the_same_history_and_seed_give_the_same_effects(spec in specs(), moves in moves(), seed in any::<u64>()) {
        let run = || {
            let mut world = World::seeded(spec.clone(), seed);
            play(&mut world, &moves);
            world.trace
        };
        prop_assert_eq!(run(), run());
    }

    /// Each kill has exactly one of three reasons, and comes when that reason says: to the moment, unless the host slept.
    #[test]
    fn a_kill_follows_a_signal_and_its_grace_or_a_second_stop_or_a_dead_leader(spec in specs(), moves in moves()) {
        let grace = spec.shutdown_timeout;
        let mut world = World::new(spec);
        play(&mut world, &moves);
        let slept = moves.iter().any(|one| matches!(one, Move::Jump(_)));
        for kill in &world.kills {
            let (run, at) = *kill;
            let asked = world.signals.iter().find(|(of, signal, _)| *of == run && *signal == Signal::Term);
            let left = world.left_behind.iter().find(|(of, _)| *of == run);
            let forced = world.forced.contains(kill);
            let explained = match (asked, left) {
                (None, None) => false,
                // It was never asked: its leader had ended by itself.
                (None, Some(left)) => left.1 == at,
                (Some(_), _) if forced => true,
                (Some((_, _, asked)), _) => at == *asked + grace || slept && at > *asked + grace,
            };
            prop_assert!(explained, "kill of {run} at {at:?}: asked {asked:?}, left {left:?}, forced {forced}");
        }
        // Nor is there a reason without its kill.
        for reason in world.forced.iter().chain(&world.left_behind) {
            prop_assert!(world.kills.contains(reason), "{reason:?} and no kill");
        }
        let mut runs: Vec<_> = world.kills.iter().map(|(run, _)| *run).collect();
        runs.dedup();
        prop_assert_eq!(runs.len(), world.kills.len(), "one kill is enough for one set");
    }

    #[test]
    fn starts_in_any_window_stay_within_the_intensity(
        max in 0_u32..6,
        window_s in 1_u64..100,
        pauses in prop::collection::vec(0_u64..30_000, 1..60),
    ) {
        let mut spec = ServiceSpec::new("svc", "program").unwrap();
        let window = Duration::from_secs(window_s);
        spec.restart_policy = RestartPolicy::Always;
        spec.restart_intensity = RestartIntensity::limited(max, window, Some(BeyondIntensity::GiveUp));
        let mut world = World::new(spec);
        world.command(Command::Start);
        for pause in pauses {
            world.pass(Duration::from_millis(pause));
            world.exit(ExitStatus::Code(1));
        }
        for (_, from) in &world.starts {
            let within = world.starts.iter().filter(|(_, at)| at >= from && *at < *from + window).count();
            prop_assert!(within <= max as usize + 1, "{within} starts within {window:?}, allowed {max} and the first");
        }
    }

    #[test]
    fn flapping_readiness_never_restarts_anything(answers in prop::collection::vec(any::<bool>(), 1..100)) {
        let mut spec = ServiceSpec::new("svc", "program").unwrap();
        spec.probes = vec![ProbeSpec { failure_threshold: 1, ..ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Process) }];
        let mut world = World::new(spec);
        world.command(Command::Start);
        for passed in answers {
            world.habits.probes_pass = passed;
            world.pass(Duration::from_secs(5));
            prop_assert_eq!(world.machine.state().ready, passed);
        }
        prop_assert_eq!(world.starts.len(), 1);
        prop_assert!(world.kills.is_empty() && world.signals.is_empty());
    }

    #[test]
    fn a_crash_of_the_supervisor_anywhere_loses_no_counter(spec in specs(), moves in moves()) {
        let mut world = World::new(spec.clone());
        play(&mut world, &moves);
        let Some(stored) = world.stored.clone() else { return Ok(()) };
        let restored = Lifecycle::restore(Arc::new(spec), Duration::from_secs(5), 7, world.now(), &stored).unwrap();
        let (a, b) = (restored.state(), world.machine.state());
        prop_assert_eq!((a.desired, a.incarnation, a.attempt, a.restarts), (b.desired, b.incarnation, b.attempt, b.restarts));
        prop_assert!(a.recent_restarts.len() >= b.recent_restarts.len(), "restarts forgotten");
        prop_assert_eq!(a.last_exit, b.last_exit);
        let mut after = World::new(world.machine.spec().as_ref().clone());
        after.machine = restored;
        after.time = world.time;
        let lost = stored.phase.may_be_alive();
        after.feed(Event::FoundGone { status: None });
        if lost && stored.desired == Desired::Up {
            prop_assert_eq!(after.starts.len(), 1);
            prop_assert_eq!(after.starts[0].0, stored.incarnation.next());
        }
    }

    #[test]
    fn a_long_sleep_of_the_host_kills_no_healthy_service_before_a_fresh_probe(
        hours in 1_u64..1000,
        kind in prop_oneof![Just(ProbeKind::Process), Just(ProbeKind::Heartbeat)],
    ) {
        let mut spec = ServiceSpec::new("svc", "program").unwrap();
        spec.probes = vec![ProbeSpec { failure_threshold: 1, ..ProbeSpec::new(ProbeRole::Liveness, kind) }];
        let mut world = World::new(spec);
        world.command(Command::Start);
        world.jump(Duration::from_secs(hours * 3600));
        prop_assert_eq!(world.machine.phase(), Phase::Running, "{}", world.trace.join("\n"));
        prop_assert_eq!(world.starts.len(), 1);
    }

    #[test]
    fn a_quiet_world_comes_to_rest(spec in specs(), moves in moves()) {
        let mut world = World::new(spec);
        play(&mut world, &moves);
        let before = world.steps;
        world.habits = Habits::default();
        world.pass(Duration::from_secs(600));
        // One probe of each role every five seconds and its answer is all that may go on.
        prop_assert!(world.steps - before < 2_000, "{} steps in ten quiet minutes", world.steps - before);
    }
}

#[test]
fn an_effect_is_described_by_one_line() {
    assert_eq!(describe(&supervisor_core::lifecycle::Effect::AcquireBudget), "ask budget");
}
