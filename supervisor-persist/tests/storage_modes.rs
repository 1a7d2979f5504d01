//! Disk full, failed syncs and pinned logs: what callers are told, what still works, and the way back without a restart.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use chrono::DateTime;
use supervisor_core::error::{Classified, DatabaseError, ErrorClass};
use supervisor_core::journal::{Actor, AuditAction, AuditRecord, Transition};
use supervisor_core::ports::{AuditLog, DedupStore, Journal, StateStore};
use supervisor_core::state::{Phase, ServiceState};
use supervisor_core::{Incarnation, Sequence, ServiceId};
use supervisor_persist::testing::{FaultPlan, How, Op};
use supervisor_persist::{Durability, StatePersistence, StatePersistenceBuilder, StorageMode};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

fn transition(id: &str, incarnation: u64) -> Transition {
    let mut state = ServiceState::registered(ServiceId::new(id).unwrap(), DateTime::UNIX_EPOCH);
    state.incarnation = Incarnation(incarnation);
    Transition { state, from: Phase::Starting, cause: "running".into() }
}

fn builder(dir: &std::path::Path) -> StatePersistenceBuilder {
    StatePersistence::builder(dir.join("s.db"), dir.join("c"))
        .hold_writes(Duration::from_millis(50))
}

async fn in_mode(store: &StatePersistence, wanted: StorageMode) {
    let mut status = store.watch_storage();
    let waited = tokio::time::timeout(PATIENCE, status.wait_for(|status| status.mode == wanted));
    let reached = waited.await;
    assert!(reached.is_ok(), "not {wanted} but {:?}", store.mode());
}

async fn rows(store: &StatePersistence) -> usize {
    Journal::read(store, Sequence::ZERO, 10_000).await.unwrap().len()
}

async fn faulty() -> (TempDir, FaultPlan, StatePersistence) {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::watch(dir.path()).unwrap();
    let store = builder(dir.path()).open().await.unwrap();
    store.record(vec![transition("before", 1)]).await.unwrap();
    (dir, plan, store)
}

#[tokio::test]
async fn scenario_10_after_a_failed_sync_nothing_is_acknowledged_on_that_connection_and_the_group_is_there_once()
 {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::watch(dir.path()).unwrap();
    let store = builder(dir.path()).hold_writes(PATIENCE).open().await.unwrap();
    store.record(vec![transition("before", 1)]).await.unwrap();
    // Every sync fails, that of the close too: the log stays with the whole group in it, and opening anew finds it there.
    plan.arm(1, How::PersistentSync);
    let write = tokio::spawn({
        let store = store.clone();
        async move { store.record(vec![transition("during", 1)]).await }
    });
    in_mode(&store, StorageMode::Reopening).await;
    let began = Instant::now();
    while plan.fired().len() < 5 {
        assert!(began.elapsed() < PATIENCE, "it was not tried again");
        // poll: until opening anew has failed once more, at most 30 s.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!write.is_finished(), "nobody is told before it is known");
    plan.disarm();
    write.await.unwrap().unwrap();
    assert_eq!(rows_named(&store, "during").await, 1, "committed, so not run again");
    in_mode(&store, StorageMode::Normal).await;
    store.record(vec![transition("after", 1)]).await.unwrap();
    store.close().await.unwrap();
}

async fn rows_named(store: &StatePersistence, id: &str) -> usize {
    let rows = Journal::read(store, Sequence::ZERO, 10_000).await.unwrap();
    rows.iter().filter(|row| row.service.as_str() == id).count()
}

#[tokio::test]
async fn a_sync_that_fails_once_is_not_noticed_by_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::watch(dir.path()).unwrap();
    let store = builder(dir.path()).hold_writes(PATIENCE).open().await.unwrap();
    for round in 1..=4 {
        // The calls of a commit: some writes to the log, then its sync.
        plan.arm(round, How::Once);
        store.record(vec![transition("a", round)]).await.unwrap();
        plan.disarm();
        assert_eq!(rows(&store).await, usize::try_from(round).unwrap(), "exactly once");
    }
    in_mode(&store, StorageMode::Normal).await;
    store.close().await.unwrap();
}

#[tokio::test]
async fn syncs_that_go_on_failing_degrade_the_store_and_it_returns_by_itself() {
    let (_dir, plan, store) = faulty().await;
    plan.arm(1, How::PersistentSync);
    let error = store.record(vec![transition("during", 1)]).await.unwrap_err();
    assert!(matches!(error, DatabaseError::Unknown { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
    in_mode(&store, StorageMode::Degraded).await;
    let began = Instant::now();
    let error = store.record(vec![transition("refused", 1)]).await.unwrap_err();
    assert!(matches!(error, DatabaseError::Busy { .. }), "{error}");
    assert!(began.elapsed() < PATIENCE / 2, "refused at once");
    assert_eq!(rows_named(&store, "before").await, 1, "reads work");
    plan.disarm();
    in_mode(&store, StorageMode::Normal).await;
    store.record(vec![transition("after", 1)]).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_write_repeated_after_an_unknown_outcome_is_there_once() {
    let (_dir, plan, store) = faulty().await;
    let audit = AuditRecord {
        actor: Actor::Host,
        action: AuditAction::Configuration,
        subject: "svc".into(),
        detail: "changed".into(),
    };
    plan.arm(1, How::PersistentSync);
    // All in one group with an unknown outcome.
    let (state, row, sight) = tokio::join!(
        store.record(vec![transition("during", 1)]),
        AuditLog::append(&store, audit.clone()),
        store.first_sight("key", b"mine", PATIENCE),
    );
    let unknown = [
        matches!(state, Err(DatabaseError::Unknown { .. })),
        matches!(row, Err(DatabaseError::Unknown { .. })),
        matches!(sight, Err(DatabaseError::Unknown { .. })),
    ];
    assert!(unknown[0], "{state:?}");
    plan.disarm();
    in_mode(&store, StorageMode::Normal).await;
    store.record(vec![transition("during", 1)]).await.unwrap();
    AuditLog::append(&store, audit).await.unwrap();
    assert_eq!(
        store.first_sight("key", b"mine", PATIENCE).await.unwrap(),
        None,
        "it is its own first sight"
    );
    assert_eq!(rows_named(&store, "during").await, 1);
    assert_eq!(AuditLog::head(&store).await.unwrap(), Sequence(1));
    store.close().await.unwrap();
}

fn syncs(plan: &FaultPlan) -> usize {
    plan.ops().iter().filter(|op| **op == Op::Sync).count()
}

#[tokio::test]
async fn a_write_that_may_wait_is_synced_with_the_next_one_that_may_not_or_by_itself() {
    let (_dir, plan, store) = faulty().await;
    let soon = store.with_durability(Durability::Soon);
    let mut round = 1;
    loop {
        let (began, before) = (Instant::now(), syncs(&plan));
        soon.record(vec![transition("noise", round)]).await.unwrap();
        round += 1;
        if syncs(&plan) == before {
            break;
        }
        // On a stalled machine it was late already, which is the other rule.
        assert!(began.elapsed() > Duration::from_millis(900), "synced at once");
    }
    assert_eq!(rows_named(&store, "noise").await as u64, round - 1, "acknowledged and read");
    let before = syncs(&plan);
    let (quiet, loud) = tokio::join!(
        soon.record(vec![transition("noise", round)]),
        store.record(vec![transition("kept", 1)]),
    );
    quiet.and(loud).unwrap();
    assert!(syncs(&plan) > before, "one that is synced syncs for all");
    let before = syncs(&plan);
    soon.record(vec![transition("noise", round + 1)]).await.unwrap();
    let began = Instant::now();
    while syncs(&plan) == before {
        assert!(began.elapsed() < PATIENCE, "it was never synced");
        // poll: until the thread that writes is idle for a second, at most 30 s.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_audit_row_and_a_checkpoint_are_synced_whatever_the_handle_says() {
    let (_dir, plan, store) = faulty().await;
    let soon = store.with_durability(Durability::Soon);
    let audit = AuditRecord {
        actor: Actor::Host,
        action: AuditAction::Configuration,
        subject: "svc".into(),
        detail: "changed".into(),
    };
    let before = syncs(&plan);
    AuditLog::append(&soon, audit).await.unwrap();
    let between = syncs(&plan);
    assert!(between > before, "an audit row");
    soon.create_checkpoint(&Default::default(), &Default::default()).await.unwrap();
    assert!(syncs(&plan) > between + 1, "a checkpoint, in the database and as a file");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_is_full_for_a_moment_is_not_noticed_by_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::watch(dir.path()).unwrap();
    let store = builder(dir.path()).hold_writes(PATIENCE).open().await.unwrap();
    store.record(vec![transition("before", 1)]).await.unwrap();
    plan.arm(1, How::PersistentFull);
    let write = tokio::spawn({
        let store = store.clone();
        async move { store.record(vec![transition("during", 1)]).await }
    });
    in_mode(&store, StorageMode::DiskFull).await;
    // Every try to return takes the reserve for a moment, so it may be seen there once.
    let began = Instant::now();
    while dir.path().join("s.db.reserve").exists() {
        assert!(began.elapsed() < PATIENCE, "the reserve is given up");
        // poll: until the next try has failed, at most 30 s.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    plan.disarm();
    write.await.unwrap().unwrap();
    in_mode(&store, StorageMode::Normal).await;
    assert!(dir.path().join("s.db.reserve").exists(), "and taken again");
    assert_eq!(rows_named(&store, "during").await, 1);
    store.close().await.unwrap();
}

#[cfg(target_os = "linux")]
mod full_disk {
    use super::*;

    /// A file system of its own, unmounted at the end.
    struct Small(TempDir);

    impl Small {
        fn mount(bytes: u64) -> Option<Self> {
            let dir = tempfile::tempdir().unwrap();
            let mounted = std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"])
                .arg(dir.path())
                .output();
            match mounted {
                Ok(output) if output.status.success() => Some(Self(dir)),
                _ => None,
            }
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            drop(std::process::Command::new("umount").arg(self.0.path()).output());
        }
    }

    #[tokio::test]
    async fn scenario_09_a_full_disk_refuses_writes_answers_reads_and_recovers_without_a_restart() {
        let Some(small) = Small::mount(1 << 20) else {
            eprintln!("LEFT OUT: mounting a file system of 1 MB is not permitted here");
            return;
        };
        let dir = small.0.path();
        let store = builder(dir).reserve(128 << 10).open().await.unwrap();
        store.record(vec![transition("before", 1)]).await.unwrap();
        // Somebody else takes every block, again and again.
        let mut acknowledged = 1;
        let error = loop {
            let hog = dir.join(format!("hog{acknowledged}"));
            std::fs::write(&hog, vec![1; 2 << 20]).unwrap_err();
            match store.record(vec![transition("during", acknowledged)]).await {
                Ok(_) => acknowledged += 1,
                Err(error) => break error,
            }
            assert!(acknowledged < 1000, "the disk never becomes full");
        };
        assert!(matches!(error, DatabaseError::DiskFull { .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::Transient, "a retry helps");
        assert_eq!(store.mode(), StorageMode::DiskFull);
        assert_eq!(rows(&store).await as u64, acknowledged, "reads work");
        for hog in 1..=acknowledged {
            std::fs::remove_file(dir.join(format!("hog{hog}"))).unwrap();
        }
        in_mode(&store, StorageMode::Normal).await;
        assert_eq!(std::fs::metadata(dir.join("s.db.reserve")).unwrap().len(), 128 << 10);
        store.record(vec![transition("after", 1)]).await.unwrap();
        store.close().await.unwrap();
        let store = builder(dir).reserve(128 << 10).open().await.unwrap();
        assert_eq!(rows_named(&store, "after").await, 1);
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_store_opened_on_a_disk_without_room_for_the_reserve_says_so_and_reads() {
        let Some(small) = Small::mount(1 << 20) else {
            eprintln!("LEFT OUT: mounting a file system of 1 MB is not permitted here");
            return;
        };
        let store = builder(small.0.path()).reserve(4 << 20).open().await.unwrap();
        in_mode(&store, StorageMode::DiskFull).await;
        assert_eq!(rows(&store).await, 0);
        assert!(store.record(vec![transition("a", 1)]).await.is_err());
        drop(store.close().await);
    }
}

#[tokio::test]
async fn scenario_11_a_reader_that_pins_the_log_raises_the_alarm_is_cut_off_and_the_log_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let store = builder(dir.path())
        .wal_alarm(4 << 20)
        .reader_deadline(Duration::from_secs(3))
        .open()
        .await
        .unwrap();
    store.record(vec![transition("before", 1)]).await.unwrap();
    let reader = tokio::spawn({
        let store = store.clone();
        async move { store.question_without_end().await }
    });
    let began = Instant::now();
    let mut status = store.watch_storage();
    let mut n = 0;
    while !status.borrow_and_update().wal_alarm {
        n += 1;
        store.record((0..50).map(|s| transition(&format!("s{s}"), n)).collect()).await.unwrap();
        assert!(began.elapsed() < PATIENCE, "no alarm at {} bytes", store.wal_bytes());
        if reader.is_finished() {
            break;
        }
    }
    assert!(store.wal_bytes() > 4 << 20 || !reader.is_finished(), "the log was pinned");
    assert!(status.borrow().wal_alarm, "the alarm came while the reader was there");
    let cut = reader.await.unwrap().unwrap_err();
    assert!(matches!(cut, DatabaseError::Busy { .. }), "{cut}");
    // Idle, the log is cut to nothing.
    let calm = tokio::time::timeout(PATIENCE, status.wait_for(|status| !status.wal_alarm));
    calm.await.unwrap().unwrap();
    let log = std::fs::metadata(dir.path().join("s.db-wal")).unwrap().len();
    assert_eq!((log, store.wal_bytes()), (0, 0));
    store.close().await.unwrap();
}
