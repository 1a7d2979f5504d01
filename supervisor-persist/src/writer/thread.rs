//! The thread: takes requests, commits them in groups, and gets out of the modes it falls into.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use supervisor_core::error::{DatabaseError, chain};

use super::job::{Job, Kept, Key};
use super::log::Log;
use super::queue::{Closing, QUEUE_MAX, Queue};
use super::{Durability, Shared, WriterSettings, group};
use crate::mode::{Admission, Fault, Machine, StorageMode};
use crate::reserve::Reserve;
use crate::{errors, open};

/// Requests committed together. More would make the first one wait for the last one's work.
const GROUP_MAX: usize = 512;
/// Longest wait for callers that were answered a moment ago and are likely to be back.
const GATHER_MAX: Duration = Duration::from_micros(300);
/// Requests worth a wake-up while more are expected.
const GATHER_STEP: usize = 8;
/// Longest time a group that was committed without a sync waits for one.
const UNSYNCED_MAX: Duration = Duration::from_secs(1);

/// A group whose commit failed in a way that leaves open whether it happened.
struct Unknown {
    mark: i64,
    /// So many of the held requests, from the front.
    jobs: usize,
}

/// The thread's state.
pub(super) struct Thread {
    /// Nothing after a fault: it is opened anew, because nobody knows what its cache holds.
    connection: Option<Connection>,
    log: Log,
    path: PathBuf,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    settings: WriterSettings,
    reserve: Reserve,
    machine: Machine,
    origin: Instant,
    /// Number of the last group that is known to be committed.
    mark: i64,
    /// Requests waiting for a way back, at most as many as the queue holds.
    held: VecDeque<Box<dyn Job>>,
    unknown: Option<Unknown>,
    /// A group whose callers were told `Unknown`: its mark, and what each got if it was committed after all.
    unresolved: Vec<(i64, Key, Kept)>,
    /// Answers for repetitions of what turned out to be committed.
    repeats: HashMap<Key, Kept>,
    pruned: bool,
    /// Since when a committed group waits for a sync.
    unsynced: Option<Instant>,
    /// Size and duration of the last group.
    last: (usize, Duration),
}

impl Thread {
    pub(super) fn new(
        mut connection: Connection,
        path: PathBuf,
        queue: Arc<Queue>,
        shared: Arc<Shared>,
        settings: WriterSettings,
    ) -> Result<Self, DatabaseError> {
        let log = Log::watch(&mut connection)
            .map_err(|error| errors::sqlite("the write-ahead log", error))?;
        let mark = read_mark(&connection)?;
        let reserve = Reserve::beside(&path, settings.reserve);
        Ok(Self {
            connection: Some(connection),
            log,
            path,
            queue,
            shared,
            settings,
            reserve,
            machine: Machine::new(settings.hold),
            origin: Instant::now(),
            mark,
            held: VecDeque::new(),
            unknown: None,
            unresolved: Vec::new(),
            repeats: HashMap::new(),
            pruned: false,
            unsynced: None,
            last: (0, Duration::ZERO),
        })
    }

    pub(super) fn run(mut self) {
        if let Err(error) = self.reserve.take() {
            // Nothing was lost yet; the mode says what cannot be stored from now on.
            self.fall(Fault::Full, &errors::file("taking the reserve", &self.path, error));
        }
        loop {
            let taken = self.take();
            let now = self.now();
            self.machine.tick(now);
            let idle = taken.jobs.is_empty() && !taken.ended;
            match self.machine.admission(now) {
                Admission::Commit => self.commit(taken.jobs),
                Admission::Hold => self.held.extend(taken.jobs),
                Admission::Refuse => self.refuse(taken.jobs),
            }
            if self.machine.try_due(self.now()) || (taken.ended && !self.normal()) {
                self.try_return();
            }
            if self.machine.admission(self.now()) == Admission::Refuse || taken.ended {
                self.give_up_held();
            }
            if taken.ended {
                return self.finish(taken.closing);
            }
            if idle && self.normal() {
                self.keep_log(true);
                self.sync_the_rest();
            }
        }
    }

    fn take(&self) -> super::queue::Taken {
        let now = self.now();
        if let Some(due) = self.machine.due(now) {
            let wait = due.saturating_sub(now);
            let room = match self.machine.admission(now) {
                Admission::Hold => QUEUE_MAX.saturating_sub(self.held.len()),
                _ => GROUP_MAX,
            };
            // Without room they wait in the queue, and their callers for a place in it.
            let wanted = if room == 0 { usize::MAX } else { 1 };
            return self.queue.take(room, wanted, Some(wait));
        }
        self.queue.take(GROUP_MAX, 1, self.log.idle_after())
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn normal(&self) -> bool {
        self.machine.mode() == StorageMode::Normal
    }

    fn commit(&mut self, jobs: Vec<Box<dyn Job>>) {
        let mut jobs = self.answer_repeats(jobs);
        if jobs.is_empty() {
            return;
        }
        let began = Instant::now();
        match self.run_group(&mut jobs, true) {
            Ok(()) => {
                self.last = (jobs.len(), began.elapsed());
                jobs.into_iter().for_each(Job::answer);
                self.keep_log(false);
            }
            Err(failed) => {
                self.last = (0, Duration::ZERO);
                match failed.fault {
                    None => jobs.into_iter().for_each(|job| job.fail(copy(&failed.error))),
                    Some(fault) => {
                        self.hold_first(jobs, failed.unknown);
                        self.fall(fault, &failed.error);
                    }
                }
            }
        }
    }

    /// Commits a group; when it is `open`, callers that were answered a moment ago and are likely to be back may join
    /// it while it runs, so that their work overlaps with making it.
    fn run_group(&mut self, jobs: &mut Vec<Box<dyn Job>>, open: bool) -> Result<(), group::Failed> {
        let connection = self.connection.as_ref().ok_or_else(|| group::Failed {
            fault: Some(Fault::Broken),
            unknown: false,
            error: DatabaseError::Closed,
        })?;
        let late = self.unsynced.is_some_and(|since| since.elapsed() >= UNSYNCED_MAX);
        let synced = late || jobs.iter().any(|job| job.durability() == Durability::Synced);
        let (size, took) = self.last;
        let (began, patience) = (Instant::now(), took.min(GATHER_MAX));
        let open = open && synced && self.repeats.is_empty();
        let more = |so_far: usize| {
            let missing = size.saturating_sub(so_far);
            match patience.checked_sub(began.elapsed()) {
                Some(left) if open && missing > 0 => {
                    let worth_waking = missing.min(GATHER_STEP);
                    self.queue.more(GROUP_MAX.saturating_sub(so_far), worth_waking, left)
                }
                _ => Vec::new(),
            }
        };
        if group::run(connection, jobs, self.mark + 1, synced, more)? {
            self.mark += 1;
            // A sync concerns the whole log, what was committed before included.
            self.unsynced =
                if synced { None } else { self.unsynced.or_else(|| Some(Instant::now())) };
        }
        Ok(())
    }

    /// Commits once more with a sync if a group still waits for one, because a reader kept the log from being cut.
    fn sync_the_rest(&mut self) {
        if self.log.bytes() == 0 {
            self.unsynced = None;
        }
        let waiting = self.unsynced.is_some() && self.normal();
        let Some(connection) = self.connection.as_ref().filter(|_| waiting) else { return };
        match group::probe(connection, self.mark + 1) {
            Ok(()) => {
                self.mark += 1;
                self.unsynced = None;
            }
            Err(failed) => {
                let fault = failed.fault.unwrap_or(Fault::Broken);
                self.fall(fault, &failed.error);
            }
        }
    }

    /// Answers those whose content was committed when their caller was told that nobody knew.
    fn answer_repeats(&mut self, jobs: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
        if self.repeats.is_empty() {
            return jobs;
        }
        let mut rest = Vec::with_capacity(jobs.len());
        for mut job in jobs {
            match job.key().and_then(|key| self.repeats.remove(&key)) {
                Some(kept) => {
                    job.take_over(kept);
                    job.answer();
                }
                None => rest.push(job),
            }
        }
        rest
    }

    fn hold_first(&mut self, jobs: Vec<Box<dyn Job>>, unknown: bool) {
        if unknown {
            self.unknown = Some(Unknown { mark: self.mark + 1, jobs: jobs.len() });
        }
        for job in jobs.into_iter().rev() {
            self.held.push_front(job);
        }
    }

    /// Falls into the mode of a fault and says so.
    fn fall(&mut self, fault: Fault, error: &DatabaseError) {
        if self.normal() {
            self.pruned = false;
        }
        self.machine.failed(self.now(), fault);
        self.say(&chain(error));
    }

    fn say(&self, why: &str) {
        let mode = self.machine.mode();
        let reason = match mode {
            StorageMode::Normal => "everything is stored again".to_owned(),
            StorageMode::DiskFull => {
                format!("{why}; reads work, writes return by themselves once there is space")
            }
            StorageMode::Reopening => format!("{why}; the database is being opened anew"),
            StorageMode::Degraded => {
                format!("{why}; writes are refused, opening anew is tried every few seconds")
            }
        };
        let changed = self.shared.status.send_if_modified(|status| {
            let changed = status.mode != mode;
            status.mode = mode;
            status.reason = reason;
            changed
        });
        if !changed {
            return;
        }
        match mode {
            StorageMode::Normal => tracing::info!("storage is back to normal"),
            _ => tracing::error!(%mode, why, "storage fails"),
        }
    }

    /// Tries to return to the normal mode; what is held is repeated on the way.
    fn try_return(&mut self) {
        let mode = self.machine.mode();
        let prepared = match mode {
            StorageMode::DiskFull => self.make_room(),
            _ => self.reopen(),
        };
        let returned = match prepared.and_then(|()| self.repeat_held()) {
            Ok(()) => Ok(()),
            Err((fault, error)) => {
                if fault == Fault::Full {
                    self.reserve.give_up();
                }
                Err((fault, error))
            }
        };
        match returned {
            Ok(()) => {
                self.machine.returned();
                self.say("");
            }
            Err((fault, error)) => {
                self.machine.still_failing(self.now(), fault);
                self.say(&chain(&error));
            }
        }
    }

    /// Gives up the reserve, prunes and cuts the log, then sees whether the reserve fits again.
    fn make_room(&mut self) -> Result<(), (Fault, DatabaseError)> {
        self.reserve.give_up();
        if let Some(connection) = &self.connection {
            // The log first: pruning needs room in it. Neither has to succeed; the reserve decides.
            drop(self.log.cut(connection));
            if !self.pruned {
                self.pruned = (self.settings.prune)(connection).is_ok();
                drop(self.log.cut(connection));
            }
        }
        let taken = self.reserve.take();
        taken.map_err(|error| {
            (Fault::Full, errors::file("taking the reserve beside", &self.path, error))
        })
    }

    /// Opens the database anew and proves it: everything in the log is written to the file once more, because after a
    /// failed sync the system may hold pages for clean that never reached the disk.
    fn reopen(&mut self) -> Result<(), (Fault, DatabaseError)> {
        let failed = |error: DatabaseError| (errors::fault(&error).unwrap_or(Fault::Broken), error);
        self.connection = None;
        let mut connection = open::writer_again(&self.path).map_err(failed)?;
        let sorted = |error| failed(errors::sqlite("the database opened anew", error));
        let mut log = Log::watch(&mut connection).map_err(sorted)?;
        let moved = log.cut(&connection).map_err(sorted)?;
        if !moved.whole() {
            let reason = "a reader keeps its log from being written to the file".to_owned();
            let subject = "the database opened anew".to_owned();
            return Err((Fault::Broken, DatabaseError::Busy { subject, reason }));
        }
        open::quick_check(&mut connection).map_err(|error| match error {
            DatabaseError::Corrupt { .. } => (Fault::Corrupt, error),
            other => failed(other),
        })?;
        let mark = read_mark(&connection).map_err(failed)?;
        self.connection = Some(connection);
        self.log = log;
        self.unsynced = None;
        self.resolve(mark);
        Ok(())
    }

    /// Now it is known what became of a group with an unknown outcome.
    fn resolve(&mut self, mark: i64) {
        if let Some(unknown) = self.unknown.take()
            && mark >= unknown.mark
        {
            self.held.drain(..unknown.jobs).for_each(Job::answer);
        }
        for (at, key, kept) in self.unresolved.drain(..) {
            if mark >= at && self.repeats.len() < GROUP_MAX {
                self.repeats.insert(key, kept);
            }
        }
        self.mark = mark;
    }

    fn repeat_held(&mut self) -> Result<(), (Fault, DatabaseError)> {
        if self.held.is_empty() {
            let Some(connection) = &self.connection else { return Ok(()) };
            group::probe(connection, self.mark + 1)
                .map_err(|failed| (failed.fault.unwrap_or(Fault::Broken), failed.error))?;
            self.mark += 1;
            self.unsynced = None;
        }
        while !self.held.is_empty() {
            let n = self.held.len().min(GROUP_MAX);
            let mut jobs: Vec<_> = self.held.drain(..n).collect();
            match self.run_group(&mut jobs, false) {
                Ok(()) => jobs.into_iter().for_each(Job::answer),
                Err(failed) => match failed.fault {
                    None => jobs.into_iter().for_each(|job| job.fail(copy(&failed.error))),
                    Some(fault) => {
                        self.hold_first(jobs, failed.unknown);
                        return Err((fault, failed.error));
                    }
                },
            }
        }
        Ok(())
    }

    /// Tells those who were held long enough.
    fn give_up_held(&mut self) {
        let mut unknown = self.unknown.take();
        let held: Vec<_> = self.held.drain(..).collect();
        for (place, job) in held.into_iter().enumerate() {
            match &mut unknown {
                Some(unknown) if place < unknown.jobs => {
                    if let Some((key, kept)) = job.keep()
                        && self.unresolved.len() < GROUP_MAX
                    {
                        self.unresolved.push((unknown.mark, key, kept));
                    }
                    let source = self.shared.status.borrow().reason.clone().into();
                    job.fail(DatabaseError::Unknown { subject: "a write".to_owned(), source });
                }
                _ => job.fail(self.refusal()),
            }
        }
    }

    fn refuse(&self, jobs: Vec<Box<dyn Job>>) {
        jobs.into_iter().for_each(|job| job.fail(self.refusal()));
    }

    fn refusal(&self) -> DatabaseError {
        let subject = "a write".to_owned();
        match self.machine.mode() {
            StorageMode::DiskFull => DatabaseError::DiskFull { subject },
            _ => {
                let reason = self.shared.status.borrow().reason.clone();
                DatabaseError::Busy { subject, reason }
            }
        }
    }

    /// Moves or cuts the log and looks after its alarm. A fault while doing so is one like any other.
    fn keep_log(&mut self, idle: bool) {
        let Some(connection) = &self.connection else { return };
        let kept = if idle {
            self.log.cut(connection).map(Some)
        } else {
            self.log.move_if_due(connection)
        };
        if let Err(error) = kept {
            let error = errors::sqlite("the write-ahead log", error);
            match errors::fault(&error) {
                Some(fault) => self.fall(fault, &error),
                None => tracing::warn!(error = %chain(&error), "the write-ahead log stays"),
            }
        }
        let bytes = self.log.bytes();
        self.shared.wal_bytes.store(bytes, Ordering::Relaxed);
        let alarm = bytes > self.settings.wal_alarm;
        let changed = self
            .shared
            .status
            .send_if_modified(|status| std::mem::replace(&mut status.wal_alarm, alarm) != alarm);
        if changed && alarm {
            tracing::warn!(bytes, "the write-ahead log is long: a reader pins it");
        }
    }

    fn finish(mut self, closing: Option<Closing>) {
        let cut = match &self.connection {
            Some(connection) => self.log.cut(connection).map(drop),
            None => Ok(()),
        };
        let cut = cut.map_err(|error| errors::sqlite("the write-ahead log", error));
        let result = if self.normal() { cut } else { Err(self.refusal()) };
        // Closed before the answer: whoever waits for it may open the file at once.
        drop(self.connection.take());
        if let Some(closing) = closing {
            drop(closing.send(result));
        }
    }
}

fn read_mark(connection: &Connection) -> Result<i64, DatabaseError> {
    connection
        .query_row("SELECT number FROM writer_mark", [], |row| row.get(0))
        .map_err(|error| errors::sqlite("the number of the last commit", error))
}

/// Says the same to each caller of a group: the cause is given as text, because it has one owner.
fn copy(error: &DatabaseError) -> DatabaseError {
    match error {
        DatabaseError::Busy { subject, reason } => {
            DatabaseError::Busy { subject: subject.clone(), reason: reason.clone() }
        }
        _ => DatabaseError::Storage {
            action: "committing a group of writes".to_owned(),
            source: chain(error).into(),
        },
    }
}
