//! Ways back from every fault: backups, savepoints, the restore ladder, migrations.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backups;
mod bad_input;
mod bit_flips;
mod common;
mod damaged_rows;
mod doctor;
mod ladder;
mod lost_tail;
mod migrations;
mod paths;
mod queries;
mod savepoints;
