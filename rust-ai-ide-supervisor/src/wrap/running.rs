//! One run of the server: its set, its pipes, and when it last took a byte.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::config::ServiceSpec;
use supervisor_core::error::{SpawnError, SpawnErrorKind};
use supervisor_core::exit::{ExitStatus, LAST_LINES_MAX};
use supervisor_core::ports::{ChildHandle, ProcessSpawner, SpawnRequest};
use supervisor_core::{Generation, Incarnation, Monotonic, ServiceId};
use supervisor_ipc::relay::Frames;
use supervisor_process::SystemProcessTable;
use tokio::process::{ChildStdin, ChildStdout};

use super::WrapOptions;
use super::pipe::{Inbox, Outbox, widen};

/// How long a killed set is looked at before it is left alone.
const CONFIRM: Duration = Duration::from_secs(5);

/// One run of the server.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) generation: Generation,
    pub(super) child: Box<dyn ChildHandle>,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: ChildStdout,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    pub(super) frames: Frames,
    /// Since when something waits and no byte was taken.
    pub(super) stalled_since: Option<Monotonic>,
    ticks: Option<u64>,
}

impl Running {
    pub(super) async fn start(
        spawner: &Arc<dyn ProcessSpawner>,
        service: &ServiceId,
        spec: &Arc<ServiceSpec>,
        options: &WrapOptions,
        generation: Generation,
    ) -> Result<Self, SpawnError> {
        let request = SpawnRequest {
            service: service.clone(),
            incarnation: Incarnation(generation.get()),
            spec: Arc::clone(spec),
            extra_environment: Vec::new(),
        };
        let child = spawner.spawn(request).await?;
        let unusable = |reason: String, source: Option<io::Error>| SpawnError {
            kind: SpawnErrorKind::Other,
            program: spec.command.clone(),
            reason,
            source,
        };
        let pipes = child
            .take_stdio()
            .ok_or_else(|| unusable("it has no pipes to talk over".to_owned(), None))?;
        let failed = |error| unusable("its pipes cannot be used".to_owned(), Some(error));
        widen(&pipes.stdin);
        widen(&pipes.stdout);
        let frames = || Frames::new(options.framing, options.frame_max, options.junk_max);
        Ok(Self {
            generation,
            stdin: Some(ChildStdin::from_std(pipes.stdin).map_err(failed)?),
            stdout: ChildStdout::from_std(pipes.stdout).map_err(failed)?,
            child,
            inbox: Inbox::new(options.framing, frames()),
            outbox: Outbox::default(),
            frames: frames(),
            stalled_since: None,
            ticks: None,
        })
    }

    /// Tells whether the set used the processor since the last look, and whether its leader is stopped.
    ///
    /// The first look has nothing to compare with and says that it did.
    pub(super) fn look(&mut self) -> (bool, bool) {
        let Some(seen) = SystemProcessTable::new().activity(&self.child.identity()) else {
            return (false, false);
        };
        let before = self.ticks.replace(seen.ticks);
        (before.is_none_or(|before| seen.ticks > before), seen.stopped)
    }

    /// Ends the set and gives the last lines of its standard error.
    pub(super) async fn end(self) -> Vec<String> {
        let report = self.child.kill_set(CONFIRM).await;
        for survivor in &report.survivors {
            tracing::warn!(%survivor, "a process of the server survived its kill");
        }
        self.child.last_lines(LAST_LINES_MAX)
    }

    /// Waits for the leader's end, for at most `limit`.
    pub(super) async fn ended_within(&self, limit: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(limit, self.child.wait()).await.ok()
    }
}
