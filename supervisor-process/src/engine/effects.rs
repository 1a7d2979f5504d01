//! Carrying out what the machine asks for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use supervisor_core::config::ResourceLimits;
use supervisor_core::error::{Classified, chain};
use supervisor_core::event::EventKind;
use supervisor_core::exit::{ExitReason, ExitReport};
use supervisor_core::lifecycle::{Ceiling, Effect, Event};
use supervisor_core::ports::{ChildHandle, ProbeRequest, SpawnRequest};
use supervisor_core::state::{Desired, Phase};
use supervisor_core::{Incarnation, Signal};

use super::actor::{Actor, Running};
use super::dependencies;
use crate::os;

/// Pause between two looks whether a set that was asked to end is empty; only while it is being stopped.
const EMPTY_LOOK: Duration = Duration::from_millis(20);
/// Pause between two measurements of a service that has ceilings.
const MEASURE_PERIOD: Duration = Duration::from_secs(2);
/// Measurements in a row over the processor ceiling before it counts: one is a burst.
const CPU_SAMPLES: u32 = 3;

impl Actor {
    pub(super) async fn carry_out(&mut self, effect: Effect, queue: &mut VecDeque<Event>) {
        match effect {
            Effect::Persist(transition) => self.shared.store.push(*transition),
            Effect::AcquireBudget => {
                let now = self.shared.clock.monotonic();
                queue.push_back(match self.shared.budget().take(now) {
                    Ok(()) => Event::BudgetGranted,
                    Err(wait) => Event::BudgetDelayed { wait },
                });
            }
            Effect::AwaitDependencies => {
                self.jobs.spawn(dependencies::reached(
                    Arc::clone(&self.shared),
                    Arc::clone(self.machine.spec()),
                ));
            }
            Effect::Spawn { incarnation } => queue.push_back(self.spawn(incarnation).await),
            Effect::Signal { incarnation, signal } => self.signal(incarnation, signal),
            Effect::KillSet { incarnation, confirm } => self.kill(incarnation, confirm),
            Effect::Diagnose { incarnation } => self.diagnose(incarnation),
            Effect::RunProbe { incarnation, probe, timeout } => {
                self.probe(incarnation, probe, timeout);
            }
            Effect::StopProbes => self.probes.abort_all(),
            Effect::Publish(event) => self.publish(event),
            Effect::GaveUp { reason, .. } => {
                self.shared.fail_dependents(&self.machine.state().id, &reason);
            }
            Effect::Reply { id, result } => {
                if let Some(reply) = self.replies.remove(&id) {
                    // Nobody waits any more; the command was carried out all the same.
                    drop(reply.send(result));
                }
            }
        }
    }

    async fn spawn(&mut self, incarnation: Incarnation) -> Event {
        let state = self.machine.state();
        // The one before is gone; its handle goes first, so that two are never held.
        self.running = None;
        let extra_environment =
            self.shared.notify.iter().map(crate::notify::NotifySocket::variable).collect();
        let request = SpawnRequest {
            service: state.id.clone(),
            incarnation,
            spec: Arc::clone(self.machine.spec()),
            extra_environment,
        };
        match self.shared.spawner.spawn(request).await {
            Ok(child) => {
                let child: Arc<dyn ChildHandle> = Arc::from(child);
                let identity = child.identity();
                if let Some(stdio) = child.take_stdio()
                    && let Some(receiver) = &self.shared.stdio
                {
                    receiver.attach(&state.id, incarnation, stdio);
                }
                let limits = &self.machine.spec().limits;
                os::limit(identity.pid, limits);
                self.limits = LimitWatch::new(incarnation, identity.pid, limits);
                self.running = Some(Running { incarnation, child, exited: false });
                Event::Spawned { incarnation, identity }
            }
            Err(error) => {
                tracing::debug!(service = %state.id, code = error.code(), "a start failed");
                Event::SpawnFailed { incarnation, kind: error.kind, reason: chain(&error) }
            }
        }
    }

    fn child(&self, incarnation: Incarnation) -> Option<Arc<dyn ChildHandle>> {
        let running = self.running.as_ref().filter(|running| running.incarnation == incarnation)?;
        Some(Arc::clone(&running.child))
    }

    fn signal(&mut self, incarnation: Incarnation, signal: Signal) {
        let Some(child) = self.child(incarnation) else { return };
        let service = self.machine.state().id;
        self.jobs.spawn(async move {
            if let Err(error) = child.signal_set(signal).await {
                // The grace period runs all the same, and the kill at its end reports what it finds.
                tracing::warn!(%service, %signal, %error, "a signal could not be sent");
            }
            Event::Tick
        });
    }

    fn kill(&mut self, incarnation: Incarnation, confirm: Duration) {
        let Some(child) = self.child(incarnation) else { return };
        self.jobs.spawn(async move {
            let report = child.kill_set(confirm).await;
            let survivors = report.survivors.iter().map(ToString::to_string).collect();
            Event::SetKilled { incarnation, survivors }
        });
    }

    /// Looks whether the set has become empty by itself while it is being stopped and its leader is gone.
    pub(super) fn watch_emptying(&mut self) {
        let Some(running) = self.running.as_mut().filter(|running| running.exited) else { return };
        if self.machine.phase() != Phase::Stopping || !self.jobs.is_empty() {
            return;
        }
        let (child, incarnation) = (Arc::clone(&running.child), running.incarnation);
        self.jobs.spawn(async move {
            tokio::time::sleep(EMPTY_LOOK).await;
            if child.set_is_empty() { Event::SetEmpty { incarnation } } else { Event::Tick }
        });
    }

    fn probe(&mut self, incarnation: Incarnation, probe: usize, timeout: Duration) {
        let spec = Arc::clone(self.machine.spec());
        let state = self.machine.state();
        let (Some(identity), Some(wanted)) = (state.identity, spec.probes.get(probe).cloned())
        else {
            return;
        };
        let runner = Arc::clone(&self.shared.probes);
        let request =
            ProbeRequest { service: state.id, incarnation, identity, spec, probe: wanted, timeout };
        self.probes.spawn(async move {
            let outcome = runner.run(request).await;
            Event::ProbeCompleted {
                incarnation,
                probe,
                passed: outcome.passed,
                detail: outcome.detail,
                latency: outcome.latency,
            }
        });
    }

    fn diagnose(&self, incarnation: Incarnation) {
        let state = self.machine.state();
        let Some(identity) = state.identity else { return };
        let reason = format!("before it is stopped: {}", os::diagnosis(identity.pid));
        self.shared.sink.publish(EventKind::ServiceDegraded {
            service: state.id,
            incarnation,
            reason,
        });
    }

    fn publish(&self, event: EventKind) {
        if let EventKind::ServiceStateChanged { service, to, reason, exit, .. } = &event {
            if exit.as_ref().is_some_and(is_failure) {
                self.shared.restart_group(service, reason);
            }
            let down = matches!(to, Phase::Stopped | Phase::Failed);
            if down || (*to == Phase::Registered && self.machine.state().desired == Desired::Down) {
                self.shared.release(service);
            }
        }
        self.shared.sink.publish(event);
    }
}

fn is_failure(exit: &ExitReport) -> bool {
    !matches!(
        exit.reason,
        ExitReason::Completed
            | ExitReason::Stopped
            | ExitReason::GroupRestart
            | ExitReason::SupervisorLost
    )
}

/// Measures a set that has ceilings.
#[derive(Debug)]
pub(super) struct LimitWatch {
    incarnation: Incarnation,
    group: u32,
    memory: Option<u64>,
    cpu: Option<u32>,
    last_cpu: Option<(std::time::Instant, u64)>,
    over_cpu: u32,
    told: AtomicBool,
}

impl LimitWatch {
    fn new(incarnation: Incarnation, group: u32, limits: &ResourceLimits) -> Option<Self> {
        if limits.memory.is_none() && limits.cpu.is_none() {
            return None;
        }
        Some(Self {
            incarnation,
            group,
            memory: limits.memory.map(supervisor_core::text::ByteSize::bytes),
            cpu: limits.cpu.map(|cpu| cpu.0),
            last_cpu: None,
            over_cpu: 0,
            told: AtomicBool::new(false),
        })
    }

    /// Waits until a ceiling is exceeded; each run is told once.
    ///
    /// Cancel-safe: a measurement that is cut short is made again.
    pub(super) async fn exceeded(&mut self) -> Event {
        loop {
            tokio::time::sleep(MEASURE_PERIOD).await;
            if let Some((ceiling, detail)) = self.look()
                && !self.told.swap(true, Ordering::Relaxed)
            {
                return Event::LimitExceeded { incarnation: self.incarnation, ceiling, detail };
            }
        }
    }

    fn look(&mut self) -> Option<(Ceiling, String)> {
        let (_, memory, ticks) = os::group_usage(self.group)?;
        if let Some(limit) = self.memory.filter(|limit| memory > *limit) {
            let mib = |bytes: u64| bytes >> 20;
            return Some((Ceiling::Memory, format!("{} MiB of {} MiB", mib(memory), mib(limit))));
        }
        let limit = self.cpu?;
        let now = std::time::Instant::now();
        let (then, before) = self.last_cpu.replace((now, ticks))?;
        let used =
            os::ticks(ticks.saturating_sub(before)).as_secs_f64() / (now - then).as_secs_f64();
        let percent = used * 100.0;
        self.over_cpu = if percent > f64::from(limit) { self.over_cpu + 1 } else { 0 };
        (self.over_cpu >= CPU_SAMPLES)
            .then(|| (Ceiling::Cpu, format!("{percent:.0} % of {limit} %")))
    }
}
