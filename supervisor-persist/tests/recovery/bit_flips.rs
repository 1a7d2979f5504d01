//! A single flipped bit anywhere in the database is noticed, or changes nothing anybody reads.

use std::fs;
use std::path::Path;

use supervisor_core::Sequence;
use supervisor_core::checkpoint::Checkpoint;
use supervisor_core::error::DatabaseError;
use supervisor_core::journal::{AuditEntry, JournalEntry};
use supervisor_core::ports::{AuditLog, CheckpointStore, Journal, StateStore};
use supervisor_core::state::ServiceState;
use supervisor_persist::StatePersistence;

use crate::common::{Place, add_audit_row, record, services, state};

/// Flips tried in an ordinary run; `PERSIST_FLIPS` sets another number, `PERSIST_FLIP_SEED` where they begin.
const FLIPS: u64 = 60;

type Seen = (Vec<ServiceState>, Vec<JournalEntry>, Vec<AuditEntry>, Option<Checkpoint>);

async fn look(store: &StatePersistence) -> Result<Seen, DatabaseError> {
    Ok((
        StateStore::load(store).await?,
        Journal::read(store, Sequence::ZERO, 1000).await?,
        AuditLog::read(store, Sequence::ZERO, 80).await?,
        CheckpointStore::restore(store).await?.checkpoint,
    ))
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Opens a store with one bit flipped; says how it was noticed, or nothing if everything is as it was.
async fn noticed(place: &Place, wanted: &Seen) -> Result<Option<&'static str>, String> {
    let Ok(store) = place.try_open().await else { return Ok(Some("refused")) };
    let seen = look(&store).await;
    let intact = AuditLog::verify(&store).await.is_ok_and(|found| found.intact);
    let attention = store.recovery_report().await.map_or(true, |report| report.needs_attention());
    drop(store.close().await);
    match seen {
        Err(_) => Ok(Some("a question failed")),
        Ok(_) if attention => Ok(Some("reported")),
        Ok(_) if !intact => Ok(Some("the trail does not verify")),
        Ok(seen) if seen == *wanted => Ok(None),
        Ok(_) => Err("something else was read and nobody said so".to_owned()),
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_in_the_database_is_noticed_or_harmless() {
    let original = Place::new();
    let store = original.open().await;
    for n in 0..40 {
        record(&store, &format!("s{}", n % 7), n).await;
        add_audit_row(&store, "a row").await;
    }
    store.create_checkpoint(&services(&[state("a", 1)]), &Vec::new()).await.unwrap();
    for n in 40..80 {
        record(&store, &format!("s{}", n % 7), n).await;
    }
    store.close().await.unwrap();
    let store = original.open().await;
    let wanted = look(&store).await.unwrap();
    store.close().await.unwrap();
    let bytes = fs::read(original.database()).unwrap();
    let mut seed = number("PERSIST_FLIP_SEED", 1);
    let mut found = 0_u64;
    let flips = number("PERSIST_FLIPS", FLIPS);
    for _ in 0..flips {
        let place = Place::new();
        copy_files(original.dir.path(), place.dir.path());
        copy_files(&original.path("checkpoints"), &place.path("checkpoints"));
        // Knuth's MMIX generator: the place and the bit from its upper half.
        let this = seed;
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from((seed >> 20) % bytes.len() as u64).unwrap();
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << ((seed >> 60) % 8);
        fs::write(place.database(), flipped).unwrap();
        match noticed(&place, &wanted).await {
            Ok(how) => found += u64::from(how.is_some()),
            Err(what) => {
                assert_eq!(what, "", "byte {at}; again: PERSIST_FLIP_SEED={this} PERSIST_FLIPS=1");
            }
        }
    }
    println!("{found} of {flips} flips were noticed, the others changed nothing");
    assert!(found > 0 || flips < FLIPS, "flips that nobody notices prove nothing");
}
