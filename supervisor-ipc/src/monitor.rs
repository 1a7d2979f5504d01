//! Many channels under one roof.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use supervisor_core::config::RecoveryConfig;
use supervisor_core::error::{ConfigError, IpcError};
use supervisor_core::event::EventKind;
use supervisor_core::message::{ChannelStatus, DeadLetter, IpcMessage};
use supervisor_core::ports::{Clock, Entropy, EventSink, Outbox};
use supervisor_core::state::ChannelPosition;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::channel::{Channel, ChannelOptions, World};
use crate::clock::{StdEntropy, TokioClock};
use crate::receipt::Receipt;

/// Longest channel name, in bytes.
const NAME_MAX: usize = 256;

/// Keeps channels usable across crashes of their peers. A handle: clones share one monitor.
///
/// ```
/// use std::sync::Arc;
/// use supervisor_core::config::RecoveryConfig;
/// use supervisor_core::message::{IpcMessage, Outcome};
/// use supervisor_ipc::{Endpoint, IpcMonitor, MemoryTransport};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let (transport, mut peer) = MemoryTransport::new(1024);
/// let monitor = IpcMonitor::with_config(RecoveryConfig::default());
/// let channel = monitor.register_channel("svc").await?;
/// channel.attach(Arc::new(transport)).await?;
/// let service = tokio::spawn(async move {
///     let stream = peer.accept().await.expect("a connection");
///     Endpoint::new(|message: IpcMessage| async move { Some(message.payload) }).serve(stream).await
/// });
/// # let message = IpcMessage { id: uuid::Uuid::from_u128(1), message_type: "echo".into(), payload: serde_json::json!(7),
/// #     timestamp: chrono::DateTime::UNIX_EPOCH, retry_count: 0 };
/// let receipt = monitor.send_message("svc", message).await;
/// assert!(matches!(receipt.await, Outcome::Answered { .. }));
/// # drop(service);
/// # Ok::<(), supervisor_core::error::IpcError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct IpcMonitor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: RecoveryConfig,
    /// What was wrong with the configuration, told by the first registration.
    refused: Option<ConfigError>,
    world: Arc<World>,
    entropy: Arc<dyn Entropy>,
    channels: Mutex<Channels>,
}

/// Every channel with the task that owns it.
type Channels = BTreeMap<String, (Channel, Option<JoinHandle<()>>)>;

/// Settings of a monitor before it is made.
#[derive(Debug)]
#[must_use]
pub struct IpcMonitorBuilder {
    config: RecoveryConfig,
    clock: Option<Arc<dyn Clock>>,
    entropy: Option<Arc<dyn Entropy>>,
    sink: Option<Arc<dyn EventSink>>,
    outbox: Option<Arc<dyn Outbox>>,
}

#[derive(Debug)]
struct NoSink;

impl EventSink for NoSink {
    fn publish(&self, _: EventKind) {}
}

impl IpcMonitorBuilder {
    /// Sets where time comes from; tokio's clock otherwise.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets where randomness comes from; the system's otherwise.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = Some(entropy);
        self
    }

    /// Sets where events go; nowhere otherwise.
    pub fn sink(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Sets where durable messages and dead letters are kept; without one, durable messages are refused.
    ///
    /// A channel that is registered sends first what an earlier process left there for it, with the same ids.
    pub fn outbox(mut self, outbox: Arc<dyn Outbox>) -> Self {
        self.outbox = Some(outbox);
        self
    }

    /// Makes the monitor.
    #[must_use]
    pub fn build(self) -> IpcMonitor {
        let reconnects = Arc::new(Semaphore::new(self.config.concurrent_reconnects.clamp(1, 1000)));
        let world = World {
            clock: self.clock.unwrap_or_else(|| Arc::new(TokioClock(Instant::now()))),
            sink: self.sink.unwrap_or_else(|| Arc::new(NoSink)),
            reconnects,
            buffered: Arc::default(),
            outbox: self.outbox,
        };
        let inner = Inner {
            refused: self.config.validate().err(),
            config: self.config,
            world: Arc::new(world),
            entropy: self.entropy.unwrap_or_else(|| Arc::new(StdEntropy)),
            channels: Mutex::default(),
        };
        IpcMonitor { inner: Arc::new(inner) }
    }
}

impl IpcMonitor {
    /// Makes a monitor; what is wrong with the configuration is told by the first registration.
    #[must_use]
    pub fn with_config(config: RecoveryConfig) -> Self {
        Self::builder(config).build()
    }

    /// Makes a monitor, or says what is wrong with the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field. A retry does not help.
    pub fn try_with_config(config: RecoveryConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::with_config(config))
    }

    /// Makes settings for a monitor.
    pub fn builder(config: RecoveryConfig) -> IpcMonitorBuilder {
        IpcMonitorBuilder { config, clock: None, entropy: None, sink: None, outbox: None }
    }

    /// Registers a channel that speaks our own envelope; messages wait until it is attached to something.
    ///
    /// The same name again gives the same channel.
    ///
    /// # Errors
    /// [`IpcError::Config`] for a bad name or a bad configuration, [`IpcError::AlreadyRegistered`] if the name is
    /// taken by a channel set up otherwise. A retry does not help.
    ///
    /// # Cancel safety
    /// Safe; the channel is registered or not.
    pub async fn register_channel(&self, name: impl Into<String>) -> Result<Channel, IpcError> {
        let options =
            ChannelOptions { config: self.inner.config.clone(), ..ChannelOptions::default() };
        self.register_channel_with(name, options).await
    }

    /// Registers a channel with options of its own.
    ///
    /// # Errors
    /// As for [`register_channel`](Self::register_channel).
    ///
    /// # Cancel safety
    /// Safe; the channel is registered or not.
    pub async fn register_channel_with(
        &self,
        name: impl Into<String>,
        options: ChannelOptions,
    ) -> Result<Channel, IpcError> {
        let name = name.into();
        if let Some(refused) = &self.inner.refused {
            return Err(refused.clone().into());
        }
        options.config.validate()?;
        if name.is_empty() || name.len() > NAME_MAX || name.contains(char::is_control) {
            let expected = "1 to 256 bytes without control characters";
            return Err(ConfigError::invalid("channel", &name, expected).into());
        }
        let mut channels = self.channels_locked();
        if let Some((known, _)) = channels.get(&name) {
            return if *known.options == options {
                Ok(known.clone())
            } else {
                Err(IpcError::AlreadyRegistered { channel: name })
            };
        }
        let (channel, task) = Channel::start(
            name.clone(),
            options,
            Arc::clone(&self.inner.world),
            &*self.inner.entropy,
        );
        channels.insert(name, (channel.clone(), Some(task)));
        Ok(channel)
    }

    /// Sends a message on a channel. What is refused, an unknown channel included, comes back as a receipt whose
    /// outcome is `Rejected`.
    ///
    /// # Cancel safety
    /// Safe; the message was accepted or not.
    pub async fn send_message(&self, channel: &str, message: IpcMessage) -> Receipt {
        match self.channel(channel) {
            Some(channel) => channel.send(message).await,
            None => Receipt::refused(
                message.id,
                IpcError::UnknownChannel { channel: channel.to_owned() },
            ),
        }
    }

    /// Gives a channel by name.
    #[must_use]
    pub fn channel(&self, name: &str) -> Option<Channel> {
        self.channels_locked().get(name).map(|(channel, _)| channel.clone())
    }

    /// Gives the health of every channel, by name.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelStatus> {
        self.channels_locked().values().map(|(channel, _)| channel.status()).collect()
    }

    /// Gives where every channel stands, for a checkpoint.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<String, ChannelPosition> {
        self.channels_locked()
            .iter()
            .map(|(name, (channel, _))| (name.clone(), channel.position()))
            .collect()
    }

    /// Gives the messages that failed for good, by channel, oldest first.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.channels_locked().values().flat_map(|(channel, _)| channel.dead_letters()).collect()
    }

    /// Closes a channel; its messages end as `NotSent` or `Indeterminate`. An unknown one is no error.
    ///
    /// # Cancel safety
    /// Safe; it closes all the same.
    pub async fn close_channel(&self, name: &str) {
        let removed = self.channels_locked().remove(name);
        if let Some((channel, task)) = removed {
            channel.close().await;
            join(task).await;
        }
    }

    /// Takes no new messages and waits until what was accepted has ended, for at most `limit`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn drain_all(&self, limit: Duration) {
        let channels: Vec<_> =
            self.channels_locked().values().map(|(channel, _)| channel.clone()).collect();
        let drained = join_all(channels.iter().map(Channel::drain));
        // What is left at the limit ends as `NotSent` or `Indeterminate` when the channels close.
        drop(tokio::time::timeout(limit, drained).await);
    }

    /// Closes every channel and joins its task, for at most `limit`.
    ///
    /// # Cancel safety
    /// Safe; call it again to finish.
    pub async fn shutdown(&self, limit: Duration) {
        let channels = std::mem::take(&mut *self.channels_locked());
        let closed = join_all(channels.into_values().map(|(channel, task)| async move {
            channel.close().await;
            join(task).await;
        }));
        drop(tokio::time::timeout(limit, closed).await);
    }

    fn channels_locked(&self) -> MutexGuard<'_, Channels> {
        // Each change under the lock is one call that cannot panic half-way.
        self.inner.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn join(task: Option<JoinHandle<()>>) {
    if let Some(task) = task
        && let Err(error) = task.await
    {
        tracing::error!(%error, "a channel's task ended abnormally");
    }
}
