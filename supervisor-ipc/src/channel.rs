//! One channel as others hold it: a handle to the task that owns it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use supervisor_core::Generation;
use supervisor_core::config::{FramingKind, RecoveryConfig};
use supervisor_core::error::IpcError;
use supervisor_core::message::{ChannelState, ChannelStatus, DeadLetter, IpcMessage};
use supervisor_core::ports::{Clock, EventSink, Outbox, StateSynchronizer};
use supervisor_core::state::ChannelPosition;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::durable::Durable;
use crate::machine::{Event, Machine, SendOptions};
use crate::protocol::Protocol;
use crate::receipt::Receipt;
use crate::share::Share;
use crate::task::{Task, show};
use crate::transport::Transport;

/// Requests that may wait for the channel's task. At the bound senders wait for a place, which takes microseconds.
const REQUESTS_MAX: usize = 256;
/// Messages of the peer that wait for each subscriber. At the bound the oldest are overwritten and counted as missed.
const INCOMING_MAX: usize = 1024;

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

/// What a subscriber gets.
pub type Incoming = tokio::sync::broadcast::Receiver<Arc<IpcMessage>>;

#[derive(Debug)]
pub(crate) enum Request {
    Send { message: IpcMessage, options: SendOptions, answer: oneshot::Sender<Receipt> },
    Attach(Arc<dyn Transport>),
    Synchronizer(Arc<dyn StateSynchronizer>),
    Reload,
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
    /// Bytes that all channels hold.
    pub(crate) buffered: Arc<AtomicUsize>,
    pub(crate) outbox: Option<Arc<dyn Outbox>>,
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
        let outbox = world.outbox.clone().filter(|_| protocol.acknowledges());
        let durable = outbox.map(|outbox| Durable::new(outbox, Arc::clone(&name)));
        let share = Share::new(Arc::clone(&world.buffered));
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
            durable,
            blocked: VecDeque::new(),
            share,
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
        let closed = || Receipt::refused(id, IpcError::Closed { channel: self.name.to_string() });
        if self.requests.send(Request::Send { message, options, answer }).await.is_err() {
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
            dead_letters: self.dead.lock().unwrap_or_else(PoisonError::into_inner).len() as u64,
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
        reached.map(drop).map_err(|_| IpcError::Closed { channel: self.name.to_string() })
    }

    pub(crate) fn position(&self) -> ChannelPosition {
        self.shown.borrow().position
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
