//! A transport in front of another one that breaks on purpose.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::error::IpcError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::transport::{Connection, Transport};

/// Bytes a proxy holds in each direction.
const PIPE: usize = 4096;

/// What happens to the bytes of one direction. Positions count bytes from the start of the connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// So many bytes at a time, each piece after a pause, which is at least a turn of the others.
    Slice {
        /// Bytes of a piece, at least 1.
        bytes: usize,
        /// Pause before each piece.
        pause: Duration,
    },
    /// The whole connection is gone at once, in both directions.
    Cut {
        /// Bytes that still pass.
        after: usize,
    },
    /// This direction ends in order, the other one goes on.
    HalfClose {
        /// Bytes that still pass.
        after: usize,
    },
    /// What comes is taken and forgotten; nothing tells either side.
    BlackHole {
        /// Bytes that still pass.
        after: usize,
    },
    /// Nothing is taken any more, so that the writer's pipe fills.
    StopReading {
        /// Bytes that still pass.
        after: usize,
    },
    /// One bit is changed.
    BitFlip {
        /// The byte.
        at: usize,
    },
    /// Bytes that nobody sent are put in.
    Junk {
        /// Where.
        at: usize,
        /// What.
        bytes: Vec<u8>,
    },
    /// A part passes twice.
    Repeat {
        /// Where it begins.
        from: usize,
        /// Where it ends.
        to: usize,
    },
}

/// Makes the connections of another transport break: the first one by the first script, and so on; those without a script
/// are left alone.
#[derive(Debug)]
pub struct FaultProxy {
    inner: Arc<dyn Transport>,
    scripts: Mutex<VecDeque<(Fault, Fault)>>,
}

impl FaultProxy {
    /// Puts a proxy in front of `inner`, with a pair of faults for each connection: to the peer, and from it.
    #[must_use]
    pub fn new(
        inner: Arc<dyn Transport>,
        scripts: impl IntoIterator<Item = (Fault, Fault)>,
    ) -> Self {
        Self { inner, scripts: Mutex::new(scripts.into_iter().collect()) }
    }
}

#[async_trait]
impl Transport for FaultProxy {
    async fn connect(&self) -> Result<Connection, IpcError> {
        let Connection { reader, writer } = self.inner.connect().await?;
        let script = self.scripts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let (to, from) = script.unwrap_or_default();
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let (near, back) = tokio::io::split(theirs);
        // It ends with either side: both directions are dropped together.
        tokio::spawn(async move {
            tokio::select! {
                () = pass(near, writer, to) => {}
                () = pass(reader, back, from) => {}
            }
        });
        Ok(Connection::of(ours))
    }

    fn describe(&self) -> String {
        format!("faulty {}", self.inner.describe())
    }

    fn waits(&self) -> bool {
        self.inner.waits()
    }

    fn weighs(&self) -> bool {
        self.inner.weighs()
    }

    async fn excuse(&self) -> Option<String> {
        self.inner.excuse().await
    }

    fn lost(&self, silent: bool, reason: &str) {
        self.inner.lost(silent, reason);
    }
}

/// Passes bytes on until the whole connection is to end.
async fn pass(
    mut source: impl AsyncRead + Unpin,
    mut target: impl AsyncWrite + Unpin,
    fault: Fault,
) {
    let mut at = 0;
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let most = match &fault {
            Fault::Slice { bytes, pause } => {
                if pause.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(*pause).await;
                }
                (*bytes).clamp(1, buffer.len())
            }
            Fault::StopReading { after } if at >= *after => return std::future::pending().await,
            _ => buffer.len(),
        };
        let Ok(read @ 1..) = source.read(&mut buffer[..most]).await else { return };
        let piece = &mut buffer[..read];
        let end = at + read;
        let inside = |position: usize| (at..end).contains(&position).then(|| position - at);
        let room = |after: usize| after.saturating_sub(at).min(read);
        let (passed, then) = match &fault {
            Fault::Cut { after } => (piece[..room(*after)].to_vec(), end > *after),
            Fault::HalfClose { after } => (piece[..room(*after)].to_vec(), end > *after),
            Fault::BlackHole { after } => (piece[..room(*after)].to_vec(), false),
            Fault::BitFlip { at: position } => {
                if let Some(position) = inside(*position) {
                    piece[position] ^= 1;
                }
                (piece.to_vec(), false)
            }
            Fault::Junk { at: position, bytes } => match inside(*position) {
                Some(position) => {
                    ([&piece[..position], bytes.as_slice(), &piece[position..]].concat(), false)
                }
                None => (piece.to_vec(), false),
            },
            Fault::Repeat { from, to } => {
                let mut passed = piece.to_vec();
                kept.extend(piece.iter().enumerate().filter_map(|(offset, byte)| {
                    (*from..*to).contains(&(at + offset)).then_some(*byte)
                }));
                if let Some(position) = inside(*to) {
                    passed.splice(position..position, std::mem::take(&mut kept));
                }
                (passed, false)
            }
            Fault::None | Fault::Slice { .. } | Fault::StopReading { .. } => {
                (piece.to_vec(), false)
            }
        };
        at = end;
        if target.write_all(&passed).await.is_err() || target.flush().await.is_err() {
            return;
        }
        if then {
            if matches!(fault, Fault::HalfClose { .. }) {
                // An error means that it is closed already.
                drop(target.shutdown().await);
                return std::future::pending().await;
            }
            return;
        }
    }
}
