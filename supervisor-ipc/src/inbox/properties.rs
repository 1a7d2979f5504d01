//! The inbox beside a reference model: a service that keeps what is unacknowledged, a wire that is cut, subscribers that
//! come and go. A failing history is printed and kept by proptest; the seed of a run is taken from `PROPTEST_RNG_SEED`.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Move {
    /// The service has one more thing to say.
    Push,
    /// One frame arrives.
    Deliver,
    /// The channel says what it owes; what of it the service hears is for `Cut` to say.
    Owe,
    Hear,
    /// The connection breaks with all that is on it, and there is a new one.
    Cut,
    /// The service is killed and says again what it kept.
    Restart,
    Subscribe,
    Ask(usize),
    Leave(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        8 => Just(Move::Push),
        8 => Just(Move::Deliver),
        6 => Just(Move::Owe),
        6 => Just(Move::Hear),
        2 => Just(Move::Cut),
        1 => Just(Move::Restart),
        1 => Just(Move::Subscribe),
        8 => (0_usize..4).prop_map(Move::Ask),
        1 => (0_usize..4).prop_map(Move::Leave),
    ];
    prop::collection::vec(one, 0..200)
}

/// A subscriber, with what it was given: `done` of these it asked beyond.
#[derive(Default)]
struct Subscriber {
    name: u64,
    heard: Vec<u64>,
    done: usize,
}

struct World {
    inbox: Inbox,
    session: u64,
    next_s: u64,
    said: u64,
    /// What the service keeps, with the number it was sent as last.
    unacknowledged: VecDeque<(u64, u64)>,
    wire: VecDeque<(u64, u64)>,
    acks: VecDeque<u64>,
    /// The last number of this session that each message arrived with.
    numbers: HashMap<u64, u64>,
    subscribers: Vec<Subscriber>,
    /// How often each message was done with by somebody.
    done: HashMap<u64, u32>,
}

impl World {
    fn new() -> Self {
        let config = RecoveryConfig { max_in_flight: 16, ..RecoveryConfig::default() };
        let mut world = Self {
            inbox: Inbox::new(&config),
            session: 1,
            next_s: 1,
            said: 0,
            unacknowledged: VecDeque::new(),
            wire: VecDeque::new(),
            acks: VecDeque::new(),
            numbers: HashMap::new(),
            subscribers: Vec::new(),
            done: HashMap::new(),
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.wire.clear();
        self.acks.clear();
        let push = self.inbox.greeting();
        self.inbox.greeted(Some(Uuid::from_u128(u128::from(self.session))));
        if push.session == Some(Uuid::from_u128(u128::from(self.session))) {
            self.acknowledged(push.handled);
        }
        for at in 0..self.unacknowledged.len() {
            let n = self.unacknowledged[at].0;
            self.unacknowledged[at].1 = self.send(n);
        }
    }

    fn send(&mut self, n: u64) -> u64 {
        let s = self.next_s;
        self.next_s += 1;
        self.wire.push_back((s, n));
        s
    }

    fn acknowledged(&mut self, s: u64) {
        while self.unacknowledged.front().is_some_and(|(_, at)| *at <= s) {
            self.unacknowledged.pop_front();
        }
    }

    fn deliver(&mut self) {
        let Some((s, n)) = self.wire.pop_front() else { return };
        self.numbers.insert(n, s);
        let message = IpcMessage {
            id: Uuid::from_u128(u128::from(n)),
            message_type: "t".into(),
            payload: n.into(),
            timestamp: chrono::DateTime::UNIX_EPOCH,
            retry_count: 0,
        };
        self.inbox.arrive(Monotonic::ZERO, s, message, 200).unwrap();
    }

    /// What the channel says is true: everything up to there was handled.
    fn owe(&mut self) {
        let Some((s, _)) = self.inbox.owed() else { return };
        for (n, _) in self.numbers.iter().filter(|(_, at)| **at <= s) {
            assert!(self.done.contains_key(n), "{n} was acknowledged and nobody handled it");
            for one in &self.subscribers {
                assert!(!one.heard[one.done..].contains(n), "{n} was acknowledged too early");
            }
        }
        self.acks.push_back(s);
    }

    fn ask(&mut self, at: usize) {
        let Some(one) = self.subscribers.get_mut(at) else { return };
        for n in &one.heard[one.done..] {
            *self.done.entry(*n).or_default() += 1;
        }
        one.done = one.heard.len();
        if let Some(message) = self.inbox.next(one.name) {
            let n = message.payload.as_u64().unwrap();
            assert!(
                one.heard.last().is_none_or(|last| *last + 1 == n),
                "{n} after {:?}",
                one.heard
            );
            one.heard.push(n);
        }
    }

    fn play(&mut self, one: &Move) {
        match one {
            Move::Push if self.unacknowledged.len() < 16 => {
                self.said += 1;
                let s = self.send(self.said);
                self.unacknowledged.push_back((self.said, s));
            }
            Move::Deliver => self.deliver(),
            Move::Owe => self.owe(),
            Move::Hear => {
                if let Some(s) = self.acks.pop_front() {
                    self.acknowledged(s);
                }
            }
            Move::Cut => self.connect(),
            Move::Restart => {
                self.session += 1;
                self.next_s = 1;
                self.numbers.clear();
                self.connect();
            }
            Move::Subscribe if self.subscribers.len() < 4 => {
                let name = self.inbox.subscribe();
                self.subscribers.push(Subscriber { name, ..Subscriber::default() });
            }
            Move::Ask(at) => self.ask(*at),
            Move::Leave(at) if *at < self.subscribers.len() => {
                self.inbox.leave(self.subscribers.remove(*at).name);
            }
            Move::Push | Move::Subscribe | Move::Leave(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn every_subscriber_gets_every_message_once_in_order_and_only_what_was_handled_is_acknowledged(moves in moves()) {
        let mut world = World::new();
        let faithful = world.inbox.subscribe();
        world.subscribers.push(Subscriber { name: faithful, ..Subscriber::default() });
        for one in &moves {
            // The first one stays.
            if !matches!(one, Move::Leave(0)) {
                world.play(one);
            }
        }
        world.connect();
        for _ in 0..64 {
            world.deliver();
            for at in 0..world.subscribers.len() {
                world.ask(at);
            }
            world.owe();
            world.play(&Move::Hear);
        }
        let all: Vec<u64> = (1..=world.said).collect();
        prop_assert_eq!(&world.subscribers[0].heard, &all);
        prop_assert!(world.unacknowledged.is_empty(), "{:?}", world.unacknowledged);
        prop_assert!(world.inbox.kept.is_empty());
    }

    #[test]
    fn what_nobody_handled_waits_for_the_next_subscriber_whoever_dies_meanwhile(moves in moves()) {
        let mut world = World::new();
        for one in &moves {
            world.play(one);
        }
        world.connect();
        if world.subscribers.is_empty() {
            world.play(&Move::Subscribe);
        }
        for _ in 0..64 {
            world.deliver();
            for at in 0..world.subscribers.len() {
                world.ask(at);
            }
            world.owe();
            world.play(&Move::Hear);
        }
        for n in 1..=world.said {
            prop_assert!(world.done.contains_key(&n), "{} was handled by nobody", n);
        }
        prop_assert!(world.unacknowledged.is_empty(), "{:?}", world.unacknowledged);
    }
}
