//! The channel machine against a simulated world: a peer, a wire in each direction, and a clock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use supervisor_core::message::Lane;
use supervisor_core::text::ByteSize;
use uuid::Uuid;

use super::*;

mod properties;
mod scenarios;

fn config() -> RecoveryConfig {
    RecoveryConfig {
        max_buffered_messages: 20,
        max_buffered_bytes: ByteSize(16_000),
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

/// A frame that was written and not handled yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    s: u64,
    id: Uuid,
    reply: bool,
}

/// What the peer says, on its way.
#[derive(Debug, Clone)]
enum Said {
    Ack { s: u64, duplicate: bool },
    Reply { s: u64 },
}

/// The machine, and what a reference model knows of every message.
struct World {
    machine: Machine,
    now: Monotonic,
    /// Accepted ids in their order; one that left the window may be there twice.
    accepted: Vec<Uuid>,
    order: HashMap<Uuid, usize>,
    options: HashMap<Uuid, SendOptions>,
    settled: HashMap<Uuid, usize>,
    outcomes: HashMap<Uuid, Outcome>,
    /// Where the outcome of the newest message with this id appears.
    slots: HashMap<Uuid, Arc<Slot>>,
    /// Times each id was written.
    writes: HashMap<Uuid, usize>,
    /// The wire to the peer, of this generation.
    written: VecDeque<Frame>,
    /// The wire from the peer, of this generation.
    said: VecDeque<Said>,
    /// Ids that had their effect at the peer, with how often.
    effects: HashMap<Uuid, usize>,
    /// Up to where the peer has handled everything.
    handled: u64,
    highest: u64,
    newest: HashMap<Lane, usize>,
    connecting: bool,
    syncing: bool,
    flowing: bool,
    pings: usize,
    reasons: Vec<Arc<str>>,
    recovered: Vec<Incident>,
    buried: Vec<(Uuid, Vec<Generation>)>,
    dropped: HashSet<Uuid>,
    weighing: bool,
    /// Connections given up: whether for silence, and why.
    losses: Vec<(bool, Arc<str>)>,
}

impl World {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: RecoveryConfig) -> Self {
        let mut world = Self {
            machine: Machine::new(config, true, 7),
            now: Monotonic::from_origin(Duration::from_secs(1000)),
            accepted: Vec::new(),
            order: HashMap::new(),
            options: HashMap::new(),
            settled: HashMap::new(),
            outcomes: HashMap::new(),
            slots: HashMap::new(),
            writes: HashMap::new(),
            written: VecDeque::new(),
            said: VecDeque::new(),
            effects: HashMap::new(),
            handled: 0,
            highest: 0,
            newest: HashMap::new(),
            connecting: false,
            syncing: false,
            flowing: false,
            pings: 0,
            reasons: Vec::new(),
            recovered: Vec::new(),
            buried: Vec::new(),
            dropped: HashSet::new(),
            weighing: false,
            losses: Vec::new(),
        };
        world.step(Event::Attached);
        world
    }

    /// A world whose channel is ready.
    fn ready() -> Self {
        let mut world = Self::new();
        world.connect();
        world
    }

    fn connect(&mut self) {
        if std::mem::take(&mut self.connecting) {
            self.step(Event::Connected);
        }
        if std::mem::take(&mut self.syncing) {
            let handled = self.handled;
            self.step(Event::Synced { handled });
        }
    }

    /// Loses the connection and makes a new one.
    fn reconnect(&mut self) {
        self.step(Event::Lost { reason: "gone".into() });
        self.pass(Duration::from_secs(1));
        self.connect();
    }

    fn step(&mut self, event: Event) {
        let actions = self.machine.step(self.now, event);
        self.note(actions);
    }

    /// Lets time pass, with a tick at each deadline as the driver gives it.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..10_000 {
            match self.machine.next_deadline() {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    self.step(Event::Tick);
                }
                _ => break,
            }
        }
        self.now = end;
        self.step(Event::Tick);
    }

    fn note(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Connect => {
                    assert!(!self.flowing, "connected twice");
                    self.connecting = true;
                }
                Action::Disconnect => {
                    self.written.clear();
                    self.said.clear();
                    self.newest.clear();
                    (self.connecting, self.syncing, self.flowing) = (false, false, false);
                }
                Action::Synchronize { .. } => self.syncing = true,
                Action::State { to, reason, .. } => {
                    self.flowing |= to == ChannelState::Ready;
                    self.reasons.push(reason);
                }
                Action::Write { s, message, expect_reply } => {
                    self.note_write(s, message.id, expect_reply);
                }
                Action::Ping { s } => {
                    assert!(s > self.highest, "numbers only rise");
                    self.highest = s;
                    self.pings += 1;
                }
                Action::Settle { id, promise, outcome } => {
                    let slot = promise.slot();
                    let mine = self.slots.get(&id).is_none_or(|mine| Arc::ptr_eq(mine, &slot));
                    assert!(mine, "the outcome of another message");
                    self.note_outcome(id, outcome);
                }
                Action::Bury { message, generations, .. } => {
                    self.buried.push((message.id, generations));
                }
                Action::Dropped { id, .. } => drop(self.dropped.insert(id)),
                Action::Recovered(incident) => self.recovered.push(*incident),
                Action::Weigh { generation } => {
                    assert_eq!(generation, self.machine.generation);
                    self.weighing = true;
                }
                Action::Lost { silent, reason } => self.losses.push((silent, reason)),
            }
        }
        let control = queue::CONTROL_RESERVE;
        let config = &self.machine.config;
        assert!(self.machine.buffered() <= config.max_buffered_messages + control);
        // Control is not refused for want of bytes, but it is for want of places.
        let most = config.max_buffered_bytes.bytes() + 850 * (20 + control as u64);
        assert!(self.machine.buffered_bytes as u64 <= most);
    }

    fn note_write(&mut self, s: u64, id: Uuid, reply: bool) {
        assert!(self.flowing, "something flowed before the peer's state was restored");
        assert!(s > self.highest, "numbers only rise");
        self.highest = s;
        let (place, options) = (self.order[&id], self.options[&id]);
        let before = self.newest.insert(options.lane, place);
        assert!(before.is_none_or(|before| before < place), "overtaken in its own lane");
        let writes = self.writes.entry(id).or_default();
        *writes += 1;
        assert!(options.idempotent || *writes == 1, "written twice though it must not be");
        self.written.push_back(Frame { s, id, reply });
    }

    fn note_outcome(&mut self, id: Uuid, outcome: Outcome) {
        *self.settled.entry(id).or_default() += 1;
        let (written, effects) = (self.writes.contains_key(&id), self.effects.contains_key(&id));
        match &outcome {
            Outcome::Acked { .. } | Outcome::Answered { .. } => {
                assert!(effects, "said to be delivered, but the peer has not seen it");
            }
            Outcome::NotSent { .. } | Outcome::Superseded => {
                assert!(!written, "said never to be written, but it was");
            }
            Outcome::Indeterminate { .. } => assert!(written),
            Outcome::DeadLettered { .. } => {
                assert!(self.buried.iter().any(|(buried, _)| *buried == id));
            }
            Outcome::Expired | Outcome::Rejected { .. } => assert!(self.dropped.contains(&id)),
        }
        self.outcomes.insert(id, outcome);
    }

    fn send(&mut self, id: u128, options: SendOptions) -> Result<Accepted, Refusal> {
        let uuid = Uuid::from_u128(id);
        let mut actions = Vec::new();
        let known = self.machine.seen.get(self.machine.seen.key(uuid)).is_some();
        if !known {
            // An id that left the dedupe window is a new message, and ends once more.
            self.order.insert(uuid, self.accepted.len());
            self.options.insert(uuid, options);
        }
        let mut promise = Some(Promise::default());
        let slot = promise.as_ref().map(Promise::slot).unwrap_or_default();
        let accepted =
            self.machine.accept(self.now, message(id), options, &mut promise, &mut actions);
        let taken = matches!(accepted, Ok(Accepted::Sent | Accepted::Buffered));
        assert_eq!(promise.is_none(), taken, "a promise is kept with its message alone");
        if taken {
            self.slots.insert(uuid, slot);
        }
        if matches!(accepted, Ok(Accepted::Sent | Accepted::Buffered)) {
            self.accepted.push(uuid);
        }
        self.note(actions);
        accepted
    }

    /// The peer handles its next frame, each id once, and says so.
    fn handle(&mut self) {
        let Some(Frame { s, id, reply }) = self.written.pop_front() else { return };
        let duplicate = self.effects.contains_key(&id);
        if !duplicate {
            *self.effects.entry(id).or_default() += 1;
        }
        self.handled = self.handled.max(s);
        self.said.push_back(if reply { Said::Reply { s } } else { Said::Ack { s, duplicate } });
    }

    /// What the peer said arrives.
    fn hear(&mut self) {
        match self.said.pop_front() {
            Some(Said::Ack { s, duplicate }) => self.step(Event::Acked { s, duplicate }),
            Some(Said::Reply { s }) => {
                self.step(Event::Replied { s, reply: serde_json::Value::Null });
            }
            None => {}
        }
    }

    /// The peer handles and says everything, until nothing is left to do.
    fn settle_all(&mut self) {
        while !self.written.is_empty() || !self.said.is_empty() {
            self.handle();
            self.hear();
        }
    }
}
