//! The numbers of runs that were started but not stored: the next run gets a higher one than any that was seen.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use supervisor_core::journal::Transition;
use supervisor_core::state::ServiceState;
use supervisor_core::{Incarnation, ServiceId};

/// How far above the stored number one that was only seen is believed: who may start processes can give them any mark.
///
/// A service that ends at once and is started again every 20 ms takes five hours to get that far while nothing is stored.
const BELIEVED: u64 = 1_000_000;

/// Raises each service to the highest number that a run of it was seen with, and gives what is to be stored of that.
///
/// How the service stands is left as it is: what was asked for is not known from a number.
pub(super) fn raise(
    states: &mut HashMap<ServiceId, ServiceState>,
    seen: impl IntoIterator<Item = (ServiceId, Incarnation)>,
    now: DateTime<Utc>,
) -> Vec<Transition> {
    let mut highest: HashMap<ServiceId, Incarnation> = HashMap::new();
    for (service, run) in seen {
        let stored = states.get(&service).map_or(Incarnation::ZERO, |state| state.incarnation);
        if run.get().saturating_sub(stored.get()) > BELIEVED {
            tracing::warn!(%service, %run, %stored, "the number of a run is not believed");
        } else if run > stored {
            let known = highest.entry(service).or_insert(run);
            *known = run.max(*known);
        }
    }
    let raised = highest.into_iter().map(|(service, run)| {
        let state = states
            .entry(service)
            .or_insert_with_key(|id| ServiceState::registered(id.clone(), now));
        state.incarnation = run;
        state.identity = None;
        state.reason = format!("{}; run #{run} was started since and not stored", state.reason);
        let (state, from) = (state.clone(), state.phase);
        Transition { state, from, cause: "run_seen".to_owned() }
    });
    raised.collect()
}

#[cfg(test)]
mod tests {
    use supervisor_core::state::{Desired, Phase};

    use super::*;

    fn id(name: &str) -> ServiceId {
        ServiceId::new(name).unwrap()
    }

    fn backoff_at(run: u64) -> HashMap<ServiceId, ServiceState> {
        let mut state = ServiceState::registered(id("a"), DateTime::UNIX_EPOCH);
        (state.incarnation, state.phase, state.desired) =
            (Incarnation(run), Phase::Backoff, Desired::Up);
        HashMap::from([(id("a"), state)])
    }

    fn raised(states: &mut HashMap<ServiceId, ServiceState>, seen: &[(&str, u64)]) -> Vec<u64> {
        let seen = seen.iter().map(|(name, run)| (id(name), Incarnation(*run)));
        let stored = raise(states, seen, DateTime::UNIX_EPOCH);
        stored.iter().map(|transition| transition.state.incarnation.get()).collect()
    }

    #[test]
    fn the_next_run_exceeds_the_highest_number_that_was_seen_and_the_service_stands_as_it_did() {
        let mut states = backoff_at(4);
        assert_eq!(raised(&mut states, &[("a", 5), ("a", 7), ("a", 6), ("a", 3)]), [7]);
        let state = &states[&id("a")];
        assert_eq!((state.incarnation, state.phase), (Incarnation(7), Phase::Backoff));
        assert_eq!(state.desired, Desired::Up);
    }

    #[test]
    fn a_service_of_which_nothing_was_stored_is_raised_too() {
        let mut states = HashMap::new();
        assert_eq!(raised(&mut states, &[("new", 1)]), [1]);
        assert_eq!(states[&id("new")].phase, Phase::Registered);
    }

    #[test]
    fn a_number_that_is_stored_already_changes_and_stores_nothing() {
        let mut states = backoff_at(4);
        assert_eq!(raised(&mut states, &[("a", 4), ("a", 1)]), [0; 0]);
        assert_eq!(states, backoff_at(4));
    }

    #[test]
    fn a_number_that_no_run_can_have_is_not_believed_and_hides_no_other() {
        let mut states = backoff_at(4);
        assert_eq!(raised(&mut states, &[("a", u64::MAX), ("a", 5), ("a", BELIEVED + 5)]), [5]);
        assert_eq!(raised(&mut states, &[("a", BELIEVED + 5)]), [BELIEVED + 5]);
    }
}
