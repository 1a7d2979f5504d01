//! The licences of every package in the lock file, against the list in `deny.toml`.
//!
//! cargo-deny checks this and more; this step needs no extra tool, reads the same list, and so runs
//! on every machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use cargo_metadata::MetadataCommand;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Deny {
    licenses: Licenses,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: BTreeSet<String>,
}

pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(root.join("deny.toml")).context("could not read deny.toml")?;
    let deny: Deny = toml::from_str(&text).context("deny.toml is not valid")?;
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .exec()
        .context("could not read the packages' metadata")?;
    let mut found = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let mut allow = deny.licenses.allow.clone();
        for exception in deny.licenses.exceptions.iter().filter(|e| e.name == name) {
            allow.extend(exception.allow.iter().cloned());
        }
        match package.license.as_deref() {
            Some(licence) if satisfied(licence, &allow) => {}
            Some(licence) => found.push(format!("{name} {}: {licence}", package.version)),
            None => found.push(format!("{name} {}: names no licence", package.version)),
        }
    }
    if !found.is_empty() {
        bail!("licences that deny.toml does not allow:\n  {}", found.join("\n  "));
    }
    Ok(())
}

/// Whether an SPDX expression can be met by the allowed licences alone.
fn satisfied(expression: &str, allow: &BTreeSet<String>) -> bool {
    // The form `MIT/Apache-2.0` is older than SPDX expressions and means OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    either(&mut rest, allow) && rest.is_empty()
}

fn either(rest: &mut &[&str], allow: &BTreeSet<String>) -> bool {
    let mut met = both(rest, allow);
    while take(rest, "OR") {
        // Not `||`: the right side must be read even when the left side is enough.
        met |= both(rest, allow);
    }
    met
}

fn both(rest: &mut &[&str], allow: &BTreeSet<String>) -> bool {
    let mut met = single(rest, allow);
    while take(rest, "AND") {
        met &= single(rest, allow);
    }
    met
}

fn single(rest: &mut &[&str], allow: &BTreeSet<String>) -> bool {
    if take(rest, "(") {
        return either(rest, allow) & take(rest, ")");
    }
    let Some((licence, tail)) = rest.split_first() else {
        return false;
    };
    *rest = tail;
    if take(rest, "WITH") {
        let Some((exception, tail)) = rest.split_first() else {
            return false;
        };
        *rest = tail;
        return allow.contains(&format!("{licence} WITH {exception}"));
    }
    allow.contains(*licence)
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    match rest.split_first() {
        Some((first, tail)) if *first == word => {
            *rest = tail;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> bool {
        let allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"];
        satisfied(expression, &allow.map(str::to_owned).into())
    }

    #[test]
    fn one_allowed_side_of_a_choice_is_enough() {
        assert!(met("MIT"));
        assert!(met("GPL-3.0 OR MIT"));
        assert!(met("Unlicense/MIT"));
        assert!(met("Apache-2.0 WITH LLVM-exception OR GPL-2.0"));
    }

    #[test]
    fn both_sides_of_a_conjunction_are_needed() {
        assert!(met("(MIT OR GPL-3.0) AND Unicode-3.0"));
        assert!(!met("MIT AND GPL-3.0"));
        assert!(!met("(MIT OR Apache-2.0) AND OpenSSL"));
    }

    #[test]
    fn what_is_not_listed_or_not_readable_is_refused() {
        for expression in ["GPL-3.0", "(MIT", "MIT WITH Classpath-exception-2.0", ""] {
            assert!(!met(expression), "{expression:?}");
        }
    }
}
