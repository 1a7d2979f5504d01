//! Every query in the crate's source fits an index, and every table that grows has a bound.

use std::fs;
use std::path::Path;
use std::time::Duration;

use chrono::DateTime;
use supervisor_core::Sequence;
use supervisor_core::error::DatabaseError;
use supervisor_core::event::{EVENT_VERSION, EventKind, SupervisorEvent};
use supervisor_core::message::{DeadLetter, IpcMessage, OutboxEntry};
use supervisor_core::ports::{AuditLog, DedupStore, EventStore, Journal, Outbox, StateStore};
use uuid::Uuid;

use crate::common::{Place, add_audit_row, noon, transition};

/// Tables that may hold many rows.
const LARGE: [&str; 6] = ["journal", "event", "audit", "outbox", "dead_letter", "dedupe"];

/// What keeps each table small; a new table has to be put here with its bound.
const BOUNDS: [(&str, &str); 15] = [
    ("audit", "keep_audit: the oldest go under a seal"),
    ("audit_seal", "one row for each pruning, which is at least 1024 rows of the trail"),
    ("checkpoint", "keep_checkpoints, and those put aside between them"),
    ("damaged_row", "1000: the oldest go"),
    ("dead_letter", "10,000: the oldest go"),
    ("dedupe", "expiry: each new key removes up to four"),
    ("event", "keep_rows: the oldest go"),
    ("journal", "keep_rows: the oldest go"),
    ("outbox", "rows and bytes: a new message is refused"),
    ("outbox_size", "one row"),
    ("recovery", "1000: the oldest go"),
    ("refinery_schema_history", "one row for each migration"),
    ("service_state", "one row for each service"),
    ("store_run", "one row"),
    ("writer_mark", "one row"),
];

/// Gives the string literals of a source file that are SQL and hold no placeholder of `format!`.
fn queries(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut rest = code.as_str();
    while let Some(start) = rest.find('"') {
        let body = &rest[start + 1..];
        let mut end = 0;
        let bytes = body.as_bytes();
        while end < bytes.len() && bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let literal = &body[..end.min(body.len())];
        let sql = ["SELECT ", "DELETE ", "UPDATE ", "INSERT "];
        if sql.iter().any(|word| literal.starts_with(word)) && !literal.contains('{') {
            found.push(literal.replace("\\\"", "\"").replace("\\\\", "\\"));
        }
        rest = body.get(end + 1..).unwrap_or_default();
    }
    found
}

fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if !["tests.rs", "points.rs"].contains(&name.as_str()) {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                found.extend(queries(&text).into_iter().map(|query| (name.clone(), query)));
            }
        }
    }
}

/// Says what is wrong with a plan: a large table read from end to end, or sorted.
fn judge(query: &str, plan: &[String]) -> Option<String> {
    // A walk along the rows' own order that ends at its limit reads no more than it gives.
    let limited = query.contains("LIMIT") && query.contains("ORDER BY");
    plan.iter().find_map(|step| {
        let scanned = step.strip_prefix("SCAN ").map(|rest| rest.split(' ').next().unwrap());
        let scan = scanned.is_some_and(|table| LARGE.contains(&table)) && !limited;
        (scan || step.contains("TEMP B-TREE")).then(|| step.clone())
    })
}

#[tokio::test]
async fn no_query_on_a_large_table_reads_all_of_it_or_sorts_it() {
    let place = Place::new();
    place.open().await.close().await.unwrap();
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    for table in LARGE {
        let about = all.iter().filter(|(_, query)| query.contains(table)).count();
        assert!(about >= 2, "{about} queries on {table} were found");
    }
    // At most 10,000 rows, when somebody asks for all of them to go.
    let on_request = "DELETE FROM dead_letter WHERE ?1 IS NULL OR channel = ?1";
    let mut bad = Vec::new();
    for (file, query) in all.iter().filter(|(_, query)| query != on_request) {
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {query}"))
            .unwrap_or_else(|error| panic!("{file}: {query}: {error}"));
        let given = statement.parameter_count();
        let parameters = vec![rusqlite::types::Value::Integer(1); given];
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        bad.extend(judge(query, &plan).map(|step| format!("{file}: {query}: {step}")));
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[tokio::test]
async fn every_table_has_a_bound_that_somebody_thought_of() {
    let place = Place::new();
    place.open().await.close().await.unwrap();
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    let query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
    let mut statement = connection.prepare(query).unwrap();
    for name in statement.query_map([], |row| row.get::<_, String>(0)).unwrap() {
        let name = name.unwrap();
        assert!(BOUNDS.iter().any(|(known, _)| *known == name), "{name} has no bound");
    }
}

#[tokio::test]
async fn journal_and_events_keep_no_more_than_they_were_told() {
    let place = Place::new();
    let store = place.builder().keep_rows(1000, 1000).open().await.unwrap();
    for batch in 0..6_u64 {
        let transitions = (1..=500).map(|n| transition("a", batch * 500 + n)).collect();
        store.record(transitions).await.unwrap();
        let events = (1..=500)
            .map(|n| SupervisorEvent {
                version: EVENT_VERSION,
                id: Uuid::from_u128(u128::from(batch * 500 + n)),
                sequence: Sequence(batch * 500 + n),
                at: DateTime::UNIX_EPOCH,
                kind: EventKind::BackupFailed { reason: "test".into() },
            })
            .collect();
        EventStore::append(&store, events).await.unwrap();
    }
    store.close().await.unwrap();
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    for table in ["journal", "event"] {
        let query = format!("SELECT min(sequence), max(sequence), count(*) FROM {table}");
        let (oldest, newest, rows): (i64, i64, i64) = connection
            .query_row(&query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap();
        assert_eq!(newest, 3000, "{table}");
        assert!(rows <= 2000 && oldest > 1000, "{table} has {rows} rows from {oldest}");
    }
}

#[tokio::test]
async fn scenario_14_after_the_clock_went_back_everything_is_read_in_the_order_it_was_written() {
    let place = Place::new();
    let store = place.open().await;
    let mut checkpoints = Vec::new();
    for n in 1..=5 {
        store.record(vec![transition("a", n)]).await.unwrap();
        add_audit_row(&store, &format!("row {n}")).await;
        checkpoints
            .push(store.create_checkpoint(&Default::default(), &Default::default()).await.unwrap());
        place.clock.set_wall(noon() - chrono::TimeDelta::days(i64::try_from(n).unwrap()));
    }
    store.close().await.unwrap();
    let store = place.open().await;
    let rows = Journal::read(&store, Sequence::ZERO, 10).await.unwrap();
    assert!(rows.windows(2).all(|pair| pair[0].at > pair[1].at), "the clock did go back");
    assert_eq!(rows.iter().map(|row| row.incarnation.get()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let trail = AuditLog::read(&store, Sequence::ZERO, 100).await.unwrap();
    assert!(trail.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    assert!(AuditLog::verify(&store).await.unwrap().intact);
    assert_eq!(Some(&store.load_latest_checkpoint().await.unwrap().id), checkpoints.last());
}

fn message(n: u128) -> IpcMessage {
    IpcMessage {
        id: Uuid::from_u128(n),
        message_type: "t".into(),
        payload: serde_json::json!("x".repeat(100)),
        timestamp: DateTime::UNIX_EPOCH,
        retry_count: 0,
    }
}

#[tokio::test]
async fn the_outbox_knows_what_it_holds_through_every_way_in_and_out() {
    let place = Place::new();
    let store = place.open().await;
    let entry = |n| OutboxEntry {
        sequence: Sequence::ZERO,
        channel: "c".into(),
        message: message(n),
        expires_at: None,
    };
    for n in 1..=10 {
        store.enqueue(entry(n)).await.unwrap();
        store.enqueue(entry(n)).await.unwrap();
    }
    store
        .acknowledge(&[Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(99)])
        .await
        .unwrap();
    for n in 3..=5 {
        let letter = DeadLetter {
            channel: "c".into(),
            message: message(n),
            at: DateTime::UNIX_EPOCH,
            cause: "poison".into(),
            generations: Vec::new(),
            kept_because: None,
        };
        store.bury(letter).await.unwrap();
    }
    store.requeue(&[Uuid::from_u128(3)]).await.unwrap();
    // A group with some that are there, one of them twice, and one that is there only once it was put.
    let group: Vec<OutboxEntry> = [6, 20, 7, 20, 21].into_iter().chain(22..60).map(entry).collect();
    let given = store.enqueue_all(group).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(given[1], given[3]);
    assert_eq!(store.enqueue(entry(6)).await.unwrap(), given[0]);
    let pending = store.pending("c", Sequence::ZERO, 100).await.unwrap();
    let numbers: Vec<Sequence> = pending.iter().map(|entry| entry.sequence).collect();
    assert!(given.iter().all(|number| numbers.contains(number)), "{given:?} {numbers:?}");
    let removed: Vec<Uuid> = (20..57).map(Uuid::from_u128).collect();
    store.acknowledge(&removed).await.unwrap();
    store.close().await.unwrap();
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    let damage =
        "UPDATE outbox SET digest = digest + 1 WHERE sequence = (SELECT max(sequence) FROM outbox)";
    connection.execute(damage, []).unwrap();
    drop(connection);
    let store = place.open().await;
    assert_eq!(store.pending("c", Sequence::ZERO, 100).await.unwrap().len(), 8);
    store.close().await.unwrap();
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    let known: (i64, i64) = connection
        .query_row("SELECT rows, bytes FROM outbox_size", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let counted: (i64, i64) = connection
        .query_row("SELECT count(*), sum(bytes) FROM outbox", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(known, counted);
    assert_eq!(known.0, 8);
    // And the bound is measured by it.
    connection.execute("UPDATE outbox_size SET rows = 1000000", []).unwrap();
    drop(connection);
    let store = place.open().await;
    let refused = store.enqueue(entry(50)).await;
    assert!(matches!(refused, Err(DatabaseError::Busy { .. })), "{refused:?}");
    let group = store.enqueue_all(vec![entry(6), entry(50), entry(7)]).await;
    assert!(matches!(group[..], [Ok(_), Err(DatabaseError::Busy { .. }), Ok(_)]), "{group:?}");
}

#[tokio::test]
async fn keys_that_expired_go_as_new_ones_come() {
    let place = Place::new();
    let store = place.open().await;
    for n in 0..100 {
        let seen = store.first_sight(&format!("old {n}"), b"x", Duration::from_secs(60)).await;
        assert_eq!(seen.unwrap(), None);
    }
    place.clock.advance(Duration::from_secs(61));
    for n in 0..30 {
        store.first_sight(&format!("new {n}"), b"x", Duration::from_secs(60)).await.unwrap();
    }
    store.close().await.unwrap();
    let connection = rusqlite::Connection::open(place.database()).unwrap();
    let rows: i64 =
        connection.query_row("SELECT count(*) FROM dedupe", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 30);
}
