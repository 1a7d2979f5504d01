//! Properties of the channel machine over random histories.

use proptest::prelude::*;
use supervisor_core::text::ByteSize;

use super::*;

fn config() -> RecoveryConfig {
    RecoveryConfig {
        max_buffered_messages: 20,
        max_buffered_bytes: ByteSize(4000),
        max_in_flight: 4,
        max_attempts: 3,
        ..RecoveryConfig::default()
    }
}

fn message(n: u128) -> IpcMessage {
    IpcMessage {
        id: Uuid::from_u128(n),
        message_type: "t".into(),
        payload: serde_json::Value::String("x".repeat(usize::try_from(n % 50).unwrap())),
        timestamp: chrono::DateTime::UNIX_EPOCH,
        retry_count: 0,
    }
}

#[derive(Debug, Clone)]
enum Move {
    Send { lane: Lane, idempotent: bool, reply: bool },
    SendAgain(usize),
    Pass(u64),
    Connected,
    Failed,
    Synced,
    Lost,
    AckOldest,
    AckStray(u64),
    RetryNow,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let lane = prop_oneof![
        Just(Lane::Control),
        Just(Lane::Interactive),
        Just(Lane::Normal),
        Just(Lane::Bulk)
    ];
    let one = prop_oneof![
        8 => (lane, any::<bool>(), any::<bool>())
            .prop_map(|(lane, idempotent, reply)| Move::Send { lane, idempotent, reply }),
        1 => (0_usize..50).prop_map(Move::SendAgain),
        4 => (0_u64..40_000).prop_map(Move::Pass),
        4 => Just(Move::Connected),
        1 => Just(Move::Failed),
        4 => Just(Move::Synced),
        2 => Just(Move::Lost),
        6 => Just(Move::AckOldest),
        1 => (0_u64..100).prop_map(Move::AckStray),
        1 => Just(Move::RetryNow),
    ];
    prop::collection::vec(one, 0..120)
}

struct World {
    machine: Machine,
    now: Monotonic,
    accepted: Vec<Uuid>,
    settled: HashMap<Uuid, usize>,
    written: VecDeque<(u64, Uuid, bool)>,
    connecting: bool,
    syncing: bool,
}

impl World {
    fn new() -> Self {
        let mut machine = Machine::new(config(), true, 7);
        let now = Monotonic::from_origin(Duration::from_secs(1000));
        let actions = machine.step(now, Event::Attached);
        let mut world = Self {
            machine,
            now,
            accepted: Vec::new(),
            settled: HashMap::new(),
            written: VecDeque::new(),
            connecting: false,
            syncing: false,
        };
        world.note(actions);
        world
    }

    fn step(&mut self, event: Event) {
        let actions = self.machine.step(self.now, event);
        self.note(actions);
    }

    fn note(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Connect => self.connecting = true,
                Action::Disconnect => {
                    self.written.clear();
                    self.syncing = false;
                }
                Action::Synchronize { .. } => self.syncing = true,
                Action::Write { s, message, expect_reply } => {
                    assert!(!self.syncing, "something flowed before the peer's state was restored");
                    self.written.push_back((s, message.id, expect_reply));
                }
                Action::Settle { id, .. } => *self.settled.entry(id).or_default() += 1,
                _ => {}
            }
        }
        assert!(self.machine.buffered() <= config().max_buffered_messages);
        assert!(self.machine.buffered_bytes as u64 <= config().max_buffered_bytes.bytes() + 300);
    }

    fn send(&mut self, id: u128, options: SendOptions) {
        let mut actions = Vec::new();
        let accepted = self.machine.accept(self.now, message(id), options, &mut actions);
        // An id that left the dedupe window is a new message, and ends once more.
        if matches!(accepted, Ok(Accepted::Sent | Accepted::Buffered)) {
            self.accepted.push(Uuid::from_u128(id));
        }
        self.note(actions);
    }

    fn play(&mut self, moves: &[Move]) {
        let mut next = 1;
        for one in moves {
            match one {
                Move::Send { lane, idempotent, reply } => {
                    self.send(
                        next,
                        SendOptions {
                            lane: *lane,
                            idempotent: *idempotent,
                            ttl: None,
                            expect_reply: *reply,
                            durable: false,
                        },
                    );
                    next += 1;
                }
                Move::SendAgain(n) => {
                    if let Some(id) = self.accepted.get(*n).copied() {
                        self.send(id.as_u128(), SendOptions::default());
                    }
                }
                Move::Pass(ms) => {
                    self.now = self.now + Duration::from_millis(*ms);
                    self.step(Event::Tick);
                }
                Move::Connected if std::mem::take(&mut self.connecting) => {
                    self.step(Event::Connected);
                }
                Move::Failed if std::mem::take(&mut self.connecting) => {
                    self.step(Event::ConnectFailed { reason: "no".into(), permanent: false });
                }
                Move::Synced if std::mem::take(&mut self.syncing) => self.step(Event::Synced),
                Move::Lost => self.step(Event::Lost { reason: "gone".into() }),
                Move::AckOldest => {
                    if let Some((s, _, reply)) = self.written.pop_front() {
                        self.step(if reply {
                            Event::Replied { s, reply: serde_json::Value::Null }
                        } else {
                            Event::Acked { s, duplicate: false }
                        });
                    }
                }
                Move::AckStray(s) => {
                    let known = self.written.iter().any(|(written, _, _)| written == s);
                    if !known {
                        let before = self.settled.clone();
                        self.step(Event::Acked { s: *s, duplicate: false });
                        let extra: Vec<_> = self
                            .settled
                            .iter()
                            .filter(|(id, n)| before.get(*id) != Some(n))
                            .collect();
                        // Only expiry may settle something here; a stray number completes nothing of this generation.
                        assert!(extra.len() <= self.accepted.len());
                    }
                }
                Move::RetryNow => self.step(Event::RetryNow),
                Move::Connected | Move::Failed | Move::Synced => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_accepted_message_ends_exactly_once_and_bounds_hold(moves in moves()) {
        let mut world = World::new();
        world.play(&moves);
        world.step(Event::Close);
        let mut wanted = HashMap::new();
        for id in &world.accepted {
            *wanted.entry(*id).or_insert(0_usize) += 1;
        }
        prop_assert_eq!(&world.settled, &wanted);
        prop_assert_eq!(world.machine.buffered_bytes, 0);
    }

    #[test]
    fn the_channel_is_ready_again_once_faults_stop(moves in moves()) {
        let mut world = World::new();
        world.play(&moves);
        for _ in 0..200 {
            world.now = world.now + Duration::from_secs(4);
            world.step(Event::Tick);
            if std::mem::take(&mut world.connecting) {
                world.step(Event::Connected);
            }
            if std::mem::take(&mut world.syncing) {
                world.step(Event::Synced);
            }
            if world.machine.state == ChannelState::Ready {
                return Ok(());
            }
        }
        prop_assert!(false, "still {:?}: {}", world.machine.state, world.machine.reason);
    }
}

fn ready() -> World {
    let mut world = World::new();
    world.step(Event::Connected);
    world.connecting = false;
    world.syncing = false;
    world.step(Event::Synced);
    world
}

#[test]
fn what_was_in_flight_is_written_again_before_what_waited() {
    let mut world = ready();
    for n in 1..=6 {
        world.send(n, SendOptions::default());
    }
    world.step(Event::Lost { reason: "gone".into() });
    world.now = world.now + Duration::from_millis(1);
    world.step(Event::Tick);
    world.step(Event::Connected);
    world.syncing = false;
    world.step(Event::Synced);
    let order: Vec<_> = world.written.iter().map(|(_, id, _)| id.as_u128()).collect();
    assert_eq!(order, [1, 2, 3, 4]);
}

#[test]
fn a_message_that_must_not_be_repeated_ends_as_indeterminate() {
    let mut world = ready();
    let mut actions = Vec::new();
    let options = SendOptions { idempotent: false, ..SendOptions::default() };
    world.machine.accept(world.now, message(1), options, &mut actions).unwrap();
    let lost = world.machine.step(world.now, Event::Lost { reason: "gone".into() });
    assert!(lost.iter().any(|action| matches!(
        action,
        Action::Settle { outcome: Outcome::Indeterminate { generation: Generation(1) }, .. }
    )));
}

#[test]
fn control_overtakes_and_bulk_does_not_starve() {
    let mut world = World::new();
    for n in 1..=6 {
        world.send(n, SendOptions { lane: Lane::Interactive, ..SendOptions::default() });
    }
    world.send(7, SendOptions { lane: Lane::Bulk, ..SendOptions::default() });
    world.send(8, SendOptions { lane: Lane::Control, ..SendOptions::default() });
    world.step(Event::Connected);
    world.syncing = false;
    world.step(Event::Synced);
    let mut order = Vec::new();
    while let Some((s, id, _)) = world.written.pop_front() {
        order.push(id.as_u128());
        world.step(Event::Acked { s, duplicate: false });
    }
    assert_eq!(order[0], 8);
    assert_eq!(order.len(), 8);
    assert!(order.contains(&7));
}

#[test]
fn repeated_failures_open_the_circuit_and_a_request_closes_it() {
    let mut world = World::new();
    for _ in 0..5 {
        world.step(Event::ConnectFailed { reason: "refused".into(), permanent: false });
        world.now = world.now + Duration::from_secs(11);
        world.step(Event::Tick);
    }
    assert_eq!(world.machine.state, ChannelState::Open);
    world.connecting = false;
    world.step(Event::RetryNow);
    assert!(world.connecting);
    assert_eq!(world.machine.state, ChannelState::Connecting);
}

#[test]
fn silence_is_asked_about_then_suspected_then_given_up() {
    let mut world = ready();
    let mut states = Vec::new();
    for _ in 0..5 {
        world.now = world.now + Duration::from_secs(5);
        world.step(Event::Tick);
        states.push(world.machine.state);
    }
    assert_eq!(states[0], ChannelState::Ready);
    assert_eq!(states[1], ChannelState::Suspect);
    assert_eq!(states[3], ChannelState::Backoff);
}

#[test]
fn a_full_buffer_refuses_at_once_and_leaves_no_trace() {
    let mut world = World::new();
    let mut actions = Vec::new();
    for n in 1..=20 {
        world
            .machine
            .accept(world.now, message(n * 50), SendOptions::default(), &mut actions)
            .unwrap();
    }
    let refused =
        world.machine.accept(world.now, message(9999), SendOptions::default(), &mut actions);
    assert_eq!(refused, Err(Refusal::Full(Limit::Messages)));
    assert_eq!(world.machine.buffered(), 20);
}

fn reconnect(world: &mut World) {
    world.step(Event::Lost { reason: "gone".into() });
    world.now = world.now + Duration::from_secs(1);
    world.step(Event::Tick);
    world.step(Event::Connected);
    world.syncing = false;
    world.step(Event::Synced);
}

#[test]
fn repetitions_beyond_the_budget_wait_in_their_order_until_time_pays_for_them() {
    let mut world = ready();
    world.machine.budget = RetryBudget::new(0, 1, 4);
    world.machine.config.max_attempts = 100;
    let patient = SendOptions { ttl: Some(Duration::from_secs(900)), ..SendOptions::default() };
    for n in 1..=4 {
        world.send(n, patient);
    }
    // Ten were saved, each second adds one, each reconnect takes four.
    for written in [4, 4, 4, 1] {
        reconnect(&mut world);
        assert_eq!(world.written.len(), written);
    }
    let wakes = world.machine.next_deadline().unwrap();
    assert!(wakes <= world.now + Duration::from_secs(2), "it wakes by itself");
    world.now = world.now + Duration::from_secs(4);
    world.step(Event::Tick);
    let order: Vec<_> = world.written.iter().map(|(_, id, _)| id.as_u128()).collect();
    assert_eq!(order, [1, 2, 3, 4]);
}

#[test]
fn an_unanswered_request_ends_and_its_peer_is_asked_for_a_sign_of_life() {
    let mut world = ready();
    world.machine.config.request_timeout = Duration::from_secs(2);
    let ask = SendOptions { expect_reply: true, ..SendOptions::default() };
    world.send(1, ask);
    world.now = world.now + Duration::from_secs(2);
    let actions = world.machine.step(world.now, Event::Tick);
    assert!(actions.iter().any(|action| matches!(action, Action::Ping { .. })));
    world.note(actions);
    assert_eq!(world.settled.len(), 1);
    assert_eq!(world.machine.state, ChannelState::Suspect);
    world.written.clear();
    world.send(2, SendOptions::default());
    assert!(world.written.is_empty(), "nothing is written to a suspect");
    world.step(Event::Alive);
    assert_eq!(world.machine.state, ChannelState::Ready);
    assert_eq!(world.written.len(), 1, "and what waited goes out with its sign of life");
}

#[test]
fn the_bytes_of_all_channels_together_are_bounded() {
    let mut world = World::new();
    world.machine.config.global_buffered_bytes = ByteSize(4000);
    world.machine.elsewhere = 3950;
    let mut actions = Vec::new();
    let refused = world.machine.accept(world.now, message(1), SendOptions::default(), &mut actions);
    assert_eq!(refused, Err(Refusal::Full(Limit::AllBytes)));
    let control = SendOptions { lane: Lane::Control, ..SendOptions::default() };
    assert!(world.machine.accept(world.now, message(1), control, &mut actions).is_ok());
}
