//! One group of writes in one transaction.

use rusqlite::{Connection, ErrorCode};
use supervisor_core::error::DatabaseError;

use super::job::{Job, Step};
use crate::errors;
use crate::mode::Fault;

/// Why a group was not committed.
#[derive(Debug)]
pub(super) struct Failed {
    /// What that says about the storage; nothing when it is only this group's bad luck.
    pub(super) fault: Option<Fault>,
    /// Whether it may be in the file all the same.
    pub(super) unknown: bool,
    pub(super) error: DatabaseError,
}

impl Failed {
    fn new(error: rusqlite::Error, unknown: bool) -> Self {
        let corrupt = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        );
        let error = errors::sqlite("a group of writes", error);
        let fault = if corrupt { Some(Fault::Corrupt) } else { errors::fault(&error) };
        Self { fault, unknown: unknown && fault == Some(Fault::Broken), error }
    }
}

/// Runs a group in one transaction and commits it under `mark`, on the disk if `synced`; tells whether anything was
/// changed.
///
/// A request that refuses itself does not concern the others. `more` is asked for requests that join, with how many
/// there are, until it gives none; they are put behind the others.
pub(super) fn run(
    connection: &Connection,
    jobs: &mut Vec<Box<dyn Job>>,
    mark: i64,
    synced: bool,
    more: impl FnMut(usize) -> Vec<Box<dyn Job>>,
) -> Result<bool, Failed> {
    if synced {
        return committed(connection, jobs, mark, more);
    }
    // Set and set back each time: whatever else commits on this connection finds it as it was opened.
    set_synchronous(connection, "NORMAL")?;
    let done = committed(connection, jobs, mark, more);
    set_synchronous(connection, "FULL")?;
    done
}

/// Takes effect while it is prepared, so it is prepared each time; SQLite knows no error of it outside a transaction.
fn set_synchronous(connection: &Connection, value: &str) -> Result<(), Failed> {
    let set = connection.execute_batch(&format!("PRAGMA synchronous={value}"));
    set.map_err(|error| rolled_back(connection, Failed::new(error, false)))
}

fn committed(
    connection: &Connection,
    jobs: &mut Vec<Box<dyn Job>>,
    mark: i64,
    more: impl FnMut(usize) -> Vec<Box<dyn Job>>,
) -> Result<bool, Failed> {
    let changed = match each(connection, jobs, false, more) {
        // Somebody refused after changing something. Savepoints cost as much as the work, so they are set only now.
        Ok(None) => each(connection, jobs, true, |_| Vec::new())?.unwrap_or(false),
        Ok(Some(changed)) => changed,
        Err(failed) => return Err(failed),
    };
    if changed {
        execute(connection, "UPDATE writer_mark SET number = ?1", [mark])
            .map_err(|error| rolled_back(connection, Failed::new(error, false)))?;
    }
    execute(connection, "COMMIT", [])
        .map_err(|error| rolled_back(connection, Failed::new(error, changed)))?;
    Ok(changed)
}

/// Commits nothing but `mark`.
pub(super) fn probe(connection: &Connection, mark: i64) -> Result<(), Failed> {
    let failed = |unknown| move |error| rolled_back(connection, Failed::new(error, unknown));
    execute(connection, "BEGIN IMMEDIATE", []).map_err(failed(false))?;
    execute(connection, "UPDATE writer_mark SET number = ?1", [mark]).map_err(failed(false))?;
    execute(connection, "COMMIT", []).map_err(failed(true))
}

/// Opens a transaction and runs each request in it. Gives whether anything was changed, or nothing (and no
/// transaction) when a request without a savepoint has to be undone.
fn each(
    connection: &Connection,
    jobs: &mut Vec<Box<dyn Job>>,
    savepoints: bool,
    mut more: impl FnMut(usize) -> Vec<Box<dyn Job>>,
) -> Result<Option<bool>, Failed> {
    let failed = |error| rolled_back(connection, Failed::new(error, false));
    // Immediate: a deferred transaction that turns to writing fails at once, whatever the busy timeout.
    execute(connection, "BEGIN IMMEDIATE", []).map_err(failed)?;
    let before = connection.total_changes();
    let mut kept = before;
    let mut place = 0;
    loop {
        if place == jobs.len() {
            jobs.extend(more(place));
        }
        let Some(job) = jobs.get_mut(place) else { break };
        place += 1;
        if savepoints {
            execute(connection, "SAVEPOINT request", []).map_err(failed)?;
        }
        let step = job.run(connection);
        if connection.is_autocommit() && step == Step::Refused {
            // SQLite ended the transaction under it.
            return Err(ended(Fault::Broken));
        }
        let changes = connection.total_changes();
        match step {
            Step::Keep => kept = kept.max(changes),
            Step::Refused if savepoints => {
                execute(connection, "ROLLBACK TO request", []).map_err(failed)?;
            }
            Step::Refused if changes != kept => {
                return rolled_back_plainly(connection).map(|()| None);
            }
            Step::Refused => {}
            Step::Faulty(fault) => return Err(rolled_back(connection, ended(fault))),
        }
        if savepoints {
            execute(connection, "RELEASE request", []).map_err(failed)?;
        }
        kept = kept.max(connection.total_changes());
    }
    Ok(Some(kept != before))
}

fn ended(fault: Fault) -> Failed {
    let subject = "a group of writes".to_owned();
    let error = match fault {
        Fault::Full => DatabaseError::DiskFull { subject },
        Fault::Broken | Fault::Corrupt => DatabaseError::Storage {
            action: "storing a group of writes".to_owned(),
            source: "the transaction ended under it".into(),
        },
    };
    Failed { fault: Some(fault), unknown: false, error }
}

fn rolled_back(connection: &Connection, failed: Failed) -> Failed {
    // It may have been rolled back already; either way it is gone.
    drop(rolled_back_plainly(connection));
    failed
}

fn rolled_back_plainly(connection: &Connection) -> Result<(), Failed> {
    if connection.is_autocommit() {
        return Ok(());
    }
    execute(connection, "ROLLBACK", []).map_err(|error| Failed::new(error, false))
}

fn execute<P: rusqlite::Params>(
    connection: &Connection,
    statement: &str,
    parameters: P,
) -> Result<(), rusqlite::Error> {
    connection.prepare_cached(statement)?.execute(parameters).map(drop)
}
