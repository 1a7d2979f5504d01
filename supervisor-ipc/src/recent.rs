//! Ids in the order in which they came, each with what is known about it.
//!
//! The table holds places in the queue instead of the ids themselves, so that it stays in the processor's cache; who was told
//! a place finds what belongs to it without the table. Ids may be a stranger's choice, so they are hashed with SipHash under
//! a key of this table alone.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use uuid::Uuid;

/// An id with its hash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    id: Uuid,
    hash: u64,
}

/// Where an id stands. A hint: an id that was moved is found all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u32);

/// Bounded by its owner, who takes the oldest out.
#[derive(Debug)]
pub(crate) struct Recent<A, T> {
    hasher: RandomState,
    table: HashTable<u32>,
    queue: VecDeque<Entry<A, T>>,
    /// The place of the first in the queue; places are counted round.
    first: u32,
}

#[derive(Debug)]
struct Entry<A, T> {
    key: Key,
    at: A,
    /// Nothing when the id was forgotten out of its turn.
    known: Option<T>,
}

impl<A, T> Default for Recent<A, T> {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            table: HashTable::new(),
            queue: VecDeque::new(),
            first: 0,
        }
    }
}

impl<A, T> Recent<A, T> {
    pub(crate) fn key(&self, id: Uuid) -> Key {
        Key { id, hash: self.hasher.hash_one(id.as_u128()) }
    }

    /// Gives how many stand in the queue, those forgotten out of their turn included.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    fn index(&self, key: Key) -> Option<usize> {
        let (queue, first) = (&self.queue, self.first);
        let same = |place: &u32| {
            let entry = queue.get(place.wrapping_sub(first) as usize);
            entry.is_some_and(|entry| entry.key.id == key.id)
        };
        self.table.find(key.hash, same).map(|place| place.wrapping_sub(first) as usize)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.index(key).and_then(|index| self.queue[index].known.as_ref())
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.index(key).and_then(|index| self.queue[index].known.as_mut())
    }

    /// Gives what is known about the id that was at this place.
    pub(crate) fn get_at(&mut self, place: Place, id: Uuid) -> Option<&mut T> {
        let index = place.0.wrapping_sub(self.first) as usize;
        if self.queue.get(index).is_some_and(|entry| entry.key.id == id && entry.known.is_some()) {
            return self.queue[index].known.as_mut();
        }
        self.get_mut(self.key(id))
    }

    /// Puts an id that is not known at the end.
    #[expect(clippy::cast_possible_truncation, reason = "places are counted round")]
    pub(crate) fn push(&mut self, at: A, key: Key, known: T) -> Place {
        let place = self.first.wrapping_add(self.queue.len() as u32);
        self.queue.push_back(Entry { key, at, known: Some(known) });
        let (queue, first) = (&self.queue, self.first);
        let hash = |place: &u32| queue[place.wrapping_sub(first) as usize].key.hash;
        self.table.insert_unique(key.hash, place, hash);
        Place(place)
    }

    /// Gives the oldest, and nothing of what is known if it was forgotten out of its turn.
    pub(crate) fn oldest(&self) -> Option<(&A, Option<&T>)> {
        self.queue.front().map(|entry| (&entry.at, entry.known.as_ref()))
    }

    /// Takes the oldest out.
    pub(crate) fn pop(&mut self) -> Option<(Key, Option<T>)> {
        let key = self.queue.front()?.key;
        let known = self.forget(key, 0);
        self.queue.pop_front();
        self.first = self.first.wrapping_add(1);
        Some((key, known))
    }

    /// Forgets an id out of its turn.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let index = self.index(key)?;
        let known = self.forget(key, index);
        if index + 1 == self.queue.len() {
            self.queue.pop_back();
        }
        known
    }

    #[expect(clippy::cast_possible_truncation, reason = "places are counted round")]
    fn forget(&mut self, key: Key, index: usize) -> Option<T> {
        let known = self.queue.get_mut(index)?.known.take()?;
        let place = self.first.wrapping_add(index as u32);
        if let Ok(entry) = self.table.find_entry(key.hash, |other| *other == place) {
            entry.remove();
        }
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map and a list; places begin shortly before they are counted round.
        #[test]
        fn it_knows_what_a_map_knows_and_forgets_in_order(moves in prop::collection::vec((0_u8..5, 0_u128..12), 0..200)) {
            let mut recent = Recent { first: u32::MAX - 20, ..Recent::default() };
            let (mut map, mut order) = (HashMap::new(), VecDeque::new());
            let mut places = HashMap::new();
            for (turn, (what, id)) in moves.into_iter().enumerate() {
                let id = Uuid::from_u128(id);
                let key = recent.key(id);
                match what {
                    0 | 1 if !map.contains_key(&id) => {
                        places.insert(id, recent.push(turn, key, turn));
                        map.insert(id, turn);
                        order.push_back((turn, id));
                    }
                    2 => {
                        let wanted = map.remove(&id);
                        prop_assert_eq!(recent.remove(key), wanted);
                        if wanted.is_some() && order.back().is_some_and(|(at, _)| Some(*at) == wanted) {
                            order.pop_back();
                        }
                    }
                    3 => {
                        let wanted = order.pop_front().map(|(at, id)| {
                            let current = map.get(&id) == Some(&at);
                            (id, if current { map.remove(&id) } else { None })
                        });
                        prop_assert_eq!(recent.pop().map(|(key, known)| (key.id, known)), wanted);
                    }
                    _ => {}
                }
                prop_assert_eq!(recent.len(), order.len());
                for (id, place) in &places {
                    let wanted = map.get(id).copied();
                    prop_assert_eq!(recent.get_at(*place, *id).copied(), wanted);
                    prop_assert_eq!(recent.get(recent.key(*id)).copied(), wanted);
                }
            }
        }
    }
}
