//! `cargo xtask test`: every test this machine can run.

use anyhow::{Context as _, bail};
use cargo_metadata::{Package, Target};

use crate::flags::TestFlags;
use crate::shell::Cmd;
use crate::workspace::{Workspace, package_args, window_files_present};
use crate::{report, tools};

mod tally;

pub(crate) fn run(flags: &TestFlags) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    let packages = select(&workspace, &flags.packages)?;
    name_left_out(&workspace, flags)?;

    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    report::heading(&format!("test {}", names.join(" ")));
    report::note("one crate again: cargo xtask test -p CRATE; one test: ... -- NAME");
    if flags.nextest {
        return nextest(&workspace, &packages, &flags.args);
    }
    // Everything runs even when something failed: one run tells all there is to mend.
    let mut command = cargo_test(&workspace, &packages).arg("--no-fail-fast");
    if !flags.args.is_empty() {
        command = command.arg("--").args(&flags.args);
    }
    let (tally, outcome) = tally::run(&command)?;
    // Each test program reports for itself, and the last one may hold no test: the sum is the answer.
    report::result(&format!("\n{tally}"));
    outcome
}

fn cargo_test(workspace: &Workspace, packages: &[&Package]) -> Cmd {
    Cmd::cargo()
        .args(["test", "--all-features"])
        .args(package_args(packages))
        .path_first(tools::programs())
        .dir(workspace.root())
}

/// Through cargo-nextest, which does not run doc tests: those follow through cargo.
fn nextest(workspace: &Workspace, packages: &[&Package], args: &[String]) -> anyhow::Result<()> {
    if !Cmd::cargo().args(["nextest", "--version"]).succeeds() {
        bail!("`--nextest` needs cargo-nextest: cargo install --locked cargo-nextest");
    }
    let tests = Cmd::cargo()
        .args(["nextest", "run", "--all-features", "--no-fail-fast"])
        .args(package_args(packages))
        .args(args)
        .path_first(tools::programs())
        .dir(workspace.root())
        .run();
    let has_library = |package: &&Package| package.targets.iter().any(Target::is_lib);
    let libraries: Vec<&Package> = packages.iter().copied().filter(has_library).collect();
    if libraries.is_empty() {
        return tests;
    }
    let docs = cargo_test(workspace, &libraries).arg("--doc").run();
    tests.and(docs)
}

fn select<'a>(workspace: &'a Workspace, names: &[String]) -> anyhow::Result<Vec<&'a Package>> {
    if names.is_empty() {
        return Ok(workspace.buildable_members());
    }
    let members = workspace.members();
    let find = |name: &String| {
        members.iter().copied().find(|package| package.name == name.as_str()).with_context(|| {
            let known: Vec<&str> = members.iter().map(|package| package.name.as_str()).collect();
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
    if flags.strict && (lacks_window || missing.iter().any(|tool| tool.everywhere)) {
        bail!("something is left out above, and --strict takes that for an error");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_crate_is_refused_with_the_names_there_are() {
        let workspace = Workspace::load().unwrap();
        let error = select(&workspace, &["supervisor-cor".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("there are rust-ai-ide-supervisor, supervisor-core, "), "{error}");
    }

    #[test]
    fn every_default_member_is_tested_when_none_is_named() {
        let workspace = Workspace::load().unwrap();
        let selected = select(&workspace, &[]).unwrap();
        for package in workspace.default_members() {
            assert!(selected.iter().any(|other| other.id == package.id), "{}", package.name);
        }
    }
}
