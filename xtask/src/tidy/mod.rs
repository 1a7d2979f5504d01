//! Checks of the source text that no compiler does, run by `lint` and as an ordinary test.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::workspace;

mod markdown;
mod promises;
mod rust;
mod source;
mod text;

/// Directories that hold nothing of ours. Hidden ones are skipped too, except those named below.
const SKIPPED: [&str; 4] = ["target", "node_modules", "gen", "mutants.out"];
const HIDDEN_KEPT: [&str; 3] = [".cargo", ".ci", ".github"];

/// Names and endings of the text files we write by hand.
const TEXT_ENDINGS: [&str; 13] =
    ["rs", "toml", "md", "yml", "yaml", "sql", "sh", "json", "html", "js", "mjs", "css", "py"];
const TEXT_NAMES: [&str; 3] = ["run", ".gitignore", ".gitattributes"];

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) rule: &'static str,
    pub(crate) message: String,
}

impl Violation {
    fn new(path: &str, line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} [{}]", self.path, self.line, self.message, self.rule)
    }
}

/// Every violation below `root`, in the order of paths and lines.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<Violation>> {
    let mut found = Vec::new();
    let (mut functions, mut pages) = (BTreeSet::new(), Vec::new());
    for file in files(root)? {
        let bytes =
            fs::read(&file).with_context(|| format!("could not read {}", file.display()))?;
        let path = workspace::relative(root, &file);
        let Ok(text) = String::from_utf8(bytes) else {
            found.push(Violation::new(&path, 1, "text", "not UTF-8"));
            continue;
        };
        if path.ends_with(".rs") {
            found.extend(rust::check(&path, &text));
            promises::collect(&text, &mut functions);
        }
        if path.ends_with(".md") {
            found.extend(markdown::check(&path, &file, &text));
        }
        found.extend(text::check(&path, &text));
        if path.ends_with(".md") {
            pages.push((path, text));
        }
    }
    for (path, text) in &pages {
        found.extend(promises::check(path, text, &functions));
    }
    Ok(found)
}

/// Fails with the list of violations below `root`.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let found = check(root)?;
    if !found.is_empty() {
        let list: Vec<String> = found.iter().map(|violation| format!("  {violation}")).collect();
        bail!("{} places to tidy:\n{}", list.len(), list.join("\n"));
    }
    Ok(())
}

fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("could not list {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && !is_skipped(&name) {
                pending.push(entry.path());
            } else if kind.is_file() && is_text(&name) {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn is_skipped(name: &str) -> bool {
    let hidden = name.starts_with('.') && !HIDDEN_KEPT.contains(&name);
    hidden || SKIPPED.contains(&name) || name.starts_with("target-")
}

fn is_text(name: &str) -> bool {
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    TEXT_NAMES.contains(&name) || ending.is_some_and(|ending| TEXT_ENDINGS.contains(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let outcome = run(&workspace::root()).map_err(|error| error.to_string());
        assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    }

    #[test]
    fn a_violation_anywhere_below_the_root_is_found_and_named() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/src");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(root.path().join("target/a")).unwrap();
        fs::write(deep.join("lib.rs"), "fn f() {}\n").unwrap();
        fs::write(root.path().join("target/a/lib.rs"), "fn f() {}\n").unwrap();
        let found = check(root.path()).unwrap();
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        let [line] = lines.as_slice() else { panic!("expected one: {lines:?}") };
        assert!(line.starts_with("a/src/lib.rs:1: "), "{line}");
        assert!(line.ends_with("[module-doc]"), "{line}");
    }
}
