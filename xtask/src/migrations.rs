//! `cargo xtask migrations`: an applied migration never changes.
//!
//! A database that has run a migration refuses one whose text differs, so an edit breaks every
//! installed copy. The golden list records the hash of each migration once it is part of the
//! project; from then on a change is an error and the way on is a new migration.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::flags::MigrationsAction;
use crate::{report, workspace};

const DIRECTORY: &str = "supervisor-persist/migrations";
const GOLDEN: &str = "golden.txt";

/// File name to hash.
type Hashes = BTreeMap<String, String>;

pub(crate) fn run(action: MigrationsAction) -> anyhow::Result<()> {
    let directory = workspace::root().join(DIRECTORY);
    match action {
        MigrationsAction::Check => check(&directory),
        MigrationsAction::Bless => bless(&directory),
    }
}

/// Fails unless the migrations are exactly the recorded ones.
pub(crate) fn check(directory: &Path) -> anyhow::Result<()> {
    if !directory.is_dir() {
        report::note(&format!("no {DIRECTORY} yet: nothing to check"));
        return Ok(());
    }
    let (golden, present) = (read_golden(directory)?, hash_all(directory)?);
    let mut found = edited(&golden, &present);
    let new = present.keys().filter(|name| !golden.contains_key(*name));
    found.extend(new.map(|name| format!("{name} is not recorded: cargo xtask migrations bless")));
    fail_on(&found)
}

/// Adds what is new to the golden list; refuses when a recorded migration changed.
fn bless(directory: &Path) -> anyhow::Result<()> {
    let (golden, present) = (read_golden(directory)?, hash_all(directory)?);
    let mut found = edited(&golden, &present);
    let newest = golden.keys().filter_map(|name| version(name)).max().unwrap_or(0);
    for name in present.keys().filter(|name| !golden.contains_key(*name)) {
        match version(name) {
            Some(version) if version > newest => report::note(&format!("recorded {name}")),
            Some(_) => found.push(format!("{name} must be numbered above V{newest}")),
            None => found.push(format!("{name} must be named V<number>__<words>.sql")),
        }
    }
    fail_on(&found)?;
    let lines: String = present.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
    let path = directory.join(GOLDEN);
    fs::write(&path, lines).with_context(|| format!("could not write {}", path.display()))
}

fn fail_on(found: &[String]) -> anyhow::Result<()> {
    if !found.is_empty() {
        bail!("migrations in {DIRECTORY}:\n  {}", found.join("\n  "));
    }
    Ok(())
}

/// Recorded migrations that no longer are what was recorded, and numbers used twice.
fn edited(golden: &Hashes, present: &Hashes) -> Vec<String> {
    let mut found = Vec::new();
    for (name, hash) in golden {
        match present.get(name) {
            None => found.push(format!("{name} was removed: databases that ran it refuse to open")),
            Some(now) if now != hash => found.push(format!(
                "{name} was edited: databases that ran it refuse to open; restore it and write a \
                 new migration"
            )),
            Some(_) => {}
        }
    }
    let mut numbers = BTreeMap::new();
    for name in present.keys() {
        let Some(number) = version(name) else {
            continue;
        };
        if let Some(other) = numbers.insert(number, name) {
            found.push(format!("{name} and {other} have the same number"));
        }
    }
    found
}

/// The number in `V<number>__<words>.sql`.
fn version(name: &str) -> Option<u64> {
    name.strip_prefix('V')?.strip_suffix(".sql")?.split_once("__")?.0.parse().ok()
}

fn hash_all(directory: &Path) -> anyhow::Result<Hashes> {
    let mut hashes = Hashes::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "sql") {
            let text = fs::read(&path)?;
            let hash = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
            hashes.insert(workspace::relative(directory, &path), hash);
        }
    }
    Ok(hashes)
}

fn read_golden(directory: &Path) -> anyhow::Result<Hashes> {
    let path = directory.join(GOLDEN);
    if !path.exists() {
        return Ok(Hashes::new());
    }
    let text = fs::read_to_string(&path)?;
    let line = |line: &str| -> anyhow::Result<(String, String)> {
        let (hash, name) = line
            .split_once("  ")
            .with_context(|| format!("{}: not `<sha256>  <name>`: {line}", path.display()))?;
        Ok((name.to_owned(), hash.to_owned()))
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    fn message(outcome: anyhow::Result<()>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn a_new_migration_is_an_error_until_it_is_blessed() {
        let directory = directory(&[("V1__initial.sql", "create table a (b);")]);
        assert!(message(check(directory.path())).contains("V1__initial.sql is not recorded"));
        bless(directory.path()).unwrap();
        check(directory.path()).unwrap();
    }

    #[test]
    fn an_edited_migration_is_an_error_and_cannot_be_blessed() {
        let directory = directory(&[("V1__initial.sql", "create table a (b);")]);
        bless(directory.path()).unwrap();
        fs::write(directory.path().join("V1__initial.sql"), "create table a (c);").unwrap();
        assert!(message(check(directory.path())).contains("was edited"));
        assert!(message(bless(directory.path())).contains("was edited"));
    }

    #[test]
    fn a_removed_migration_is_an_error() {
        let directory = directory(&[("V1__initial.sql", "create table a (b);")]);
        bless(directory.path()).unwrap();
        fs::remove_file(directory.path().join("V1__initial.sql")).unwrap();
        assert!(message(check(directory.path())).contains("was removed"));
    }

    #[test]
    fn numbers_grow_and_are_used_once() {
        let directory = directory(&[("V2__b.sql", "-- b")]);
        bless(directory.path()).unwrap();
        fs::write(directory.path().join("V1__late.sql"), "-- a").unwrap();
        assert!(message(bless(directory.path())).contains("must be numbered above V2"));
        fs::rename(directory.path().join("V1__late.sql"), directory.path().join("V2__c.sql"))
            .unwrap();
        assert!(message(check(directory.path())).contains("same number"));
        fs::rename(directory.path().join("V2__c.sql"), directory.path().join("third.sql")).unwrap();
        assert!(message(bless(directory.path())).contains("must be named"));
    }

    #[test]
    fn the_migrations_are_the_recorded_ones() {
        check(&workspace::root().join(DIRECTORY)).unwrap();
    }
}
