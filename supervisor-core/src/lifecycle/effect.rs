//! Everything the machine can ask for.

use std::time::Duration;

use crate::error::SpawnErrorKind;
use crate::event::EventKind;
use crate::journal::Transition;
use crate::{CommandId, Incarnation, Signal};

/// Why a command could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandFailure {
    /// The program could not be started.
    SpawnFailed {
        /// What kind of failure.
        kind: SpawnErrorKind,
        /// Why, for people.
        reason: String,
    },
    /// Processes survived the kill.
    Unkillable {
        /// Pid and state letter of each.
        survivors: Vec<String>,
    },
    /// The service ended again before it was up, or waits for something that failed.
    Ended {
        /// Why, for people.
        reason: String,
    },
    /// A later command contradicts it.
    Superseded,
    /// Too many commands are waiting.
    Busy,
}

/// Everything the machine can ask for, in the order it is to be done.
///
/// The order is part of the contract: store, act, publish, reply. Storing is handed over in order and not
/// waited for before acting: a process carries the supervisor's mark in its environment, which finds one
/// whose record was not durable yet.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Store the new state and the row that explains it.
    Persist(Box<Transition>),
    /// Ask the restart budget; answered by `BudgetGranted` or `BudgetDelayed`.
    AcquireBudget,
    /// Watch the dependencies; answered by `DependenciesMet` or `DependencyFailed`.
    AwaitDependencies,
    /// Start the program; answered by `Spawned` or `SpawnFailed`.
    Spawn {
        /// The new run.
        incarnation: Incarnation,
    },
    /// Send a signal to the whole set.
    Signal {
        /// The run.
        incarnation: Incarnation,
        /// The signal.
        signal: Signal,
    },
    /// Kill the whole set and look again until it is empty; answered by `SetKilled`.
    KillSet {
        /// The run.
        incarnation: Incarnation,
        /// How long to look.
        confirm: Duration,
    },
    /// Look whether the service, or its probe, was kept from a processor by others; answered by `HangWeighed`.
    WeighHang {
        /// The run.
        incarnation: Incarnation,
        /// The probe that was lost.
        probe: usize,
        /// How long it takes when it passes; zero when it never did.
        usual: Duration,
        /// How long it may take.
        timeout: Duration,
    },
    /// Take a snapshot of a service that hangs, before it is stopped.
    Diagnose {
        /// The run.
        incarnation: Incarnation,
    },
    /// Run a probe; answered by `ProbeCompleted`.
    RunProbe {
        /// The run.
        incarnation: Incarnation,
        /// Which of the service's probes.
        probe: usize,
        /// How long it may take.
        timeout: Duration,
    },
    /// Cancel every probe under way.
    StopProbes,
    /// Tell the subscribers.
    Publish(EventKind),
    /// The service was given up.
    GaveUp {
        /// Whether that ends everything.
        critical: bool,
        /// Why.
        reason: String,
    },
    /// Answer a command; each gets exactly one answer.
    Reply {
        /// The command.
        id: CommandId,
        /// What became of it.
        result: Result<(), CommandFailure>,
    },
}
