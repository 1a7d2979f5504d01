//! One history each. Size: they share the constants above them, and are read one at a time.

use supervisor_core::config::OverflowPolicy;

use super::*;

const ASK: SendOptions = SendOptions {
    lane: Lane::Normal,
    idempotent: true,
    ttl: None,
    expect_reply: true,
    durable: false,
    replaces: None,
};

fn roomy() -> RecoveryConfig {
    RecoveryConfig {
        max_buffered_messages: 1000,
        max_buffered_bytes: ByteSize::mib(1),
        max_in_flight: 256,
        ..RecoveryConfig::default()
    }
}

fn ready_with(config: RecoveryConfig) -> World {
    let mut world = World::with(config);
    world.connect();
    world
}

fn plain() -> SendOptions {
    SendOptions::default()
}

fn ids(world: &World) -> Vec<u128> {
    world.written.iter().map(|frame| frame.id.as_u128()).collect()
}

#[test]
fn what_was_in_flight_is_written_again_before_what_waited() {
    let mut world = World::ready();
    for n in 1..=6 {
        world.send(n, plain()).unwrap();
    }
    world.reconnect();
    assert_eq!(ids(&world), [1, 2, 3, 4]);
    world.settle_all();
    assert_eq!(world.effects.len(), 6);
}

#[test]
fn fifty_unanswered_requests_each_end_or_wait_in_the_very_step_that_notices_the_death() {
    let mut world = ready_with(roomy());
    for n in 1..=50 {
        world.send(n, SendOptions { idempotent: n % 2 == 0, ..ASK }).unwrap();
    }
    assert_eq!(world.written.len(), 50);
    world.step(Event::Lost { reason: "killed".into() });
    let generation = Generation(1);
    let unknown =
        world.outcomes.values().filter(|o| **o == Outcome::Indeterminate { generation }).count();
    assert_eq!((unknown, world.machine.buffered()), (25, 25));
    world.pass(Duration::from_millis(1));
    world.connect();
    world.settle_all();
    assert_eq!(world.settled.len(), 50);
    assert_eq!(world.recovered[0].redelivered, 25);
    assert_eq!(world.recovered[0].outcomes.named().collect::<Vec<_>>(), [("Indeterminate", 25)]);
}

#[test]
fn a_late_answer_of_the_dead_generation_completes_nothing() {
    let mut world = World::ready();
    world.send(1, ASK).unwrap();
    let old = world.written[0].s;
    world.reconnect();
    world.step(Event::Replied { s: old, reply: serde_json::Value::Null });
    assert!(world.settled.is_empty());
}

#[test]
fn control_overtakes_and_bulk_does_not_starve() {
    let mut world = World::new();
    for n in 1..=6 {
        world.send(n, SendOptions { lane: Lane::Interactive, ..plain() }).unwrap();
    }
    world.send(7, SendOptions { lane: Lane::Bulk, ..plain() }).unwrap();
    world.send(8, SendOptions { lane: Lane::Control, ..plain() }).unwrap();
    world.connect();
    let mut order = Vec::new();
    while let Some(frame) = world.written.front() {
        order.push(frame.id.as_u128());
        world.handle();
        world.hear();
    }
    assert_eq!((order[0], order.len()), (8, 8));
    assert!(order.contains(&7));
}

#[test]
fn a_crash_loop_opens_the_circuit_which_tries_once_a_minute_and_at_once_on_request() {
    let mut world = World::new();
    for _ in 0..4 {
        assert!(std::mem::take(&mut world.connecting), "the ladder tries");
        world.step(Event::ConnectFailed { reason: "refused".into(), permanent: false });
        world.pass(Duration::from_secs(11));
    }
    assert_eq!(world.machine.state, ChannelState::Open);
    assert!(world.machine.reason.contains("refused"), "{}", world.machine.reason);
    world.pass(Duration::from_secs(48));
    assert!(!world.connecting, "nothing is tried before its time");
    world.pass(Duration::from_secs(1));
    assert!(std::mem::take(&mut world.connecting), "one try");
    world.step(Event::ConnectFailed { reason: "refused".into(), permanent: false });
    assert_eq!(world.machine.state, ChannelState::Open, "which fails, and opens it again at once");
    world.pass(Duration::from_secs(119));
    assert!(!world.connecting, "for twice as long");
    world.step(Event::RetryNow);
    assert!(world.connecting);
    assert_eq!(world.machine.state, ChannelState::Connecting);
}

#[test]
fn a_peer_that_starts_slowly_is_waited_for_as_long_as_a_handshake_may_take() {
    let mut world = World::new();
    let (began, mut tries) = (world.now, 0);
    while world.now.since(began) < Duration::from_secs(29) {
        if std::mem::take(&mut world.connecting) {
            tries += 1;
            world.step(Event::ConnectFailed { reason: "refused".into(), permanent: false });
        }
        assert_ne!(world.machine.state, ChannelState::Open, "after {tries} tries");
        world.pass(Duration::from_millis(100));
    }
    assert!((8..40).contains(&tries), "{tries}");
    world.step(Event::RetryNow);
    world.connect();
    assert_eq!(world.machine.state, ChannelState::Ready);
}

#[test]
fn a_try_that_comes_too_early_after_a_crash_is_no_crash_of_its_own() {
    let mut world = World::ready();
    for _ in 0..4 {
        world.step(Event::Lost { reason: "crash".into() });
        world.pass(Duration::from_secs(10));
        assert!(std::mem::take(&mut world.connecting));
        world.step(Event::ConnectFailed { reason: "refused".into(), permanent: false });
        world.pass(Duration::from_secs(10));
        world.connect();
        assert_eq!(world.machine.state, ChannelState::Ready);
    }
    world.step(Event::Lost { reason: "crash".into() });
    assert_eq!(world.machine.state, ChannelState::Open);
}

#[test]
fn a_peer_that_dies_soon_after_each_connection_is_a_crash_loop_too() {
    let mut world = World::ready();
    for _ in 0..4 {
        world.step(Event::Lost { reason: "crash".into() });
        world.pass(Duration::from_secs(10));
        world.connect();
    }
    assert_eq!(world.machine.state, ChannelState::Ready);
    world.step(Event::Lost { reason: "crash".into() });
    assert_eq!(world.machine.state, ChannelState::Open);
}

#[test]
fn every_new_run_of_a_service_that_crashes_in_a_loop_is_taken_at_once() {
    let mut world = World::ready();
    world.machine.paced = true;
    for run in 1..=20 {
        world.step(Event::Lost { reason: "crash".into() });
        world.pass(Duration::ZERO);
        assert_eq!(world.machine.state, ChannelState::Connecting, "after run {run}");
        assert!(world.connecting, "its pipes would fill up, and it would stand still");
        world.connect();
        assert_eq!(world.machine.state, ChannelState::Ready);
    }
}

#[test]
fn a_permanent_error_opens_the_circuit_at_once() {
    let mut world = World::new();
    world.step(Event::ConnectFailed { reason: "permission denied".into(), permanent: true });
    assert_eq!(world.machine.state, ChannelState::Open);
}

#[test]
fn a_stopped_peer_is_suspected_and_its_late_answers_count_when_it_goes_on() {
    let mut world = World::ready();
    world.pass(Duration::from_secs(4));
    world.send(1, ASK).unwrap();
    world.pass(Duration::from_secs(11));
    assert_eq!(world.machine.state, ChannelState::Suspect);
    world.send(2, plain()).unwrap();
    assert_eq!(world.written.len(), 1, "nothing is written to a suspect");
    world.settle_all();
    assert_eq!(world.machine.state, ChannelState::Ready);
    assert_eq!(world.machine.generation, Generation(1), "without a new connection");
    assert!(world.outcomes.values().all(Outcome::delivered));
    assert_eq!(world.outcomes.len(), 2);
}

#[test]
fn a_half_open_connection_is_given_up_after_three_unanswered_signs_of_life() {
    let mut world = World::ready();
    world.pass(Duration::from_secs(19));
    assert_eq!(world.pings, 3);
    assert_eq!(world.machine.state, ChannelState::Suspect);
    world.pass(Duration::from_secs(1));
    assert_ne!(world.machine.state, ChannelState::Suspect);
    assert!(world.connecting || world.machine.state == ChannelState::Backoff);
}

#[test]
fn a_peer_that_gives_signs_of_life_may_be_busy_for_as_long_as_it_likes() {
    let mut world = World::ready();
    world.send(1, SendOptions { ttl: Some(Duration::from_secs(600)), ..plain() }).unwrap();
    for _ in 0..45 {
        world.pass(Duration::from_secs(2));
        world.step(Event::Alive);
    }
    assert_eq!(world.machine.state, ChannelState::Ready);
    assert_eq!(world.machine.generation, Generation(1));
    world.settle_all();
    assert!(world.outcomes[&Uuid::from_u128(1)].delivered());
}

#[test]
fn a_silent_peer_that_somebody_runs_is_given_up_only_if_nothing_speaks_for_it() {
    let mut world = World::ready();
    world.machine.weighs = true;
    let answer = |world: &mut World, excuse: Option<&str>| {
        assert!(std::mem::take(&mut world.weighing), "{}", world.machine.reason);
        world.step(Event::Weighed { excuse: excuse.map(str::to_owned) });
    };
    // Silent for ninety seconds while it works: asked about every five of them, never given up.
    world.pass(Duration::from_secs(20));
    for _ in 0..14 {
        answer(&mut world, Some("it is at work"));
        assert_eq!(world.machine.state, ChannelState::Suspect);
        assert!(world.machine.reason.contains("but it is at work"), "{}", world.machine.reason);
        world.pass(Duration::from_secs(5));
    }
    // It speaks while it is being weighed; the verdict comes too late to matter.
    world.step(Event::Alive);
    answer(&mut world, None);
    assert_eq!(world.machine.state, ChannelState::Ready);
    world.pass(Duration::from_secs(20));
    answer(&mut world, None);
    assert_eq!(world.machine.state, ChannelState::Backoff);
    assert_eq!(world.losses, [(true, "the peer gives no sign of life".into())]);
}

#[test]
fn no_reason_excuses_five_minutes_of_silence_and_a_reason_nobody_gives_is_none() {
    let mut world = World::ready();
    world.machine.weighs = true;
    world.pass(Duration::from_secs(29));
    assert_eq!(world.machine.state, ChannelState::Suspect);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.losses.len(), 1, "ten seconds without an answer are an answer");
    world.connect();
    let mut asked = 0;
    world.weighing = false;
    while world.losses.len() == 1 {
        world.pass(Duration::from_secs(1));
        if std::mem::take(&mut world.weighing) {
            world.step(Event::Weighed { excuse: Some("it is at work".into()) });
            asked += 1;
        }
    }
    assert_eq!(asked, 56, "from 20 s to 295 s");
}

#[test]
fn a_peer_that_works_may_leave_what_is_written_untaken_and_restore_its_state_late() {
    let mut world = World::new();
    world.machine.weighs = true;
    world.step(Event::Connected);
    world.pass(Duration::from_secs(30));
    assert!(std::mem::take(&mut world.weighing));
    world.step(Event::Weighed { excuse: Some("it is at work".into()) });
    assert_eq!(world.machine.state, ChannelState::Syncing);
    world.step(Event::Synced { handled: 0 });
    world.step(Event::Wrote { pending: true });
    world.pass(Duration::from_secs(5));
    assert!(std::mem::take(&mut world.weighing));
    world.step(Event::Weighed { excuse: Some("it is at work".into()) });
    assert!(world.losses.is_empty());
    world.pass(Duration::from_secs(5));
    world.step(Event::Weighed { excuse: None });
    assert_eq!(world.losses, [(true, "the peer took nothing for 5s".into())]);
}

#[test]
fn an_unanswered_message_makes_its_peer_suspect_without_waiting_for_silence() {
    let mut config = config();
    config.request_timeout = Duration::from_secs(2);
    config.heartbeat.idle = Duration::from_secs(60);
    let mut world = ready_with(config);
    world.send(1, ASK).unwrap();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.outcomes[&Uuid::from_u128(1)], Outcome::Expired);
    assert_eq!((world.machine.state, world.pings), (ChannelState::Suspect, 1));
    world.step(Event::Alive);
    assert_eq!(world.machine.state, ChannelState::Ready);
    world.written.clear();
    world.send(2, plain()).unwrap();
    world.pass(Duration::from_secs(2));
    assert_eq!(
        (world.machine.state, world.pings),
        (ChannelState::Suspect, 2),
        "acknowledged ones too"
    );
    assert!(!world.settled.contains_key(&Uuid::from_u128(2)), "which wait for their own time");
}

#[test]
fn a_peer_that_takes_no_bytes_is_given_up_at_the_write_deadline_but_a_slow_one_is_not() {
    let mut config = config();
    config.heartbeat.idle = Duration::from_secs(600);
    let mut world = ready_with(config);
    for _ in 0..10 {
        world.step(Event::Wrote { pending: true });
        world.pass(Duration::from_secs(4));
    }
    assert_eq!(world.machine.state, ChannelState::Ready, "some bytes every four seconds");
    world.pass(Duration::from_secs(1));
    assert_ne!(world.machine.state, ChannelState::Ready);
    assert!(world.reasons.iter().any(|why| why.contains("took nothing")), "{:?}", world.reasons);
}

#[test]
fn a_host_that_slept_for_eight_hours_blames_nobody_and_charges_nothing() {
    let mut world = World::ready();
    for n in 1..=6 {
        world.send(n, ASK).unwrap();
    }
    world.pass(Duration::from_secs(1));
    world.now = world.now + Duration::from_secs(8 * 3600);
    world.step(Event::Tick);
    assert_eq!(world.machine.state, ChannelState::Ready);
    assert_eq!(world.pings, 1, "one question at once");
    assert!(world.settled.is_empty(), "nothing is older for it");
    world.pass(Duration::from_secs(3));
    world.settle_all();
    assert!(world.outcomes.values().all(Outcome::delivered), "{:?}", world.outcomes);
    assert_eq!(world.machine.generation, Generation(1));
}

#[test]
fn a_full_buffer_refuses_at_once_and_leaves_no_trace() {
    let mut world = World::new();
    for n in 1..=20 {
        world.send(n * 50, plain()).unwrap();
    }
    assert_eq!(world.send(9999, plain()), Err(Refusal::Full(Limit::Messages)));
    assert_eq!(world.machine.buffered(), 20);
}

#[test]
fn a_full_buffer_of_mixed_lanes_drops_the_least_and_never_control() {
    let mut world =
        World::with(RecoveryConfig { overflow: OverflowPolicy::DropOldest, ..config() });
    let of = |lane| SendOptions { lane, ..plain() };
    for n in 1..=10 {
        world.send(n, of(Lane::Bulk)).unwrap();
        world.send(100 + n, of(Lane::Control)).unwrap();
    }
    for n in 1..=5 {
        world.send(200 + n, of(Lane::Interactive)).unwrap();
    }
    let dropped: Vec<u128> = (1..=5).collect();
    let mut gone: Vec<u128> = world.dropped.iter().map(|id| id.as_u128()).collect();
    gone.sort_unstable();
    assert_eq!(gone, dropped, "the oldest of the lowest lane");
    assert!(world.outcomes.values().all(|outcome| matches!(outcome, Outcome::Rejected { .. })));
    for n in 1..=74 {
        world.send(1000 + n, of(Lane::Control)).unwrap();
    }
    let refused = world.send(5000, of(Lane::Control));
    assert_eq!(refused, Err(Refusal::Full(Limit::Messages)), "which has its bound as well");
    assert!(!world.dropped.contains(&Uuid::from_u128(101)));
}

#[test]
fn a_newer_state_takes_the_place_of_one_that_was_not_written() {
    let mut world = World::new();
    let state = |key| SendOptions { replaces: Some(key), ..plain() };
    world.send(1, state(7)).unwrap();
    world.send(2, state(8)).unwrap();
    world.send(3, state(7)).unwrap();
    assert_eq!(world.outcomes[&Uuid::from_u128(1)], Outcome::Superseded);
    world.connect();
    assert_eq!(ids(&world), [2, 3]);
    world.send(4, state(7)).unwrap();
    assert_eq!(ids(&world), [2, 3, 4], "what was written stays written");
}

#[test]
fn a_lost_acknowledgement_is_a_repetition_that_the_peer_recognises() {
    let mut world = World::ready();
    world.send(1, plain()).unwrap();
    world.handle();
    world.said.clear();
    // A peer that has started anew, with the ids but not the numbers.
    world.handled = 0;
    world.reconnect();
    assert_eq!(ids(&world), [1]);
    world.settle_all();
    let outcome = &world.outcomes[&Uuid::from_u128(1)];
    assert_eq!(*outcome, Outcome::Acked { generation: Generation(2), duplicate: true });
    assert_eq!(world.effects[&Uuid::from_u128(1)], 1);
}

#[test]
fn what_the_peer_says_it_has_handled_is_not_written_again() {
    let mut world = World::ready();
    for n in 1..=4 {
        world.send(n, plain()).unwrap();
    }
    world.handle();
    world.handle();
    world.said.clear();
    world.reconnect();
    assert_eq!(ids(&world), [3, 4]);
    assert!(world.outcomes[&Uuid::from_u128(2)].delivered());
}

#[test]
fn a_number_that_the_peer_has_passed_by_does_not_count_as_handled() {
    let mut config = roomy();
    config.max_attempts = 100;
    let mut world = ready_with(config);
    for n in 1..=3 {
        world.send(n, plain()).unwrap();
    }
    world.reconnect();
    world.reconnect();
    assert_eq!(
        ids(&world),
        [1],
        "the first of the suspects, alone, with a higher number than the others had"
    );
    world.handle();
    world.reconnect();
    assert!(world.outcomes[&Uuid::from_u128(1)].delivered());
    assert!(!world.outcomes.contains_key(&Uuid::from_u128(2)));
    world.settle_all();
    assert_eq!(world.effects.len(), 3);
}

#[test]
fn an_id_that_left_the_window_before_its_time_is_counted() {
    let mut world = ready_with(RecoveryConfig { dedupe_max: 8, ..config() });
    for n in 1..=100 {
        world.send(n, plain()).unwrap();
        world.settle_all();
    }
    assert!(world.machine.forgotten_early() >= 80, "{}", world.machine.forgotten_early());
    let once = SendOptions { idempotent: false, ..plain() };
    world.send(200, once).unwrap();
    world.step(Event::Lost { reason: "gone".into() });
    let unknown = Outcome::Indeterminate { generation: Generation(1) };
    assert_eq!(world.outcomes[&Uuid::from_u128(200)], unknown, "never in this path");
}

#[test]
fn a_message_that_kills_its_peer_is_found_among_others_and_quarantined_and_the_rest_arrives() {
    let mut config = roomy();
    config.max_attempts = 100;
    config.breaker.failure_threshold = 100;
    let mut world = ready_with(config);
    for n in 1..=20 {
        world.send(n, SendOptions { ttl: Some(Duration::from_secs(900)), ..plain() }).unwrap();
    }
    let poison = Uuid::from_u128(5);
    let mut deaths = 0;
    for _ in 0..1000 {
        if world.written.is_empty() && world.said.is_empty() {
            break;
        }
        if world.written.front().is_some_and(|frame| frame.id == poison) {
            deaths += 1;
            world.reconnect();
        } else {
            world.handle();
            world.hear();
        }
    }
    assert!(deaths <= 4, "{deaths}");
    let (buried, generations) = &world.buried[0];
    assert_eq!((*buried, world.buried.len()), (poison, 1), "nobody else was blamed");
    assert_eq!(generations.len(), deaths, "each generation it ended is named");
    assert_eq!(world.effects.len(), 19);
}

#[test]
fn a_message_is_written_as_often_as_it_may_be_and_not_once_more() {
    let mut world = World::with(RecoveryConfig {
        breaker: supervisor_core::config::BreakerConfig {
            failure_threshold: 100,
            ..Default::default()
        },
        ..config()
    });
    world.connect();
    for n in 1..=2 {
        world.send(n, plain()).unwrap();
    }
    for _ in 0..3 {
        assert!(!world.outcomes.contains_key(&Uuid::from_u128(1)));
        world.reconnect();
    }
    assert!(matches!(world.outcomes[&Uuid::from_u128(1)], Outcome::DeadLettered { .. }));
    assert_eq!(world.writes[&Uuid::from_u128(1)], 3);
}

#[test]
fn a_number_never_given_ends_the_connection_of_who_says_it() {
    for said in
        [Event::Acked { s: 99, duplicate: false }, Event::Replied { s: 99, reply: 1.into() }]
    {
        let mut world = World::ready();
        world.send(1, plain()).unwrap();
        world.step(said);
        assert_eq!(world.machine.state, ChannelState::Backoff);
        assert!(world.machine.reason.contains("99, which was never given"));
        assert_eq!(world.settled.len(), 0, "and settles nothing");
        world.pass(Duration::from_secs(1));
        world.handled = u64::MAX;
        world.connect();
        assert_eq!(world.settled.len(), 0);
        assert_ne!(world.machine.state, ChannelState::Ready);
    }
}

#[test]
fn a_message_that_was_alone_at_two_deaths_in_a_row_is_quarantined() {
    let mut world = World::ready();
    world.send(1, plain()).unwrap();
    world.reconnect();
    assert!(world.buried.is_empty());
    world.reconnect();
    assert_eq!(world.buried, [(Uuid::from_u128(1), vec![Generation(1), Generation(2)])]);
}

#[test]
fn repetitions_beyond_the_budget_wait_in_their_order_until_time_pays_for_them() {
    let mut world = World::ready();
    world.machine.budget = RetryBudget::new(0, 1, 4);
    world.machine.config.max_attempts = 100;
    world.machine.config.breaker.failure_threshold = 100;
    let patient = SendOptions { ttl: Some(Duration::from_secs(900)), ..plain() };
    for n in 1..=4 {
        world.send(n, patient).unwrap();
    }
    // Ten were saved, each second adds one. From the second loss on they go one by one.
    world.reconnect();
    assert_eq!(world.written.len(), 4);
    world.machine.budget = RetryBudget::new(0, 0, 0);
    world.reconnect();
    assert!(world.written.is_empty(), "nothing pays");
    world.send(5, patient).unwrap();
    assert!(world.written.is_empty(), "nothing newer overtakes what waits");
    world.machine.budget = RetryBudget::new(0, 1, 4);
    let wait = world.machine.next_deadline();
    assert!(wait.is_some());
    world.step(Event::Alive);
    assert_eq!(ids(&world), [1]);
    world.settle_all();
    assert_eq!(world.effects.len(), 5);
}

#[test]
fn the_bytes_of_all_channels_together_are_bounded() {
    let mut world = World::new();
    world.machine.config.global_buffered_bytes = ByteSize(4000);
    world.machine.elsewhere = 3950;
    assert_eq!(world.send(1, plain()), Err(Refusal::Full(Limit::AllBytes)));
    let control = SendOptions { lane: Lane::Control, ..plain() };
    assert!(world.send(1, control).is_ok());
}

#[test]
fn what_is_accepted_is_finished_while_draining_and_nothing_new_is_taken() {
    let mut world = World::ready();
    for n in 1..=6 {
        world.send(n, plain()).unwrap();
    }
    world.step(Event::Drain);
    assert_eq!(world.machine.state, ChannelState::Draining);
    assert_eq!(world.send(7, plain()), Err(Refusal::Draining));
    world.settle_all();
    assert_eq!((world.effects.len(), world.machine.buffered()), (6, 0));
}

#[test]
fn a_peer_that_dies_while_draining_ends_the_drain_and_is_not_waited_for() {
    let mut world = World::ready();
    for n in 1..=6 {
        world.send(n, plain()).unwrap();
    }
    world.step(Event::Drain);
    world.step(Event::Lost { reason: "gone".into() });
    assert_eq!(world.machine.state, ChannelState::Closed);
    assert_eq!(world.settled.len(), 6);
    assert!(!world.connecting);
}

#[test]
fn a_close_during_backoff_or_syncing_stops_the_ladder_and_ends_every_message() {
    for syncing in [false, true] {
        let mut world = World::ready();
        world.send(1, plain()).unwrap();
        world.step(Event::Lost { reason: "gone".into() });
        if syncing {
            world.pass(Duration::from_millis(1));
            world.connecting = false;
            world.step(Event::Connected);
        }
        world.step(Event::Close);
        world.pass(Duration::from_secs(900));
        assert!(!world.connecting, "nothing is tried any more");
        assert_eq!(world.settled.len(), 1);
        assert_eq!(world.machine.next_deadline(), None);
    }
}

#[test]
fn a_recovery_says_why_and_how_its_time_was_spent() {
    let mut world = World::ready();
    world.step(Event::Lost { reason: "killed".into() });
    world.pass(Duration::ZERO);
    world.connecting = false;
    world.now = world.now + Duration::from_millis(300);
    world.step(Event::ConnectFailed { reason: "refused".into(), permanent: false });
    world.pass(Duration::from_millis(200));
    let waited = world.recovered.len();
    assert_eq!(waited, 0);
    world.now = world.now + Duration::from_millis(20);
    world.connecting = false;
    world.step(Event::Connected);
    world.syncing = false;
    world.now = world.now + Duration::from_millis(7);
    world.step(Event::Synced { handled: 0 });
    let incident = &world.recovered[0];
    assert_eq!(&*incident.cause, "killed");
    assert_eq!(incident.attempts, 2);
    assert_eq!(incident.syncing, Duration::from_millis(7));
    assert_eq!(incident.took, incident.waited + incident.connecting + incident.syncing);
    assert!(incident.connecting >= Duration::from_millis(320), "{incident:?}");
}

#[test]
fn thirty_channels_that_die_together_do_not_come_back_together() {
    let mut delays = Vec::new();
    for seed in 0..30 {
        let mut world = World::new();
        world.machine.random = SplitMix::new(seed);
        for _ in 0..4 {
            world.connecting = false;
            world.step(Event::ConnectFailed { reason: "refused".into(), permanent: false });
            delays.push(world.machine.next_deadline().unwrap().since(world.now));
            world.pass(delays.last().copied().unwrap());
        }
    }
    let last: Vec<_> = delays.chunks(4).map(|ladder| ladder[3]).collect();
    let spread = *last.iter().max().unwrap() - *last.iter().min().unwrap();
    assert!(spread > Duration::from_millis(200), "{spread:?}");
    assert!(last.iter().all(|delay| *delay <= Duration::from_millis(800)), "{last:?}");
}
