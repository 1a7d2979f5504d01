//! One channel as others hold it: a handle to the task that owns it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use supervisor_core::Sequence;
use supervisor_core::config::{FramingKind, RecoveryConfig};
use supervisor_core::error::IpcError;
use supervisor_core::message::{ChannelState, ChannelStatus, DeadLetter, IpcMessage};
use supervisor_core::ports::{Clock, Entropy, EventSink, Outbox, StateSynchronizer};
use supervisor_core::state::ChannelPosition;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use crate::durable::Durable;
use crate::incoming::{Incoming, Mailbox};
use crate::machine::{Event, Machine, SendOptions};
use crate::protocol::Protocol;
use crate::receipt::Receipt;
use crate::share::Share;
use crate::task::{Bell, Taken, Task, drive, named};
use crate::transport::Transport;

/// Requests that may wait for the channel's task. At the bound who asks waits for a place, which takes microseconds.
const REQUESTS_MAX: usize = 64;

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
        Self { config: RecoveryConfig::default(), framing: FramingKind::Length }
    }
}

#[derive(Debug)]
pub(crate) enum Request {
    Attach(Arc<dyn Transport>),
    Synchronizer(Arc<dyn StateSynchronizer>),
    Reload,
    /// Answered with the peer's next word; dropped when it will not come.
    Ping(oneshot::Sender<()>),
    Do(Event),
}

/// What those who wait for it are told of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) state: ChannelState,
    pub(crate) buffered: usize,
}

/// A handle to a channel; clones share it.
#[derive(Debug, Clone)]
pub struct Channel {
    pub(crate) name: Arc<str>,
    pub(crate) options: Arc<ChannelOptions>,
    task: Arc<Mutex<Task>>,
    bell: Arc<Bell>,
    behind: Arc<AtomicBool>,
    /// Where senders wait for a place among the messages that are to be stored.
    places: Option<Arc<Semaphore>>,
    requests: mpsc::Sender<Request>,
    shown: watch::Receiver<Shown>,
    mailbox: Arc<Mailbox>,
    dead: Arc<Mutex<VecDeque<DeadLetter>>>,
}

/// What every channel of a monitor shares.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sink: Arc<dyn EventSink>,
    /// Channels that may reconnect at once.
    pub(crate) reconnects: Arc<Semaphore>,
    /// Bytes that all channels hold.
    pub(crate) buffered: Arc<AtomicUsize>,
    pub(crate) outbox: Option<Arc<dyn Outbox>>,
}

impl Channel {
    pub(crate) fn start(
        name: String,
        options: ChannelOptions,
        world: Arc<World>,
        entropy: &dyn Entropy,
    ) -> (Self, JoinHandle<()>) {
        let seed = entropy.next_u64();
        let session_id = Uuid::from_u64_pair(entropy.next_u64(), entropy.next_u64());
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let protocol = Protocol::of(options.framing);
        let machine = Machine::new(options.config.clone(), protocol.acknowledges(), seed);
        let mailbox = Arc::new(Mailbox::new(&options.config));
        let dead = Arc::new(Mutex::new(VecDeque::new()));
        let (name, options): (Arc<str>, _) = (name.into(), Arc::new(options));
        let (told, time) = (machine.state, world.clock.monotonic());
        let shown = watch::Sender::new(Shown { state: told, buffered: 0 });
        let behind = Arc::new(AtomicBool::new(false));
        let bell = Bell::new();
        let outbox = world.outbox.clone().filter(|_| protocol.acknowledges());
        let durable = outbox.map(|outbox| Durable::new(outbox, Arc::clone(&name)));
        let places = durable.as_ref().map(Durable::places);
        let share = Share::new(Arc::clone(&world.buffered));
        let seen = shown.subscribe();
        let task = Task {
            name: Arc::clone(&name),
            options: Arc::clone(&options),
            protocol,
            machine,
            world,
            runtime: Handle::current(),
            session_id,
            transport: None,
            synchronizer: None,
            wire: None,
            session: None,
            left: HashMap::new(),
            jobs: JoinSet::new(),
            time,
            shown,
            told,
            behind: Arc::clone(&behind),
            mailbox: Arc::clone(&mailbox),
            pushes: false,
            dead: Arc::clone(&dead),
            durable,
            blocked: VecDeque::new(),
            share,
            last_recovery: None,
            settled: Vec::new(),
            place: None,
            pings: Vec::new(),
            actions: Vec::new(),
            bell: Arc::clone(&bell),
            attention: false,
            armed: None,
            sleep: None,
        };
        let task = Arc::new(Mutex::new(task));
        bell.belongs_to(&task);
        let driver = tokio::spawn(drive(Arc::clone(&task), receiver));
        let shown = seen;
        let channel =
            Self { name, options, task, bell, behind, places, requests, shown, mailbox, dead };
        (channel, driver)
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
        self.give_way().await;
        let place = match &self.places {
            // An error would mean that the places were closed, which nobody does.
            Some(places) if options.durable => Arc::clone(places).acquire_owned().await.ok(),
            _ => None,
        };
        let taken = self.locked().send(message, options, place);
        match taken {
            Taken::Now(receipt) => receipt.beside(&self.bell),
            Taken::Later(answered) => answered.await.unwrap_or_else(|_| {
                Receipt::refused(id, IpcError::Closed { channel: self.name.to_string() })
            }),
        }
    }

    /// Lets the channel and its peer have a turn, regularly and when they fall behind: a sender that never waits would
    /// fill the buffer of a peer that is quick enough.
    async fn give_way(&self) {
        tokio::task::coop::consume_budget().await;
        // Relaxed: a turn given too late or in vain does no harm.
        if self.behind.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }

    fn locked(&self) -> MutexGuard<'_, Task> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Tells that the peer was started or says that it is ready: what is waited for is tried now, and what failed before no
    /// longer counts. Never blocks; a channel that is busy with many other requests may miss it, and goes on as before.
    pub fn peer_started(&self) {
        // Full or closed: nothing is lost but time.
        drop(self.requests.try_send(Request::Do(Event::RetryNow)));
    }

    /// Asks the peer for a sign of life and waits for its next word, whatever it is; bound it with a timeout of your own.
    ///
    /// # Errors
    /// [`IpcError::Lost`] when there is no connection, or it ends before the peer says anything; a retry helps once the
    /// channel is ready. [`IpcError::Closed`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ping(&self) -> Result<(), IpcError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Ping(answer)).await?;
        answered.await.map_err(|_| IpcError::Lost {
            channel: self.name.to_string(),
            generation: self.locked().machine.generation,
            was_written: false,
        })
    }

    /// Looks into the outbox again, for messages that came there by another way: dead letters that were put back.
    ///
    /// # Errors
    /// [`IpcError::Closed`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn reload(&self) -> Result<(), IpcError> {
        self.ask(Request::Reload).await
    }

    /// Subscribes to what the peer sends on its own account.
    #[must_use]
    pub fn incoming(&self) -> Incoming {
        Incoming::new(Arc::clone(&self.mailbox))
    }

    /// Gives the channel's health.
    #[must_use]
    pub fn status(&self) -> ChannelStatus {
        let task = self.locked();
        let machine = &task.machine;
        ChannelStatus {
            name: self.name.to_string(),
            state: machine.state,
            generation: machine.generation,
            buffered: machine.buffered() as u64,
            buffered_bytes: machine.buffered_bytes as u64,
            in_flight: machine.in_flight() as u64,
            outcomes: named(machine.outcomes),
            last_recovery: task.last_recovery.as_deref().cloned(),
            dead_letters: self.dead.lock().unwrap_or_else(PoisonError::into_inner).len() as u64,
            reason: machine.reason.to_string(),
        }
    }

    /// Tells how many ids were forgotten for want of room before `dedupe_window` was over: so often the promise that the
    /// same id is the same message was weaker than that window says. A larger `dedupe_max` is the way out.
    #[must_use]
    pub fn forgotten_early(&self) -> u64 {
        self.locked().machine.forgotten_early()
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
        let over = |shown: &Shown| shown.state == state || shown.state == ChannelState::Closed;
        match shown.wait_for(over).await {
            Ok(shown) if shown.state == state => Ok(()),
            _ => Err(IpcError::Closed { channel: self.name.to_string() }),
        }
    }

    pub(crate) fn position(&self) -> ChannelPosition {
        let task = self.locked();
        let machine = &task.machine;
        ChannelPosition {
            generation: machine.generation,
            sent: Sequence(machine.last_sent()),
            acknowledged: Sequence(machine.delivered),
        }
    }

    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
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
        let closed = |_| IpcError::Closed { channel: self.name.to_string() };
        self.requests.send(request).await.map_err(closed)
    }
}
