//! Turning what SQLite and the file system say into errors that tell the caller what to do.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;
use supervisor_core::error::DatabaseError;

use crate::mode::Fault;

/// Extended result codes of failed syncs: after one, nobody knows what is on the disk.
const SYNC_FAILURES: [i32; 3] = [
    rusqlite::ffi::SQLITE_IOERR_FSYNC,
    rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC,
    rusqlite::ffi::SQLITE_IOERR_TRUNCATE,
];

/// Sorts an SQLite error about `subject`.
pub(crate) fn sqlite(subject: &str, error: rusqlite::Error) -> DatabaseError {
    let subject = subject.to_owned();
    if unreadable_value(&error) {
        return DatabaseError::Corrupt { subject, reason: error.to_string() };
    }
    let rusqlite::Error::SqliteFailure(failure, _) = &error else {
        return DatabaseError::Storage {
            action: format!("storing or reading {subject}"),
            source: error.into(),
        };
    };
    if SYNC_FAILURES.contains(&failure.extended_code) {
        return DatabaseError::Unknown { subject, source: error.into() };
    }
    match failure.code {
        ErrorCode::DiskFull => DatabaseError::DiskFull { subject },
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            DatabaseError::Corrupt { subject, reason: error.to_string() }
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => DatabaseError::Busy {
            subject,
            reason: "another connection holds the database".to_owned(),
        },
        ErrorCode::OperationInterrupted => DatabaseError::Busy {
            subject,
            reason: "the question took longer than a reader may".to_owned(),
        },
        _ => DatabaseError::Storage {
            action: format!("storing or reading {subject}"),
            source: error.into(),
        },
    }
}

/// Tells what an error says about the storage itself; nothing when it concerns one request only.
pub(crate) fn fault(error: &DatabaseError) -> Option<Fault> {
    let source = match error {
        DatabaseError::DiskFull { .. } => return Some(Fault::Full),
        DatabaseError::Unknown { .. } => return Some(Fault::Broken),
        DatabaseError::Storage { source, .. } | DatabaseError::Open { source, .. } => source,
        _ => return None,
    };
    let code = source.downcast_ref::<rusqlite::Error>()?.sqlite_error_code()?;
    // After each of these SQLite may have ended the transaction by itself.
    let broken =
        matches!(code, ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::OutOfMemory);
    broken.then_some(Fault::Broken)
}

/// Tells whether a value is not of the kind that was written: asking again does not change it.
fn unreadable_value(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::InvalidColumnType(..)
    )
}

/// Sorts a file system error about `path`.
pub(crate) fn file(action: &str, path: &Path, error: io::Error) -> DatabaseError {
    if error.kind() == io::ErrorKind::StorageFull {
        return DatabaseError::DiskFull { subject: path.display().to_string() };
    }
    DatabaseError::Storage { action: format!("{action} {}", path.display()), source: error.into() }
}

/// Says that stored text does not read back.
pub(crate) fn unreadable(
    subject: impl Into<String>,
    error: &dyn std::error::Error,
) -> DatabaseError {
    DatabaseError::Corrupt { subject: subject.into(), reason: error.to_string() }
}
