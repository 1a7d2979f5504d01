//! The ladder a start climbs down: the newest checkpoint that verifies, in the database or its file, then older ones.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use supervisor_core::checkpoint::{RejectedRung, Restored};
use supervisor_core::error::DatabaseError;

use crate::checkpoint;
use crate::journal::collect;
use crate::row;

/// What was found, and what has to be put aside.
pub(super) struct Climbed {
    pub(super) restored: Restored,
    /// Numbers of checkpoints that are damaged in the database and in their file, with the reasons.
    pub(super) damaged: Vec<(u64, String)>,
    /// Numbers of files the database does not know and that are damaged.
    pub(super) damaged_files: Vec<u64>,
    /// Whether a checkpoint was put aside before.
    pub(super) put_aside: bool,
}

/// Tries each checkpoint, the newest first wherever it is: a database that lost its newest rows has the files still.
pub(super) fn climb(connection: &Connection, dir: &Path) -> Result<Climbed, DatabaseError> {
    let mut climbed = Climbed {
        restored: Restored { checkpoint: None, source: "empty".to_owned(), rejected: Vec::new() },
        damaged: Vec::new(),
        damaged_files: Vec::new(),
        put_aside: false,
    };
    for (number, place) in places(connection, dir)?.into_iter().rev() {
        match place {
            Place::PutAside => climbed.put_aside = true,
            Place::Database => {
                if try_both(connection, dir, number, &mut climbed)? {
                    return Ok(climbed);
                }
            }
            Place::File => {
                let source = format!("file {}", checkpoint::payload_path(dir, number).display());
                match checkpoint::read_copy(dir, number) {
                    Ok(found) => {
                        climbed.restored.checkpoint = Some(found);
                        climbed.restored.source = source;
                        return Ok(climbed);
                    }
                    Err(reason) => {
                        climbed.restored.rejected.push(RejectedRung { source, reason });
                        climbed.damaged_files.push(number);
                    }
                }
            }
        }
    }
    Ok(climbed)
}

enum Place {
    Database,
    PutAside,
    File,
}

fn places(connection: &Connection, dir: &Path) -> Result<BTreeMap<u64, Place>, DatabaseError> {
    let mut places: BTreeMap<u64, Place> =
        checkpoint::copies(dir).into_iter().map(|number| (number, Place::File)).collect();
    let rows = collect(connection, checkpoint::NUMBERS, |row| {
        Ok((row::number(row, 0)?, row.get::<_, bool>(1)?))
    })?;
    places
        .extend(rows.into_iter().map(|(number, aside)| {
            (number, if aside { Place::PutAside } else { Place::Database })
        }));
    Ok(places)
}

fn try_both(
    connection: &Connection,
    dir: &Path,
    number: u64,
    climbed: &mut Climbed,
) -> Result<bool, DatabaseError> {
    let (id, in_database) = checkpoint::read_row(connection, number)?;
    let source = format!("checkpoint {id}");
    let reason = match in_database {
        Ok(found) => {
            climbed.restored.checkpoint = Some(found);
            climbed.restored.source = source;
            return Ok(true);
        }
        Err(reason) => reason,
    };
    let file = format!("file of {source}");
    climbed.restored.rejected.push(RejectedRung { source, reason: reason.clone() });
    match checkpoint::read_copy(dir, number) {
        Ok(found) => {
            climbed.restored.checkpoint = Some(found);
            climbed.restored.source = file;
            Ok(true)
        }
        Err(other) => {
            climbed.damaged.push((number, format!("{reason}; file: {other}")));
            climbed.restored.rejected.push(RejectedRung { source: file, reason: other });
            Ok(false)
        }
    }
}
