//! Migrations that fail or are killed: tests that need migrations of their own, and so stand inside the crate.

use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::{DateTime, Utc};
use refinery::{Migration, Runner};
use rusqlite::hooks::Action;
use supervisor_core::ServiceId;
use supervisor_core::error::{DatabaseError, MigrationError};
use supervisor_core::ports::StateStore;
use supervisor_core::state::ServiceState;
use tempfile::TempDir;

use super::opening::{Opened, Request, check_structure, open_with};
use super::types::{DatabaseOrigin, StructureCheck};
use crate::backup::{self, BackupReason};
use crate::folders::Folders;
use crate::{StatePersistence, open, schema};

/// Tells a child of the kill test where to work and at which row to die.
const DIE_IN: &str = "SUPERVISOR_PERSIST_TEST_DIE_IN";
const DIE_AT: &str = "SUPERVISOR_PERSIST_TEST_DIE_AT";

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn folders(dir: &Path) -> Folders {
    Folders::beside(&dir.join("supervisor.db"))
}

/// Makes a database as the program of an earlier version left it.
fn old(version: i32) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = folders(dir.path()).database;
    std::fs::write(&path, "").unwrap();
    schema::mark(&path).unwrap();
    let mut connection = open::writer(&path).unwrap();
    let known: Vec<_> = schema::runner().get_migrations().clone();
    let known: Vec<_> = known.into_iter().filter(|one| one.version() <= version).collect();
    schema::migrate_with(&mut connection, 0, Runner::new(&known)).unwrap();
    let id = ServiceId::new("a").unwrap();
    let state = serde_json::to_string(&ServiceState::registered(id, noon())).unwrap();
    connection
        .execute(
            "INSERT INTO service_state (service, incarnation, sequence, state) VALUES ('a', 0, 1, ?1)",
            [state],
        )
        .unwrap();
    dir
}

fn with(extra: &'static str) -> impl Fn() -> Runner {
    move || {
        let mut all = schema::runner().get_migrations().clone();
        all.push(Migration::unapplied("V98__extra", extra).unwrap());
        Runner::new(&all)
    }
}

fn try_open(dir: &Path, runner: &dyn Fn() -> Runner) -> Result<Opened, DatabaseError> {
    let request = Request {
        folders: &folders(dir),
        checkpoint_dir: &dir.join("checkpoints"),
        at: noon(),
        set_aside: false,
        from_backup: None,
    };
    open_with(request, runner)
}

/// Version, rows of the state table, structure, and whether a table is there.
fn look(database: &Path, table: &str) -> (u32, u64, String, bool) {
    let connection = open::reader(database).unwrap();
    let number = |query: &str| connection.query_row(query, [], |row| row.get::<_, u32>(0)).unwrap();
    let there = format!("SELECT count(*) FROM sqlite_schema WHERE name = '{table}'");
    let structure = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    let rows = number("SELECT count(*) FROM service_state");
    (number("PRAGMA user_version"), u64::from(rows), structure, number(&there) > 0)
}

#[test]
fn a_pending_migration_waits_for_a_proven_backup_of_what_is_there() {
    let dir = old(4);
    let opened = try_open(dir.path(), &schema::runner).unwrap();
    let done = opened.report.migrated.unwrap();
    assert_eq!((done.from, done.to), (4, schema::supported()));
    let backups = backup::list(&folders(dir.path()).backups);
    assert_eq!(backups.len(), 1);
    assert_eq!(backups[0].name, done.backup);
    assert_eq!(backups[0].content.schema_version, 4);
    assert_eq!(backups[0].content.rows["service_state"], 1);
    let reason = BackupReason::BeforeMigration { from: 4, to: schema::supported() };
    assert_eq!(backups[0].reason, reason);
}

#[test]
fn a_new_database_is_migrated_without_a_backup_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let opened = try_open(dir.path(), &schema::runner).unwrap();
    assert_eq!(opened.report.migrated, None);
    assert_eq!(opened.report.database, DatabaseOrigin::New);
    assert!(backup::list(&folders(dir.path()).backups).is_empty());
}

#[test]
fn a_migration_that_fails_leaves_the_file_as_it_was_and_one_backup_however_often_it_is_tried() {
    let dir = old(4);
    let database = folders(dir.path()).database;
    for _ in 0..3 {
        let failed = try_open(dir.path(), &with("CREATE TABLE half (a); SELECT nonsense(;"));
        let failed = failed.unwrap_err();
        let expected = matches!(
            failed,
            DatabaseError::Migration(MigrationError::Failed { from: 4, to: 98, .. })
        );
        assert!(expected, "{failed}");
        assert_eq!(look(&database, "half"), (4, 1, "ok".to_owned(), false));
        assert_eq!(backup::list(&folders(dir.path()).backups).len(), 1);
    }
    assert!(try_open(dir.path(), &schema::runner).is_ok(), "the program before still works");
}

#[test]
fn a_migration_that_broke_out_of_its_transaction_is_undone_from_the_backup() {
    let dir = old(4);
    let places = folders(dir.path());
    let failed = try_open(
        dir.path(),
        &with("COMMIT; CREATE TABLE half (a); PRAGMA user_version = 77; BEGIN; SELECT nonsense(;"),
    );
    assert!(matches!(failed, Err(DatabaseError::Migration(MigrationError::Failed { .. }))));
    assert_eq!(look(&places.database, "half"), (4, 1, "ok".to_owned(), false));
    let kept = std::fs::read_dir(&places.quarantine).unwrap().next().unwrap().unwrap().path();
    assert!(kept.join("supervisor.db").exists(), "what the migration made of it is kept");
    assert!(try_open(dir.path(), &schema::runner).is_ok());
}

#[test]
fn a_backup_that_cannot_be_taken_stops_the_migration() {
    let dir = old(4);
    std::fs::write(dir.path().join("backups"), "in the way").unwrap();
    let failed = try_open(dir.path(), &schema::runner).unwrap_err();
    assert!(matches!(failed, DatabaseError::Migration(MigrationError::Backup { .. })), "{failed}");
    assert_eq!(look(&folders(dir.path()).database, "recovery").0, 4);
}

/// The child of the next test; alone it does nothing.
#[test]
fn child_that_dies_in_a_migration() {
    let (Some(dir), Ok(at)) = (std::env::var_os(DIE_IN), std::env::var(DIE_AT)) else { return };
    let mut connection = open::writer(&folders(&PathBuf::from(dir)).database).unwrap();
    let at: u32 = at.parse().unwrap();
    let mut seen = 0;
    connection
        .update_hook(Some(move |_: Action, _: &str, table: &str, _: i64| {
            if table == "refinery_schema_history" {
                seen += 1;
                if seen == at {
                    std::process::abort();
                }
            }
        }))
        .unwrap();
    schema::migrate(&mut connection, 4).unwrap();
}

#[test]
fn scenario_02_a_kill_between_a_migration_and_its_record_leaves_all_or_nothing() {
    let mut deaths = 0;
    for at in 1..100 {
        let dir = old(4);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ladder::tests::child_that_dies_in_a_migration", "--nocapture"])
            .env(DIE_IN, dir.path())
            .env(DIE_AT, at.to_string())
            .output()
            .unwrap();
        if child.status.success() {
            break;
        }
        deaths += 1;
        let before = look(&folders(dir.path()).database, "recovery");
        assert_eq!(before, (4, 1, "ok".to_owned(), false), "killed at record {at}");
        let opened = try_open(dir.path(), &schema::runner).unwrap();
        assert_eq!(opened.report.migrated.unwrap().to, schema::supported());
    }
    let pending = schema::runner().get_migrations().iter().filter(|one| one.version() > 4).count();
    assert_eq!(deaths, pending, "one death for each record");
}

#[test]
fn scenario_05_an_edited_migration_is_refused_before_anything_is_written() {
    for version in [4, i32::try_from(schema::supported()).unwrap()] {
        let dir = old(version);
        let places = folders(dir.path());
        let connection = rusqlite::Connection::open(&places.database).unwrap();
        let edit = "UPDATE refinery_schema_history SET checksum = '1' WHERE version = 3";
        connection.execute(edit, []).unwrap();
        drop(connection);
        let before = std::fs::read(&places.database).unwrap();
        let refused = try_open(dir.path(), &schema::runner).unwrap_err();
        let expected = matches!(
            refused,
            DatabaseError::Migration(MigrationError::Divergent { version: 3, .. })
        );
        assert!(expected, "{refused}");
        assert_eq!(std::fs::read(&places.database).unwrap(), before);
        assert!(
            backup::list(&places.backups).is_empty(),
            "no backup before a migration that is refused"
        );
    }
}

#[test]
fn notes_are_kept_up_to_their_bound_and_the_newest_stay() {
    let dir = tempfile::tempdir().unwrap();
    let opened = try_open(dir.path(), &schema::runner).unwrap();
    let connection = opened.connection;
    connection.execute_batch("BEGIN").unwrap();
    for n in 0..1100 {
        let reason = format!("reason {n}");
        super::notes::add(&connection, 0, super::NoteKind::Rejected, "x", &reason, false).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
    let kept = super::notes::read(&connection, 5000).unwrap();
    assert_eq!(kept.len(), 1000);
    assert_eq!(kept[0].reason, "reason 1099");
}

#[test]
fn a_kill_between_the_migrations_and_the_version_in_the_header_is_noticed_and_mended() {
    let dir = old(4);
    let database = folders(dir.path()).database;
    drop(try_open(dir.path(), &schema::runner).unwrap());
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.execute_batch("PRAGMA user_version = 4;").unwrap();
    drop(connection);
    let opened = try_open(dir.path(), &schema::runner).unwrap();
    assert_eq!(opened.report.database, DatabaseOrigin::AsFound);
    assert_eq!(opened.report.migrated, None);
    drop(opened);
    assert_eq!(look(&database, "recovery").0, schema::supported());
    assert_eq!(backup::list(&folders(dir.path()).backups).len(), 1, "no backup before nothing");
}

#[tokio::test]
async fn a_backup_from_before_a_migration_is_brought_up_to_date_as_a_copy_and_restored() {
    let dir = old(4);
    let store = StatePersistence::new(folders(dir.path()).database, dir.path().join("c"));
    let store = store.await.unwrap();
    let done = store.recovery_report().await.unwrap().migrated.unwrap();
    let known = StateStore::load(&store).await.unwrap();
    assert_eq!(known.len(), 1);
    StateStore::remove(&store, &known[0].id).await.unwrap();
    let file = folders(dir.path()).backups.join(format!("{}.db", done.backup));
    let before = std::fs::read(&file).unwrap();
    store.restore_backup(&done.backup).await.unwrap();
    assert_eq!(StateStore::load(&store).await.unwrap(), known);
    assert_eq!(std::fs::read(&file).unwrap(), before, "the backup itself stays as it was");
    store.close().await.unwrap();
    // Whole, in the place of the database, it is migrated like any other.
    let store = StatePersistence::builder(folders(dir.path()).database, dir.path().join("c"));
    let store = store.go_back_to(done.backup).open().await.unwrap();
    assert_eq!(store.recovery_report().await.unwrap().migrated.unwrap().from, 4);
    assert_eq!(StateStore::load(&store).await.unwrap(), known);
}

#[test]
fn the_look_at_the_structure_ends_when_its_time_is_over_and_says_that_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let mut connection = rusqlite::Connection::open(dir.path().join("large.db")).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t (x);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
             INSERT INTO t SELECT hex(randomblob(250)) FROM n;",
        )
        .unwrap();
    for thorough in [true, false] {
        let mut look = |cap| check_structure(&mut connection, thorough, cap).unwrap();
        assert_eq!(look(Some(std::time::Duration::ZERO)), StructureCheck::Partial);
        assert_eq!(look(None), StructureCheck::Complete, "the cap is taken away again");
    }
}
