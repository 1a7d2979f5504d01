//! The task that owns one service: what happens becomes an event, what the machine asks for is carried out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::lifecycle::{Ceiling, CommandFailure, Event, Lifecycle, Notification};
use supervisor_core::ports::ChildHandle;
use supervisor_core::state::{Phase, ServiceState};
use supervisor_core::{CommandId, Incarnation, Monotonic};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::ceilings::LimitWatch;
use super::shared::{Message, Shared};
use crate::cgroup;
use crate::os::Bystander;

/// Longest sleep at a time: a deadline further away is looked at again then.
const SLEEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long an adopted set that is not wanted may take to end.
const UNWANTED: Duration = Duration::from_secs(10);

/// The run under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) incarnation: Incarnation,
    pub(super) child: Arc<dyn ChildHandle>,
    pub(super) exited: bool,
    /// The process whose end is the run's end, if the service named another than the leader.
    pub(super) main: Option<Bystander>,
    /// Keeps the set among those that are measured.
    pub(super) _metered: super::usage::Metered,
}

/// The task's own data.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    pub(super) machine: Lifecycle,
    pub(super) running: Option<Running>,
    pub(super) replies: HashMap<CommandId, oneshot::Sender<Result<(), CommandFailure>>>,
    /// Probes under way; aborted together.
    pub(super) probes: JoinSet<Event>,
    /// Kills, signals, waits for dependencies and for an empty set: each answers with one event.
    pub(super) jobs: JoinSet<Event>,
    pub(super) limits: Option<LimitWatch>,
    /// It was given up and has not been back since; whoever fell with it waits to be told.
    pub(super) gave_up: bool,
    state: watch::Sender<ServiceState>,
    next_command: u64,
}

/// Starts the task of a service; its handle is kept in the registry and joined at shutdown.
pub(super) fn spawn(
    shared: Arc<Shared>,
    machine: Lifecycle,
    mailbox: mpsc::Receiver<Message>,
    state: watch::Sender<ServiceState>,
) -> JoinHandle<()> {
    let gave_up = machine.phase() == Phase::Failed;
    let actor = Actor {
        shared,
        machine,
        running: None,
        replies: HashMap::new(),
        probes: JoinSet::new(),
        jobs: JoinSet::new(),
        limits: None,
        gave_up,
        state,
        next_command: 0,
    };
    // Boxed: a future keeps what it was called with a second time.
    tokio::spawn(Box::new(actor).run(mailbox))
}

impl Actor {
    async fn run(mut self: Box<Self>, mut mailbox: mpsc::Receiver<Message>) {
        let over = self.shared.over.clone();
        loop {
            let event = tokio::select! {
                // In this order because an exit makes everything else of the run inert, and a command is worth
                // more than a probe's answer; no source is busy enough to starve the ones after it.
                biased;
                exited = wait(self.running.as_ref()) => exited,
                () = over.cancelled() => return,
                message = mailbox.recv() => match message {
                    Some(Message::Command { command, reply }) => {
                        self.next_command += 1;
                        let id = CommandId(self.next_command);
                        self.replies.insert(id, reply);
                        Event::Commanded { id, command }
                    }
                    Some(Message::Event(event)) => *event,
                    Some(Message::Excuse { incarnation, reply }) => {
                        self.excuse(incarnation, reply);
                        continue;
                    }
                    Some(Message::Adopt(child)) => {
                        Box::pin(self.adopt(child)).await;
                        continue;
                    }
                    None => return,
                },
                Some(done) = self.jobs.join_next() => done.unwrap_or(Event::Tick),
                Some(done) = self.probes.join_next() => done.unwrap_or(Event::Tick),
                measured = measure(self.limits.as_mut()) => measured,
                () = sleep_until(&self.shared, self.machine.next_deadline()) => Event::Tick,
            };
            // Boxed while it lasts, so that a service that waits does not keep room for what it is not doing.
            Box::pin(self.handle(event)).await;
        }
    }

    async fn handle(&mut self, event: Event) {
        let mut queue = VecDeque::from([event]);
        if let Some(cause) = self.cause_of(&queue[0]) {
            queue.push_front(cause);
        }
        while let Some(event) = queue.pop_front() {
            if !self.prepare(&event) {
                continue;
            }
            let effects = self.machine.step(self.shared.now(), event);
            // Seen before anybody is told: who was answered, or heard an event, finds the state it speaks of.
            self.show_state();
            for effect in effects {
                self.carry_out(effect, &mut queue).await;
            }
        }
        if self.machine.may_have_processes() {
            self.watch_emptying();
        } else {
            self.running = None;
            self.limits = None;
        }
    }

    /// Takes over a run of an earlier supervisor; one the machine does not want is killed.
    async fn adopt(&mut self, child: Box<dyn ChildHandle>) {
        let state = self.machine.state();
        let child = match &self.shared.cgroups {
            Some(cgroups) => cgroup::adopted(cgroups, child, &state.id, state.incarnation),
            None => child,
        };
        let child: Arc<dyn ChildHandle> = Arc::from(child);
        let (incarnation, identity) = (state.incarnation, child.identity());
        self.hold(incarnation, Arc::clone(&child));
        self.handle(Event::Adopted { identity }).await;
        if self.running.is_none() && !child.set_is_empty() {
            self.jobs.spawn(async move {
                child.kill_set(UNWANTED).await;
                Event::Tick
            });
        }
    }

    /// Gives what made a run end, if the system says so: it goes before the end it caused.
    fn cause_of(&self, event: &Event) -> Option<Event> {
        let Event::Exited { incarnation, .. } = event else { return None };
        let running = self.running.as_ref().filter(|it| it.incarnation == *incarnation)?;
        running.child.killed_for_memory().then(|| Event::LimitExceeded {
            incarnation: *incarnation,
            ceiling: Ceiling::Memory,
            detail: "killed by the system for it".to_owned(),
        })
    }

    /// Notes what an event means for the processes at hand; false if it is void.
    fn prepare(&mut self, event: &Event) -> bool {
        let Some(running) = &mut self.running else { return true };
        match event {
            Event::Exited { .. } => running.exited = true,
            Event::Notified { incarnation, notification: Notification::MainPid(identity) }
                if *incarnation == running.incarnation && !running.exited =>
            {
                let leader = *identity == running.child.identity();
                running.main = (!leader).then(|| Bystander::watch(identity)).flatten();
                // One that is gone already is nobody to follow.
                return leader || running.main.is_some();
            }
            _ => {}
        }
        true
    }

    fn show_state(&self) {
        let state = self.machine.state();
        self.state.send_if_modified(|known| {
            let changed = *known != state;
            if changed {
                *known = state;
            }
            changed
        });
    }
}

/// Waits for the leader's end; for ever when there is none to wait for.
async fn wait(running: Option<&Running>) -> Event {
    let Some(running) = running.filter(|running| !running.exited) else {
        return std::future::pending().await;
    };
    let status = match &running.main {
        None => running.child.wait().await,
        Some(main) => {
            // The leader is no longer what matters, but still ours to reap.
            let leader = async {
                running.child.wait().await;
                std::future::pending().await
            };
            tokio::select! {
                status = main.wait() => status,
                never = leader => never,
            }
        }
    };
    Event::Exited {
        incarnation: running.incarnation,
        status,
        set_empty: running.child.set_is_empty(),
        last_lines: running.child.last_lines(supervisor_core::exit::LAST_LINES_MAX),
    }
}

async fn measure(limits: Option<&mut LimitWatch>) -> Event {
    match limits {
        Some(limits) => limits.exceeded().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(shared: &Shared, deadline: Option<Monotonic>) {
    let Some(deadline) = deadline else { return std::future::pending().await };
    let left = deadline.since(shared.clock.monotonic());
    if !left.is_zero() {
        tokio::time::sleep(left.min(SLEEP_MAX)).await;
    }
}
