//! What a service says on its own account: the channel's machine, turned round, with the hosts that connect as its peer.
//!
//! **Invariant:** one host is pushed to at a time, the one that greeted last of those that are connected.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use supervisor_core::Monotonic;
use supervisor_core::config::{FramingKind, OverflowPolicy, RecoveryConfig};
use supervisor_core::message::{ChannelState, IpcMessage, Lane, Outcome};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::framing::Framing;
use crate::machine::{Action, Event, Machine, SendOptions};
use crate::message::held;
use crate::protocol::{Envelope, Protocol, Push};
use crate::receipt::{Promise, Receipt};

/// Bytes written and not taken by the connection yet from which on messages wait in their lanes instead.
const CROWDED: usize = 64 * 1024;
/// Longest sleep at a time.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// A time that does not come: hosts give no signs of life because they are asked for them, and are told from dead ones by
/// the connection.
const NEVER: Duration = Duration::from_secs(365 * 86_400);
/// What errors call the other side.
pub(super) const HOST: &str = "host";

/// Shared by an endpoint, its connections and its pushers.
#[derive(Debug)]
pub(super) struct Pushing {
    state: Mutex<State>,
    pub(super) config: RecoveryConfig,
    /// For who keeps time: there is an earlier deadline, or nothing to keep any more.
    changed: Arc<Notify>,
    room: Notify,
    /// Senders that wait for room do so in a row.
    row: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    began: Instant,
    /// Names the numbers; they go on over connections and hosts, and end with this process.
    session: Uuid,
    framing: Framing,
    settled: Vec<(Promise, Outcome)>,
    /// In the order in which they greeted.
    hosts: Vec<Host>,
    next_host: u64,
    /// Whole frames for the last of the hosts.
    out: BytesMut,
    actions: Vec<Action>,
    armed: Option<Monotonic>,
    kept: bool,
}

#[derive(Debug)]
struct Host {
    name: u64,
    takes: Push,
    call: Arc<Call>,
}

/// Tells a connection that there is something to say; looked at without a lock.
#[derive(Debug, Default)]
struct Call {
    made: AtomicBool,
    wake: Notify,
}

impl State {
    fn now(&self) -> Monotonic {
        Monotonic::from_origin(self.began.elapsed())
    }

    fn step(&mut self, event: Event) {
        let now = self.now();
        let mut actions = std::mem::take(&mut self.actions);
        self.machine.step_into(now, event, &mut actions);
        self.carry_out(&mut actions);
        self.actions = actions;
    }

    fn carry_out(&mut self, actions: &mut Vec<Action>) {
        for action in actions.drain(..) {
            match action {
                Action::Write { s, message, .. } => {
                    let written = self.framing.append(&mut self.out, |body| {
                        Protocol::Own.write(s, &message, false, body)
                    });
                    if let Err(error) = written {
                        tracing::error!(id = %message.id, %error, "a message cannot be written");
                    }
                }
                Action::Ping { s } => {
                    let ping = Envelope::Ping { s };
                    let written = self
                        .framing
                        .append(&mut self.out, |body| Ok(serde_json::to_writer(body, &ping)?));
                    drop(written.inspect_err(|error| tracing::error!(%error, "no ping")));
                }
                Action::Settle { promise, outcome, .. } => self.settled.push((promise, outcome)),
                Action::Dropped { id, outcome, .. } => {
                    tracing::debug!(%id, outcome = outcome.name(), "a pushed message was dropped");
                }
                // Hosts come by themselves, know what they know, and speak for themselves.
                Action::Connect
                | Action::Disconnect
                | Action::Synchronize { .. }
                | Action::Bury { .. }
                | Action::State { .. }
                | Action::Recovered(_)
                | Action::Weigh { .. }
                | Action::Lost { .. } => {}
            }
        }
        if self.out.len() >= CROWDED {
            self.machine.writable = false;
        }
        if !self.out.is_empty()
            && let Some(host) = self.hosts.last()
        {
            host.call.made.store(true, Ordering::Release);
            host.call.wake.notify_one();
        }
    }

    /// Begins with the host that greeted last.
    fn begin(&mut self, config: &RecoveryConfig) {
        let Some(Host { takes, .. }) = self.hosts.last() else { return };
        let known = takes.session == Some(self.session);
        let handled = if known { takes.handled } else { 0 };
        let window = usize::try_from(takes.window).unwrap_or(usize::MAX);
        // One message alone may be larger than what the host takes of several.
        let several = config.max_buffered_bytes.bytes() <= takes.bytes;
        self.machine.limit(if several { window } else { window.min(1) }.min(config.max_in_flight));
        self.step(Event::Connected);
        self.step(Event::Synced { handled });
    }

    /// Ends with it: what it did not acknowledge goes to the next one, or ends as unknown.
    fn end(&mut self, reason: &str) {
        self.out.clear();
        self.machine.writable = true;
        self.step(Event::Lost { reason: reason.to_owned() });
        // Back to waiting for a host, without a pause.
        self.step(Event::Tick);
    }

    fn pushed_to(&self, name: u64) -> bool {
        self.hosts.last().is_some_and(|host| host.name == name)
    }
}

impl Pushing {
    pub(super) fn new(config: &RecoveryConfig) -> Self {
        let mut inner = config.clone();
        (inner.heartbeat.idle, inner.request_timeout) = (NEVER, NEVER);
        // Only its time to live bounds how often a message is repeated: hosts come and go as their users do.
        inner.max_attempts = u32::MAX;
        // A host takes no more than its window at once, repeated or not.
        (inner.retry_budget_percent, inner.retry_budget_floor) = (1000, u32::MAX);
        let seed = fastrand::u64(..);
        let mut machine = Machine::new(inner, true, seed);
        machine.paced = true;
        machine.blames = false;
        let state = State {
            machine,
            began: Instant::now(),
            session: Uuid::from_u64_pair(fastrand::u64(..), fastrand::u64(..)),
            framing: Framing::of(FramingKind::Length, config),
            settled: Vec::new(),
            hosts: Vec::new(),
            next_host: 0,
            out: BytesMut::new(),
            actions: Vec::new(),
            armed: None,
            kept: false,
        };
        let pushing = Self {
            state: Mutex::new(state),
            config: config.clone(),
            changed: Arc::default(),
            room: Notify::new(),
            row: tokio::sync::Mutex::default(),
        };
        pushing.with(|state| state.step(Event::Attached));
        pushing
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something under the lock, and tells without it whom that concerns.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.locked();
        let done = act(&mut state);
        let settled = std::mem::take(&mut state.settled);
        let sooner = match (state.machine.next_deadline(), state.armed) {
            (Some(next), Some(armed)) => next < armed,
            (next, None) => next.is_some(),
            (None, _) => false,
        };
        drop(state);
        if sooner {
            self.changed.notify_one();
        }
        if !settled.is_empty() {
            self.room.notify_waiters();
        }
        for (promise, outcome) in settled {
            promise.settle(outcome);
        }
        done
    }

    pub(super) fn session(&self) -> Uuid {
        self.locked().session
    }

    /// A host greeted that takes messages; says what is wrong with what it says of them.
    pub(super) fn join(self: &Arc<Self>, takes: Push) -> Result<Joined, String> {
        let call = Arc::<Call>::default();
        let name = self.with(|state| {
            let known = takes.session == Some(state.session);
            if known && takes.handled > state.machine.last_sent() {
                return Err(never_given("it says to have handled", takes.handled));
            }
            if !state.hosts.is_empty() {
                state.end("another host greeted");
            }
            let name = state.next_host;
            state.next_host += 1;
            state.hosts.push(Host { name, takes, call: Arc::clone(&call) });
            state.begin(&self.config);
            Ok(name)
        })?;
        Ok(Joined { pushing: Arc::clone(self), name, call })
    }

    pub(super) fn close(&self) {
        self.with(|state| state.step(Event::Close));
        self.changed.notify_one();
    }

    /// Sees to it that somebody keeps time, from now until nothing is left to keep.
    pub(super) fn keep_time(self: &Arc<Self>) {
        if std::mem::replace(&mut self.locked().kept, true) {
            return;
        }
        let (shared, changed) = (Arc::downgrade(self), Arc::clone(&self.changed));
        tokio::spawn(async move {
            while let Some(until) = shared.upgrade().and_then(|shared| shared.next_tick()) {
                // Either way it is time to look again.
                drop(tokio::time::timeout_at(until, changed.notified()).await);
            }
        });
    }

    /// Does what is due, and gives the time of the next look; none when it is over.
    fn next_tick(&self) -> Option<Instant> {
        self.with(|state| {
            if state.machine.next_deadline().is_some_and(|due| due <= state.now()) {
                state.step(Event::Tick);
            }
            state.armed = state.machine.next_deadline();
            let left = state.armed.map_or(SLEEP_MAX, |due| due.since(state.now()).min(SLEEP_MAX));
            (state.machine.state != ChannelState::Closed).then(|| Instant::now() + left)
        })
    }

    pub(super) fn waiting(&self) -> usize {
        self.locked().machine.buffered()
    }

    pub(super) async fn push(&self, message: IpcMessage, options: SendOptions) -> Receipt {
        if let Some(error) = unpushable(message.id, options) {
            return Receipt::refused(message.id, error);
        }
        tokio::task::coop::consume_budget().await;
        if self.config.overflow != OverflowPolicy::Block {
            return self.accept(message, options);
        }
        let until = Instant::now() + self.config.block_timeout;
        // One that waited too long for its turn is refused like one that waited too long for room.
        let _turn = tokio::time::timeout_at(until, self.row.lock()).await;
        let bytes = held(&message);
        loop {
            // Listening first: what ends in between wakes it.
            let room = self.room.notified();
            let full = self.locked().machine.full(bytes, options.lane).is_some();
            if !full || tokio::time::timeout_at(until, room).await.is_err() {
                return self.accept(message, options);
            }
        }
    }

    fn accept(&self, message: IpcMessage, options: SendOptions) -> Receipt {
        let id = message.id;
        self.with(|state| {
            let now = state.now();
            let mut promise = Some(Promise::default());
            let slot = promise.as_ref().map(Promise::slot).unwrap_or_default();
            let mut actions = std::mem::take(&mut state.actions);
            let accepted = state.machine.accept(now, message, options, &mut promise, &mut actions);
            state.carry_out(&mut actions);
            state.actions = actions;
            match accepted {
                Ok(accepted) => Receipt::of(id, accepted, &state.machine, slot),
                Err(refusal) => Receipt::refused(id, refusal.error(HOST, id, &self.config)),
            }
        })
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        // Who keeps time finds that there is nothing left.
        self.changed.notify_one();
    }
}

/// A host that takes messages, for as long as its connection is served.
#[derive(Debug)]
pub(super) struct Joined {
    pushing: Arc<Pushing>,
    name: u64,
    call: Arc<Call>,
}

impl Joined {
    /// Moves what is to be written to the connection's own buffer.
    pub(super) fn take(&self, out: &mut BytesMut) {
        if !self.call.made.load(Ordering::Acquire) {
            return;
        }
        self.pushing.with(|state| {
            self.call.made.store(false, Ordering::Relaxed);
            if !state.pushed_to(self.name) {
                return;
            }
            out.extend_from_slice(&state.out);
            state.out.clear();
            if !state.machine.writable {
                state.machine.writable = true;
                state.step(Event::Wrote { pending: false });
            }
        });
    }

    /// Waits until there may be something to [take](Self::take).
    pub(super) async fn called(&self) {
        self.call.wake.notified().await;
    }

    /// The host says up to where it handled everything. Of an earlier host that is of no interest any more.
    pub(super) fn acknowledged(&self, s: u64, duplicate: bool) -> Result<(), String> {
        self.pushing.with(|state| {
            if !state.pushed_to(self.name) {
                return Ok(());
            }
            if s > state.machine.last_sent() {
                return Err(never_given("it acknowledged", s));
            }
            state.step(Event::Acked { s, duplicate });
            Ok(())
        })
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.pushing.with(|state| {
            let was_last = state.pushed_to(self.name);
            state.hosts.retain(|host| host.name != self.name);
            if was_last {
                state.end("the connection ended");
                state.begin(&self.pushing.config);
            }
        });
    }
}

fn never_given(what: &str, s: u64) -> String {
    format!("{what} number {s}, which was never given")
}

/// Says why a message cannot be pushed.
fn unpushable(id: Uuid, options: SendOptions) -> Option<supervisor_core::error::IpcError> {
    let reason = if options.expect_reply {
        "a host acknowledges and gives no answer, so `expect_reply` cannot be"
    } else if options.durable {
        "an endpoint has no outbox, so it cannot be `durable`: keep it yourself, and push it again with the same id"
    } else if options.lane == Lane::Control {
        "the control lane is the channel's own; take another one"
    } else {
        return None;
    };
    let reason = reason.to_owned();
    Some(supervisor_core::error::IpcError::Unsendable { channel: HOST.to_owned(), id, reason })
}
