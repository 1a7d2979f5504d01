//! The task that owns a channel: its machine, its connection, and whatever runs in the background for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use supervisor_core::error::{Classified, IpcError, chain};
use supervisor_core::event::EventKind;
use supervisor_core::message::{ChannelState, DeadLetter, IpcMessage, Outcome};
use supervisor_core::ports::StateSynchronizer;
use supervisor_core::state::ChannelPosition;
use supervisor_core::{Generation, Monotonic, Sequence};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::channel::{ChannelOptions, Request, Shown, World};
use crate::connection::Wire;
use crate::durable::{self, Durable};
use crate::machine::{Accepted, Action, Event, Limit, Machine, Refusal, SendOptions};
use crate::protocol::{Heard, Protocol};
use crate::receipt::{Acceptance, Receipt};
use crate::session::{SESSION_MAX, Session};
use crate::share::Share;
use crate::transport::{Connection, Transport};

/// Longest sleep at a time.
const SLEEP_MAX: std::time::Duration = std::time::Duration::from_secs(3600);

/// What a background job of the task ended with.
#[derive(Debug)]
pub(crate) enum Done {
    Connected(Result<Connection, IpcError>),
    Synced(Generation, Result<(), IpcError>),
    /// The semaphore's place is given back with it.
    Nothing,
}

pub(crate) struct Task {
    pub(crate) name: Arc<str>,
    pub(crate) options: Arc<ChannelOptions>,
    pub(crate) protocol: Protocol,
    pub(crate) machine: Machine,
    pub(crate) world: Arc<World>,
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) synchronizer: Option<Arc<dyn StateSynchronizer>>,
    pub(crate) wire: Option<Wire>,
    /// Where frames go while a synchroniser runs.
    pub(crate) session: Option<mpsc::Sender<Bytes>>,
    pub(crate) waiting: HashMap<Uuid, watch::Sender<Option<Outcome>>>,
    pub(crate) jobs: JoinSet<Done>,
    pub(crate) shown: watch::Sender<Shown>,
    pub(crate) incoming: tokio::sync::broadcast::Sender<Arc<IpcMessage>>,
    pub(crate) dead: Arc<Mutex<VecDeque<DeadLetter>>>,
    pub(crate) durable: Option<Durable>,
    /// Senders that wait for room, oldest first.
    pub(crate) blocked: VecDeque<storing::Blocked>,
    pub(crate) share: Share,
}

impl Task {
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            let takes = !self.durable.as_ref().is_some_and(Durable::full);
            let deadline = self.next_deadline();
            tokio::select! {
                // What the peer says first: an answer that has arrived must win over the loss noticed after it.
                biased;
                frame = next_frame(self.wire.as_mut()) => self.on_frame(frame),
                Some(done) = self.jobs.join_next() => self.on_done(done.unwrap_or(Done::Nothing)),
                Some(done) = next_store(self.durable.as_mut()) => self.on_stored(done),
                request = requests.recv(), if takes => match request {
                    Some(request) => self.on_request(request),
                    None => self.step(Event::Close),
                },
                () = sleep_until(&self.world, deadline) => self.step(Event::Tick),
            }
            self.unblock();
            self.drive_outbox();
            self.share.set(self.machine.buffered_bytes);
            let shown = show(&self.machine);
            self.shown.send_if_modified(|known| {
                let changed = *known != shown;
                *known = shown;
                changed
            });
            if self.machine.state == ChannelState::Closed {
                break;
            }
        }
        if let Some(durable) = self.durable.take() {
            durable.close().await;
        }
    }

    fn next_deadline(&self) -> Option<Monotonic> {
        let blocked = self.blocked.front().map(|sender| sender.until);
        let stored = self.durable.as_ref().and_then(Durable::next_deadline);
        [self.machine.next_deadline(), blocked, stored].into_iter().flatten().min()
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
            Request::Send { message, options, answer } => self.on_send(message, options, answer),
            Request::Reload => {
                if let Some(durable) = &mut self.durable {
                    durable.reload();
                }
            }
            Request::Attach(transport) => {
                self.transport = Some(transport);
                self.step(Event::Attached);
            }
            Request::Synchronizer(synchronizer) => self.synchronizer = Some(synchronizer),
            Request::Do(event) => self.step(event),
        }
    }

    fn settle(&mut self, id: Uuid, outcome: Outcome) {
        if let Some(durable) = &mut self.durable {
            durable.settled(id, &outcome);
        }
        if let Some(waiting) = self.waiting.remove(&id) {
            waiting.send_replace(Some(outcome));
        }
    }

    fn accept(&mut self, message: IpcMessage, options: SendOptions) -> Receipt {
        let id = message.id;
        let now = self.now();
        self.machine.elsewhere = self.share.elsewhere();
        let mut actions = Vec::new();
        // Registered before the machine acts: a message may end in the very step that accepts it.
        let known = self.waiting.get(&id).map(watch::Sender::subscribe);
        let outcome = known.unwrap_or_else(|| {
            self.waiting.entry(id).or_insert_with(|| watch::Sender::new(None)).subscribe()
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
                let reason =
                    format!("{bytes} bytes exceed the largest frame, {}", config.max_frame);
                IpcError::Unsendable { channel, id, reason }
            }
            Refusal::Full(limit) => {
                let limit = match limit {
                    Limit::Messages => format!("{} messages", config.max_buffered_messages),
                    Limit::Bytes => config.max_buffered_bytes.to_string(),
                    Limit::AllBytes => {
                        format!("{} over all channels", config.global_buffered_bytes)
                    }
                };
                IpcError::BufferFull { channel, limit }
            }
        }
    }

    fn on_frame(&mut self, frame: Result<Bytes, String>) {
        let frame = match frame {
            Ok(frame) => frame,
            Err(reason) => return self.step(Event::Lost { reason }),
        };
        if self.machine.state == ChannelState::Syncing
            && let Some(session) = &self.session
        {
            match session.try_send(frame.clone()) {
                Ok(()) => return,
                // A synchroniser that reads too slowly for its peer fails, rather than making the channel wait for it.
                Err(mpsc::error::TrySendError::Full(_)) => {
                    let reason = "the synchroniser does not keep up with the peer".to_owned();
                    return self.step(Event::Lost { reason });
                }
                // Race: it has finished and its answer is on the way; what the peer says now is for the channel.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
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
            Err(reason) => {
                self.step(Event::Lost { reason: format!("the peer broke the protocol: {reason}") });
            }
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
                self.wire =
                    Some(Wire::open(connection, self.options.framing, &self.options.config));
                self.step(Event::Connected);
            }
            Done::Connected(Err(error)) => {
                let permanent = !error.class().retryable();
                self.step(Event::ConnectFailed { reason: chain(&error), permanent });
            }
            Done::Synced(generation, result) if generation == self.machine.generation => {
                self.session = None;
                match result {
                    Ok(()) => self.step(Event::Synced),
                    Err(error) => self.step(Event::Lost { reason: chain(&error) }),
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
                Action::Write { s, message, expect_reply } => {
                    match self.protocol.encode(s, &message, expect_reply) {
                        Ok(frame) => self.write(frame),
                        Err(error) => {
                            tracing::error!(channel = %self.name, id = %message.id, %error, "a message cannot be encoded");
                        }
                    }
                }
                Action::Ping { s } => self.write(self.protocol.ping(s, self.options.framing)),
                Action::Settle { id, outcome } => self.settle(id, outcome),
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
                Action::Recovered { took, cause, redelivered, lost } => {
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
            let actions =
                self.machine.step(now, Event::Lost { reason: "the peer does not read".to_owned() });
            self.carry_out(actions);
        }
    }

    fn connect(&mut self) {
        let Some(transport) = self.transport.clone() else {
            return;
        };
        let (reconnects, limit) =
            (Arc::clone(&self.world.reconnects), self.options.config.connect_timeout);
        self.jobs.spawn(async move {
            if transport.waits() {
                return Done::Connected(transport.connect().await);
            }
            // Many channels that lost their peers together do not all knock at once.
            let _place = reconnects.acquire_owned().await;
            let connected = tokio::time::timeout(limit, transport.connect()).await;
            Done::Connected(connected.unwrap_or_else(|_| {
                Err(IpcError::TimedOut { channel: transport.describe(), limit })
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
            let greeted = if protocol == Protocol::Own { session.greet().await } else { Ok(()) };
            let result = match (greeted, synchronizer) {
                (Ok(()), Some(synchronizer)) => synchronizer.synchronize(&mut session).await,
                (greeted, _) => greeted,
            };
            Done::Synced(generation, result)
        });
    }

    fn bury(&mut self, message: IpcMessage, cause: String) {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        if dead.len() >= self.options.config.max_dead_letters {
            dead.pop_front();
        }
        let letter = DeadLetter {
            channel: self.name.to_string(),
            message,
            at: self.world.clock.wall(),
            cause,
            generations: vec![self.machine.generation],
        };
        dead.push_back(letter.clone());
        drop(dead);
        if let Some(durable) = &mut self.durable {
            durable.bury(letter);
        }
    }
}

pub(crate) fn show(machine: &Machine) -> Shown {
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
        Some(wire) => {
            wire.inbox.recv().await.unwrap_or_else(|| Err("the connection is gone".to_owned()))
        }
        None => std::future::pending().await,
    }
}

async fn next_store(durable: Option<&mut Durable>) -> Option<durable::Done> {
    let done = durable?.jobs.join_next().await?;
    // One that panicked took its answer with it; its sender learns that the channel is closed to it.
    done.inspect_err(|error| tracing::error!(%error, "a call to the outbox ended abnormally")).ok()
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

mod storing;
#[cfg(test)]
mod tests;
