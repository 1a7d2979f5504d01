//! The store's traits in memory, stricter than they must be: what a caller may not rely on is refused here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::checkpoint::{
    CHECKPOINT_SCHEMA, Checkpoint, CheckpointContent, CheckpointHealth, CheckpointSummary,
    RejectedRung, Restored,
};
use crate::error::DatabaseError;
use crate::event::SupervisorEvent;
use crate::journal::{AuditEntry, AuditRecord, AuditVerification, JournalEntry, Transition};
use crate::message::{DeadLetter, OutboxEntry};
use crate::ports::{
    AuditLog, CheckpointStore, DedupStore, EventStore, Journal, Outbox, StateStore,
};
use crate::state::ServiceState;
use crate::{CheckpointId, Sequence, ServiceId};

/// Keeps everything in memory; what it acknowledged is gone when it is dropped.
///
/// Stricter than SQLite: an empty batch, an event sequence of zero and a limit above 10,000 are refused as misuse.
#[derive(Debug, Default)]
pub struct MemoryStore {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    states: BTreeMap<ServiceId, ServiceState>,
    journal: Vec<JournalEntry>,
    events: BTreeMap<u64, SupervisorEvent>,
    audit: Vec<AuditEntry>,
    checkpoints: Vec<(Checkpoint, Option<String>)>,
    outbox: BTreeMap<u64, OutboxEntry>,
    outbox_last: u64,
    dead: Vec<DeadLetter>,
    sights: BTreeMap<String, Vec<u8>>,
}

/// Rows the outbox holds; small, so that a test reaches the bound.
const OUTBOX_MAX: usize = 10_000;

impl Kept {
    fn enqueue(&mut self, mut entry: OutboxEntry) -> Sequence {
        if let Some(known) = self.outbox.values().find(|row| row.message.id == entry.message.id) {
            return known.sequence;
        }
        self.outbox_last += 1;
        entry.sequence = Sequence(self.outbox_last);
        self.outbox.insert(self.outbox_last, entry);
        Sequence(self.outbox_last)
    }
}

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Damages a checkpoint, so that loading it has something to notice.
    pub fn damage_checkpoint(&self, id: CheckpointId) {
        for (checkpoint, damage) in &mut self.lock().checkpoints {
            if checkpoint.id == id {
                *damage = Some("damaged on purpose".to_owned());
            }
        }
    }

    /// Changes an audit row, so that verifying has something to find.
    pub fn tamper_with_audit(&self, sequence: Sequence) {
        for row in &mut self.lock().audit {
            if row.sequence == sequence {
                row.record.detail.push_str(" (changed)");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(reason: &str) -> DatabaseError {
    DatabaseError::Refused { subject: "a call of the store".to_owned(), reason: reason.to_owned() }
}

fn checked(limit: usize) -> Result<usize, DatabaseError> {
    if limit > 10_000 { Err(refused("limits are at most 10,000")) } else { Ok(limit) }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn record(&self, transitions: Vec<Transition>) -> Result<Sequence, DatabaseError> {
        if transitions.is_empty() {
            return Err(refused("an empty batch"));
        }
        let mut kept = self.lock();
        for transition in transitions {
            let sequence = Sequence(kept.journal.len() as u64 + 1);
            let state = transition.state;
            kept.journal.push(JournalEntry {
                sequence,
                at: state.since,
                service: state.id.clone(),
                incarnation: state.incarnation,
                from: transition.from,
                to: state.phase,
                cause: transition.cause,
                reason: state.reason.clone(),
            });
            let newer = kept
                .states
                .get(&state.id)
                .is_none_or(|known| state.incarnation >= known.incarnation);
            if newer {
                kept.states.insert(state.id.clone(), state);
            }
        }
        Ok(Sequence(kept.journal.len() as u64))
    }

    async fn load(&self) -> Result<Vec<ServiceState>, DatabaseError> {
        Ok(self.lock().states.values().cloned().collect())
    }

    async fn remove(&self, service: &ServiceId) -> Result<(), DatabaseError> {
        self.lock().states.remove(service);
        Ok(())
    }
}

#[async_trait]
impl Journal for MemoryStore {
    async fn read(
        &self,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, DatabaseError> {
        let limit = checked(limit)?;
        Ok(self
            .lock()
            .journal
            .iter()
            .filter(|entry| entry.sequence > after)
            .take(limit)
            .cloned()
            .collect())
    }

    async fn head(&self) -> Result<Sequence, DatabaseError> {
        Ok(Sequence(self.lock().journal.len() as u64))
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn append(&self, events: Vec<SupervisorEvent>) -> Result<(), DatabaseError> {
        if events.iter().any(|event| event.sequence == Sequence::ZERO) {
            return Err(refused("events are numbered from 1"));
        }
        let mut kept = self.lock();
        for event in events {
            kept.events.entry(event.sequence.get()).or_insert(event);
        }
        Ok(())
    }

    async fn read(
        &self,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<SupervisorEvent>, DatabaseError> {
        let limit = checked(limit)?;
        Ok(self
            .lock()
            .events
            .range(after.get() + 1..)
            .take(limit)
            .map(|(_, event)| event.clone())
            .collect())
    }

    async fn head(&self) -> Result<Sequence, DatabaseError> {
        Ok(Sequence(self.lock().events.keys().next_back().copied().unwrap_or(0)))
    }
}

/// Good enough to notice a change in a test; a real trail has a keyed hash.
fn chain(before: &str, record: &AuditRecord) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (before, &record.subject, &record.detail).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[async_trait]
impl AuditLog for MemoryStore {
    async fn append(&self, record: AuditRecord) -> Result<Sequence, DatabaseError> {
        let mut kept = self.lock();
        let sequence = Sequence(kept.audit.len() as u64 + 1);
        let before = kept.audit.last().map_or("", |row| row.hash.as_str());
        let hash = chain(before, &record);
        kept.audit.push(AuditEntry { sequence, at: DateTime::<Utc>::UNIX_EPOCH, record, hash });
        Ok(sequence)
    }

    async fn read(&self, after: Sequence, limit: usize) -> Result<Vec<AuditEntry>, DatabaseError> {
        let limit = checked(limit)?;
        Ok(self
            .lock()
            .audit
            .iter()
            .filter(|row| row.sequence > after)
            .take(limit)
            .cloned()
            .collect())
    }

    async fn head(&self) -> Result<Sequence, DatabaseError> {
        Ok(Sequence(self.lock().audit.len() as u64))
    }

    async fn verify(&self) -> Result<AuditVerification, DatabaseError> {
        let kept = self.lock();
        let mut before = String::new();
        let bad = kept.audit.iter().find(|row| {
            let fits = chain(&before, &row.record) == row.hash;
            before.clone_from(&row.hash);
            !fits
        });
        Ok(AuditVerification {
            intact: bad.is_none(),
            rows: kept.audit.len() as u64,
            head: Sequence(kept.audit.len() as u64),
            first_bad: bad.map(|row| row.sequence),
            detail: bad
                .map_or("intact".to_owned(), |row| format!("row {} was changed", row.sequence)),
        })
    }
}

fn summary(checkpoint: &Checkpoint, damage: Option<&String>, verified: bool) -> CheckpointSummary {
    let health = match damage {
        Some(reason) => CheckpointHealth::Quarantined { reason: reason.clone() },
        None if verified => CheckpointHealth::Verified,
        None => CheckpointHealth::Unverified,
    };
    CheckpointSummary {
        id: checkpoint.id,
        created_at: checkpoint.created_at,
        sequence: checkpoint.sequence,
        services: checkpoint.services.len() as u64,
        pending_operations: checkpoint.pending_operations.len() as u64,
        bytes: 0,
        health,
    }
}

#[async_trait]
impl CheckpointStore for MemoryStore {
    async fn create(&self, content: CheckpointContent) -> Result<CheckpointId, DatabaseError> {
        let mut kept = self.lock();
        let id = CheckpointId(Uuid::from_u128(kept.checkpoints.len() as u128 + 1));
        let checkpoint = Checkpoint {
            id,
            schema: CHECKPOINT_SCHEMA,
            created_at: DateTime::<Utc>::UNIX_EPOCH,
            sequence: Sequence(kept.journal.len() as u64),
            services: content.services,
            pending_operations: content.pending_operations,
            channels: content.channels,
        };
        kept.checkpoints.push((checkpoint, None));
        Ok(id)
    }

    async fn restore(&self) -> Result<Restored, DatabaseError> {
        let kept = self.lock();
        let mut rejected = Vec::new();
        for (checkpoint, damage) in kept.checkpoints.iter().rev() {
            let source = format!("checkpoint {}", checkpoint.id);
            match damage {
                Some(reason) => rejected.push(RejectedRung { source, reason: reason.clone() }),
                None => {
                    return Ok(Restored { checkpoint: Some(checkpoint.clone()), source, rejected });
                }
            }
        }
        Ok(Restored { checkpoint: None, source: "empty".to_owned(), rejected })
    }

    async fn load(&self, id: CheckpointId) -> Result<Checkpoint, DatabaseError> {
        let subject = format!("checkpoint {id}");
        match self.lock().checkpoints.iter().find(|(checkpoint, _)| checkpoint.id == id) {
            Some((checkpoint, None)) => Ok(checkpoint.clone()),
            Some((_, Some(reason))) => {
                Err(DatabaseError::Corrupt { subject, reason: reason.clone() })
            }
            None => Err(DatabaseError::NotFound { subject }),
        }
    }

    async fn list(&self, limit: usize) -> Result<Vec<CheckpointSummary>, DatabaseError> {
        let limit = checked(limit)?;
        let kept = self.lock();
        Ok(kept
            .checkpoints
            .iter()
            .rev()
            .take(limit)
            .map(|(c, damage)| summary(c, damage.as_ref(), false))
            .collect())
    }

    async fn verify(&self, id: CheckpointId) -> Result<CheckpointSummary, DatabaseError> {
        let kept = self.lock();
        let found = kept.checkpoints.iter().find(|(checkpoint, _)| checkpoint.id == id);
        let (checkpoint, damage) =
            found.ok_or_else(|| DatabaseError::NotFound { subject: format!("checkpoint {id}") })?;
        Ok(summary(checkpoint, damage.as_ref(), true))
    }
}

#[async_trait]
impl Outbox for MemoryStore {
    async fn enqueue(&self, entry: OutboxEntry) -> Result<Sequence, DatabaseError> {
        let mut kept = self.lock();
        if kept.outbox.len() >= OUTBOX_MAX {
            let (subject, reason) = ("a message".to_owned(), "the outbox is full".to_owned());
            return Err(DatabaseError::Busy { subject, reason });
        }
        Ok(kept.enqueue(entry))
    }

    async fn pending(
        &self,
        channel: &str,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, DatabaseError> {
        let limit = checked(limit)?;
        let kept = self.lock();
        let rows = kept.outbox.range(after.get() + 1..).map(|(_, row)| row);
        Ok(rows.filter(|row| row.channel == channel).take(limit).cloned().collect())
    }

    async fn acknowledge(&self, ids: &[Uuid]) -> Result<(), DatabaseError> {
        self.lock().outbox.retain(|_, row| !ids.contains(&row.message.id));
        Ok(())
    }

    async fn bury(&self, letter: DeadLetter) -> Result<(), DatabaseError> {
        let mut kept = self.lock();
        kept.outbox.retain(|_, row| row.message.id != letter.message.id);
        kept.dead.retain(|known| known.message.id != letter.message.id);
        kept.dead.push(letter);
        Ok(())
    }

    async fn dead_letters(
        &self,
        channel: Option<String>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, DatabaseError> {
        let limit = checked(limit)?;
        let kept = self.lock();
        let of = |letter: &&DeadLetter| channel.as_ref().is_none_or(|of| *of == letter.channel);
        Ok(kept.dead.iter().rev().filter(of).take(limit).cloned().collect())
    }

    async fn requeue(&self, ids: &[Uuid]) -> Result<u64, DatabaseError> {
        let mut kept = self.lock();
        let (back, stay): (Vec<_>, _) = std::mem::take(&mut kept.dead)
            .into_iter()
            .partition(|letter| ids.contains(&letter.message.id));
        kept.dead = stay;
        let count = back.len() as u64;
        for DeadLetter { channel, message, .. } in back {
            kept.enqueue(OutboxEntry {
                sequence: Sequence::ZERO,
                channel,
                message,
                expires_at: None,
            });
        }
        Ok(count)
    }

    async fn forget(&self, ids: &[Uuid]) -> Result<u64, DatabaseError> {
        let mut kept = self.lock();
        let before = kept.dead.len();
        kept.dead.retain(|letter| !ids.contains(&letter.message.id));
        Ok((before - kept.dead.len()) as u64)
    }

    async fn purge(&self, channel: Option<String>) -> Result<u64, DatabaseError> {
        let mut kept = self.lock();
        let before = kept.dead.len();
        kept.dead.retain(|letter| channel.as_ref().is_some_and(|of| *of != letter.channel));
        Ok((before - kept.dead.len()) as u64)
    }
}

#[async_trait]
impl DedupStore for MemoryStore {
    /// Never forgets: how long a key is kept is the promise of a store with a clock.
    async fn first_sight(
        &self,
        key: &str,
        value: &[u8],
        _: Duration,
    ) -> Result<Option<Vec<u8>>, DatabaseError> {
        let mut kept = self.lock();
        if let Some(known) = kept.sights.get(key) {
            return Ok(Some(known.clone()));
        }
        kept.sights.insert(key.to_owned(), value.to_vec());
        Ok(None)
    }
}
