//! What a channel consists of: its machine, its connection, and whatever runs in the background for it. One lock owns it
//! all; senders step the machine themselves, [`driving`] does what the world asks for.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use supervisor_core::error::{Classified, IpcError, chain};
use supervisor_core::event::EventKind;
use supervisor_core::message::{ChannelRecovery, ChannelState, DeadLetter, IpcMessage, Outcome};
use supervisor_core::ports::StateSynchronizer;
use supervisor_core::{Generation, Monotonic};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::channel::{ChannelOptions, Request, Shown, World};
use crate::connection::Wire;
use crate::durable::Durable;
use crate::inbox::Inbox;
use crate::incoming::Mailbox;
use crate::machine::{Accepted, Action, Event, Machine, Refusal, SendOptions};
use crate::protocol::{Heard, Protocol};
use crate::receipt::{Promise, Receipt, Slot};
use crate::session::{Greeted, SESSION_MAX, Session};
use crate::share::Share;
use crate::transport::{Connection, Transport};

/// Who may wait for the peer's next word; one more is told at once that it did not come.
const PINGS_MAX: usize = 64;

/// What a background job of the task ended with.
#[derive(Debug)]
pub(crate) enum Done {
    /// With the place among those that reconnect.
    Connected(Result<Connection, IpcError>, Option<OwnedSemaphorePermit>),
    /// With what the peer said that nobody read.
    Synced(Generation, Result<Greeted, IpcError>, VecDeque<Bytes>, mpsc::Receiver<Bytes>),
    /// Why the peer of this generation is silent.
    Weighed(Generation, Option<String>),
    /// The semaphore's place is given back with it.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) name: Arc<str>,
    pub(crate) options: Arc<ChannelOptions>,
    pub(crate) protocol: Protocol,
    pub(crate) machine: Machine,
    pub(crate) world: Arc<World>,
    pub(crate) runtime: Handle,
    /// Names the numbers of this channel for peers of our own.
    pub(crate) session_id: Uuid,
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) synchronizer: Option<Arc<dyn StateSynchronizer>>,
    pub(crate) wire: Option<Wire>,
    pub(crate) session: Option<Talk>,
    /// Who waits for stored messages that the machine does not have yet; bounded by the rows of the outbox.
    pub(crate) left: HashMap<Uuid, Promise>,
    pub(crate) jobs: JoinSet<Done>,
    /// When this turn began.
    pub(crate) time: Monotonic,
    pub(crate) shown: watch::Sender<Shown>,
    /// The state that was told last.
    pub(crate) told: ChannelState,
    /// Whether senders should let the channel and its peer have a turn.
    pub(crate) behind: Arc<AtomicBool>,
    pub(crate) mailbox: Arc<Mailbox>,
    /// The peer numbers what it says itself.
    pub(crate) pushes: bool,
    pub(crate) dead: Arc<Mutex<VecDeque<DeadLetter>>>,
    pub(crate) durable: Option<Durable>,
    /// Senders that wait for room, oldest first.
    pub(crate) blocked: VecDeque<storing::Blocked>,
    pub(crate) share: Share,
    pub(crate) last_recovery: Option<Arc<ChannelRecovery>>,
    /// Outcomes that those who wait for them are told when the lock is free.
    pub(crate) settled: Vec<(Promise, Outcome)>,
    /// Dropped, it gives back the place among the channels that reconnect.
    pub(crate) place: Option<oneshot::Sender<()>>,
    /// Who waits for the peer's next word.
    pub(crate) pings: Vec<oneshot::Sender<()>>,
    /// Emptied after each step; kept for its memory.
    pub(crate) actions: Vec<Action>,
    pub(crate) bell: Arc<Bell>,
    /// Something was begun that only the driver can go on with.
    pub(crate) attention: bool,
    /// When the driver wakes up by itself.
    pub(crate) armed: Option<Monotonic>,
    pub(crate) sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// What a synchroniser talks through while nothing else flows.
#[derive(Debug)]
pub(crate) struct Talk {
    pub(crate) frames: mpsc::Sender<Bytes>,
    pub(crate) answers: mpsc::Receiver<Bytes>,
}

impl Task {
    /// The time at which this turn began; asking for it anew with each step would cost more than most steps do.
    const fn now(&self) -> Monotonic {
        self.time
    }

    fn look_at_clock(&mut self) {
        self.time = self.world.clock.monotonic();
    }

    fn step(&mut self, event: Event) {
        let now = self.now();
        let mut actions = std::mem::take(&mut self.actions);
        self.machine.step_into(now, event, &mut actions);
        self.carry_out(&mut actions);
        self.actions = actions;
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Reload => {
                if let Some(durable) = &mut self.durable {
                    durable.reload();
                }
            }
            Request::Attach(transport) => {
                self.machine.weighs = transport.weighs();
                self.machine.paced = transport.waits();
                self.transport = Some(transport);
                self.step(Event::Attached);
            }
            Request::Ping(answer) => self.ping(answer),
            Request::Synchronizer(synchronizer) => self.synchronizer = Some(synchronizer),
            Request::Do(event) => self.step(event),
        }
    }

    fn ping(&mut self, answer: oneshot::Sender<()>) {
        self.pings.retain(|waiting| !waiting.is_closed());
        if !self.machine.connected() || self.pings.len() >= PINGS_MAX {
            return;
        }
        let s = self.machine.number();
        self.write(self.protocol.ping(s, self.options.framing));
        self.pings.push(answer);
    }

    fn settle(&mut self, id: Uuid, promise: Promise, outcome: Outcome) {
        if let Some(durable) = &mut self.durable {
            durable.settled(id, &outcome);
        }
        self.settled.push((promise, outcome));
    }

    /// Gives a message to the machine, and where its outcome appears. What was promised about a message while it was left in
    /// the outbox still holds.
    fn admit(
        &mut self,
        message: IpcMessage,
        options: SendOptions,
    ) -> (Result<Accepted, Refusal>, Arc<Slot>) {
        let (now, id) = (self.now(), message.id);
        self.machine.elsewhere = self.share.elsewhere();
        let left = if self.left.is_empty() { None } else { self.left.remove(&id) };
        let waited_for = left.is_some();
        let promise = left.unwrap_or_default();
        let slot = promise.slot();
        let mut promise = Some(promise);
        let mut actions = std::mem::take(&mut self.actions);
        let accepted = self.machine.accept(now, message, options, &mut promise, &mut actions);
        self.carry_out(&mut actions);
        self.actions = actions;
        match (promise.filter(|_| waited_for), &accepted) {
            (Some(promise), Ok(Accepted::Duplicate(Some(outcome)))) => {
                self.settled.push((promise, outcome.clone()));
            }
            (Some(promise), _) => drop(self.left.insert(id, promise)),
            (None, _) => {}
        }
        (accepted, slot)
    }

    fn accept(&mut self, message: IpcMessage, options: SendOptions) -> Receipt {
        let id = message.id;
        let (accepted, slot) = self.admit(message, options);
        match accepted {
            Ok(accepted) => Receipt::of(id, accepted, &self.machine, slot),
            Err(refusal) => Receipt::refused(id, self.refusal(id, refusal)),
        }
    }

    fn refusal(&self, id: Uuid, refusal: Refusal) -> IpcError {
        refusal.error(&self.name, id, &self.options.config)
    }

    fn on_frame(&mut self, frame: Result<Bytes, String>) {
        let frame = match frame {
            Ok(frame) => frame,
            Err(reason) => return self.step(Event::Lost { reason }),
        };
        if self.machine.state == ChannelState::Syncing
            && let Some(session) = &self.session
        {
            match session.frames.try_send(frame.clone()) {
                Ok(()) => return,
                // A synchroniser that reads too slowly for its peer fails, rather than making the channel wait for it.
                Err(mpsc::error::TrySendError::Full(_)) => {
                    let reason = "the synchroniser does not keep up with the peer".to_owned();
                    return self.step(Event::Lost { reason });
                }
                // It ended without a result, and the connection is about to end with it.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
        let heard = self.protocol.decode(&frame, || self.world.clock.wall());
        if heard.is_ok() && !self.pings.is_empty() {
            for waiting in self.pings.drain(..) {
                // An error means that nobody waits any more.
                _ = waiting.send(());
            }
        }
        match heard {
            Ok(Heard::Ack { s, duplicate }) => self.step(Event::Acked { s, duplicate }),
            Ok(Heard::Reply { s, reply }) => self.step(Event::Replied { s, reply }),
            Ok(Heard::Message(message)) => self.deliver(message),
            Ok(Heard::Pushed { s, message }) => self.on_pushed(s, message, frame.len()),
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

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Connected(Ok(connection), place) => {
                self.keep_place(place);
                self.wire =
                    Some(Wire::open(connection, self.options.framing, &self.options.config));
                self.step(Event::Connected);
            }
            Done::Connected(Err(error), _) => {
                let permanent = !error.class().retryable();
                self.step(Event::ConnectFailed { reason: chain(&error), permanent });
            }
            Done::Synced(generation, result, aside, unread)
                if generation == self.machine.generation =>
            {
                self.hand_over(usize::MAX);
                self.session = None;
                self.place = None;
                match result {
                    Ok(greeted) => self.synced(greeted, aside, unread),
                    Err(error) => self.step(Event::Lost { reason: chain(&error) }),
                }
            }
            Done::Weighed(generation, excuse) if generation == self.machine.generation => {
                self.step(Event::Weighed { excuse });
            }
            Done::Synced(..) | Done::Weighed(..) | Done::Nothing => {}
        }
    }

    /// What the synchroniser had no use for is the channel's, in its order.
    fn synced(
        &mut self,
        greeted: Greeted,
        aside: VecDeque<Bytes>,
        mut unread: mpsc::Receiver<Bytes>,
    ) {
        self.pushes = greeted.pushes.is_some();
        self.mailbox.with(|inbox| inbox.greeted(greeted.pushes));
        self.step(Event::Synced { handled: greeted.handled });
        for frame in aside {
            self.on_frame(Ok(frame));
        }
        while let Ok(frame) = unread.try_recv() {
            self.on_frame(Ok(frame));
        }
    }

    fn carry_out(&mut self, actions: &mut Vec<Action>) {
        for action in actions.drain(..) {
            match action {
                Action::Connect => self.connect(),
                Action::Disconnect => {
                    self.wire = None;
                    self.session = None;
                    self.place = None;
                    self.pings.clear();
                    self.jobs.abort_all();
                }
                Action::Synchronize { generation } => self.synchronize(generation),
                Action::Write { s, message, expect_reply } => {
                    self.write_message(s, &message, expect_reply);
                }
                Action::Ping { s } => self.write(self.protocol.ping(s, self.options.framing)),
                Action::Settle { id, promise, outcome } => self.settle(id, promise, outcome),
                Action::Bury { message, cause, generations } => {
                    self.bury(&message, cause, generations);
                }
                Action::Dropped { id, lane, outcome } => self.tell_dropped(id, lane, &outcome),
                Action::State { from, to, reason } => {
                    self.world.sink.publish(EventKind::IpcChannelStateChanged {
                        channel: self.name.to_string(),
                        from,
                        to,
                        generation: self.machine.generation,
                        reason: reason.to_string(),
                    });
                }
                Action::Recovered(incident) => self.tell_recovered(&incident),
                Action::Weigh { generation } => self.weigh(generation),
                Action::Lost { silent, reason } => {
                    if let Some(transport) = &self.transport {
                        let reason = format!("channel {}: {reason}", self.name);
                        transport.lost(silent, &reason);
                    }
                }
            }
        }
    }

    fn write(&mut self, frame: Bytes) {
        let most = usize::try_from(self.options.config.max_buffered_bytes.bytes());
        let Some(wire) = &mut self.wire else { return };
        if wire.append_bytes(&frame).is_err() || wire.untaken(most.unwrap_or(usize::MAX)) {
            // More answers than the peer reads; its deadline is about to say so too.
            wire.broken = Some("the peer does not read".to_owned());
        }
    }

    fn write_message(&mut self, s: u64, message: &IpcMessage, expect_reply: bool) {
        let protocol = self.protocol;
        let Some(wire) = &mut self.wire else { return };
        let written = wire.append(|body| protocol.write(s, message, expect_reply, body));
        if let Err(error) = written {
            // Its size was looked at when it was accepted, so this is a message that grew on the wire beyond the limit.
            tracing::error!(channel = %self.name, id = %message.id, %error, "a message cannot be written");
        }
        if wire.crowded() {
            self.machine.writable = false;
        }
    }

    fn connect(&mut self) {
        let Some(transport) = self.transport.clone() else {
            return;
        };
        let (reconnects, limit) =
            (Arc::clone(&self.world.reconnects), self.options.config.connect_timeout);
        let work = async move {
            if transport.waits() {
                return Done::Connected(transport.connect().await, None);
            }
            // Many channels that lost their peers together do not all knock at once.
            let place = reconnects.acquire_owned().await.ok();
            let connected = tokio::time::timeout(limit, transport.connect()).await;
            let late = |_| Err(IpcError::TimedOut { channel: transport.describe(), limit });
            Done::Connected(connected.unwrap_or_else(late), place)
        };
        self.jobs.spawn_on(work, &self.runtime);
        self.attention = true;
    }

    /// Keeps the place while the peer's state is restored, which is what costs the peer; a peer that takes too long for it
    /// keeps nobody else waiting.
    fn keep_place(&mut self, place: Option<OwnedSemaphorePermit>) {
        let Some(place) = place else { return };
        let (release, released) = oneshot::channel();
        let limit = self.options.config.connect_timeout;
        let work = async move {
            drop(tokio::time::timeout(limit, released).await);
            drop(place);
            Done::Nothing
        };
        self.jobs.spawn_on(work, &self.runtime);
        self.place = Some(release);
    }

    fn weigh(&mut self, generation: Generation) {
        let Some(transport) = self.transport.clone() else { return };
        let work = async move { Done::Weighed(generation, transport.excuse().await) };
        self.jobs.spawn_on(work, &self.runtime);
        self.attention = true;
    }

    fn synchronize(&mut self, generation: Generation) {
        if self.wire.is_none() {
            return;
        }
        let (frames, inbox) = mpsc::channel(SESSION_MAX);
        let (outbox, answers) = mpsc::channel(SESSION_MAX);
        self.session = Some(Talk { frames, answers });
        let (synchronizer, protocol) = (self.synchronizer.clone(), self.protocol);
        let (id, idle) = (self.session_id, self.options.config.heartbeat.idle);
        let push = self.mailbox.with(Inbox::greeting);
        let channel = self.name.to_string();
        let mut session = Session { channel, generation, outbox, inbox, aside: None };
        let work = async move {
            let greeted = if protocol == Protocol::Own {
                session.greet(id, idle, push).await
            } else {
                Ok(Greeted::default())
            };
            let result = match (greeted, synchronizer) {
                (Ok(greeted), Some(synchronizer)) => {
                    synchronizer.synchronize(&mut session).await.map(|()| greeted)
                }
                (greeted, _) => greeted,
            };
            Done::Synced(generation, result, session.aside.unwrap_or_default(), session.inbox)
        };
        self.jobs.spawn_on(work, &self.runtime);
        self.attention = true;
    }
}

pub(crate) use bell::{Bell, Listener};
pub(crate) use driving::{Taken, drive};
pub(crate) use telling::named;

mod bell;
mod driving;
mod pushed;
mod storing;
mod telling;
#[cfg(test)]
mod tests;
