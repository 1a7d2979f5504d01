//! The examination: each thing that can be wrong shows in its line, with what to do about it.

use std::fs;
use std::time::Duration;

use supervisor_core::journal::Actor;
use supervisor_persist::{BackupReason, DoctorLine, DoctorReport, DoctorVerdict, examine};

use crate::common::{
    Place, add_audit_row, content, flip_bit, hash, noon, record, services, state, tamper,
};

/// Everything the examination looks at in a store that can be opened.
const NAMES: [&str; 15] = [
    "sqlite",
    "filesystem",
    "space",
    "modes",
    "owner",
    "database",
    "pragmas",
    "structure",
    "wal",
    "checkpoints",
    "audit",
    "recovery",
    "backups",
    "savepoints",
    "quarantine",
];

fn line<'a>(report: &'a DoctorReport, name: &str) -> &'a DoctorLine {
    report.lines.iter().find(|line| line.name == name).unwrap()
}

fn look(place: &Place) -> DoctorReport {
    examine(&place.database(), &place.path("checkpoints"), noon())
}

/// A store with everything a healthy one has.
async fn healthy(place: &Place) {
    let store = place.open().await;
    record(&store, "a", 1).await;
    add_audit_row(&store, "row").await;
    store.create_checkpoint(&services(&[state("a", 1)]), &Vec::new()).await.unwrap();
    store.create_backup(BackupReason::Requested).await.unwrap();
    store.create_savepoint("one", "", content(&[state("a", 1)])).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_healthy_store_is_well_in_every_line_open_or_closed() {
    let place = Place::new();
    healthy(&place).await;
    let report = look(&place);
    let names: Vec<_> = report.lines.iter().map(|line| line.name.as_str()).collect();
    assert_eq!(names, NAMES);
    for line in
        report.lines.iter().filter(|line| !["filesystem", "space"].contains(&line.name.as_str()))
    {
        assert_eq!((line.verdict, line.advice.as_str()), (DoctorVerdict::Ok, ""), "{line:?}");
    }
    let store = place.open().await;
    let report = store.doctor().await.unwrap();
    assert_eq!(line(&report, "audit_chain").verdict, DoctorVerdict::Ok);
    // The store still holds what it holds after it was looked at.
    record(&store, "b", 1).await;
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<DoctorReport>(&text).unwrap(), report);
}

#[tokio::test]
async fn what_is_wrong_shows_in_its_line_with_advice_and_nothing_is_touched() {
    type Break = fn(&Place);
    let cases: [(&str, DoctorVerdict, Break); 9] = [
        ("database", DoctorVerdict::Fail, |place| {
            tamper(&place.database(), "PRAGMA user_version = 99");
        }),
        ("database", DoctorVerdict::Fail, |place| {
            fs::write(place.database(), "not a database at all").unwrap();
        }),
        ("database", DoctorVerdict::Warn, |place| fs::remove_file(place.database()).unwrap()),
        ("structure", DoctorVerdict::Fail, |place| {
            let mut bytes = fs::read(place.database()).unwrap();
            let from = bytes.len() - 3 * 4096;
            bytes[from..].fill(0xa5);
            fs::write(place.database(), bytes).unwrap();
        }),
        ("checkpoints", DoctorVerdict::Warn, |place| {
            flip_bit(&place.path("checkpoints/checkpoint-00000001.json"), 30, 1);
        }),
        ("audit", DoctorVerdict::Fail, |place| {
            tamper(
                &place.database(),
                "DROP TRIGGER IF EXISTS audit_is_pruned_under_a_seal; DELETE FROM audit WHERE sequence > 1",
            );
        }),
        ("backups", DoctorVerdict::Fail, |place| {
            let manifest =
                place.files("backups").into_iter().find(|file| file.ends_with(".manifest"));
            flip_bit(&place.path("backups").join(manifest.unwrap()), 30, 1);
        }),
        ("savepoints", DoctorVerdict::Warn, |place| {
            flip_bit(&place.path("savepoints/one.savepoint"), 200, 1);
        }),
        ("quarantine", DoctorVerdict::Warn, |place| {
            fs::create_dir(place.path("quarantine")).unwrap();
            fs::write(place.path("quarantine/x"), "x").unwrap();
        }),
    ];
    for (name, verdict, wreck) in cases {
        let place = Place::new();
        healthy(&place).await;
        wreck(&place);
        let before = place.database().exists().then(|| hash(&place.database()));
        let report = look(&place);
        let found = line(&report, name);
        assert_eq!(found.verdict, verdict, "{found:?}");
        assert!(!found.advice.is_empty(), "{found:?}");
        assert!(report.verdict() >= verdict);
        assert_eq!(place.database().exists().then(|| hash(&place.database())), before, "{name}");
    }
}

#[tokio::test]
async fn an_old_backup_and_findings_nobody_looked_at_are_warned_of() {
    let place = Place::new();
    healthy(&place).await;
    let later = noon() + Duration::from_secs(49 * 3600);
    let report = examine(&place.database(), &place.path("checkpoints"), later);
    assert_eq!(line(&report, "backups").verdict, DoctorVerdict::Warn);
    flip_bit(&place.path("checkpoints/checkpoint-00000001.json"), 30, 1);
    tamper(&place.database(), "UPDATE checkpoint SET payload = x'00'");
    let store = place.open().await;
    drop(store.load_latest_checkpoint().await);
    assert_eq!(line(&store.doctor().await.unwrap(), "recovery").verdict, DoctorVerdict::Warn);
    store.settle_recovery(Actor::Operator).await.unwrap();
    assert_eq!(line(&store.doctor().await.unwrap(), "recovery").verdict, DoctorVerdict::Ok);
}

#[cfg(unix)]
#[tokio::test]
async fn files_that_others_may_use_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    healthy(&place).await;
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(place.path("savepoints/one.savepoint"), open).unwrap();
    let report = look(&place);
    let found = line(&report, "modes");
    assert_eq!(found.verdict, DoctorVerdict::Warn);
    assert!(found.found.contains("one.savepoint (644)"), "{}", found.found);
}
