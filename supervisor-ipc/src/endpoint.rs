//! The service's side of our own envelope.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use supervisor_core::config::{FramingKind, RecoveryConfig};
use supervisor_core::error::IpcError;
use supervisor_core::message::IpcMessage;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::Framed;
use uuid::Uuid;

use crate::framing::Framing;
use crate::protocol::{ENVELOPE_VERSION, Envelope};

/// Handles one message; what it gives back is the answer.
pub trait Handler: Send + Sync + 'static {
    /// Handles a message.
    fn handle(&self, message: IpcMessage) -> impl Future<Output = Option<Value>> + Send;
}

impl<F, R> Handler for F
where
    F: Fn(IpcMessage) -> R + Send + Sync + 'static,
    R: Future<Output = Option<Value>> + Send,
{
    fn handle(&self, message: IpcMessage) -> impl Future<Output = Option<Value>> + Send {
        self(message)
    }
}

/// The service's side of a channel: acknowledges, answers, and handles each id once.
///
/// What was handled is remembered across connections of one endpoint, so a message that is sent again because its
/// acknowledgement was lost has no second effect; its first answer is given again.
#[derive(Debug)]
pub struct Endpoint<H> {
    handler: H,
    seen: Arc<Mutex<Seen>>,
    config: RecoveryConfig,
}

/// Ids handled lately with their answers, at most `dedupe_max`; beyond it the oldest are forgotten.
#[derive(Debug, Default)]
struct Seen {
    answers: HashMap<Uuid, Option<Value>>,
    order: VecDeque<Uuid>,
}

impl<H: Handler> Endpoint<H> {
    /// Makes an endpoint with default limits.
    pub fn new(handler: H) -> Self {
        Self::with_config(handler, RecoveryConfig::default())
    }

    /// Makes an endpoint with limits of its own: `max_frame` and `dedupe_max` apply.
    pub fn with_config(handler: H, config: RecoveryConfig) -> Self {
        Self { handler, seen: Arc::default(), config }
    }

    /// Serves one connection to its end.
    ///
    /// # Errors
    /// [`IpcError::Protocol`] when the peer broke the protocol, [`IpcError::Incompatible`] when it speaks another
    /// version. The end of the connection is no error.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection; a message under way may have had its effect, and is remembered if it had.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), IpcError> {
        let frame_max = usize::try_from(self.config.max_frame.bytes()).unwrap_or(usize::MAX);
        let mut framed = Framed::new(stream, Framing::new(FramingKind::Length, frame_max, 0));
        let mut greeted = false;
        while let Some(frame) = framed.next().await {
            let frame = frame.map_err(|error| protocol(error.to_string()))?;
            let envelope =
                serde_json::from_slice(&frame).map_err(|error| protocol(error.to_string()))?;
            let answer = match envelope {
                Envelope::Hello { version } => {
                    greeted = true;
                    let sent =
                        send(&mut framed, &Envelope::Hello { version: ENVELOPE_VERSION }).await;
                    if version != ENVELOPE_VERSION {
                        return Err(IpcError::Incompatible {
                            channel: "endpoint".to_owned(),
                            found: version.to_string(),
                            supported: ENVELOPE_VERSION.to_string(),
                        });
                    }
                    if sent.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                _ if !greeted => return Err(protocol("it did not greet first".to_owned())),
                Envelope::Message { s, m } => self.handle(s, m).await,
                Envelope::Ping { s } => Envelope::Pong { s },
                Envelope::Ack { .. } | Envelope::Reply { .. } | Envelope::Pong { .. } => continue,
            };
            if send(&mut framed, &answer).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn handle(&self, s: u64, message: IpcMessage) -> Envelope {
        let id = message.id;
        let wants = message.message_type.clone();
        let known = self.lock().answers.get(&id).cloned();
        let duplicate = known.is_some();
        let answer = match known {
            Some(answer) => answer,
            None => {
                let answer = self.handler.handle(message).await;
                self.remember(id, answer.clone());
                answer
            }
        };
        tracing::trace!(%id, message_type = %wants, duplicate, "handled");
        match answer {
            Some(p) => Envelope::Reply { s, p },
            None => Envelope::Ack { s, d: duplicate },
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, id: Uuid, answer: Option<Value>) {
        let mut seen = self.lock();
        seen.answers.insert(id, answer);
        seen.order.push_back(id);
        while seen.order.len() > self.config.dedupe_max {
            if let Some(old) = seen.order.pop_front() {
                seen.answers.remove(&old);
            }
        }
    }
}

fn protocol(reason: String) -> IpcError {
    IpcError::Protocol { channel: "endpoint".to_owned(), reason }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    framed: &mut Framed<S, Framing>,
    envelope: &Envelope,
) -> std::io::Result<()> {
    framed.send(Bytes::from(serde_json::to_vec(envelope)?)).await
}
