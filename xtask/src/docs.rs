//! `cargo xtask docs`: API docs, and the files that the program writes about itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::flags::DocsFlags;
use crate::shell::Cmd;
use crate::workspace::Workspace;
use crate::{lint, report};

const PROGRAM: &str = "ide-supervisor";
const PACKAGE: &str = "rust-ai-ide-supervisor";
const DIRECTORY: &str = "docs/generated";

/// File below `docs/generated`, and the arguments that make the program print it.
const GENERATED: &[(&str, &[&str])] = &[
    ("ide-supervisor.1", &["man"]),
    ("completions/ide-supervisor.bash", &["completions", "bash"]),
    ("completions/_ide-supervisor", &["completions", "zsh"]),
    ("completions/ide-supervisor.fish", &["completions", "fish"]),
    ("completions/ide-supervisor.ps1", &["completions", "powershell"]),
    ("ide-supervisor.schema.json", &["config", "schema"]),
];

/// The program's exit code for a command it does not know.
const USAGE: i32 = 2;

pub(crate) fn run(flags: &DocsFlags) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    // `lint` has built the API docs already when CI asks for a check.
    if !flags.check {
        report::heading("docs: API");
        lint::doc(&workspace)?;
    }
    report::heading(&format!("docs: {DIRECTORY}"));
    generated(&workspace, flags.check)?;
    if flags.open {
        Cmd::cargo().args(["doc", "--no-deps", "--open", "-p", PACKAGE]).run()?;
    }
    Ok(())
}

fn generated(workspace: &Workspace, check: bool) -> anyhow::Result<()> {
    let has_program = workspace.members().iter().any(|package| {
        package.targets.iter().any(|target| target.is_bin() && target.name == PROGRAM)
    });
    if !has_program {
        report::note(&format!("skipped: {PACKAGE} has no program `{PROGRAM}` yet"));
        return Ok(());
    }
    Cmd::cargo()
        .args(["build", "--quiet", "-p", PACKAGE, "--bin", PROGRAM])
        .dir(workspace.root())
        .run()?;
    let mut stale = Vec::new();
    for (name, arguments) in GENERATED {
        let Some(text) = ask_program(workspace, arguments)? else {
            let asked = arguments.join(" ");
            report::note(&format!("skipped {name}: `{PROGRAM} {asked}` is not there yet"));
            continue;
        };
        let path = workspace.root().join(DIRECTORY).join(name);
        if bring_up_to_date(&path, &text, check)? == Freshness::Stale {
            stale.push(path);
        }
    }
    if !stale.is_empty() {
        let names: Vec<_> = stale.iter().map(|path| path.display().to_string()).collect();
        bail!("not up to date (run: cargo xtask docs):\n  {}", names.join("\n  "));
    }
    Ok(())
}

/// What the program prints, or `None` when it does not know the command or prints nothing.
fn ask_program(workspace: &Workspace, arguments: &[&str]) -> anyhow::Result<Option<String>> {
    let command = Cmd::cargo()
        .args(["run", "--quiet", "-p", PACKAGE, "--bin", PROGRAM, "--"])
        .args(arguments.iter().copied())
        .dir(workspace.root());
    let output = command.output()?;
    if output.status.code() == Some(USAGE) {
        return Ok(None);
    }
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{command}` failed with {}: {}", output.status, stderr.trim());
    }
    let text = String::from_utf8(output.stdout).context("the program's output is not UTF-8")?;
    // A program that says nothing has nothing to say yet.
    Ok((!text.trim().is_empty()).then(|| format!("{}\n", text.trim_end())))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freshness {
    UpToDate,
    Stale,
}

/// Writes `text` to `path`, or in a check only says whether it would change.
fn bring_up_to_date(path: &PathBuf, text: &str, check: bool) -> anyhow::Result<Freshness> {
    if fs::read_to_string(path).is_ok_and(|now| now == text) {
        return Ok(Freshness::UpToDate);
    }
    if check {
        return Ok(Freshness::Stale);
    }
    fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new(".")))?;
    fs::write(path, text).with_context(|| format!("could not write {}", path.display()))?;
    report::note(&format!("wrote {}", path.display()));
    Ok(Freshness::UpToDate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_reports_a_stale_file_and_leaves_it_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/x.1");
        assert_eq!(bring_up_to_date(&path, "new\n", true).unwrap(), Freshness::Stale);
        assert!(!path.exists());
        assert_eq!(bring_up_to_date(&path, "new\n", false).unwrap(), Freshness::UpToDate);
        assert_eq!(bring_up_to_date(&path, "new\n", true).unwrap(), Freshness::UpToDate);
        assert_eq!(bring_up_to_date(&path, "newer\n", true).unwrap(), Freshness::Stale);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
    }
}
