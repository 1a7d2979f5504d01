//! Comparing a database's tables with those this program would have made.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use supervisor_core::error::DatabaseError;

use crate::{errors, schema};

/// Kind and make of everything in a schema, by name. What SQLite and the migrations' runner make by themselves is left
/// out. The make of a table is its columns and not its text, which ALTER TABLE writes as the version of SQLite likes.
type Shape = BTreeMap<String, (String, String)>;

/// Refuses tables, views and triggers that are not ours, says so when a table of ours is missing or different, and
/// puts back indexes and triggers that are. Gives the names of those.
pub(crate) fn judge(
    path: &Path,
    connection: &Connection,
    version: u32,
    runner: &refinery::Runner,
) -> Result<Vec<String>, DatabaseError> {
    let failed = |error| errors::sqlite("the schema", error);
    let found = shape(connection).map_err(failed)?;
    let wanted = expected(version, runner)?;
    if let Some((name, (kind, _))) = found.iter().find(|(name, _)| !wanted.contains_key(*name)) {
        let reason = format!("it has a {kind} {name:?} that no version of this program makes");
        return Err(DatabaseError::Foreign { path: path.to_owned(), reason });
    }
    let mut mended = Vec::new();
    for (name, (kind, text)) in &wanted {
        let there = found.get(name);
        if there.is_some_and(|there| there == &(kind.clone(), text.clone())) {
            continue;
        }
        if kind == "table" || there.is_some_and(|(other, _)| other != kind) {
            let reason = format!("its {kind} {name:?} is missing or different");
            return Err(DatabaseError::Corrupt { subject: path.display().to_string(), reason });
        }
        let quoted = name.replace('"', "\"\"");
        let mend = format!("BEGIN; DROP {kind} IF EXISTS \"{quoted}\"; {text}; COMMIT;");
        connection.execute_batch(&mend).map_err(failed)?;
        mended.push(format!("{kind} {name}"));
    }
    Ok(mended)
}

fn expected(version: u32, runner: &refinery::Runner) -> Result<Shape, DatabaseError> {
    let failed = |error| errors::sqlite("the schema this program makes", error);
    let known: Vec<_> = runner
        .get_migrations()
        .iter()
        .filter(|one| u32::try_from(one.version()).is_ok_and(|known| known <= version))
        .cloned()
        .collect();
    let mut reference = Connection::open_in_memory().map_err(failed)?;
    schema::migrate_with(&mut reference, 0, refinery::Runner::new(&known))?;
    shape(&reference).map_err(failed)
}

fn shape(connection: &Connection) -> Result<Shape, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT name, type, CASE type
             WHEN 'table' THEN (SELECT group_concat(name || ' ' || type || ' ' || \"notnull\" || ' ' || pk, ', ')
                                FROM pragma_table_xinfo(sqlite_schema.name))
             ELSE coalesce(sql, '') END
         FROM sqlite_schema
         WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> 'refinery_schema_history'",
    )?;
    statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?.collect()
}
