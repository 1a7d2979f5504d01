//! Ids accepted lately, so that the same one again is the same message.

use std::sync::Arc;
use std::time::Duration;

use supervisor_core::message::Outcome;
use supervisor_core::{Generation, Monotonic};
use uuid::Uuid;

use crate::receipt::{Promise, Slot};
use crate::recent::{Key, Place, Recent};

/// Ids looked at with each message; more than one, so that what is too old goes faster than it comes.
const FORGET_STEP: usize = 16;

/// Ids with who waits for their messages' outcomes, or with how they have ended; bounded by count and age.
#[derive(Debug)]
pub(super) struct Seen {
    window: Duration,
    most: usize,
    ids: Recent<Monotonic, Known>,
    pub(super) forgotten_early: u64,
}

/// Small, because there are many.
#[derive(Debug)]
pub(super) enum Known {
    Open(Promise),
    Acked { generation: Generation, duplicate: bool },
    Ended(Box<Outcome>),
}

impl Known {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Acked { generation, duplicate } => {
                Self::Acked { generation: *generation, duplicate: *duplicate }
            }
            other => Self::Ended(Box::new(other.clone())),
        }
    }

    /// How the message ended, if it has.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Open(_) => None,
            Self::Acked { generation, duplicate } => {
                Some(Outcome::Acked { generation: *generation, duplicate: *duplicate })
            }
            Self::Ended(outcome) => Some(Outcome::clone(outcome)),
        }
    }
}

impl Seen {
    pub(super) fn new(window: Duration, most: usize) -> Self {
        Self { window, most, ids: Recent::default(), forgotten_early: 0 }
    }

    pub(super) fn key(&self, id: Uuid) -> Key {
        self.ids.key(id)
    }

    pub(super) fn get(&self, key: Key) -> Option<&Known> {
        self.ids.get(key)
    }

    pub(super) fn insert(&mut self, now: Monotonic, key: Key, promise: Promise) -> Place {
        self.ids.push(now, key, Known::Open(promise))
    }

    /// Notes how a message ended; gives who waits for that.
    pub(super) fn settle(&mut self, id: Uuid, place: Place, outcome: &Outcome) -> Option<Promise> {
        let known = self.ids.get_at(place, id)?;
        match std::mem::replace(known, Known::of(outcome)) {
            Known::Open(promise) => Some(promise),
            Known::Acked { .. } | Known::Ended(_) => None,
        }
    }

    /// Where the outcome of a message appears that has not ended.
    pub(super) fn slot(&self, id: Uuid) -> Option<Arc<Slot>> {
        match self.get(self.key(id)) {
            Some(Known::Open(promise)) => Some(promise.slot()),
            _ => None,
        }
    }

    /// Tells whether a stored message is news; one that was a dead letter and is in the outbox again was put back there.
    pub(super) fn admits(&mut self, id: Uuid) -> bool {
        let key = self.key(id);
        match self.get(key) {
            None => true,
            Some(Known::Ended(outcome)) if matches!(**outcome, Outcome::DeadLettered { .. }) => {
                drop(self.ids.remove(key));
                true
            }
            Some(_) => false,
        }
    }

    /// Forgets ids that are too old or too many; one whose message has not ended yet takes its place anew at the end.
    pub(super) fn forget(&mut self, now: Monotonic) {
        for _ in 0..FORGET_STEP {
            let over = self.ids.len() > self.most;
            let old = match self.ids.oldest() {
                Some((at, _)) => now.since(*at) >= self.window,
                None => return,
            };
            if !over && !old {
                return;
            }
            match self.ids.pop() {
                Some((key, Some(open @ Known::Open(_)))) => drop(self.ids.push(now, key, open)),
                Some((_, Some(_))) => self.forgotten_early += u64::from(!old),
                Some((_, None)) | None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(120);

    fn knows(seen: &Seen, id: u128) -> bool {
        seen.get(seen.key(Uuid::from_u128(id))).is_some()
    }

    fn ended(seen: &mut Seen, at: Duration, id: u128) {
        let (now, id) = (Monotonic::from_origin(at), Uuid::from_u128(id));
        let place = seen.insert(now, seen.key(id), Promise::default());
        assert!(seen.settle(id, place, &Outcome::Expired).is_some());
        seen.forget(now);
    }

    #[test]
    fn exactly_as_many_ids_are_known_as_there_is_room_for() {
        let mut seen = Seen::new(WINDOW, 3);
        for id in 1..=3 {
            ended(&mut seen, Duration::ZERO, id);
        }
        assert!((1..=3).all(|id| knows(&seen, id)));
        assert_eq!(seen.forgotten_early, 0);
        ended(&mut seen, Duration::ZERO, 4);
        assert!(!knows(&seen, 1) && knows(&seen, 2));
        assert_eq!(seen.forgotten_early, 1);
    }

    #[test]
    fn an_id_is_known_until_its_window_is_over_and_no_longer() {
        let mut seen = Seen::new(WINDOW, 3);
        ended(&mut seen, Duration::ZERO, 1);
        seen.forget(Monotonic::from_origin(WINDOW - Duration::from_nanos(1)));
        assert!(knows(&seen, 1));
        seen.forget(Monotonic::from_origin(WINDOW));
        assert!(!knows(&seen, 1));
        assert_eq!(seen.forgotten_early, 0, "its time was over");
    }

    #[test]
    fn an_id_whose_message_has_not_ended_stays_known_and_is_settled_where_it_stands_then() {
        let mut seen = Seen::new(WINDOW, 3);
        let open = Uuid::from_u128(100);
        let place = seen.insert(Monotonic::ZERO, seen.key(open), Promise::default());
        for id in 1..=30 {
            ended(&mut seen, Duration::ZERO, id);
        }
        assert!(knows(&seen, 100));
        assert!(seen.settle(open, place, &Outcome::Expired).is_some());
        assert_eq!(seen.get(seen.key(open)).and_then(Known::outcome), Some(Outcome::Expired));
        assert!(seen.settle(open, place, &Outcome::Superseded).is_none(), "it has ended once");
    }
}
