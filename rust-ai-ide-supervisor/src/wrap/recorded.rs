//! A wrapped server in a state directory: `status` and `channels` show it, events and the audit trail tell of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use supervisor_core::error::{ProcessError, SupervisorError};
use supervisor_core::event::EventKind;
use supervisor_core::exit::{ExitReason, ExitReport};
use supervisor_core::journal::Actor;
use supervisor_core::message::{ChannelRecovery, ChannelState, ChannelStatus};
use supervisor_core::ports::{EventSink, SupervisorControl as _};
use supervisor_core::state::Phase;
use supervisor_core::status::{LastExit, ServiceStatus};
use supervisor_core::{Generation, Incarnation, ServiceId};
use supervisor_ipc::relay::{Ending, Loss, RecoveryReport};
use supervisor_process::SystemSpawner;
use tokio::sync::{Notify, mpsc};

use super::face::{Face, Seen};
use super::letters::{Keeper, Letters, Requeue};
use super::life::ASKED_FOR;
use super::{Observed, Observer};
use crate::daemon::{ControlServer, Faces};
use crate::state_dir::StateDir;
use crate::{GuardianChoice, Supervisor};

/// Directory in a state directory that has one directory for each wrapped server, a state directory of its own.
pub const RECORDS_DIR: &str = "wrap";

/// Why a wrapped server runs that was not restarted.
const WRAPPED: &str = "wrapped: its client decides how long it runs";

/// Writes what happens to one wrapped server into a state directory, and answers there for it.
#[derive(Debug)]
pub struct Recorder {
    face: Arc<Face>,
    sink: Arc<dyn EventSink>,
    keeper: Keeper,
    server: ControlServer,
    /// The last run that was lost, and why.
    lost: Option<(Generation, String)>,
}

impl Recorder {
    /// Opens the place of a server of this name in a state directory and answers on a control socket there.
    ///
    /// The place is [`RECORDS_DIR`]`/NAME`, so that servers of different names share a state directory, with each other
    /// and with a supervisor. `restart` is notified, and `requeue` gets what is asked, when an operator wants
    /// that; the session listens.
    ///
    /// # Errors
    /// What opening a state directory may give: a session of this name owns the place, or its database is refused.
    ///
    /// # Cancel safety
    /// Safe; the directory is given up again.
    pub async fn open(
        state_dir: &Path,
        service: &ServiceId,
        restart: Arc<Notify>,
        requeue: mpsc::Sender<Requeue>,
    ) -> Result<Self, SupervisorError> {
        let records = StateDir::open(StateDir::open(state_dir)?.join(RECORDS_DIR))?;
        let builder = Supervisor::builder().state_dir(records.join(service.as_str()));
        // It starts nothing: a guardian would own nothing, and `status` would say that it guards the server.
        let builder = builder.guardian(GuardianChoice::Refused).cgroups(false);
        let supervisor = builder.build()?;
        let sink = supervisor.sink().await?;
        supervisor.start_monitoring().await?;
        let since = supervisor.status().await?.supervisor.started_at;
        let seen = Seen {
            service: ServiceStatus {
                id: service.clone(),
                name: service.to_string(),
                phase: Phase::Registered,
                ready: false,
                pid: None,
                incarnation: Incarnation::ZERO,
                restarts: 0,
                critical: false,
                since,
                last_exit: None,
                next_restart_at: None,
                reason: WRAPPED.to_owned(),
                usage: None,
                dropped: None,
            },
            channel: ChannelStatus {
                name: service.to_string(),
                state: ChannelState::Connecting,
                generation: Generation::ZERO,
                buffered: 0,
                buffered_bytes: 0,
                in_flight: 0,
                dead_letters: 0,
                reason: String::new(),
                outcomes: BTreeMap::new(),
                last_recovery: None,
            },
        };
        let store = supervisor.persistence().await?;
        let letters = Letters::new(service.to_string(), store, Arc::clone(&sink), requeue);
        let letters = Arc::new(letters);
        let keeper = Keeper::start(Arc::clone(&letters));
        let face = Arc::new(Face {
            supervisor: supervisor.clone(),
            seen: Mutex::new(seen),
            asked_to_end: Notify::new(),
            restart,
            letters,
            changed: Notify::new(),
            output: OnceLock::new(),
        });
        let storage = Some(Arc::clone(&face) as Arc<_>);
        let faces = Faces { control: Arc::clone(&face) as Arc<_>, reloader: None, storage };
        let server = ControlServer::start(supervisor.state_dir(), faces).map_err(|source| {
            ProcessError::Os { action: "listening for commands".to_owned(), source: source.into() }
        })?;
        Ok(Self { face, sink, keeper, server, lost: None })
    }

    /// Gives the directory below which the server's standard error belongs.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.face.supervisor.state_dir().join("logs")
    }

    /// Shows from now on what this spawner captured of the server.
    pub fn show_output_of(&self, spawner: Arc<SystemSpawner>) {
        // Said twice, the first one stays.
        drop(self.face.output.set(spawner));
    }

    /// Waits until somebody asks on the control socket for the end (`down`).
    ///
    /// # Cancel safety
    /// Safe.
    pub fn asked_to_end(&self) -> impl Future<Output = ()> + Send + use<> {
        let face = Arc::clone(&self.face);
        async move { face.asked_to_end.notified().await }
    }

    /// Stores what is not stored yet and gives the directory up.
    ///
    /// # Cancel safety
    /// Not safe: what was not stored yet is lost.
    pub async fn close(self) {
        self.server.stop().await;
        self.keeper.close().await;
        if let Err(error) = self.face.supervisor.shutdown(Actor::Host).await {
            tracing::warn!(%error, "the state directory was not closed cleanly");
        }
    }

    fn enter(
        &self,
        to: Phase,
        pid: Option<u32>,
        generation: Generation,
        reason: &str,
        exit: Option<ExitReport>,
    ) {
        let mut seen = self.face.seen();
        let from = std::mem::replace(&mut seen.service.phase, to);
        let service = seen.service.id.clone();
        seen.service.incarnation = Incarnation(generation.get());
        (seen.service.pid, seen.service.ready) = (pid, to == Phase::Running);
        reason.clone_into(&mut seen.service.reason);
        if let Some(exit) = &exit {
            seen.service.last_exit = Some(LastExit::from(exit));
        }
        drop(seen);
        self.face.changed.notify_waiters();
        self.sink.publish(EventKind::ServiceStateChanged {
            service,
            incarnation: Incarnation(generation.get()),
            from,
            to,
            ready: to == Phase::Running,
            pid,
            reason: reason.to_owned(),
            exit,
        });
    }

    fn reported(&self, report: &RecoveryReport) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut seen = self.face.seen();
        let channel = seen.channel.name.clone();
        let outcomes = outcomes_of(report);
        for (name, count) in &outcomes {
            *seen.channel.outcomes.entry(name.clone()).or_default() += count;
        }
        drop(seen);
        let (Ending::Recovered, Some(generation)) = (&report.ending, report.recovered) else {
            return;
        };
        self.face.seen().channel.last_recovery = Some(ChannelRecovery {
            cause: report.cause.clone(),
            took_us: micros(report.phases.total()),
            waited_us: micros(report.phases.down),
            connecting_us: micros(report.phases.handshake),
            syncing_us: micros(report.phases.restore),
            attempts: report.attempts,
            redelivered: u64::from(report.messages.asked_again),
            outcomes: outcomes.clone(),
        });
        self.sink.publish(EventKind::ChannelRecovered {
            channel,
            generation,
            took_us: micros(report.phases.total()),
            cause: report.to_string(),
            redelivered: u64::from(report.messages.asked_again),
            lost: u64::from(report.messages.failed_maybe_done)
                + u64::from(report.messages.failed_unsent),
            waited_us: micros(report.phases.down),
            connecting_us: micros(report.phases.handshake),
            syncing_us: micros(report.phases.restore),
            attempts: report.attempts,
            outcomes,
        });
    }
}

/// Requests that an incident ended without an answer, by outcome.
fn outcomes_of(report: &RecoveryReport) -> BTreeMap<String, u64> {
    let messages = &report.messages;
    [("Indeterminate", messages.failed_maybe_done), ("NotSent", messages.failed_unsent)]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| (name.to_owned(), u64::from(count)))
        .collect()
}

/// Judges how a run ended.
fn exit_of(loss: &Loss, ending: bool) -> ExitReport {
    let (status, reason) = match loss {
        Loss::Exited(status) if ending => (Some(*status), ExitReason::Stopped),
        Loss::Exited(status) => (Some(*status), ExitReason::Crash),
        Loss::EndOfOutput | Loss::Framing(_) => (None, ExitReason::ChannelLost),
        Loss::Replaced(why) if ending || why == ASKED_FOR => (None, ExitReason::Stopped),
        Loss::Replaced(_) | Loss::WriteStalled => (None, ExitReason::Hang),
        Loss::NotStarted(_) => (None, ExitReason::SpawnFailed),
    };
    ExitReport { status, reason, last_lines: Vec::new() }
}

impl Observer for Recorder {
    fn observe(&mut self, what: &Observed<'_>) {
        match *what {
            Observed::Report(report) => self.reported(report),
            Observed::Notice(_) => {}
            Observed::DeadLetter(letter) => self.keeper.take(&self.face.letters, letter),
            Observed::Started { pid, generation } => {
                self.face.seen().service.restarts = generation.get().saturating_sub(1);
                let reason = match &self.lost {
                    Some((lost, why)) => format!("restarted, because run {lost} was lost: {why}"),
                    None => WRAPPED.to_owned(),
                };
                self.enter(Phase::Running, Some(pid), generation, &reason, None);
            }
            Observed::Lost { generation, loss, ending } => {
                let why = loss.to_string();
                let to = if ending { Phase::Stopped } else { Phase::Backoff };
                self.enter(to, None, generation, &why, Some(exit_of(loss, ending)));
                self.lost = Some((generation, why));
            }
            Observed::State { from, to, generation, held } => {
                let mut seen = self.face.seen();
                (seen.channel.state, seen.channel.generation) = (to, generation);
                seen.channel.buffered = held as u64;
                let channel = seen.channel.name.clone();
                drop(seen);
                let reason = "as its relay sees it".to_owned();
                self.sink.publish(EventKind::IpcChannelStateChanged {
                    channel,
                    from,
                    to,
                    generation,
                    reason,
                });
            }
        }
    }
}
