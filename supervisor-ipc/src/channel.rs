//! One channel: a handle, and the task that owns its machine and its connection.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use supervisor_core::config::{FramingKind, RecoveryConfig};
use supervisor_core::error::{Classified, IpcError, chain};
use supervisor_core::event::EventKind;
use supervisor_core::message::{ChannelState, ChannelStatus, DeadLetter, IpcMessage, Outcome};
use supervisor_core::ports::{Clock, EventSink, StateSynchronizer};
use supervisor_core::state::ChannelPosition;
use supervisor_core::{Generation, Monotonic, Sequence};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use crate::connection::Wire;
use crate::machine::{Accepted, Action, Event, Machine, Refusal, SendOptions};
use crate::protocol::{Heard, Protocol};
use crate::receipt::{Acceptance, Receipt};
use crate::session::{SESSION_MAX, Session};
use crate::transport::{Connection, Transport};

/// Requests that may wait for the channel's task. At the bound senders wait for a place, which takes microseconds.
const REQUESTS_MAX: usize = 256;
/// Messages of the peer that wait for each subscriber. At the bound the oldest are overwritten and counted as missed.
const INCOMING_MAX: usize = 1024;
/// Longest sleep at a time.
const SLEEP_MAX: std::time::Duration = std::time::Duration::from_secs(3600);

/// How a channel is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelOptions {
    /// How it buffers, retries and reconnects.
    pub config: RecoveryConfig,
    /// How messages are cut: `Length` for our own envelope, `Lsp` and `Mcp` for JSON-RPC.
    pub framing: FramingKind,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            config: RecoveryConfig::default(),
            framing: FramingKind::Length,
        }
    }
}

/// What a subscriber gets.
pub type Incoming = tokio::sync::broadcast::Receiver<Arc<IpcMessage>>;

#[derive(Debug)]
pub(crate) enum Request {
    Send {
        message: IpcMessage,
        options: SendOptions,
        answer: oneshot::Sender<Receipt>,
    },
    Attach(Arc<dyn Transport>),
    Synchronizer(Arc<dyn StateSynchronizer>),
    Do(Event),
}

/// What the task shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) state: ChannelState,
    pub(crate) reason: String,
    pub(crate) generation: Generation,
    pub(crate) buffered: u64,
    pub(crate) position: ChannelPosition,
}

/// A handle to a channel; clones share it.
#[derive(Debug, Clone)]
pub struct Channel {
    pub(crate) name: Arc<str>,
    pub(crate) options: Arc<ChannelOptions>,
    requests: mpsc::Sender<Request>,
    shown: watch::Receiver<Shown>,
    incoming: tokio::sync::broadcast::Sender<Arc<IpcMessage>>,
    dead: Arc<Mutex<VecDeque<DeadLetter>>>,
}

/// What every channel of a monitor shares.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sink: Arc<dyn EventSink>,
    /// Channels that may reconnect at once.
    pub(crate) reconnects: Arc<Semaphore>,
}

impl Channel {
    pub(crate) fn start(
        name: String,
        options: ChannelOptions,
        world: Arc<World>,
        seed: u64,
    ) -> (Self, JoinHandle<()>) {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let protocol = Protocol::of(options.framing);
        let machine = Machine::new(options.config.clone(), protocol.acknowledges(), seed);
        let (incoming, _) = tokio::sync::broadcast::channel(INCOMING_MAX);
        let dead = Arc::new(Mutex::new(VecDeque::new()));
        let (name, options): (Arc<str>, _) = (name.into(), Arc::new(options));
        let shown = watch::Sender::new(show(&machine));
        let channel = Self {
            name: Arc::clone(&name),
            options: Arc::clone(&options),
            requests,
            shown: shown.subscribe(),
            incoming: incoming.clone(),
            dead: Arc::clone(&dead),
        };
        let task = Task {
            name,
            options,
            protocol,
            machine,
            world,
            transport: None,
            synchronizer: None,
            wire: None,
            session: None,
            waiting: HashMap::new(),
            jobs: JoinSet::new(),
            shown,
            incoming,
            dead,
        };
        (channel, tokio::spawn(task.run(receiver)))
    }

    /// Gives the channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message with default options.
    ///
    /// # Cancel safety
    /// Safe; the message was accepted or not.
    pub async fn send(&self, message: IpcMessage) -> Receipt {
        self.send_with(message, SendOptions::default()).await
    }

    /// Sends a message.
    ///
    /// # Cancel safety
    /// Safe; the message was accepted or not.
    pub async fn send_with(&self, message: IpcMessage, options: SendOptions) -> Receipt {
        let id = message.id;
        let (answer, answered) = oneshot::channel();
        let closed = || {
            Receipt::refused(
                id,
                IpcError::Closed {
                    channel: self.name.to_string(),
                },
            )
        };
        if self
            .requests
            .send(Request::Send {
                message,
                options,
                answer,
            })
            .await
            .is_err()
        {
            return closed();
        }
        answered.await.unwrap_or_else(|_| closed())
    }

    /// Gives the channel something to connect over, and connects.
    ///
    /// # Errors
    /// [`IpcError::Closed`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn attach(&self, transport: Arc<dyn Transport>) -> Result<(), IpcError> {
        self.ask(Request::Attach(transport)).await
    }

    /// Sets what restores the peer's state after each reconnect; set it before [`attach`](Self::attach).
    ///
    /// # Errors
    /// [`IpcError::Closed`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn set_synchronizer(
        &self,
        synchronizer: Arc<dyn StateSynchronizer>,
    ) -> Result<(), IpcError> {
        self.ask(Request::Synchronizer(synchronizer)).await
    }

    /// Tries to connect now, whatever backoff or circuit say.
    ///
    /// # Errors
    /// [`IpcError::Closed`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn retry_now(&self) -> Result<(), IpcError> {
        self.ask(Request::Do(Event::RetryNow)).await
    }

    /// Subscribes to what the peer sends unasked, from now on.
    #[must_use]
    pub fn incoming(&self) -> Incoming {
        self.incoming.subscribe()
    }

    /// Gives the channel's health.
    #[must_use]
    pub fn status(&self) -> ChannelStatus {
        let shown = self.shown.borrow().clone();
        ChannelStatus {
            name: self.name.to_string(),
            state: shown.state,
            generation: shown.generation,
            buffered: shown.buffered,
            dead_letters: self
                .dead
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .len() as u64,
            reason: shown.reason,
        }
    }

    /// Waits until the channel is in this state.
    ///
    /// # Errors
    /// [`IpcError::Closed`] when it never will be.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn reached(&self, state: ChannelState) -> Result<(), IpcError> {
        let mut shown = self.shown.clone();
        let reached = shown.wait_for(|shown| shown.state == state).await;
        reached.map(drop).map_err(|_| IpcError::Closed {
            channel: self.name.to_string(),
        })
    }

    pub(crate) fn position(&self) -> ChannelPosition {
        self.shown.borrow().position
    }

    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        self.dead
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Takes no new messages and waits until what was accepted has ended.
    pub(crate) async fn drain(&self) {
        if self.ask(Request::Do(Event::Drain)).await.is_ok() {
            let mut shown = self.shown.clone();
            let over = |shown: &Shown| shown.buffered == 0 || shown.state != ChannelState::Draining;
            drop(shown.wait_for(over).await.map(drop));
        }
    }

    pub(crate) async fn close(&self) {
        // An error means that it is closed already.
        drop(self.ask(Request::Do(Event::Close)).await);
    }

    async fn ask(&self, request: Request) -> Result<(), IpcError> {
        let closed = |_| IpcError::Closed {
            channel: self.name.to_string(),
        };
        self.requests.send(request).await.map_err(closed)
    }
}

/// What a background job of the task ended with.
#[derive(Debug)]
enum Done {
    Connected(Result<Connection, IpcError>),
    Synced(Generation, Result<(), IpcError>),
    /// The semaphore's place is given back with it.
    Nothing,
}

struct Task {
    name: Arc<str>,
    options: Arc<ChannelOptions>,
    protocol: Protocol,
    machine: Machine,
    world: Arc<World>,
    transport: Option<Arc<dyn Transport>>,
    synchronizer: Option<Arc<dyn StateSynchronizer>>,
    wire: Option<Wire>,
    /// Where frames go while a synchroniser runs.
    session: Option<mpsc::Sender<Bytes>>,
    waiting: HashMap<Uuid, watch::Sender<Option<Outcome>>>,
    jobs: JoinSet<Done>,
    shown: watch::Sender<Shown>,
    incoming: tokio::sync::broadcast::Sender<Arc<IpcMessage>>,
    dead: Arc<Mutex<VecDeque<DeadLetter>>>,
}

impl Task {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            tokio::select! {
                // What the peer says first: an answer that has arrived must win over the loss noticed after it.
                biased;
                frame = next_frame(self.wire.as_mut()) => self.on_frame(frame),
                Some(done) = self.jobs.join_next() => self.on_done(done.unwrap_or(Done::Nothing)),
                request = requests.recv() => match request {
                    Some(request) => self.on_request(request),
                    None => self.step(Event::Close),
                },
                () = sleep_until(&self.world, self.machine.next_deadline()) => self.step(Event::Tick),
            }
            let shown = show(&self.machine);
            self.shown.send_if_modified(|known| {
                let changed = *known != shown;
                *known = shown;
                changed
            });
            if self.machine.state == ChannelState::Closed {
                return;
            }
        }
    }

    fn now(&self) -> Monotonic {
        self.world.clock.monotonic()
    }

    fn step(&mut self, event: Event) {
        let now = self.now();
        let actions = self.machine.step(now, event);
        self.carry_out(actions);
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Send {
                message,
                options,
                answer,
            } => {
                let receipt = self.accept(message, options);
                // The sender does not wait any more; the message goes its way.
                drop(answer.send(receipt));
            }
            Request::Attach(transport) => {
                self.transport = Some(transport);
                self.step(Event::Attached);
            }
            Request::Synchronizer(synchronizer) => self.synchronizer = Some(synchronizer),
            Request::Do(event) => self.step(event),
        }
    }

    fn accept(&mut self, message: IpcMessage, options: SendOptions) -> Receipt {
        let id = message.id;
        let now = self.now();
        let mut actions = Vec::new();
        // Registered before the machine acts: a message may end in the very step that accepts it.
        let known = self.waiting.get(&id).map(watch::Sender::subscribe);
        let outcome = known.unwrap_or_else(|| {
            self.waiting
                .entry(id)
                .or_insert_with(|| watch::Sender::new(None))
                .subscribe()
        });
        let accepted = self.machine.accept(now, message, options, &mut actions);
        self.carry_out(actions);
        match accepted {
            Ok(Accepted::Sent) => Receipt::new(id, Acceptance::Sent, outcome),
            Ok(Accepted::Buffered) => Receipt::new(id, Acceptance::Buffered, outcome),
            Ok(Accepted::Duplicate(None)) => Receipt::new(id, Acceptance::Duplicate, outcome),
            Ok(Accepted::Duplicate(settled)) => {
                self.waiting.remove(&id);
                Receipt::new(id, Acceptance::Duplicate, watch::channel(settled).1)
            }
            Err(refusal) => {
                self.waiting.remove(&id);
                Receipt::refused(id, self.refusal(id, refusal))
            }
        }
    }

    fn refusal(&self, id: Uuid, refusal: Refusal) -> IpcError {
        let channel = self.name.to_string();
        let config = &self.options.config;
        match refusal {
            Refusal::Closed | Refusal::Draining => IpcError::Closed { channel },
            Refusal::TooLarge(bytes) => {
                let reason = format!(
                    "{bytes} bytes exceed the largest frame, {}",
                    config.max_frame
                );
                IpcError::Unsendable {
                    channel,
                    id,
                    reason,
                }
            }
            Refusal::Full(true) => IpcError::BufferFull {
                channel,
                limit: format!("{} messages", config.max_buffered_messages),
            },
            Refusal::Full(false) => IpcError::BufferFull {
                channel,
                limit: config.max_buffered_bytes.to_string(),
            },
        }
    }

    fn on_frame(&mut self, frame: Result<Bytes, String>) {
        let frame = match frame {
            Ok(frame) => frame,
            Err(reason) => return self.step(Event::Lost { reason }),
        };
        if self.machine.state == ChannelState::Syncing {
            // A synchroniser that reads too slowly for its peer fails, rather than making the channel wait for it.
            if self
                .session
                .as_ref()
                .is_some_and(|session| session.try_send(frame).is_err())
            {
                self.step(Event::Lost {
                    reason: "the synchroniser does not keep up with the peer".to_owned(),
                });
            }
            return;
        }
        match self.protocol.decode(&frame, self.world.clock.wall()) {
            Ok(Heard::Ack { s, duplicate }) => self.step(Event::Acked { s, duplicate }),
            Ok(Heard::Reply { s, reply }) => self.step(Event::Replied { s, reply }),
            Ok(Heard::Message(message)) => self.deliver(message),
            Ok(Heard::Answer(answer, message)) => {
                self.write(answer);
                match message {
                    Some(message) => self.deliver(message),
                    None => self.step(Event::Alive),
                }
            }
            Ok(Heard::Alive) => self.step(Event::Alive),
            Err(reason) => self.step(Event::Lost {
                reason: format!("the peer broke the protocol: {reason}"),
            }),
        }
    }

    fn deliver(&mut self, message: IpcMessage) {
        // An error means that nobody subscribes.
        drop(self.incoming.send(Arc::new(message)));
        self.step(Event::Alive);
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Connected(Ok(connection)) => {
                self.wire = Some(Wire::open(
                    connection,
                    self.options.framing,
                    &self.options.config,
                ));
                self.step(Event::Connected);
            }
            Done::Connected(Err(error)) => {
                let permanent = !error.class().retryable();
                self.step(Event::ConnectFailed {
                    reason: chain(&error),
                    permanent,
                });
            }
            Done::Synced(generation, result) if generation == self.machine.generation => {
                self.session = None;
                match result {
                    Ok(()) => self.step(Event::Synced),
                    Err(error) => self.step(Event::Lost {
                        reason: chain(&error),
                    }),
                }
            }
            Done::Synced(..) | Done::Nothing => {}
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Connect => self.connect(),
                Action::Disconnect => {
                    self.wire = None;
                    self.session = None;
                    self.jobs.abort_all();
                }
                Action::Synchronize { generation } => self.synchronize(generation),
                Action::Write {
                    s,
                    message,
                    expect_reply,
                } => match self.protocol.encode(s, &message, expect_reply) {
                    Ok(frame) => self.write(frame),
                    Err(error) => {
                        tracing::error!(channel = %self.name, id = %message.id, %error, "a message cannot be encoded");
                    }
                },
                Action::Ping { s } => self.write(self.protocol.ping(s, self.options.framing)),
                Action::Settle { id, outcome } => {
                    if let Some(waiting) = self.waiting.remove(&id) {
                        waiting.send_replace(Some(outcome));
                    }
                }
                Action::Bury { message, cause } => self.bury(message, cause),
                Action::State { from, to, reason } => {
                    self.world.sink.publish(EventKind::IpcChannelStateChanged {
                        channel: self.name.to_string(),
                        from,
                        to,
                        generation: self.machine.generation,
                        reason,
                    });
                }
                Action::Recovered {
                    took,
                    cause,
                    redelivered,
                    lost,
                } => {
                    self.world.sink.publish(EventKind::ChannelRecovered {
                        channel: self.name.to_string(),
                        generation: self.machine.generation,
                        took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                        cause,
                        redelivered,
                        lost,
                    });
                }
            }
        }
    }

    fn write(&mut self, frame: Bytes) {
        let Some(wire) = &self.wire else { return };
        if wire.outbox.try_send(frame).is_err() {
            // More answers than the peer reads; the writer's deadline is about to say so too.
            let now = self.now();
            let actions = self.machine.step(
                now,
                Event::Lost {
                    reason: "the peer does not read".to_owned(),
                },
            );
            self.carry_out(actions);
        }
    }

    fn connect(&mut self) {
        let Some(transport) = self.transport.clone() else {
            return;
        };
        let (reconnects, limit) = (
            Arc::clone(&self.world.reconnects),
            self.options.config.connect_timeout,
        );
        self.jobs.spawn(async move {
            if transport.waits() {
                return Done::Connected(transport.connect().await);
            }
            // Many channels that lost their peers together do not all knock at once.
            let _place = reconnects.acquire_owned().await;
            let connected = tokio::time::timeout(limit, transport.connect()).await;
            Done::Connected(connected.unwrap_or_else(|_| {
                Err(IpcError::TimedOut {
                    channel: transport.describe(),
                    limit,
                })
            }))
        });
    }

    fn synchronize(&mut self, generation: Generation) {
        let Some(wire) = &self.wire else { return };
        let (frames, inbox) = mpsc::channel(SESSION_MAX);
        self.session = Some(frames);
        let (synchronizer, protocol) = (self.synchronizer.clone(), self.protocol);
        let mut session = Session {
            channel: self.name.to_string(),
            generation,
            outbox: wire.outbox.clone(),
            inbox,
        };
        self.jobs.spawn(async move {
            let greeted = if protocol == Protocol::Own {
                session.greet().await
            } else {
                Ok(())
            };
            let result = match (greeted, synchronizer) {
                (Ok(()), Some(synchronizer)) => synchronizer.synchronize(&mut session).await,
                (greeted, _) => greeted,
            };
            Done::Synced(generation, result)
        });
    }

    fn bury(&self, message: IpcMessage, cause: String) {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        if dead.len() >= self.options.config.max_dead_letters {
            dead.pop_front();
        }
        dead.push_back(DeadLetter {
            channel: self.name.to_string(),
            message,
            at: self.world.clock.wall(),
            cause,
            generations: vec![self.machine.generation],
        });
    }
}

fn show(machine: &Machine) -> Shown {
    Shown {
        state: machine.state,
        reason: machine.reason.clone(),
        generation: machine.generation,
        buffered: machine.buffered() as u64,
        position: ChannelPosition {
            generation: machine.generation,
            sent: Sequence(machine.last_sent()),
            acknowledged: Sequence(machine.delivered),
        },
    }
}

async fn next_frame(wire: Option<&mut Wire>) -> Result<Bytes, String> {
    match wire {
        Some(wire) => wire
            .inbox
            .recv()
            .await
            .unwrap_or_else(|| Err("the connection is gone".to_owned())),
        None => std::future::pending().await,
    }
}

async fn sleep_until(world: &World, deadline: Option<Monotonic>) {
    let Some(deadline) = deadline else {
        return std::future::pending().await;
    };
    let left = deadline.since(world.clock.monotonic());
    if !left.is_zero() {
        tokio::time::sleep(left.min(SLEEP_MAX)).await;
    }
}
