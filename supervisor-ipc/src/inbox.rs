//! What the service on the other side says on its own account: taken once, kept until every subscriber is done with it, and
//! acknowledged then. No clock, no task, no bytes.
//!
//! **Invariant:** a number is acknowledged when it and every lower one of its session was handled by all subscribers there
//! are, and by one at least.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::Monotonic;
use supervisor_core::config::RecoveryConfig;
use supervisor_core::message::IpcMessage;
use uuid::Uuid;

use crate::message::held;
use crate::protocol::Push;

/// Messages kept for subscribers that need no acknowledgement, at least. At the bound the oldest goes, and is counted as
/// missed.
const KEPT_MAX: usize = 1024;
/// Messages a service may leave unacknowledged, whatever the configuration says.
const WINDOW_MAX: usize = 512;

#[derive(Debug)]
pub(crate) struct Inbox {
    window: usize,
    bytes_max: u64,
    known: Known,
    /// The service whose numbers these are.
    session: Option<Uuid>,
    /// The highest number of the session that came.
    last: u64,
    /// Up to where the service was told that everything is handled.
    told: u64,
    /// The last number whose message had come before.
    twice: Option<u64>,
    kept: VecDeque<Kept>,
    next_position: u64,
    readers: BTreeMap<u64, Reader>,
    next_reader: u64,
}

#[derive(Debug)]
struct Kept {
    position: u64,
    /// Its number, the last one if it came again, when the session that is on waits to be told that it was handled.
    s: Option<u64>,
    bytes: u64,
    message: Arc<IpcMessage>,
}

#[derive(Debug, Clone, Copy)]
struct Reader {
    /// Where the next message it takes is at the earliest.
    next: u64,
    /// Up to where it is done.
    done: u64,
    missed: u64,
}

/// Ids that came, bounded by count and age.
#[derive(Debug)]
struct Known {
    window: Duration,
    most: usize,
    ids: HashSet<Uuid>,
    order: VecDeque<(Monotonic, Uuid)>,
}

impl Known {
    /// Notes a new id.
    fn insert(&mut self, now: Monotonic, id: Uuid) {
        self.ids.insert(id);
        self.order.push_back((now, id));
    }

    /// Forgets what is too old, and the oldest where there would be too many with one more.
    fn age(&mut self, now: Monotonic) {
        while let Some((at, old)) = self.order.front().copied()
            && (now.since(at) >= self.window || self.order.len() >= self.most.max(1))
        {
            self.ids.remove(&old);
            self.order.pop_front();
        }
    }

    /// What was not handled is news when it comes again.
    fn forget(&mut self, id: Uuid) {
        if self.ids.remove(&id) {
            self.order.retain(|(_, known)| *known != id);
        }
    }
}

impl Inbox {
    pub(crate) fn new(config: &RecoveryConfig) -> Self {
        Self {
            window: config.max_in_flight.clamp(1, WINDOW_MAX),
            bytes_max: config.max_buffered_bytes.bytes(),
            known: Known {
                window: config.dedupe_window,
                most: config.dedupe_max,
                ids: HashSet::new(),
                order: VecDeque::new(),
            },
            session: None,
            last: 0,
            told: 0,
            twice: None,
            kept: VecDeque::new(),
            next_position: 0,
            readers: BTreeMap::new(),
            next_reader: 0,
        }
    }

    /// What the greeting says: how much may come, and up to where it did.
    pub(crate) fn greeting(&mut self) -> Push {
        self.told = self.handled();
        Push {
            session: self.session,
            handled: self.told,
            window: self.window as u64,
            bytes: self.bytes_max,
        }
    }

    /// The service greeted: it numbers what it says within this session, or does not number it.
    pub(crate) fn greeted(&mut self, session: Option<Uuid>) {
        if self.session == session && session.is_some() {
            return;
        }
        self.session = session;
        (self.last, self.told, self.twice) = (0, 0, None);
        // Who waited to be told is gone; what it said is handled all the same.
        for kept in &mut self.kept {
            kept.s = None;
        }
        while self.kept.len() > KEPT_MAX {
            self.drop_oldest();
        }
    }

    /// Takes a numbered message that came in a frame of so many bytes, or says how it breaks the protocol.
    pub(crate) fn arrive(
        &mut self,
        now: Monotonic,
        s: u64,
        message: IpcMessage,
        frame: usize,
    ) -> Result<(), String> {
        if s <= self.last {
            // A part of the stream that came twice.
            return Ok(());
        }
        // What our own endpoint counts, or what others can.
        let bytes = held(&message).min(frame) as u64;
        self.known.age(now);
        if let Some(kept) = self.kept.iter_mut().find(|kept| kept.message.id == message.id) {
            kept.s = Some(s);
            self.twice = Some(s);
        } else if self.known.ids.contains(&message.id) {
            self.twice = Some(s);
        } else {
            self.check_room(bytes)?;
            self.known.insert(now, message.id);
            self.keep(Some(s), bytes, message);
        }
        self.last = s;
        Ok(())
    }

    fn check_room(&self, bytes: u64) -> Result<(), String> {
        let waiting = self.kept.iter().filter(|kept| kept.s.is_some());
        let (count, sum) =
            waiting.fold((0, 0_u64), |(count, sum), kept| (count + 1, sum + kept.bytes));
        if count >= self.window || (count > 0 && sum + bytes > self.bytes_max) {
            return Err(format!(
                "it leaves more unacknowledged than {} messages and {} bytes",
                self.window, self.bytes_max
            ));
        }
        Ok(())
    }

    /// Takes a message that nobody waits to hear about; without subscribers it is nobody's.
    pub(crate) fn tell(&mut self, message: IpcMessage) {
        if self.readers.is_empty() {
            return;
        }
        self.keep(None, held(&message) as u64, message);
        if self.kept.len() > KEPT_MAX + self.window {
            self.drop_oldest();
        }
    }

    /// Drops the oldest message that nobody waits to hear about.
    fn drop_oldest(&mut self) {
        let at = self.kept.iter().position(|kept| kept.s.is_none());
        let Some(gone) = at.and_then(|at| self.kept.remove(at)) else { return };
        self.known.forget(gone.message.id);
        for reader in self.readers.values_mut().filter(|reader| reader.next <= gone.position) {
            reader.missed += 1;
        }
    }

    fn keep(&mut self, s: Option<u64>, bytes: u64, message: IpcMessage) {
        let position = self.next_position;
        self.next_position += 1;
        self.kept.push_back(Kept { position, s, bytes, message: Arc::new(message) });
    }

    /// Up to which number everything was handled.
    fn handled(&self) -> u64 {
        self.kept.iter().filter_map(|kept| kept.s).min().map_or(self.last, |s| s - 1)
    }

    /// Whether there is something to tell the service.
    pub(crate) fn owes(&self) -> bool {
        self.session.is_some() && self.handled() > self.told
    }

    /// Up to where the service is to be told now that everything was handled, and whether that one had come before.
    pub(crate) fn owed(&mut self) -> Option<(u64, bool)> {
        if !self.owes() {
            return None;
        }
        self.told = self.handled();
        Some((self.told, self.twice == Some(self.told)))
    }

    /// Lets a subscriber in. It begins with the oldest message that somebody is not done with, so that whoever leaves leaves
    /// nothing that nobody gets.
    pub(crate) fn subscribe(&mut self) -> u64 {
        let next = self.kept.front().map_or(self.next_position, |kept| kept.position);
        let name = self.next_reader;
        self.next_reader += 1;
        self.readers.insert(name, Reader { next, done: next, missed: 0 });
        name
    }

    /// Gives a subscriber its next message, if there is one. Asking says that the ones before are done with.
    pub(crate) fn next(&mut self, reader: u64) -> Option<Arc<IpcMessage>> {
        let known = self.readers.get_mut(&reader)?;
        known.done = known.next;
        let at = self.kept.partition_point(|kept| kept.position < known.next);
        let found = self.kept.get(at).map(|kept| {
            known.next = kept.position + 1;
            Arc::clone(&kept.message)
        });
        self.release();
        found
    }

    pub(crate) fn missed(&self, reader: u64) -> u64 {
        self.readers.get(&reader).map_or(0, |reader| reader.missed)
    }

    /// Lets a subscriber go; what it was not done with stays for the next one, if it was the only one.
    pub(crate) fn leave(&mut self, reader: u64) {
        self.readers.remove(&reader);
        self.release();
    }

    fn release(&mut self) {
        let Some(done) = self.readers.values().map(|reader| reader.done).min() else {
            // Nobody waits any more for what needs no acknowledgement.
            let known = &mut self.known;
            return self.kept.retain(|kept| {
                if kept.s.is_none() {
                    known.forget(kept.message.id);
                }
                kept.s.is_some()
            });
        };
        while self.kept.front().is_some_and(|kept| kept.position < done) {
            self.kept.pop_front();
        }
    }
}

#[cfg(test)]
mod properties;
