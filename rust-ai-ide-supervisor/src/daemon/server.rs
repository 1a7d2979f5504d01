//! Answers on the control socket of a state directory.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::error::{ErrorReport, SecurityError, SupervisorError};
use supervisor_core::journal::Actor;
use supervisor_core::ports::{Delivery, SupervisorControl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::os::{Listener, Stream};
use super::protocol::{
    ANSWER_BYTES_MAX, Answer, Body, Call, PROTOCOL_VERSION, REFUSED, REQUEST_BYTES_MAX,
    ReloadReport, Request,
};
use super::wire::{Frames, PATIENCE};
use crate::storage::{Progress, StorageAnswer, StorageCall};
use crate::supervisor::tasks;

/// Peers served at once. One more is refused with a reason.
const PEERS_MAX: usize = 64;
/// Requests a peer may make in a second; a faster one is read more slowly, never dropped.
const REQUESTS_PER_SECOND: u32 = 200;
/// How long peers may take to fetch their last answer when the server ends.
const DRAIN: Duration = Duration::from_secs(2);

/// Reads the configuration again; the program gives one, an embedding host may.
#[async_trait]
pub trait Reloader: Send + Sync + std::fmt::Debug {
    /// Validates everything, then changes only what changed.
    ///
    /// # Errors
    /// What was wrong with the configuration; nothing was changed then.
    ///
    /// # Cancel safety
    /// Not safe: services may be left stopped. The server never cancels it.
    async fn reload(&self) -> Result<ReloadReport, SupervisorError>;
}

/// Answers questions about stored state; [`Supervisor`](crate::Supervisor) does.
#[async_trait]
pub trait StorageControl: Send + Sync + std::fmt::Debug {
    /// Carries a call out, telling how far a long one is.
    ///
    /// # Errors
    /// Those of the store; [`SecurityError::NotPermitted`] for what cannot be done while services run.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer, not the effect.
    async fn storage(
        &self,
        call: StorageCall,
        actor: Actor,
        progress: Progress,
    ) -> Result<StorageAnswer, SupervisorError>;
}

/// What a server answers with; what is absent is refused with a reason.
#[derive(Debug, Clone)]
pub struct Faces {
    /// The supervisor.
    pub control: Arc<dyn SupervisorControl>,
    /// What reads the configuration again.
    pub reloader: Option<Arc<dyn Reloader>>,
    /// What answers for stored state.
    pub storage: Option<Arc<dyn StorageControl>>,
}

/// Answers on the control socket until it is stopped.
#[derive(Debug)]
pub struct ControlServer {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Shared {
    faces: Faces,
    stop: CancellationToken,
}

impl ControlServer {
    /// Listens in `state_dir`, whose lock the caller holds.
    ///
    /// # Errors
    /// What the system said about the socket.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub fn start(state_dir: &Path, faces: Faces) -> io::Result<Self> {
        let listener = Listener::bind(state_dir)?;
        let stop = CancellationToken::new();
        let shared = Shared { faces, stop: stop.clone() };
        let task = tasks::spawn(serve(listener, shared));
        Ok(Self { stop, task })
    }

    /// Stops listening, lets every peer fetch the answer it waits for (2 s at most), and ends.
    ///
    /// # Cancel safety
    /// Safe; the server ends in the background.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the control server ended abnormally");
        }
    }
}

async fn serve(listener: Listener, shared: Shared) {
    let peers = TaskTracker::new();
    let places = Arc::new(Semaphore::new(PEERS_MAX));
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                let (shared, place) = (shared.clone(), Arc::clone(&places).try_acquire_owned());
                peers.spawn(async move {
                    let result = match place {
                        Ok(_place) => serve_peer(stream, &shared).await,
                        Err(_) => refuse(stream, "too many clients at once; try again").await,
                    };
                    if let Err(error) = result {
                        tracing::debug!(%error, "a control connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a control connection was refused");
                // Without descriptors accepting fails at once, again and again; a pause keeps that from burning a core.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    peers.close();
    if tokio::time::timeout(DRAIN, peers.wait()).await.is_err() {
        tracing::debug!("control connections were cut at the end of the drain time");
    }
}

async fn refuse(mut stream: Stream, reason: &str) -> io::Result<()> {
    stream.write_all(&[REFUSED]).await?;
    let error = SecurityError::Peer { reason: reason.to_owned() };
    let report = ErrorReport::of(&error, Uuid::now_v7());
    Frames::new(stream, REQUEST_BYTES_MAX)
        .send(&Answer { id: 0, body: Body::Failed(report) }, ANSWER_BYTES_MAX)
        .await
}

async fn serve_peer(mut stream: Stream, shared: &Shared) -> io::Result<()> {
    let hello = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
    let version =
        hello.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no version byte"))??;
    if version < PROTOCOL_VERSION {
        let reason =
            format!("this supervisor speaks version {PROTOCOL_VERSION}, the client {version}");
        return refuse(stream, &reason).await;
    }
    stream.write_all(&[PROTOCOL_VERSION]).await?;
    let mut frames = Frames::new(stream, REQUEST_BYTES_MAX);
    let mut pace = tokio::time::interval(Duration::from_secs(1) / REQUESTS_PER_SECOND);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    loop {
        let request = tokio::select! {
            () = shared.stop.cancelled() => return Ok(()),
            request = frames.receive::<Request>(REQUEST_BYTES_MAX) => request,
        };
        let Some(Request { id, call }) = (match request {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let report = failed(
                    &SecurityError::Input { argument: "request".into(), reason: error.to_string() }
                        .into(),
                );
                return frames.send(&Answer { id: 0, body: report }, ANSWER_BYTES_MAX).await;
            }
            other => other?,
        }) else {
            return Ok(());
        };
        if call == Call::Follow {
            return follow(&mut frames, id, shared).await;
        }
        let body = match call {
            Call::Storage { storage } => stored(&mut frames, id, storage, shared).await?,
            call => answer(call, shared).await,
        };
        frames.send(&Answer { id, body }, ANSWER_BYTES_MAX).await?;
        pace.tick().await;
    }
}

async fn follow(frames: &mut Frames<Stream>, id: u64, shared: &Shared) -> io::Result<()> {
    let mut events = shared.faces.control.subscribe();
    frames.send(&Answer { id, body: Body::Done }, ANSWER_BYTES_MAX).await?;
    loop {
        let delivery = tokio::select! {
            // Delivered first: a follower is told of the shutdown that ends its stream.
            biased;
            delivery = events.next() => delivery,
            // A follower says nothing more; whatever comes, or its end, ends the stream.
            _ = frames.receive::<Request>(REQUEST_BYTES_MAX) => return Ok(()),
            () = shared.stop.cancelled() => return Ok(()),
        };
        let body = match delivery {
            Some(Delivery::Event(event)) => Body::Event(event),
            Some(Delivery::Missed(missed)) => Body::Missed(missed),
            None => return Ok(()),
        };
        frames.send(&Answer { id, body }, ANSWER_BYTES_MAX).await?;
    }
}

fn failed(error: &SupervisorError) -> Body {
    let report = ErrorReport::of(error, Uuid::now_v7());
    tracing::debug!(correlation_id = %report.correlation_id, code = report.code, message = report.message, "a control request failed");
    Body::Failed(report)
}

/// Progress reports that wait for a slow client; more are left out, for the next one says more.
const PROGRESS_MAX: usize = 16;

/// Asks storage, and passes on how far it is.
async fn stored(
    frames: &mut Frames<Stream>,
    id: u64,
    call: StorageCall,
    shared: &Shared,
) -> io::Result<Body> {
    let Some(storage) = &shared.faces.storage else {
        let reason = "this supervisor does not answer for its storage".to_owned();
        return Ok(failed(
            &SecurityError::NotPermitted { action: "storage".into(), reason }.into(),
        ));
    };
    let (report, mut reports) = tokio::sync::mpsc::channel(PROGRESS_MAX);
    // Left out when the client is behind: the next one says more.
    let progress: Progress = Arc::new(move |far| _ = report.try_send(far));
    let mut answer = storage.storage(call, Actor::Operator, progress);
    loop {
        tokio::select! {
            answer = &mut answer => return Ok(match answer {
                Ok(answer) => Body::Storage(Box::new(answer)),
                Err(error) => failed(&error),
            }),
            Some(far) = reports.recv() => {
                frames.send(&Answer { id, body: Body::Progress(far) }, ANSWER_BYTES_MAX).await?;
            }
        }
    }
}

async fn answer(call: Call, shared: &Shared) -> Body {
    match carry_out(call, shared).await {
        Ok(body) => body,
        Err(error) => failed(&error),
    }
}

async fn carry_out(call: Call, shared: &Shared) -> Result<Body, SupervisorError> {
    let (control, actor) = (&shared.faces.control, Actor::Operator);
    Ok(match call {
        Call::Status => Body::Status(Box::new(control.status().await?)),
        Call::Start { service } => control.start(&service, actor).await.map(|()| Body::Done)?,
        Call::Stop { service } => control.stop(&service, actor).await.map(|()| Body::Done)?,
        Call::Restart { service } => control.restart(&service, actor).await.map(|()| Body::Done)?,
        Call::Down => control.shutdown(actor).await.map(|()| Body::Done)?,
        Call::Reload => match &shared.faces.reloader {
            Some(reloader) => Body::Reloaded(reloader.reload().await?),
            None => {
                let reason = "this supervisor was not started from a configuration file".to_owned();
                return Err(SecurityError::NotPermitted { action: "reload".into(), reason }.into());
            }
        },
        Call::Logs { service, limit } => Body::Logs(control.logs(&service, limit).await?),
        Call::Events { after, limit } => Body::Events(control.events(after, limit).await?),
        Call::CheckpointCreate => Body::CheckpointCreated(control.create_checkpoint(actor).await?),
        Call::CheckpointList { limit } => Body::Checkpoints(control.checkpoints(limit).await?),
        Call::CheckpointShow { which } => {
            Body::Checkpoint(Box::new(control.load_checkpoint(which).await?))
        }
        Call::CheckpointVerify { checkpoint } => {
            Body::CheckpointVerified(control.verify_checkpoint(checkpoint).await?)
        }
        Call::AuditList { after, limit } => Body::Audit(control.audit(after, limit).await?),
        Call::AuditVerify => Body::AuditVerified(control.verify_audit().await?),
        Call::Channels => Body::Channels(control.channels().await?),
        // Both are answered by `serve_peer`, which has the stream they need.
        Call::Follow | Call::Storage { .. } => Body::Done,
    })
}
