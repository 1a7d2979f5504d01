//! Ways back from every fault: backups, savepoints, the restore ladder, migrations.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backups;
mod common;
mod ladder;
mod migrations;
mod savepoints;
