//! A world of one service that answers the machine's effects the way a real driver would, on virtual time.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use supervisor_core::config::{RestartPolicy, ServiceSpec};
use supervisor_core::error::SpawnErrorKind;
use supervisor_core::event::EventKind;
use supervisor_core::exit::ExitStatus;
use supervisor_core::lifecycle::{Command, CommandFailure, Effect, Event, Lifecycle, Now};
use supervisor_core::state::{Desired, Phase, ServiceState};
use supervisor_core::{CommandId, Incarnation, Monotonic, ProcessIdentity, Signal};

/// A service that is restarted twice in a row, a second after each end, and then given up.
pub(crate) fn twice() -> ServiceSpec {
    let second = Duration::from_secs(1);
    ServiceSpec {
        restart_jitter: Some(0.0),
        restart_policy: RestartPolicy::ExponentialBackoff {
            base_delay: second,
            max_delay: second,
            max_attempts: 2,
        },
        ..ServiceSpec::new("svc", "program").unwrap()
    }
}

/// How the world treats the service's processes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    /// The program cannot be started.
    pub(crate) spawn_error: Option<SpawnErrorKind>,
    /// The stop signal is ignored.
    pub(crate) ignores_signals: bool,
    /// A grandchild outlives its leader.
    pub(crate) leaves_grandchild: bool,
    /// What probes answer.
    pub(crate) probes_pass: bool,
    /// The kill does not work.
    pub(crate) unkillable: bool,
    /// Nothing is said of the dependencies until the test says it.
    pub(crate) dependencies_silent: bool,
    /// The budget answers with a delay, once.
    pub(crate) budget_delays: bool,
    /// A lost liveness is blamed on the host.
    pub(crate) host_overloaded: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            spawn_error: None,
            ignores_signals: false,
            leaves_grandchild: false,
            probes_pass: true,
            unkillable: false,
            dependencies_silent: false,
            budget_delays: false,
            host_overloaded: false,
        }
    }
}

/// One service, its machine, and everything that was ever asked for.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) machine: Lifecycle,
    pub(crate) habits: Habits,
    pub(crate) time: Duration,
    /// The run whose set is not empty.
    pub(crate) live: Option<Incarnation>,
    leader: bool,
    /// Starts, in order, with their times.
    pub(crate) starts: Vec<(Incarnation, Duration)>,
    pub(crate) signals: Vec<(Incarnation, Signal, Duration)>,
    pub(crate) kills: Vec<(Incarnation, Duration)>,
    /// Stops asked for while one was under way for an earlier one, which makes the later ones force.
    pub(crate) forced: Vec<(Incarnation, Duration)>,
    /// Leaders that ended by themselves and left others of their set behind.
    pub(crate) left_behind: Vec<(Incarnation, Duration)>,
    pub(crate) replies: Vec<(CommandId, Result<(), CommandFailure>)>,
    pub(crate) published: Vec<EventKind>,
    pub(crate) stored: Option<ServiceState>,
    pub(crate) trace: Vec<String>,
    /// Writes no trace: half the time of a history goes into it.
    pub(crate) silent: bool,
    commands: u64,
    pub(crate) steps: usize,
}

impl World {
    pub(crate) fn new(spec: ServiceSpec) -> Self {
        Self::seeded(spec, 7)
    }

    pub(crate) fn seeded(spec: ServiceSpec, seed: u64) -> Self {
        let now = at(Duration::from_secs(10_000));
        Self {
            machine: Lifecycle::new(Arc::new(spec), Duration::from_secs(5), seed, now).unwrap(),
            habits: Habits::default(),
            time: Duration::from_secs(10_000),
            live: None,
            leader: false,
            starts: Vec::new(),
            signals: Vec::new(),
            kills: Vec::new(),
            forced: Vec::new(),
            left_behind: Vec::new(),
            replies: Vec::new(),
            published: Vec::new(),
            stored: None,
            trace: Vec::new(),
            silent: false,
            commands: 0,
            steps: 0,
        }
    }

    pub(crate) fn now(&self) -> Now {
        at(self.time)
    }

    pub(crate) fn command(&mut self, command: Command) -> CommandId {
        self.commands += 1;
        let id = CommandId(self.commands);
        let before = self.machine.state();
        if command == Command::Stop
            && (before.phase, before.desired) == (Phase::Stopping, Desired::Down)
        {
            self.forced.push((before.incarnation, self.time));
        }
        self.feed(Event::Commanded { id, command });
        id
    }

    pub(crate) fn commands_given(&self) -> u64 {
        self.commands
    }

    /// The leader ends by itself.
    pub(crate) fn exit(&mut self, status: ExitStatus) {
        let Some(incarnation) = self.live.filter(|_| self.leader) else {
            return;
        };
        self.leader = false;
        let set_empty = !self.habits.leaves_grandchild;
        if set_empty {
            self.live = None;
        } else if self.machine.phase() != Phase::Stopping {
            self.left_behind.push((incarnation, self.time));
        }
        self.feed(Event::Exited {
            incarnation,
            status,
            set_empty,
            last_lines: vec!["last words".into()],
        });
    }

    /// Lets time pass, ticking at every deadline on the way.
    pub(crate) fn pass(&mut self, by: Duration) {
        let until = self.time + by;
        for _ in 0..10_000 {
            let Some(deadline) = self.machine.next_deadline().map(Monotonic::since_origin) else {
                break;
            };
            if deadline > until {
                break;
            }
            self.time = self.time.max(deadline);
            self.feed(Event::Tick);
        }
        self.time = until;
    }

    /// Lets time pass without anybody looking, as in a suspend.
    pub(crate) fn jump(&mut self, by: Duration) {
        self.time += by;
        self.feed(Event::Tick);
    }

    /// Gives the machine one event and answers everything it asks for.
    pub(crate) fn feed(&mut self, event: Event) {
        let mut queue = std::collections::VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            self.steps += 1;
            assert!(self.steps < 200_000, "livelock");
            if !self.silent {
                self.trace.push(format!("> {event:?}"));
            }
            let before = (self.machine.phase(), self.machine.is_ready());
            let effects = self.machine.step(self.now(), event);
            let told = effects.iter().any(|effect| {
                matches!(effect, Effect::Publish(EventKind::ServiceStateChanged { .. }))
            });
            let changed = before != (self.machine.phase(), self.machine.is_ready());
            assert_eq!(
                told, changed,
                "a change of phase or readiness is published, and nothing else is"
            );
            for effect in effects {
                if !self.silent {
                    self.trace.push(format!("  {}", describe(&effect)));
                }
                self.carry_out(effect, &mut queue);
            }
            self.check();
        }
    }

    fn carry_out(&mut self, effect: Effect, queue: &mut std::collections::VecDeque<Event>) {
        match effect {
            Effect::Persist(transition) => self.stored = Some(transition.state),
            Effect::AcquireBudget => {
                let delayed = std::mem::take(&mut self.habits.budget_delays);
                let wait = Duration::from_millis(700);
                queue.push_back(if delayed {
                    Event::BudgetDelayed { wait }
                } else {
                    Event::BudgetGranted
                });
            }
            Effect::AwaitDependencies if self.habits.dependencies_silent => {}
            Effect::AwaitDependencies => queue.push_back(Event::DependenciesMet),
            Effect::WeighHang { incarnation, probe, .. } => {
                let doubt = self.habits.host_overloaded.then(|| "others use it all".to_owned());
                queue.push_back(Event::HangWeighed { incarnation, probe, doubt });
            }
            Effect::Spawn { incarnation } => {
                assert_eq!(self.live, None, "a run was started while another was alive");
                self.starts.push((incarnation, self.time));
                if let Some(kind) = self.habits.spawn_error {
                    queue.push_back(Event::SpawnFailed {
                        incarnation,
                        kind,
                        reason: "said the system".into(),
                    });
                } else {
                    self.live = Some(incarnation);
                    self.leader = true;
                    queue
                        .push_back(Event::Spawned { incarnation, identity: identity(incarnation) });
                }
            }
            Effect::Signal { incarnation, signal } => {
                self.signals.push((incarnation, signal, self.time));
                if self.live == Some(incarnation)
                    && !self.habits.ignores_signals
                    && signal == Signal::Term
                    && self.leader
                {
                    self.leader = false;
                    let set_empty = !self.habits.leaves_grandchild;
                    if set_empty {
                        self.live = None;
                    }
                    queue.push_back(Event::Exited {
                        incarnation,
                        status: ExitStatus::Signal(15),
                        set_empty,
                        last_lines: Vec::new(),
                    });
                }
            }
            Effect::KillSet { incarnation, .. } => {
                self.kills.push((incarnation, self.time));
                if self.habits.unkillable {
                    queue.push_back(Event::SetKilled {
                        incarnation,
                        survivors: vec!["42 D".into()],
                    });
                    return;
                }
                if std::mem::take(&mut self.leader) {
                    queue.push_back(Event::Exited {
                        incarnation,
                        status: ExitStatus::Signal(9),
                        set_empty: false,
                        last_lines: Vec::new(),
                    });
                }
                self.live = None;
                queue.push_back(Event::SetKilled { incarnation, survivors: Vec::new() });
            }
            Effect::RunProbe { incarnation, probe, .. } => queue.push_back(Event::ProbeCompleted {
                incarnation,
                probe,
                passed: self.habits.probes_pass,
                detail: "answer".into(),
                latency: Duration::from_millis(1),
            }),
            Effect::Reply { id, result } => self.replies.push((id, result)),
            Effect::Publish(event) => self.published.push(event),
            Effect::GaveUp { .. } | Effect::Diagnose { .. } | Effect::StopProbes => {}
        }
    }

    /// What must hold after every single step.
    fn check(&self) {
        let state = self.machine.state();
        if !state.phase.may_be_alive() && !self.habits.unkillable {
            assert_eq!(self.live, None, "{} with a live set", state.phase);
        }
        if matches!(state.phase, Phase::Stopped) {
            assert_eq!(self.machine.next_deadline(), None, "a stopped service has a deadline");
            assert!(!state.ready);
        }
        explained(&state);
        if let Some(stored) = &self.stored {
            let counters = |s: &ServiceState| {
                (s.incarnation, s.attempt, s.restarts, s.slow_step, s.desired, s.felled)
            };
            assert_eq!(
                counters(stored),
                counters(&state),
                "a counter changed without being stored"
            );
        }
    }
}

/// Every state says why, what happens next, and when.
fn explained(state: &ServiceState) {
    let says = |words: &[&str]| words.iter().any(|word| state.reason.contains(word));
    let next = match state.phase {
        Phase::Registered if state.desired == Desired::Up => says(&["waiting for"]),
        Phase::Registered => says(&["not started yet", "was up when"]),
        Phase::Starting => says(&["being started", "waiting at most"]),
        Phase::Running => says(&["up"]),
        Phase::Unhealthy => says(&["stopped as a hang", "asked again"]),
        Phase::Backoff => {
            state.next_restart_at.is_some()
                && says(&["restarting", "waiting for the restart budget"])
        }
        Phase::Stopping => says(&["sent,", "being killed", "being started"]),
        Phase::Stopped => says(&["stopped on request", "completed"]),
        Phase::Failed if state.next_restart_at.is_some() => says(&["one more try in"]),
        Phase::Failed if state.felled => says(&["starts again when that is back"]),
        Phase::Failed => says(&["until it is started again", "trying again every"]),
    };
    assert!(next, "{} does not say what happens next: {:?}", state.phase, state);
}

pub(crate) fn at(time: Duration) -> Now {
    let wall = DateTime::from_timestamp(1_700_000_000, 0).unwrap()
        + chrono::TimeDelta::from_std(time).unwrap();
    Now { monotonic: Monotonic::from_origin(time), wall }
}

pub(crate) fn identity(incarnation: Incarnation) -> ProcessIdentity {
    let pid = 1000 + u32::try_from(incarnation.get()).unwrap();
    ProcessIdentity { boot_id: "boot".into(), pid, start_time: incarnation.get() }
}

/// One effect as a line of a trace.
pub(crate) fn describe(effect: &Effect) -> String {
    match effect {
        Effect::Persist(transition) => {
            format!("persist {} {}", transition.cause, transition.state.phase)
        }
        Effect::AcquireBudget => "ask budget".into(),
        Effect::AwaitDependencies => "await dependencies".into(),
        Effect::Spawn { incarnation } => format!("spawn #{incarnation}"),
        Effect::Signal { incarnation, signal } => format!("signal #{incarnation} {signal}"),
        Effect::KillSet { incarnation, .. } => format!("kill #{incarnation}"),
        Effect::WeighHang { incarnation, probe, .. } => {
            format!("weigh hang #{incarnation} {probe}")
        }
        Effect::Diagnose { incarnation } => format!("diagnose #{incarnation}"),
        Effect::RunProbe { incarnation, probe, .. } => format!("probe #{incarnation} {probe}"),
        Effect::StopProbes => "stop probes".into(),
        Effect::Publish(event) => format!("publish {}", event.name()),
        Effect::GaveUp { critical, .. } => format!("gave up critical={critical}"),
        Effect::Reply { id, result } => {
            format!("reply {id} {}", if result.is_ok() { "ok" } else { "failed" })
        }
    }
}
