//! Ids accepted lately, so that the same one again is the same message.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use supervisor_core::Monotonic;
use supervisor_core::message::Outcome;
use uuid::Uuid;

/// Ids looked at with each message; more than one, so that what is too old goes faster than it comes.
const FORGET_STEP: usize = 16;

/// Ids with how their messages ended, if they have; bounded by count and age.
#[derive(Debug)]
pub(super) struct Seen {
    window: Duration,
    most: usize,
    outcomes: HashMap<Uuid, Option<Outcome>>,
    order: VecDeque<(Monotonic, Uuid)>,
    pub(super) forgotten_early: u64,
}

impl Seen {
    pub(super) fn new(window: Duration, most: usize) -> Self {
        let (outcomes, order) = (HashMap::new(), VecDeque::new());
        Self { window, most, outcomes, order, forgotten_early: 0 }
    }

    pub(super) fn get(&self, id: Uuid) -> Option<&Option<Outcome>> {
        self.outcomes.get(&id)
    }

    pub(super) fn insert(&mut self, now: Monotonic, id: Uuid) {
        self.outcomes.insert(id, None);
        self.order.push_back((now, id));
    }

    pub(super) fn settle(&mut self, id: Uuid, outcome: &Outcome) {
        if let Some(known) = self.outcomes.get_mut(&id) {
            *known = Some(outcome.clone());
        }
    }

    /// Tells whether a stored message is news; one that was a dead letter and is in the outbox again was put back there.
    pub(super) fn admits(&mut self, id: Uuid) -> bool {
        if matches!(self.outcomes.get(&id), Some(Some(Outcome::DeadLettered { .. }))) {
            self.outcomes.remove(&id);
        }
        !self.outcomes.contains_key(&id)
    }

    /// Forgets ids that are too old or too many; one whose message has not ended yet takes its place anew at the end.
    pub(super) fn forget(&mut self, now: Monotonic) {
        for _ in 0..FORGET_STEP {
            let over = self.order.len() > self.most;
            let old = match self.order.front() {
                Some((at, _)) => now.since(*at) >= self.window,
                None => return,
            };
            if !over && !old {
                return;
            }
            let Some((_, id)) = self.order.pop_front() else { return };
            match self.outcomes.get(&id) {
                Some(None) => self.order.push_back((now, id)),
                Some(Some(_)) => {
                    self.forgotten_early += u64::from(!old);
                    self.outcomes.remove(&id);
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(120);

    fn ended(seen: &mut Seen, at: Duration, id: u128) {
        let (now, id) = (Monotonic::from_origin(at), Uuid::from_u128(id));
        seen.insert(now, id);
        seen.settle(id, &Outcome::Expired);
        seen.forget(now);
    }

    #[test]
    fn exactly_as_many_ids_are_known_as_there_is_room_for() {
        let mut seen = Seen::new(WINDOW, 3);
        for id in 1..=3 {
            ended(&mut seen, Duration::ZERO, id);
        }
        assert!((1..=3).all(|id| seen.get(Uuid::from_u128(id)).is_some()));
        assert_eq!(seen.forgotten_early, 0);
        ended(&mut seen, Duration::ZERO, 4);
        assert!(seen.get(Uuid::from_u128(1)).is_none() && seen.get(Uuid::from_u128(2)).is_some());
        assert_eq!(seen.forgotten_early, 1);
    }

    #[test]
    fn an_id_is_known_until_its_window_is_over_and_no_longer() {
        let mut seen = Seen::new(WINDOW, 3);
        ended(&mut seen, Duration::ZERO, 1);
        seen.forget(Monotonic::from_origin(WINDOW - Duration::from_nanos(1)));
        assert!(seen.get(Uuid::from_u128(1)).is_some());
        seen.forget(Monotonic::from_origin(WINDOW));
        assert!(seen.get(Uuid::from_u128(1)).is_none());
        assert_eq!(seen.forgotten_early, 0, "its time was over");
    }
}
