//! What every state synchroniser promises. Each function panics with what was expected.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use crate::Generation;
use crate::error::IpcError;
use crate::ports::{OwnedSyncSession, StateSynchronizer, SyncSession};

/// A session with a peer made of a function: what it gives for a frame is what the peer answers.
pub struct ScriptedSession<F> {
    generation: Generation,
    peer: Mutex<F>,
    answers: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl<F> std::fmt::Debug for ScriptedSession<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptedSession")
            .field("generation", &self.generation)
            .field("sent", &self.sent.len())
            .finish_non_exhaustive()
    }
}

impl<F: FnMut(&[u8]) -> Vec<Vec<u8>> + Send> ScriptedSession<F> {
    /// Makes a session of this generation.
    #[must_use]
    pub const fn new(generation: Generation, peer: F) -> Self {
        Self { generation, peer: Mutex::new(peer), answers: VecDeque::new(), sent: Vec::new() }
    }

    /// Gives what was sent, in order.
    #[must_use]
    pub fn sent(&self) -> &[Vec<u8>] {
        &self.sent
    }
}

#[async_trait]
impl<F: FnMut(&[u8]) -> Vec<Vec<u8>> + Send> SyncSession for ScriptedSession<F> {
    fn generation(&self) -> Generation {
        self.generation
    }

    async fn send(&mut self, frame: Vec<u8>) -> Result<(), IpcError> {
        let peer = self.peer.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.answers.extend(peer(&frame));
        self.sent.push(frame);
        Ok(())
    }

    /// Gives the next answer; a peer that owes none has closed the connection.
    async fn receive(&mut self) -> Result<Vec<u8>, IpcError> {
        let lost = IpcError::Lost {
            channel: "scripted".to_owned(),
            generation: self.generation,
            was_written: !self.sent.is_empty(),
        };
        self.answers.pop_front().ok_or(lost)
    }
}

/// Runs the promises of [`StateSynchronizer`] against a peer made by `peer`, fresh for each generation.
///
/// # Panics
/// When a promise is not kept.
pub async fn synchronizer<F>(synchronizer: &dyn StateSynchronizer, mut peer: impl FnMut() -> F)
where
    F: FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
{
    let mut first: Option<Vec<Vec<u8>>> = None;
    for generation in 1..=3 {
        let mut session = ScriptedSession::new(Generation(generation), peer());
        let session_of: &mut OwnedSyncSession = &mut session;
        let restored = synchronizer.synchronize(session_of).await;
        assert!(restored.is_ok(), "generation {generation} is restored: {restored:?}");
        let sent = session.sent().to_vec();
        let known = first.get_or_insert_with(|| sent.clone());
        assert_eq!(*known, sent, "state is replayed as it is, however often: it is not consumed");
    }
}
