//! What a synchroniser talks over while nothing else flows.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use supervisor_core::Generation;
use supervisor_core::error::IpcError;
use supervisor_core::ports::SyncSession;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::protocol::{ENVELOPE_VERSION, Envelope, Hello};

/// Frames of the peer that wait for a synchroniser; at the bound the oldest wait with the peer.
pub(crate) const SESSION_MAX: usize = 256;

/// One generation's session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) channel: String,
    pub(crate) generation: Generation,
    pub(crate) outbox: mpsc::Sender<Bytes>,
    pub(crate) inbox: mpsc::Receiver<Bytes>,
}

impl Session {
    fn lost(&self, was_written: bool) -> IpcError {
        IpcError::Lost { channel: self.channel.clone(), generation: self.generation, was_written }
    }

    /// Greets a peer that speaks our own envelope and checks its version; gives up to which number it has handled
    /// what was sent in this session before.
    pub(crate) async fn greet(&mut self, session: Uuid, idle: Duration) -> Result<u64, IpcError> {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let hello = Hello { version: ENVELOPE_VERSION, session: Some(session), handled: 0, idle };
        self.send(serde_json::to_vec(&Envelope::Hello(hello)).unwrap_or_default()).await?;
        let answer = self.receive().await?;
        let protocol =
            |reason: String| IpcError::Protocol { channel: self.channel.clone(), reason };
        match serde_json::from_slice::<Envelope>(&answer) {
            Ok(Envelope::Hello(hello)) if hello.version == ENVELOPE_VERSION => {
                Ok(if hello.session == Some(session) { hello.handled } else { 0 })
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
        let frame = self.inbox.recv().await;
        frame.map(|frame| frame.to_vec()).ok_or_else(|| self.lost(true))
    }
}
