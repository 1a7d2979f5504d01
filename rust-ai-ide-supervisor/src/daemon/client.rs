//! Asks the supervisor of a state directory.

use std::io;
use std::path::{Path, PathBuf};

use supervisor_core::error::ErrorReport;
use supervisor_core::event::SupervisorEvent;
use supervisor_persist::BackupProgress;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::os::{ClientStream, connect};
use super::protocol::{
    ANSWER_BYTES_MAX, Answer, Body, Call, PROTOCOL_VERSION, REFUSED, REQUEST_BYTES_MAX, Request,
};
use super::wire::{Frames, PATIENCE};

/// Why a supervisor could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answers there. A retry helps once a supervisor runs.
    #[error("no supervisor is running in {}", state_dir.display())]
    NotRunning {
        /// The state directory.
        state_dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The supervisor answered that it cannot do what was asked.
    #[error("{}", .0.message)]
    Failed(ErrorReport),
    /// The connection broke; whether the request had its effect is unknown.
    #[error("the connection to the supervisor broke")]
    Broken(#[source] io::Error),
    /// The other side does not speak this protocol.
    #[error("what answers there speaks another protocol: {reason}")]
    Protocol {
        /// What was seen.
        reason: String,
    },
}

/// A connection to a running supervisor.
#[derive(Debug)]
pub struct ControlClient {
    frames: Frames<ClientStream>,
    next: u64,
}

/// What a follower gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Followed {
    /// The next event.
    Event(Box<SupervisorEvent>),
    /// So many events are missing here.
    Missed(u64),
}

impl ControlClient {
    /// Connects to the supervisor of a state directory.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when nobody answers, [`ClientError::Failed`] when it refuses, else
    /// [`ClientError::Protocol`] or [`ClientError::Broken`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn connect(state_dir: &Path) -> Result<Self, ClientError> {
        let mut stream = connect(state_dir).await.map_err(|source| ClientError::NotRunning {
            state_dir: state_dir.to_owned(),
            source,
        })?;
        stream.write_all(&[PROTOCOL_VERSION]).await.map_err(ClientError::Broken)?;
        let version = tokio::time::timeout(PATIENCE, stream.read_u8())
            .await
            .map_err(|_| ClientError::Protocol {
                reason: "no answer; is the supervisor suspended?".into(),
            })?
            .map_err(ClientError::Broken)?;
        let mut frames = Frames::new(stream, ANSWER_BYTES_MAX);
        match version {
            PROTOCOL_VERSION => Ok(Self { frames, next: 1 }),
            REFUSED => match receive(&mut frames).await?.body {
                Body::Failed(report) => Err(ClientError::Failed(report)),
                other => Err(unexpected(&other)),
            },
            other => Err(ClientError::Protocol {
                reason: format!("it wants version {other}, this program speaks {PROTOCOL_VERSION}"),
            }),
        }
    }

    /// Asks and waits for the answer, as long as it takes.
    ///
    /// # Errors
    /// [`ClientError::Failed`] with the supervisor's own words, else a broken connection.
    ///
    /// # Cancel safety
    /// Not safe: drop the client too, or the next call reads this one's answer.
    pub async fn call(&mut self, call: Call) -> Result<Body, ClientError> {
        self.call_with(call, |_| {}).await
    }

    /// Asks, and tells how far it is until the answer comes.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    ///
    /// # Cancel safety
    /// As for [`call`](Self::call).
    pub async fn call_with(
        &mut self,
        call: Call,
        mut progress: impl FnMut(BackupProgress),
    ) -> Result<Body, ClientError> {
        let id = self.next;
        self.next += 1;
        self.frames
            .send(&Request { id, call }, REQUEST_BYTES_MAX)
            .await
            .map_err(ClientError::Broken)?;
        loop {
            let answer = receive(&mut self.frames).await?;
            return match answer.body {
                Body::Failed(report) => Err(ClientError::Failed(report)),
                Body::Progress(far) if answer.id == id => {
                    progress(far);
                    continue;
                }
                body if answer.id == id => Ok(body),
                other => Err(unexpected(&other)),
            };
        }
    }

    /// Asks for live events; read them with [`next`](Self::next).
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    ///
    /// # Cancel safety
    /// As for [`call`](Self::call).
    pub async fn follow(&mut self) -> Result<(), ClientError> {
        match self.call(Call::Follow).await? {
            Body::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for the next live event; nothing when the supervisor ended.
    ///
    /// # Errors
    /// [`ClientError::Broken`] or [`ClientError::Protocol`].
    ///
    /// # Cancel safety
    /// Safe; no event is lost.
    pub async fn next(&mut self) -> Result<Option<Followed>, ClientError> {
        let answer =
            self.frames.receive::<Answer>(ANSWER_BYTES_MAX).await.map_err(ClientError::Broken)?;
        match answer.map(|answer| answer.body) {
            None => Ok(None),
            Some(Body::Event(event)) => Ok(Some(Followed::Event(event))),
            Some(Body::Missed(missed)) => Ok(Some(Followed::Missed(missed))),
            Some(Body::Failed(report)) => Err(ClientError::Failed(report)),
            Some(other) => Err(unexpected(&other)),
        }
    }
}

async fn receive(frames: &mut Frames<ClientStream>) -> Result<Answer, ClientError> {
    let answer = frames.receive::<Answer>(ANSWER_BYTES_MAX).await.map_err(ClientError::Broken)?;
    answer.ok_or_else(|| {
        ClientError::Broken(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it ended before it answered",
        ))
    })
}

fn unexpected(body: &Body) -> ClientError {
    let text = format!("{body:?}");
    ClientError::Protocol {
        reason: format!("an unexpected answer {}", text.chars().take(80).collect::<String>()),
    }
}
