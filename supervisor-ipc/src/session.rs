//! What a synchroniser talks over while nothing else flows.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use supervisor_core::Generation;
use supervisor_core::error::IpcError;
use supervisor_core::ports::SyncSession;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::protocol::{ENVELOPE_VERSION, Envelope, Hello, Push};

/// Frames of the peer that wait for a synchroniser, more than a service may leave unacknowledged; at the bound the
/// connection ends.
pub(crate) const SESSION_MAX: usize = 1024;

/// Messages of the peer set aside meanwhile, more than it may leave unacknowledged; at the bound the connection ends.
const ASIDE_MAX: usize = 512;

/// One generation's session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) channel: String,
    pub(crate) generation: Generation,
    pub(crate) outbox: mpsc::Sender<Bytes>,
    pub(crate) inbox: mpsc::Receiver<Bytes>,
    /// Numbered messages that a service sends meanwhile are the channel's, in their order.
    pub(crate) aside: Option<VecDeque<Bytes>>,
}

/// How a peer that speaks our own envelope introduced itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Greeted {
    /// What was sent in this session before was handled up to here.
    pub(crate) handled: u64,
    /// Names the numbers of what it says itself, if it gives them any.
    pub(crate) pushes: Option<Uuid>,
}

impl Session {
    fn lost(&self, was_written: bool) -> IpcError {
        IpcError::Lost { channel: self.channel.clone(), generation: self.generation, was_written }
    }

    /// Greets a peer that speaks our own envelope and checks its version.
    pub(crate) async fn greet(
        &mut self,
        session: Uuid,
        idle: Duration,
        push: Push,
    ) -> Result<Greeted, IpcError> {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let hello = Hello {
            version: ENVELOPE_VERSION,
            session: Some(session),
            handled: 0,
            idle,
            push: Some(push),
        };
        self.send(serde_json::to_vec(&Envelope::Hello(hello)).unwrap_or_default()).await?;
        let answer = self.receive().await?;
        let protocol =
            |reason: String| IpcError::Protocol { channel: self.channel.clone(), reason };
        match serde_json::from_slice::<Envelope>(&answer) {
            Ok(Envelope::Hello(hello)) if hello.version == ENVELOPE_VERSION => {
                let handled = if hello.session == Some(session) { hello.handled } else { 0 };
                let pushes = hello.push.and_then(|push| push.session);
                self.aside = pushes.map(|_| VecDeque::new());
                Ok(Greeted { handled, pushes })
            }
            Ok(Envelope::Hello(hello)) => Err(IpcError::Incompatible {
                channel: self.channel.clone(),
                found: hello.version.to_string(),
                supported: ENVELOPE_VERSION.to_string(),
            }),
            Ok(_) => Err(protocol("it did not greet first".to_owned())),
            Err(error) => Err(protocol(format!("its greeting cannot be read: {error}"))),
        }
    }
}

#[async_trait]
impl SyncSession for Session {
    fn generation(&self) -> Generation {
        self.generation
    }

    async fn send(&mut self, frame: Vec<u8>) -> Result<(), IpcError> {
        self.outbox.send(frame.into()).await.map_err(|_| self.lost(true))
    }

    async fn receive(&mut self) -> Result<Vec<u8>, IpcError> {
        loop {
            let frame = self.inbox.recv().await.ok_or_else(|| self.lost(true))?;
            match &mut self.aside {
                Some(aside)
                    if matches!(serde_json::from_slice(&frame), Ok(Envelope::Message { .. })) =>
                {
                    if aside.len() >= ASIDE_MAX {
                        return Err(IpcError::Protocol {
                            channel: self.channel.clone(),
                            reason: "it sends messages without end before its state is restored"
                                .to_owned(),
                        });
                    }
                    aside.push_back(frame);
                }
                _ => return Ok(frame.to_vec()),
            }
        }
    }
}
