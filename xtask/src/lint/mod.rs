//! `cargo xtask lint`: everything that can be said about the tree without running its tests.
//!
//! Each step runs even when one before it failed, so that one run tells everything.

use std::time::Instant;

use anyhow::bail;
use clap::ValueEnum;

use crate::flags::LintFlags;
use crate::shell::Cmd;
use crate::workspace::{Workspace, package_args, window_files_present};
use crate::{migrations, report, tidy, tools};

pub(crate) mod layering;
mod licences;
mod lockfile;
mod manifests;
mod trees;

/// The steps, cheap ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StepName {
    /// rustfmt's layout
    Fmt,
    /// Source rules no compiler checks
    Tidy,
    /// Fields every manifest has, equal versions, sorted dependencies
    Manifests,
    /// Which crate may depend on which
    Layering,
    /// One SQLite, and a ceiling on the number of packages
    Lockfile,
    /// The golden list of migrations
    Migrations,
    /// What must not be reachable from a crate
    Trees,
    /// Licences of all packages against deny.toml
    Licences,
    /// The rest of deny.toml, where cargo-deny is installed
    Deny,
    /// clippy's warnings as errors
    Clippy,
    /// Each library compiles with no default features
    Features,
    /// API docs, with warnings and broken links as errors
    Doc,
}

pub(crate) fn run(flags: &LintFlags) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    tell_left_out(&workspace, flags.strict)?;
    let all = StepName::value_variants();
    let steps = if flags.steps.is_empty() { all } else { &flags.steps };
    let mut failed = Vec::new();
    for step in steps {
        let name = name(*step);
        report::heading(&format!("lint {name}   (again: cargo xtask lint {name})"));
        let begun = Instant::now();
        match run_step(*step, &workspace) {
            Ok(()) => {
                report::note(&format!("{name}: fine, {:.1} s", begun.elapsed().as_secs_f64()));
            }
            Err(error) => {
                report::failure(&format!("{name}: {error:#}"));
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("lint: {} of {} steps failed: {}", failed.len(), steps.len(), failed.join(", "));
    }
    report::note(&format!("\nlint: all {} steps are fine", steps.len()));
    Ok(())
}

fn name(step: StepName) -> String {
    step.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn run_step(step: StepName, workspace: &Workspace) -> anyhow::Result<()> {
    match step {
        StepName::Fmt => Cmd::cargo().args(["fmt", "--all", "--check"]).dir(workspace.root()).run(),
        StepName::Tidy => tidy::run(workspace.root()),
        StepName::Manifests => manifests::run(workspace),
        StepName::Layering => layering::run(workspace),
        StepName::Lockfile => lockfile::run(workspace.root()),
        StepName::Migrations => migrations::run(crate::flags::MigrationsAction::Check),
        StepName::Trees => trees::run(workspace.root()),
        StepName::Licences => licences::run(workspace.root()),
        StepName::Deny => deny(workspace),
        StepName::Clippy => clippy(workspace),
        StepName::Features => features(workspace),
        StepName::Doc => doc(workspace),
    }
}

fn tell_left_out(workspace: &Workspace, strict: bool) -> anyhow::Result<()> {
    let left_out = workspace.window_members();
    if window_files_present() || left_out.is_empty() {
        return Ok(());
    }
    tools::name_left_out(&left_out);
    if strict {
        bail!("left out above, and --strict takes that for an error: cargo xtask setup");
    }
    Ok(())
}

/// Not an error without the tool, not even in strict mode: it takes minutes to build, the steps above
/// check what matters most, and the hosted CI has a job for it. Advisories need the network.
fn deny(workspace: &Workspace) -> anyhow::Result<()> {
    if !Cmd::cargo().args(["deny", "--version"]).succeeds() {
        report::note("skipped: no cargo-deny (get it with: cargo install --locked cargo-deny)");
        return Ok(());
    }
    Cmd::cargo()
        .args(["deny", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"])
        .dir(workspace.root())
        .run()
}

fn clippy(workspace: &Workspace) -> anyhow::Result<()> {
    Cmd::cargo()
        .arg("clippy")
        .args(package_args(&workspace.buildable_members()))
        .args(["--all-targets", "--all-features", "--", "-D", "warnings"])
        .dir(workspace.root())
        .run()
}

/// One crate at a time: selected together, one crate's features would hide what another lacks.
fn features(workspace: &Workspace) -> anyhow::Result<()> {
    for package in workspace.default_members() {
        let has_library = package.targets.iter().any(cargo_metadata::Target::is_lib);
        if has_library {
            Cmd::cargo()
                .args(["check", "--lib", "--no-default-features", "-p", package.name.as_str()])
                .dir(workspace.root())
                .run()?;
        }
    }
    Ok(())
}

/// Builds the API docs with every warning an error. Also the first half of `cargo xtask docs`.
pub(crate) fn doc(workspace: &Workspace) -> anyhow::Result<()> {
    Cmd::cargo()
        .args(["doc", "--no-deps", "--all-features"])
        .args(package_args(&workspace.buildable_members()))
        .env("RUSTDOCFLAGS", "-D warnings")
        .dir(workspace.root())
        .run()
}
