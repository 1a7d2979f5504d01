//! What to make of stored state at start: which record is newest, and what each service deserves.

use std::cmp::Ordering;
use std::collections::HashMap;

use chrono::{DateTime, Utc};
use supervisor_core::event::{EventKind, SupervisorEvent};
use supervisor_core::state::{Desired, Phase, ServiceState};
use supervisor_core::{Incarnation, ServiceId};

/// What a service deserves when monitoring starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resumption {
    /// Start it afresh.
    Start,
    /// Its last run was cut off: go on where its counters stand.
    Resume,
    /// Leave it as it is: stopped by hand, given up, waiting for its restart, or not to be started by itself.
    Leave,
}

/// Takes the newer record of each service: the checkpoint is the base, every transition stored after it wins.
pub(super) fn newest_states(
    checkpoint: HashMap<ServiceId, ServiceState>,
    stored: Vec<ServiceState>,
) -> HashMap<ServiceId, ServiceState> {
    let mut states = checkpoint;
    for state in stored {
        // Incarnations only grow; within one, the table is written by every transition and the checkpoint only now and then.
        let newer =
            states.get(&state.id).is_none_or(|known| state.incarnation >= known.incarnation);
        if newer {
            states.insert(state.id.clone(), state);
        }
    }
    states
}

/// Tells whether the supervisor before this one ended by itself. The last thing it stores then is that it did.
pub(super) fn ended_cleanly(last: Option<&SupervisorEvent>) -> bool {
    last.is_none_or(|event| matches!(event.kind, EventKind::ShutdownCompleted { .. }))
}

/// Decides what a service deserves. After a clean end everything starts as configured; after a crash what was
/// stopped by hand stays stopped, and what had given up stays given up.
pub(super) fn resumption(
    clean: bool,
    autostart: bool,
    restored: Option<&ServiceState>,
) -> Resumption {
    let afresh = if autostart { Resumption::Start } else { Resumption::Leave };
    let Some(state) = restored.filter(|_| !clean) else {
        return afresh;
    };
    match (state.phase, state.desired) {
        (phase, _) if phase.may_be_alive() => Resumption::Resume,
        (Phase::Registered, Desired::Up) => Resumption::Start,
        (Phase::Registered, Desired::Down) => afresh,
        (Phase::Backoff | Phase::Stopped | Phase::Failed, _) => Resumption::Leave,
        _ => afresh,
    }
}

/// Forgets how a service stood when its supervisor ended by itself, and keeps what only grows.
pub(super) fn after_clean_end(mut state: ServiceState) -> ServiceState {
    if state.phase != Phase::Failed {
        state.phase = Phase::Registered;
        "registered, not started yet".clone_into(&mut state.reason);
    }
    state.desired = Desired::Down;
    state.next_restart_at = None;
    state.identity = None;
    state.ready = false;
    state
}

/// What is made of a run that outlived its supervisor, or of the record of its end.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Claim {
    /// It is the service's run: the service goes on from this state with it.
    Adopt(Box<ServiceState>),
    /// Its end is part of what is stored already.
    Known,
    /// It is no run of the service as it stands: it must end.
    Unwanted,
}

/// Decides about one run the guardian names. Who is right about which run is the newest is the guardian: it started it.
pub(super) fn claim(
    clean: bool,
    service: &ServiceId,
    state: Option<&ServiceState>,
    run: Incarnation,
    alive: bool,
    now: DateTime<Utc>,
) -> Claim {
    let otherwise = if alive { Claim::Unwanted } else { Claim::Known };
    if clean {
        return otherwise;
    }
    let Some(state) = state else {
        if !alive {
            return Claim::Known;
        }
        let mut state = ServiceState::registered(service.clone(), now);
        running(&mut state, run);
        return Claim::Adopt(Box::new(state));
    };
    match run.cmp(&state.incarnation) {
        Ordering::Less => otherwise,
        Ordering::Equal if state.phase.may_be_alive() => Claim::Adopt(Box::new(state.clone())),
        Ordering::Equal => otherwise,
        // The transitions that led to it were not stored in time; that there is a run says what was asked for.
        Ordering::Greater => {
            let mut state = state.clone();
            running(&mut state, run);
            Claim::Adopt(Box::new(state))
        }
    }
}

fn running(state: &mut ServiceState, run: Incarnation) {
    state.incarnation = run;
    state.phase = Phase::Running;
    state.desired = Desired::Up;
    state.next_restart_at = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: &str, incarnation: u64, phase: Phase, desired: Desired) -> ServiceState {
        let mut state = ServiceState::registered(ServiceId::new(id).unwrap(), DateTime::UNIX_EPOCH);
        state.incarnation = Incarnation(incarnation);
        state.phase = phase;
        state.desired = desired;
        state
    }

    #[test]
    fn a_transition_after_the_checkpoint_wins_and_an_older_one_does_not() {
        let old = state("a", 3, Phase::Running, Desired::Up);
        let new = state("a", 4, Phase::Backoff, Desired::Up);
        let lost = state("b", 1, Phase::Running, Desired::Up);
        let base = HashMap::from([(old.id.clone(), old.clone()), (lost.id.clone(), lost.clone())]);
        let merged = newest_states(base.clone(), vec![new.clone()]);
        assert_eq!(merged[&new.id], new);
        assert_eq!(merged[&lost.id], lost, "a service the table lost is kept from the checkpoint");
        let older = state("a", 2, Phase::Running, Desired::Up);
        assert_eq!(newest_states(base, vec![older])[&old.id], old);
    }

    #[test]
    fn after_a_crash_what_was_stopped_by_hand_stays_stopped() {
        let stopped = state("a", 1, Phase::Stopped, Desired::Down);
        assert_eq!(resumption(false, true, Some(&stopped)), Resumption::Leave);
        assert_eq!(resumption(true, true, Some(&stopped)), Resumption::Start);
        let running = state("a", 1, Phase::Running, Desired::Up);
        assert_eq!(resumption(false, true, Some(&running)), Resumption::Resume);
        let failed = state("a", 1, Phase::Failed, Desired::Up);
        assert_eq!(resumption(false, true, Some(&failed)), Resumption::Leave);
        assert_eq!(resumption(false, true, None), Resumption::Start);
        assert_eq!(resumption(true, false, None), Resumption::Leave);
    }

    #[test]
    fn a_run_that_outlived_is_adopted_only_if_it_is_the_run_the_service_is_in_or_a_newer_one() {
        let at = |phase, desired| state("a", 3, phase, desired);
        let judge = |stored: Option<&ServiceState>, run, alive| {
            let id = ServiceId::new("a").unwrap();
            claim(false, &id, stored, Incarnation(run), alive, DateTime::UNIX_EPOCH)
        };
        let up = at(Phase::Running, Desired::Up);
        assert_eq!(judge(Some(&up), 3, true), Claim::Adopt(Box::new(up.clone())));
        assert_eq!(judge(Some(&up), 3, false), Claim::Adopt(Box::new(up.clone())));
        let stopping = at(Phase::Stopping, Desired::Down);
        assert_eq!(judge(Some(&stopping), 3, true), Claim::Adopt(Box::new(stopping.clone())));
        let backoff = at(Phase::Backoff, Desired::Up);
        assert_eq!(judge(Some(&backoff), 3, false), Claim::Known, "judged before");
        assert_eq!(judge(Some(&up), 2, false), Claim::Known);
        assert_eq!(judge(Some(&up), 2, true), Claim::Unwanted);
        let Claim::Adopt(newer) = judge(Some(&backoff), 4, true) else { panic!("adopted") };
        assert_eq!((newer.incarnation, newer.phase), (Incarnation(4), Phase::Running));
        let Claim::Adopt(found) = judge(None, 9, true) else { panic!("adopted") };
        assert_eq!((found.incarnation, found.desired), (Incarnation(9), Desired::Up));
        assert_eq!(judge(None, 9, false), Claim::Known);
        let id = ServiceId::new("a").unwrap();
        let after_clean = claim(true, &id, Some(&up), Incarnation(3), true, DateTime::UNIX_EPOCH);
        assert_eq!(after_clean, Claim::Unwanted);
    }
}
