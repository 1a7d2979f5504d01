//! Processes that exist on paper: they run until they are signalled or told how they end.

use std::collections::HashSet;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{SpawnError, SpawnErrorKind};
use crate::exit::ExitStatus;
use crate::ports::{ChildHandle, ChildStdio, KillReport, ProcessSpawner, SpawnRequest};
use crate::{ProcessIdentity, ServiceId, Signal};

/// Starts processes on paper. A clone shares what was started, so a test keeps one to direct it.
#[derive(Debug, Clone, Default)]
pub struct ScriptedSpawner {
    stage: Arc<Mutex<Stage>>,
}

#[derive(Debug, Default)]
struct Stage {
    missing: HashSet<String>,
    started: Vec<(ServiceId, Arc<Mutex<Actor>>)>,
}

#[derive(Debug, Default)]
struct Actor {
    ended: Option<ExitStatus>,
    signals: Vec<Signal>,
    waiting: Vec<Waker>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Actor {
    fn end(&mut self, status: ExitStatus) {
        self.ended.get_or_insert(status);
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

impl ScriptedSpawner {
    /// Makes a spawner that can start everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets starts of this program fail as if there were none.
    pub fn forget_program(&self, command: impl Into<String>) {
        lock(&self.stage).missing.insert(command.into());
    }

    /// Ends the newest run of a service; says whether there was one.
    #[must_use]
    pub fn end(&self, service: &ServiceId, status: ExitStatus) -> bool {
        let stage = lock(&self.stage);
        let newest = stage.started.iter().rev().find(|(id, _)| id == service);
        newest.is_some_and(|(_, actor)| {
            lock(actor).end(status);
            true
        })
    }

    /// Gives the services that were started, in order, restarts included.
    #[must_use]
    pub fn started(&self) -> Vec<ServiceId> {
        lock(&self.stage).started.iter().map(|(id, _)| id.clone()).collect()
    }
}

#[async_trait]
impl ProcessSpawner for ScriptedSpawner {
    async fn spawn(&self, request: SpawnRequest) -> Result<Box<dyn ChildHandle>, SpawnError> {
        let mut stage = lock(&self.stage);
        let program = request.spec.command.clone();
        if stage.missing.contains(&program) {
            let reason = "no such program on this stage".to_owned();
            return Err(SpawnError {
                kind: SpawnErrorKind::NotFound,
                program,
                reason,
                source: None,
            });
        }
        let actor = Arc::new(Mutex::new(Actor::default()));
        stage.started.push((request.service, Arc::clone(&actor)));
        let pid = u32::try_from(stage.started.len()).unwrap_or(u32::MAX);
        let identity =
            ProcessIdentity { boot_id: "stage".to_owned(), pid, start_time: u64::from(pid) };
        Ok(Box::new(ScriptedChild { identity, actor }))
    }

    fn containment(&self) -> Vec<String> {
        vec!["stage".to_owned()]
    }
}

#[derive(Debug)]
struct ScriptedChild {
    identity: ProcessIdentity,
    actor: Arc<Mutex<Actor>>,
}

#[async_trait]
impl ChildHandle for ScriptedChild {
    fn identity(&self) -> ProcessIdentity {
        self.identity.clone()
    }

    async fn wait(&self) -> ExitStatus {
        poll_fn(|context| {
            let mut actor = lock(&self.actor);
            if let Some(status) = actor.ended {
                return Poll::Ready(status);
            }
            actor.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    async fn signal_set(&self, signal: Signal) -> io::Result<()> {
        let mut actor = lock(&self.actor);
        actor.signals.push(signal);
        if signal == Signal::Term {
            actor.end(ExitStatus::Signal(15));
        }
        Ok(())
    }

    async fn kill_set(&self, _: Duration) -> KillReport {
        let mut actor = lock(&self.actor);
        let killed = u32::from(actor.ended.is_none());
        actor.end(ExitStatus::Signal(9));
        KillReport { killed, survivors: Vec::new() }
    }

    fn set_is_empty(&self) -> bool {
        lock(&self.actor).ended.is_some()
    }

    fn members(&self) -> Vec<ProcessIdentity> {
        if self.set_is_empty() { Vec::new() } else { vec![self.identity.clone()] }
    }

    fn take_stdio(&self) -> Option<ChildStdio> {
        None
    }

    fn last_lines(&self, _: usize) -> Vec<String> {
        Vec::new()
    }
}

impl Drop for ScriptedChild {
    fn drop(&mut self) {
        lock(&self.actor).end(ExitStatus::Signal(9));
    }
}
