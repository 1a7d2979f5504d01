//! One connection of an endpoint.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::poll;
use serde_json::Value;
use supervisor_core::config::FramingKind;
use supervisor_core::error::IpcError;
use supervisor_core::message::IpcMessage;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until};
use uuid::Uuid;

use super::pushing::Joined;
use super::{Endpoint, Handler};
use crate::framing::{Framing, LENGTH_HEAD};
use crate::protocol::{ENVELOPE_VERSION, Envelope, Hello, Push};

/// Messages read and not handled yet; beyond it, or beyond `max_buffered_bytes`, nothing is read.
const QUEUE_MAX: usize = 1024;
/// Bytes of answers from which on they are written before anything else is handled; while there are any, nothing is read.
const OUT_MAX: usize = 64 * 1024;
/// Bytes asked of the system at a time: of a peer that says little, and of one that fills them.
const READ_MIN: usize = 8 * 1024;
const READ_MAX: usize = 64 * 1024;
/// Messages handled before their acknowledgement goes out, if more are there to be handled.
const ACK_EVERY: u32 = 64;
/// Intervals of silence after which a peer that promised signs of life counts as gone; more than the channel allows us.
const SILENT_INTERVALS: u32 = 6;

/// A deadline noticed so much too late means that we stood still ourselves.
const STOOD_STILL: Duration = Duration::from_secs(2);

/// A message with its number and its size on the wire.
type Queued = (u64, IpcMessage, usize);

pub(super) struct Serving<'a, H, S> {
    endpoint: &'a Endpoint<H>,
    stream: S,
    framing: Framing,
    input: BytesMut,
    out: BytesMut,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    /// Everything up to here is to be acknowledged.
    ack: Option<u64>,
    unacknowledged: u32,
    greeted: bool,
    session: Option<Uuid>,
    /// How long the peer may be silent.
    silence: Option<Duration>,
    /// Since the host greeted, if it takes messages.
    host: Option<Joined>,
    ended: bool,
    /// Bytes asked of the system at a time.
    read_size: usize,
    /// When something was read last, or could be again after something else was waited for.
    now: Instant,
    /// Rings when the peer has been silent for too long, or earlier.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<'a, H: Handler, S: AsyncRead + AsyncWrite + Unpin> Serving<'a, H, S> {
    /// `greeting` bounds the time until the peer says something.
    pub(super) fn new(endpoint: &'a Endpoint<H>, stream: S, greeting: Option<Duration>) -> Self {
        Self {
            endpoint,
            stream,
            framing: Framing::of(FramingKind::Length, &endpoint.config),
            input: BytesMut::new(),
            out: BytesMut::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            ack: None,
            unacknowledged: 0,
            greeted: false,
            session: None,
            silence: greeting,
            host: None,
            ended: false,
            read_size: READ_MIN,
            now: Instant::now(),
            alarm: None,
        }
    }

    pub(super) async fn run(mut self) -> Result<(), IpcError> {
        let served = self.serve().await;
        if matches!(served, Err(IpcError::Incompatible { .. })) {
            // Our version is the last thing it hears from us, if it listens.
            drop(self.stream.write_all(&self.out).await);
        }
        served
    }

    async fn serve(&mut self) -> Result<(), IpcError> {
        loop {
            if let Some((s, message, bytes)) = self.queue.pop_front() {
                self.queued_bytes -= bytes;
                self.handle(s, message).await?;
                continue;
            }
            if self.ended {
                return Ok(());
            }
            self.acknowledge()?;
            self.turn().await?;
        }
    }

    async fn handle(&mut self, s: u64, message: IpcMessage) -> Result<(), IpcError> {
        let endpoint = self.endpoint;
        let id = message.id;
        let (answer, duplicate) = {
            let begun = match endpoint.memory.try_begin(id, self.now) {
                Some(begun) => begun,
                None => self.meanwhile(endpoint.memory.begin(id)).await?,
            };
            match begun {
                Err(answer) => {
                    if let Some(session) = self.session {
                        endpoint.memory.advance(session, s);
                    }
                    (answer, true)
                }
                Ok(turn) => {
                    let mut work = pin!(endpoint.handler.handle(message));
                    let answer = match poll!(&mut work) {
                        Poll::Ready(answer) => answer,
                        Poll::Pending => self.meanwhile(work).await?,
                    };
                    let session = self.session.map(|session| (session, s));
                    turn.done(answer.as_ref(), session, self.now);
                    (answer, false)
                }
            }
        };
        tracing::trace!(%id, duplicate, "handled");
        self.answer(s, answer, duplicate)?;
        if self.unacknowledged >= ACK_EVERY || self.out.len() >= OUT_MAX {
            self.acknowledge()?;
            while !self.ended && !self.out.is_empty() {
                self.turn().await?;
            }
        }
        Ok(())
    }

    fn answer(&mut self, s: u64, answer: Option<Value>, duplicate: bool) -> Result<(), IpcError> {
        match answer {
            Some(p) => self.say(&Envelope::Reply { s, p }),
            None if duplicate => {
                self.acknowledge()?;
                self.say(&Envelope::Ack { s, d: true })
            }
            None => {
                self.ack = Some(s);
                self.unacknowledged += 1;
                Ok(())
            }
        }
    }

    /// Says up to where everything was handled.
    fn acknowledge(&mut self) -> Result<(), IpcError> {
        self.unacknowledged = 0;
        match self.ack.take() {
            Some(s) => self.say(&Envelope::Ack { s, d: false }),
            None => Ok(()),
        }
    }

    /// Waits for something that takes its time, and goes on reading, answering signs of life and writing.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, IpcError> {
        self.acknowledge()?;
        let mut work = pin!(work);
        loop {
            let done = if self.ended {
                work.as_mut().await
            } else {
                tokio::select! {
                    biased;
                    done = &mut work => done,
                    turned = self.turn() => {
                        turned?;
                        continue;
                    }
                }
            };
            self.now = Instant::now();
            return Ok(done);
        }
    }

    /// Writes what there is to write, else reads; each is one call to the system, so dropping this loses nothing.
    async fn turn(&mut self) -> Result<(), IpcError> {
        if self.out.is_empty()
            && let Some(host) = &self.host
        {
            host.take(&mut self.out);
        }
        if !self.out.is_empty() {
            match self.stream.write(&self.out).await {
                Ok(0) | Err(_) => self.ended = true,
                Ok(written) => self.out.advance(written),
            }
            return Ok(());
        }
        if self.queue.len() >= QUEUE_MAX
            || self.queued_bytes as u64 >= self.endpoint.config.max_buffered_bytes.bytes()
        {
            // Only asked while a message is handled, which ends the wait.
            called(self.host.as_ref()).await;
            self.now = Instant::now();
            return Ok(());
        }
        self.input.reserve(self.read_size);
        let Some(read) = self.read().await? else { return Ok(()) };
        match read {
            Ok(0) | Err(_) => self.ended = true,
            Ok(_) => {
                self.now = Instant::now();
                // A peer that fills all there was has more to say.
                let filled = self.input.len() == self.input.capacity();
                self.read_size = if filled { READ_MAX } else { self.read_size };
                self.cut()?;
            }
        }
        Ok(())
    }

    /// Reads what comes in time, unless there is something to say first; time in which we stood still ourselves is no
    /// silence of the peer.
    async fn read(&mut self) -> Result<Option<io::Result<usize>>, IpcError> {
        let Some(limit) = self.silence else {
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.input) => return Ok(Some(read)),
                () = called(self.host.as_ref()) => return Ok(None),
            }
        };
        loop {
            let due = self.now + limit;
            // Set once and looked at when it rings, which costs less than to move it with everything that is heard.
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.input) => return Ok(Some(read)),
                () = called(self.host.as_ref()) => return Ok(None),
                () = alarm.as_mut() => {}
            }
            let now = Instant::now();
            if now > due + STOOD_STILL {
                self.now = now;
            } else if now >= due {
                // What has arrived while nobody looked is no silence.
                tokio::task::yield_now().await;
                return match poll!(pin!(self.stream.read_buf(&mut self.input))) {
                    Poll::Ready(read) => Ok(Some(read)),
                    Poll::Pending => {
                        Err(IpcError::TimedOut { channel: "endpoint".to_owned(), limit })
                    }
                };
            }
            alarm.as_mut().reset(self.now + limit);
        }
    }

    /// Takes every whole frame out of what was read.
    fn cut(&mut self) -> Result<(), IpcError> {
        // Looked at where they are; nothing is left of it on an error, which ends the connection.
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some(length) =
            self.framing.whole(&input[at..]).map_err(|error| broke(error.to_string()))?
        {
            let start = at + LENGTH_HEAD;
            at = start + length;
            let envelope =
                Envelope::read(&input[start..at]).map_err(|error| broke(error.to_string()))?;
            match envelope {
                Envelope::Hello(hello) => self.greet(hello)?,
                _ if !self.greeted => return Err(broke("it did not greet first".to_owned())),
                Envelope::Message { s, m } => {
                    self.queued_bytes += length;
                    self.queue.push_back((s, m, length));
                }
                Envelope::Ping { s } => self.say(&Envelope::Pong { s })?,
                Envelope::Broken => return Err(broke("a message without content".to_owned())),
                Envelope::Ack { s, d } => {
                    if let Some(host) = &self.host {
                        host.acknowledged(s, d).map_err(broke)?;
                    }
                }
                Envelope::Reply { .. } | Envelope::Pong { .. } => {}
            }
        }
        input.advance(at);
        let promised = self.framing.promised(&input).map_err(|error| broke(error.to_string()))?;
        if let Some(length) = promised {
            input.reserve((LENGTH_HEAD + length).saturating_sub(input.len()));
        }
        self.input = input;
        Ok(())
    }

    fn greet(&mut self, hello: Hello) -> Result<(), IpcError> {
        let pushing = &self.endpoint.pushing.0;
        self.greeted = true;
        self.session = hello.session;
        self.silence = (hello.idle > 0)
            .then(|| Duration::from_millis(hello.idle.min(86_400_000)) * SILENT_INTERVALS);
        self.alarm = None;
        let handled = hello.session.map_or(0, |session| self.endpoint.memory.handled(session));
        self.say(&Envelope::Hello(Hello {
            version: ENVELOPE_VERSION,
            session: hello.session,
            handled,
            idle: 0,
            push: Some(Push { session: Some(pushing.session()), ..Push::default() }),
        }))?;
        if hello.version != ENVELOPE_VERSION {
            return Err(IpcError::Incompatible {
                channel: "endpoint".to_owned(),
                found: hello.version.to_string(),
                supported: ENVELOPE_VERSION.to_string(),
            });
        }
        // One that greets again is the same host.
        if let (None, Some(takes)) = (&self.host, hello.push) {
            self.host = Some(pushing.join(takes).map_err(broke)?);
        }
        Ok(())
    }

    fn say(&mut self, envelope: &Envelope) -> Result<(), IpcError> {
        let written = self.framing.append(&mut self.out, |body| envelope.write(body));
        written.map_err(|error| IpcError::Protocol {
            channel: "endpoint".to_owned(),
            reason: format!("an answer cannot be written: {error}"),
        })
    }
}

/// Waits until a host is to be told something; for ever if there is none.
async fn called(host: Option<&Joined>) {
    match host {
        Some(host) => host.called().await,
        None => std::future::pending().await,
    }
}

fn broke(reason: String) -> IpcError {
    IpcError::Protocol { channel: "endpoint".to_owned(), reason }
}
