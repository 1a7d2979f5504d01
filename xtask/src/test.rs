//! `cargo xtask test`: every test this machine can run.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use cargo_metadata::Package;

use crate::flags::TestFlags;
use crate::shell::Cmd;
use crate::workspace::{Workspace, package_args, window_files_present};
use crate::{report, tools};

pub(crate) fn run(flags: &TestFlags) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    let packages = select(&workspace, &flags.packages)?;
    name_left_out(&workspace, flags)?;

    let names: Vec<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    report::heading(&format!("test {}", names.join(" ")));
    report::note("one crate again: cargo xtask test -p CRATE; one test: ... -- NAME");
    if flags.nextest {
        nextest(&workspace, &packages, &flags.args)?;
    }
    // Everything runs even when something failed: one run tells all there is to mend.
    let mut command = cargo_test(&workspace, &packages).arg("--no-fail-fast");
    if flags.nextest {
        command = command.arg("--doc");
    }
    if !flags.args.is_empty() {
        command = command.arg("--").args(&flags.args);
    }
    let (tally, outcome) = counted(&command)?;
    // Each test program reports for itself, and the last one may hold no test: the sum is the answer.
    report::result(&format!("\n{tally}"));
    outcome
}

/// What the test programs of one run reported, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; ...`; others add nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Runs the tests, passing on what they print, and counts.
fn counted(command: &Cmd) -> anyhow::Result<(Tally, anyhow::Result<()>)> {
    report::command(&command.to_string());
    let mut child = command.command().stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("the tests have no stdout")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        // A test may print what is not UTF-8.
        let line = String::from_utf8_lossy(&line);
        tally.add(&line);
        report::result(&line);
    }
    let status = child.wait()?;
    let outcome = if status.success() {
        Ok(())
    } else {
        Err(anyhow::anyhow!(
            "some tests failed ({status}); their names are listed above"
        ))
    };
    Ok((tally, outcome))
}

fn cargo_test(workspace: &Workspace, packages: &[&Package]) -> Cmd {
    Cmd::cargo()
        .args(["test", "--all-features"])
        .args(package_args(packages))
        .env("PATH", tools::search_path())
        .dir(workspace.root())
}

fn nextest(workspace: &Workspace, packages: &[&Package], args: &[String]) -> anyhow::Result<()> {
    if !Cmd::cargo().args(["nextest", "--version"]).succeeds() {
        bail!("`--nextest` needs cargo-nextest: cargo install --locked cargo-nextest");
    }
    Cmd::cargo()
        .args(["nextest", "run", "--all-features", "--no-fail-fast"])
        .args(package_args(packages))
        .args(args)
        .env("PATH", tools::search_path())
        .dir(workspace.root())
        .run()
}

fn select<'a>(workspace: &'a Workspace, names: &[String]) -> anyhow::Result<Vec<&'a Package>> {
    if names.is_empty() {
        return Ok(workspace.buildable_members());
    }
    let members = workspace.members();
    let find = |name: &String| {
        members
            .iter()
            .copied()
            .find(|package| package.name == name.as_str())
            .with_context(|| {
                let known: Vec<&str> = members
                    .iter()
                    .map(|package| package.name.as_str())
                    .collect();
                format!("no crate is named {name}; there are {}", known.join(", "))
            })
    };
    names.iter().map(find).collect()
}

/// Says what this run leaves out and how to include it; in strict mode that is an error.
fn name_left_out(workspace: &Workspace, flags: &TestFlags) -> anyhow::Result<()> {
    let window = workspace.window_members();
    let lacks_window = flags.packages.is_empty() && !window.is_empty() && !window_files_present();
    if lacks_window {
        tools::name_left_out(&window);
    }
    let missing = tools::missing();
    tools::name_missing(&missing);
    if flags.strict && (lacks_window || !missing.is_empty()) {
        bail!("something is left out above, and --strict takes that for an error");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_of_all_test_programs_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            "said test result: ok. 9 passed; 9 failed",
        ] {
            tally.add(line);
        }
        assert_eq!(
            tally,
            Tally {
                passed: 8,
                failed: 2,
                skipped: 1
            }
        );
        assert_eq!(tally.to_string(), "8 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn an_unknown_crate_is_refused_with_the_names_there_are() {
        let workspace = Workspace::load().unwrap();
        let error = select(&workspace, &["supervisor-cor".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("supervisor-core, supervisor-ipc"), "{error}");
    }

    #[test]
    fn every_default_member_is_tested_when_none_is_named() {
        let workspace = Workspace::load().unwrap();
        let selected = select(&workspace, &[]).unwrap();
        for package in workspace.default_members() {
            assert!(
                selected.iter().any(|other| other.id == package.id),
                "{}",
                package.name
            );
        }
    }
}
