//! Carrying out what the machine asks for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::error::{Classified, chain};
use supervisor_core::event::EventKind;
use supervisor_core::exit::{ExitReason, ExitReport};
use supervisor_core::lifecycle::{Effect, Event};
use supervisor_core::ports::{ChildHandle, ProbeRequest, SpawnRequest};
use supervisor_core::state::{Desired, Phase};
use supervisor_core::{Incarnation, Signal};

use tokio::sync::oneshot;

use super::actor::{Actor, Running};
use super::ceilings::LimitWatch;
use super::{dependencies, overload};
use crate::os;

/// Pause between two looks whether a set that was asked to end is empty; only while it is being stopped.
const EMPTY_LOOK: Duration = Duration::from_millis(20);

impl Actor {
    pub(super) async fn carry_out(&mut self, effect: Effect, queue: &mut VecDeque<Event>) {
        match effect {
            Effect::Persist(transition) => self.shared.store.push(*transition),
            // What is due waits; the stop finds it where it is.
            Effect::AcquireBudget if self.shared.is_closing() => {}
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
            Effect::WeighHang { incarnation, probe, usual, timeout } => {
                self.weigh(incarnation, probe, usual, timeout);
            }
            Effect::Diagnose { incarnation } => self.diagnose(incarnation),
            Effect::RunProbe { incarnation, probe, timeout } => {
                self.probe(incarnation, probe, timeout);
            }
            Effect::StopProbes => self.probes.abort_all(),
            Effect::Publish(event) => self.publish(event),
            Effect::GaveUp { reason, .. } => {
                self.gave_up = true;
                let state = self.machine.state();
                self.shared.fail_dependents(&state.id, &reason);
                if state.felled && dependencies::none_failed(&self.shared, self.machine.spec()) {
                    // What felled it was on its way back before this one was down, and told nobody then.
                    queue.push_back(Event::DependencyBack);
                }
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
        // The one before is gone; letting go of what it held costs a new one no time.
        let before = self.running.take();
        let spec = self.machine.spec();
        let extra_environment = self
            .shared
            .notify
            .iter()
            .flat_map(|notify| notify.variables(spec, self.shared.health_check_interval))
            .collect();
        self.shared.occupy(&state.id);
        let request = SpawnRequest {
            service: state.id.clone(),
            incarnation,
            spec: Arc::clone(self.machine.spec()),
            extra_environment,
        };
        let spawned = self.shared.spawner.spawn(request).await;
        drop(before);
        match spawned {
            Ok(child) => {
                let identity = child.identity();
                self.hold(incarnation, Arc::from(child));
                Event::Spawned { incarnation, identity }
            }
            Err(error) => {
                tracing::debug!(service = %state.id, code = error.code(), "a start failed");
                let reason = crate::secrets::redacted(self.machine.spec(), chain(&error));
                Event::SpawnFailed { incarnation, kind: error.kind, reason }
            }
        }
    }

    /// Makes a child the run under way: its channel handed over, its limits set, its use measured.
    pub(super) fn hold(&mut self, incarnation: Incarnation, child: Arc<dyn ChildHandle>) {
        let (id, identity) = (self.machine.state().id, child.identity());
        if let Some(stdio) = child.take_stdio()
            && let Some(receiver) = &self.shared.stdio
        {
            receiver.attach(&id, incarnation, stdio);
        }
        let limits = &self.machine.spec().limits;
        self.limits = LimitWatch::new(incarnation, &id, Arc::clone(&self.shared.meter), limits);
        let metered = self.shared.meter.add(identity, id, incarnation);
        self.running =
            Some(Running { incarnation, child, exited: false, main: None, _metered: metered });
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
            let spec = Arc::clone(&request.spec);
            let outcome = runner.run(request).await;
            Event::ProbeCompleted {
                incarnation,
                probe,
                passed: outcome.passed,
                // A target may carry a token, and an error repeats its target.
                detail: crate::secrets::redacted(&spec, outcome.detail),
                latency: outcome.latency,
            }
        });
    }

    fn weigh(
        &mut self,
        incarnation: Incarnation,
        probe: usize,
        usual: Duration,
        timeout: Duration,
    ) {
        let Some(child) = self.child(incarnation) else { return };
        self.jobs.spawn(async move {
            let doubt = overload::doubt(child, usual, timeout).await;
            Event::HangWeighed { incarnation, probe, doubt }
        });
    }

    /// Answers why a run may be silent; without an answer its silence is believed.
    pub(super) fn excuse(
        &mut self,
        incarnation: Incarnation,
        reply: oneshot::Sender<Option<String>>,
    ) {
        let Some(child) = self.child(incarnation) else { return };
        if self.machine.phase() == Phase::Starting {
            // Its startup probes have a deadline of their own.
            drop(reply.send(Some("it has not passed its startup probe yet".to_owned())));
            return;
        }
        self.jobs.spawn(async move {
            drop(reply.send(overload::excuse(child).await));
            Event::Tick
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

    fn publish(&mut self, event: EventKind) {
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
        if self.gave_up {
            let state = self.machine.state();
            self.shared.revive_dependents(&state);
            self.gave_up = !(state.ready || state.phase == Phase::Stopped);
        }
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
