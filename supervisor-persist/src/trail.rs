//! Walking the trail: seals first, then every row, then the anchor; and pruning under a seal.

use rusqlite::Connection;
use supervisor_core::Sequence;
use supervisor_core::error::DatabaseError;
use supervisor_core::journal::{Actor, AuditAction, AuditVerification};

use crate::anchor::Head;
use crate::audit::{AuditKey, hex, insert, last};
use crate::journal::collect_with;
use crate::{StatePersistence, errors, row};

/// Rows verified at a time.
const VERIFY_STEP: usize = 1000;
/// Rows pruned in one transaction.
const PRUNE_MAX: i64 = 100_000;
/// A trail of so many rows has been anchored.
const ANCHORED_BY: i64 = 128;

/// What stands for pruned rows of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditSeal {
    /// The first row it stands for.
    pub first: Sequence,
    /// The last one.
    pub last: Sequence,
    /// How many there were.
    pub count: u64,
    /// The last one's hash, in hexadecimal; the next row goes on from it.
    pub hash: String,
}

/// A row as it is stored.
pub(crate) struct Raw {
    pub(crate) sequence: i64,
    pub(crate) at: i64,
    pub(crate) fields: [String; 4],
    pub(crate) hash: Vec<u8>,
}

/// Reads rows after `after`, oldest first.
pub(crate) fn rows(
    connection: &Connection,
    after: i64,
    limit: usize,
) -> Result<Vec<Raw>, DatabaseError> {
    collect_with(
        connection,
        "SELECT sequence, at, actor, action, subject, detail, hash FROM audit
         WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
        (after, row::limit(limit)),
        |row| {
            let fields = [row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?];
            Ok(Raw { sequence: row.get(0)?, at: row.get(1)?, fields, hash: row.get(6)? })
        },
    )
}

/// The first thing that does not fit.
struct Bad {
    sequence: i64,
    detail: String,
}

/// A walk along the chain.
struct Walk<'a> {
    key: &'a AuditKey,
    head: i64,
    hash: Vec<u8>,
    count: u64,
}

impl<'a> Walk<'a> {
    /// Begins after the newest seal; every seal is checked on the way.
    fn begin(
        connection: &Connection,
        key: &'a AuditKey,
    ) -> Result<Result<Self, Bad>, DatabaseError> {
        let mut walk = Self { key, head: 0, hash: vec![0; 32], count: 0 };
        let mut before = vec![0; 32];
        let seals = collect_with(
            connection,
            "SELECT number, at, first, last, count, hash, seal FROM audit_seal ORDER BY number",
            [],
            |row| {
                let numbers: [i64; 5] =
                    [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
                Ok((numbers, row.get::<_, Vec<u8>>(5)?, row.get::<_, Vec<u8>>(6)?))
            },
        )?;
        for (place, (numbers, hash, seal)) in (1..).zip(seals) {
            let [number, _, first, last, count] = numbers;
            let fits = number == place && first == walk.head + 1 && count == last - first + 1;
            if !fits || key.seal(&numbers, &hash, &before).as_slice() != seal {
                let detail = format!(
                    "the seal over rows {first} to {last} was changed, or one before it is missing"
                );
                return Ok(Err(Bad { sequence: walk.head + 1, detail }));
            }
            (walk.head, walk.hash, before) = (last, hash, seal);
        }
        Ok(Ok(walk))
    }

    /// Goes on by one row.
    fn step(&mut self, raw: Raw) -> Result<(), Bad> {
        if raw.sequence != self.head + 1 {
            let missing = self.head + 1;
            return Err(Bad { sequence: missing, detail: format!("row {missing} is missing") });
        }
        let fields = raw.fields.each_ref().map(String::as_str);
        if self.key.hash(raw.sequence, raw.at, &self.hash, &fields).as_slice() != raw.hash {
            let detail =
                format!("row {} does not fit the row before it or was changed", raw.sequence);
            return Err(Bad { sequence: raw.sequence, detail });
        }
        (self.head, self.hash) = (raw.sequence, raw.hash);
        self.count += 1;
        Ok(())
    }
}

/// Checks everything there is to check.
pub(crate) fn verify(
    connection: &Connection,
    key: &AuditKey,
    anchor: Result<Option<Head>, DatabaseError>,
) -> Result<AuditVerification, DatabaseError> {
    let mut walk = match Walk::begin(connection, key)? {
        Ok(walk) => walk,
        Err(bad) => return Ok(broken(bad, 0)),
    };
    let sealed = walk.head;
    let anchored_at = match &anchor {
        Ok(Some(head)) => row::stored(head.sequence.get()),
        _ => 0,
    };
    let mut found = (walk.head == anchored_at).then(|| hex(&walk.hash));
    loop {
        let step = rows(connection, walk.head, VERIFY_STEP)?;
        if step.is_empty() {
            break;
        }
        for raw in step {
            if let Err(bad) = walk.step(raw) {
                return Ok(broken(bad, walk.count));
            }
            if walk.head == anchored_at {
                found = Some(hex(&walk.hash));
            }
        }
    }
    if let Err(bad) = check_anchor(anchor, &walk, sealed, found.as_deref()) {
        return Ok(broken(bad, walk.count));
    }
    Ok(AuditVerification {
        intact: true,
        rows: walk.count,
        head: sequence(walk.head),
        first_bad: None,
        detail: match sealed {
            0 => format!("{} rows, chain and anchor intact", walk.count),
            _ => format!(
                "{} rows after {sealed} sealed ones, chain, seals and anchor intact",
                walk.count
            ),
        },
    })
}

fn check_anchor(
    anchor: Result<Option<Head>, DatabaseError>,
    walk: &Walk<'_>,
    sealed: i64,
    found: Option<&str>,
) -> Result<(), Bad> {
    let anchor = anchor.map_err(|error| Bad { sequence: walk.head, detail: error.to_string() })?;
    let Some(anchor) = anchor else {
        if walk.head < ANCHORED_BY {
            return Ok(());
        }
        let detail = format!(
            "the trail has {} rows, but its anchor is missing: whether rows were cut off cannot be told",
            walk.head
        );
        return Err(Bad { sequence: walk.head + 1, detail });
    };
    // An anchor from before the newest seal says nothing that the seal does not.
    if row::stored(anchor.sequence.get()) < sealed || found == Some(anchor.hash.as_str()) {
        return Ok(());
    }
    let detail = format!(
        "the trail ends at row {}, but row {} was anchored: rows were cut off or replaced",
        walk.head, anchor.sequence
    );
    Err(Bad { sequence: (walk.head + 1).min(row::stored(anchor.sequence.get())), detail })
}

fn broken(bad: Bad, rows: u64) -> AuditVerification {
    AuditVerification {
        intact: false,
        rows,
        head: sequence(bad.sequence),
        first_bad: Some(sequence(bad.sequence)),
        detail: bad.detail,
    }
}

fn sequence(value: i64) -> Sequence {
    Sequence(u64::try_from(value).unwrap_or(0))
}

impl StatePersistence {
    /// Prunes the audit trail down to its newest `keep` rows (at least 1), at most 100,000 rows a call; a seal stands for
    /// what went, so that the trail still verifies, and a row says that it happened. Gives the seal, or nothing when
    /// there was nothing to prune.
    ///
    /// # Errors
    /// [`DatabaseError::Corrupt`] naming the first bad row when what would go does not verify: a seal must not hide that.
    /// [`DatabaseError`] otherwise; its class says whether a retry may help.
    ///
    /// # Cancel safety
    /// Dropping it loses the answer; the rows may be gone, under their seal.
    pub async fn prune_audit(&self, keep: u64) -> Result<Option<AuditSeal>, DatabaseError> {
        let at = self.inner.clock.wall().timestamp_millis();
        let key = self.inner.key.clone();
        let keep = row::stored(keep.max(1));
        let seal =
            self.inner.writer.attempt(move |connection| prune(connection, &key, at, keep)).await?;
        if seal.is_some() {
            self.anchor_or_warn().await;
        }
        Ok(seal)
    }
}

fn prune(
    connection: &Connection,
    key: &AuditKey,
    at: i64,
    keep: i64,
) -> Result<Option<AuditSeal>, DatabaseError> {
    let failed = |error| errors::sqlite("the audit trail", error);
    let bad =
        |bad: Bad| DatabaseError::Corrupt { subject: "the audit trail".into(), reason: bad.detail };
    let mut walk = Walk::begin(connection, key)?.map_err(bad)?;
    let first = walk.head + 1;
    let until = (last(connection).map_err(failed)?.0 - keep).min(walk.head + PRUNE_MAX);
    if until < first {
        return Ok(None);
    }
    while walk.head < until {
        let left = usize::try_from(until - walk.head).unwrap_or(VERIFY_STEP).min(VERIFY_STEP);
        let step = rows(connection, walk.head, left)?;
        if step.is_empty() {
            let reason = format!("row {} is missing", walk.head + 1);
            return Err(DatabaseError::Corrupt { subject: "the audit trail".into(), reason });
        }
        for raw in step {
            walk.step(raw).map_err(bad)?;
        }
    }
    let (number, before): (i64, Vec<u8>) = connection
        .query_row(
            "SELECT coalesce(max(number), 0) + 1, (SELECT seal FROM audit_seal ORDER BY number DESC LIMIT 1) FROM audit_seal",
            [],
            |row| Ok((row.get(0)?, row.get::<_, Option<Vec<u8>>>(1)?.unwrap_or_else(|| vec![0; 32]))),
        )
        .map_err(failed)?;
    let count = until - first + 1;
    let numbers = [number, at, first, until, count];
    let seal = key.seal(&numbers, &walk.hash, &before);
    connection
        .execute(
            "INSERT INTO audit_seal (number, at, first, last, count, hash, seal) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (number, at, first, until, count, &walk.hash, seal.as_slice()),
        )
        .and_then(|_| connection.execute("DELETE FROM audit WHERE sequence <= ?1", [until]))
        .map_err(failed)?;
    let (actor, action) = (row::word(&Actor::Supervisor), row::word(&AuditAction::Audit));
    let detail = format!("{count} rows, {first} to {until}, were pruned under seal {number}");
    insert(connection, key, at, &[&actor, &action, "audit", &detail]).map_err(failed)?;
    Ok(Some(AuditSeal {
        first: sequence(first),
        last: sequence(until),
        count: u64::try_from(count).unwrap_or(0),
        hash: hex(&walk.hash),
    }))
}
