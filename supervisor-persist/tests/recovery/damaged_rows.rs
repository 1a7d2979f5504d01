//! One damaged row keeps nobody from the others: it is moved away, kept, noted and audited.

use chrono::DateTime;
use supervisor_core::Sequence;
use supervisor_core::event::{EVENT_VERSION, EventKind, SupervisorEvent};
use supervisor_core::message::{DeadLetter, IpcMessage, OutboxEntry};
use supervisor_core::ports::{EventStore, Journal, Outbox, StateStore};
use supervisor_persist::{NoteKind, StatePersistence};
use uuid::Uuid;

use crate::common::{Place, audited, record, services, state, tamper};

fn event(n: u64) -> SupervisorEvent {
    SupervisorEvent {
        version: EVENT_VERSION,
        id: Uuid::from_u128(n.into()),
        sequence: Sequence(n),
        at: DateTime::UNIX_EPOCH,
        kind: EventKind::BackupFailed { reason: "test".into() },
    }
}

fn entry(n: u128) -> OutboxEntry {
    let message = IpcMessage {
        id: Uuid::from_u128(n),
        message_type: "t".into(),
        payload: serde_json::json!({ "n": "x" }),
        timestamp: DateTime::UNIX_EPOCH,
        retry_count: 0,
    };
    OutboxEntry { sequence: Sequence::ZERO, channel: "c".into(), message, expires_at: None }
}

/// Three of everything.
async fn filled(place: &Place) {
    let store = place.open().await;
    for (n, name) in (1..).zip(["a", "b", "c"]) {
        record(&store, name, n).await;
        EventStore::append(&store, vec![event(n)]).await.unwrap();
        store.enqueue(entry(n.into())).await.unwrap();
        let letter = DeadLetter {
            channel: "c".into(),
            message: entry(u128::from(n) + 100).message,
            at: DateTime::UNIX_EPOCH,
            cause: "poison".into(),
            generations: Vec::new(),
            kept_because: None,
        };
        store.bury(letter).await.unwrap();
    }
    store.close().await.unwrap();
}

/// How many of everything can be read.
async fn counts(store: &StatePersistence) -> [usize; 5] {
    [
        StateStore::load(store).await.unwrap().len(),
        Journal::read(store, Sequence::ZERO, 10).await.unwrap().len(),
        EventStore::read(store, Sequence::ZERO, 10).await.unwrap().len(),
        store.pending("c", Sequence::ZERO, 10).await.unwrap().len(),
        store.dead_letters(None, 10).await.unwrap().len(),
    ]
}

#[tokio::test]
async fn a_damaged_row_of_any_table_is_moved_away_and_the_others_are_read() {
    let cases = [
        (
            "UPDATE service_state SET state = replace(state, 'running', 'sunning') WHERE service = 'b'",
            "service_state b",
            0,
        ),
        (
            "UPDATE service_state SET incarnation = incarnation + 4294967296 WHERE service = 'b'",
            "service_state b",
            0,
        ),
        ("UPDATE journal SET cause = 'x' WHERE sequence = 2", "journal 2", 1),
        ("UPDATE event SET body = replace(body, 'test', 'tesu') WHERE sequence = 2", "event 2", 2),
        ("UPDATE event SET at = at + 1 WHERE sequence = 2", "event 2", 2),
        (
            "UPDATE outbox SET message = replace(message, 'x', 'y') WHERE sequence = 2",
            "outbox 2",
            3,
        ),
        // Bytes that are no text any more, as one flipped bit makes them.
        (
            "UPDATE service_state SET state = CAST(x'7bff7d' AS TEXT) WHERE service = 'b'",
            "service_state b",
            0,
        ),
        ("UPDATE journal SET reason = CAST(x'ff' AS TEXT) WHERE sequence = 2", "journal 2", 1),
        ("UPDATE event SET body = CAST(x'ff' AS TEXT) WHERE sequence = 2", "event 2", 2),
        ("UPDATE outbox SET message = CAST(x'ff' AS TEXT) WHERE sequence = 2", "outbox 2", 3),
        (
            "UPDATE dead_letter SET letter = replace(letter, 'poison', 'poisoo') WHERE number = 2",
            "dead_letter 00000000-0000-0000-0000-000000000066",
            4,
        ),
    ];
    for (damage, subject, place_of) in cases {
        let place = Place::new();
        filled(&place).await;
        tamper(&place.database(), damage);
        let store = place.open().await;
        let mut expected = [3; 5];
        expected[place_of] = 2;
        for _ in 0..2 {
            assert_eq!(counts(&store).await, expected, "{damage}");
        }
        assert!(audited(&store, subject, "digest").await, "{damage}");
        let notes = store.recovery_report().await.unwrap().notes;
        let about =
            notes.iter().filter(|note| note.kind == NoteKind::Damaged && note.subject == subject);
        assert_eq!(about.count(), 1, "{damage}: {notes:?}");
        store.close().await.unwrap();
        let connection = rusqlite::Connection::open(place.database()).unwrap();
        let kept: String =
            connection.query_row("SELECT content FROM damaged_row", [], |row| row.get(0)).unwrap();
        assert!(kept.contains("digest"), "the whole row is kept: {kept}");
    }
}

#[tokio::test]
async fn a_service_whose_state_is_damaged_is_known_from_the_checkpoint_and_goes_on() {
    let place = Place::new();
    filled(&place).await;
    let store = place.open().await;
    store.create_checkpoint(&services(&[state("b", 2)]), &Vec::new()).await.unwrap();
    store.close().await.unwrap();
    // So high that no later run would ever be written over it.
    tamper(
        &place.database(),
        "UPDATE service_state SET incarnation = 9000000000 WHERE service = 'b'",
    );
    let store = place.open().await;
    let content = store.stored_content().await.unwrap();
    assert_eq!(content.services.len(), 3);
    assert_eq!(content.services["b"], state("b", 2));
    record(&store, "b", 3).await;
    let states = StateStore::load(&store).await.unwrap();
    assert!(states.contains(&state("b", 3)), "{states:?}");
}
