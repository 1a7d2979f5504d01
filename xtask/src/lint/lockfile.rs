//! Rules on `Cargo.lock`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// The most packages the lock file may hold, those of every platform and of Tauri included.
///
/// A package is code we answer for. Raising the number is allowed, in the commit that needs it, with
/// the reason in its body; lowering it after a removal is welcome. Tauri alone brings about 320.
const PACKAGES_MAX: usize = 560;

/// Two copies of these in one program break it: SQLite's file locks belong to the process and are
/// dropped when any copy of the library closes the file.
const SINGLE: [&str; 1] = ["libsqlite3-sys"];

#[derive(Debug, Deserialize)]
struct Lockfile {
    package: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
}

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let path = root.join("Cargo.lock");
    let text = fs::read_to_string(&path).context("Cargo.lock is part of the project")?;
    let lockfile: Lockfile = toml::from_str(&text).context("Cargo.lock is not valid")?;
    let found = check(&lockfile, root.join("supervisor-persist/migrations").is_dir());
    if !found.is_empty() {
        bail!("{} to mend:\n  {}", found.len(), found.join("\n  "));
    }
    Ok(())
}

fn check(lockfile: &Lockfile, expects_database: bool) -> Vec<String> {
    let mut found = Vec::new();
    let count = lockfile.package.len();
    if count > PACKAGES_MAX {
        found.push(format!(
            "{count} packages, more than {PACKAGES_MAX}: is the newest dependency worth it? If so, \
             raise PACKAGES_MAX in xtask/src/lint/lockfile.rs and say why in the commit"
        ));
    }
    for name in SINGLE {
        let copies: Vec<&str> = lockfile
            .package
            .iter()
            .filter(|package| package.name == name)
            .map(|package| package.version.as_str())
            .collect();
        match copies.len() {
            1 => {}
            0 if !expects_database => {}
            0 => found.push(format!("{name} is missing: which SQLite does the program use?")),
            _ => found.push(format!("{name} more than once: {}", copies.join(", "))),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lockfile(names: &[&str]) -> Lockfile {
        let package =
            |name: &&str| Package { name: (*name).to_owned(), version: "0.1.0".to_owned() };
        Lockfile { package: names.iter().map(package).collect() }
    }

    #[test]
    fn exactly_one_sqlite_passes() {
        assert!(check(&lockfile(&["a", "libsqlite3-sys"]), true).is_empty());
        assert_eq!(check(&lockfile(&["libsqlite3-sys", "libsqlite3-sys"]), true).len(), 1);
        assert_eq!(check(&lockfile(&["a"]), true).len(), 1);
    }

    #[test]
    fn the_ceiling_holds() {
        let names = vec!["a"; PACKAGES_MAX + 1];
        assert_eq!(check(&lockfile(&names), false).len(), 1);
        assert!(check(&lockfile(&names[1..]), false).is_empty());
    }
}
