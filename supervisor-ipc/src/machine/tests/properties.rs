//! Properties of the channel machine over random histories. A failing history is printed and kept by proptest; the seed of
//! a run is taken from `PROPTEST_RNG_SEED`.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Move {
    Send {
        lane: Lane,
        idempotent: bool,
        reply: bool,
        replaces: Option<u64>,
    },
    SendAgain(usize),
    Pass(u64),
    /// We stand still: no tick comes in time.
    StandStill(u64),
    Connected,
    Failed,
    Synced,
    Lost,
    Handle,
    Hear,
    AckStray(u64),
    Alive,
    Wrote(bool),
    RetryNow,
    Weighed(bool),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let lane = prop_oneof![
        Just(Lane::Control),
        Just(Lane::Interactive),
        Just(Lane::Normal),
        Just(Lane::Bulk)
    ];
    let replaces = prop_oneof![3 => Just(None), 1 => (0_u64..3).prop_map(Some)];
    let one = prop_oneof![
        10 => (lane, any::<bool>(), any::<bool>(), replaces).prop_map(
            |(lane, idempotent, reply, replaces)| Move::Send { lane, idempotent, reply, replaces }
        ),
        1 => (0_usize..50).prop_map(Move::SendAgain),
        4 => (0_u64..40_000).prop_map(Move::Pass),
        1 => (3_000_u64..40_000_000).prop_map(Move::StandStill),
        4 => Just(Move::Connected),
        1 => Just(Move::Failed),
        4 => Just(Move::Synced),
        2 => Just(Move::Lost),
        6 => Just(Move::Handle),
        6 => Just(Move::Hear),
        1 => (0_u64..100).prop_map(Move::AckStray),
        1 => Just(Move::Alive),
        1 => any::<bool>().prop_map(Move::Wrote),
        1 => Just(Move::RetryNow),
        2 => any::<bool>().prop_map(Move::Weighed),
    ];
    prop::collection::vec(one, 0..160)
}

fn overflow() -> impl Strategy<Value = supervisor_core::config::OverflowPolicy> {
    use supervisor_core::config::OverflowPolicy::{DropNewest, DropOldest, Reject};
    prop_oneof![Just(Reject), Just(DropOldest), Just(DropNewest)]
}

fn play(world: &mut World, moves: &[Move]) {
    let mut next = 1;
    for one in moves {
        match one {
            Move::Send { lane, idempotent, reply, replaces } => {
                let options = SendOptions {
                    lane: *lane,
                    idempotent: *idempotent,
                    expect_reply: *reply,
                    replaces: *replaces,
                    ..SendOptions::default()
                };
                drop(world.send(next, options));
                next += 1;
            }
            Move::SendAgain(n) => {
                if let Some(id) = world.accepted.get(*n).copied() {
                    let (options, before) = (world.options[&id], world.accepted.len());
                    // The machine forgets what is too old step by step, also while it takes this one.
                    for _ in 0..32 {
                        world.machine.seen.forget(world.now);
                    }
                    let known = world.machine.seen.get(world.machine.seen.key(id)).is_some();
                    let writes = world.writes.remove(&id);
                    drop(world.send(id.as_u128(), options));
                    if let Some(writes) = writes.filter(|_| known) {
                        *world.writes.entry(id).or_default() += writes;
                    }
                    assert!(!known || world.accepted.len() == before, "the same id twice");
                }
            }
            Move::Pass(ms) => world.pass(Duration::from_millis(*ms)),
            Move::StandStill(ms) => {
                world.now = world.now + Duration::from_millis(*ms);
                world.step(Event::Tick);
            }
            Move::Connected if std::mem::take(&mut world.connecting) => {
                world.step(Event::Connected);
            }
            Move::Failed if std::mem::take(&mut world.connecting) => {
                world.step(Event::ConnectFailed { reason: "no".into(), permanent: false });
            }
            Move::Synced if std::mem::take(&mut world.syncing) => {
                let handled = world.handled;
                world.step(Event::Synced { handled });
            }
            Move::Lost => world.step(Event::Lost { reason: "gone".into() }),
            Move::Handle => world.handle(),
            Move::Hear => world.hear(),
            Move::AckStray(s) => {
                // A number of an earlier generation, or one never given, completes nothing.
                world.step(Event::Alive);
                let in_flight = world.machine.in_flight.front().map(Item::s);
                if in_flight.is_none_or(|first| *s < first) {
                    let before = world.machine.delivered;
                    world.step(Event::Replied { s: *s, reply: serde_json::Value::Null });
                    world.step(Event::Acked { s: *s, duplicate: false });
                    assert_eq!(
                        before, world.machine.delivered,
                        "a stray number delivered something"
                    );
                }
            }
            Move::Alive => world.step(Event::Alive),
            Move::Wrote(pending) => world.step(Event::Wrote { pending: *pending }),
            Move::RetryNow => world.step(Event::RetryNow),
            Move::Weighed(excused) => {
                let excuse = excused.then(|| "it is at work".to_owned());
                world.step(Event::Weighed { excuse });
            }
            Move::Connected | Move::Failed | Move::Synced => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// The world asserts on the way: bounds, order within a lane, numbers that only rise, nothing before the peer's state is
    /// restored, outcomes that are true, no second write of what must not be repeated.
    #[test]
    fn every_accepted_message_ends_exactly_once_and_truly(moves in moves(), overflow in overflow(), (weighs, paced) in any::<(bool, bool)>()) {
        let mut world = World::with(RecoveryConfig { overflow, ..config() });
        (world.machine.weighs, world.machine.paced) = (weighs, paced);
        play(&mut world, &moves);
        world.step(Event::Close);
        let mut wanted = HashMap::new();
        for id in &world.accepted {
            *wanted.entry(*id).or_insert(0_usize) += 1;
        }
        prop_assert_eq!(&world.settled, &wanted);
        prop_assert_eq!(world.machine.buffered_bytes, 0);
        prop_assert_eq!(world.machine.buffered(), 0);
        let counted: u64 = world.machine.outcomes.0.iter().sum();
        prop_assert_eq!(counted, world.accepted.len() as u64);
        prop_assert!(world.effects.values().all(|times| *times == 1), "an effect twice");
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_channel_is_ready_again_once_faults_stop_and_delivers(moves in moves(), (weighs, paced) in any::<(bool, bool)>()) {
        let mut world = World::new();
        (world.machine.weighs, world.machine.paced) = (weighs, paced);
        play(&mut world, &moves);
        for _ in 0..200 {
            world.pass(Duration::from_secs(4));
            world.connect();
            world.step(Event::Wrote { pending: false });
            world.settle_all();
            if world.machine.state == ChannelState::Ready {
                break;
            }
        }
        prop_assert_eq!(world.machine.state, ChannelState::Ready, "{}", world.machine.reason);
        // What is left waits for its repetition to be paid, at most.
        for _ in 0..100 {
            world.pass(Duration::from_secs(1));
            world.step(Event::Alive);
            world.settle_all();
        }
        prop_assert_eq!(world.machine.buffered(), 0);
        let taken = world.send(1_000_000, SendOptions::default());
        prop_assert!(matches!(taken, Ok(Accepted::Sent)), "{:?}", taken);
        world.settle_all();
        prop_assert!(world.outcomes[&Uuid::from_u128(1_000_000)].delivered());
    }
}
