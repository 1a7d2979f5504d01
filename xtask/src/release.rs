//! `cargo xtask release`: checks that a release is ready, and prints its steps.
//!
//! A dry run unless told otherwise: publishing cannot be taken back.

use std::fs;

use anyhow::{Context as _, bail};
use cargo_metadata::{DependencyKind, Package};

use crate::flags::ReleaseFlags;
use crate::report;
use crate::shell::Cmd;
use crate::workspace::Workspace;

pub(crate) fn run(flags: &ReleaseFlags) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    let packages: Vec<&Package> = workspace
        .members()
        .into_iter()
        .filter(|package| package.publish.as_ref().is_none_or(|to| !to.is_empty()))
        .collect();
    let order = publish_order(&packages)?;
    let version = order.first().context("nothing to publish")?.version.to_string();

    let mut problems = problems(&workspace, &order, &version, flags.execute)?;
    problems.extend(list_contents(&workspace, &order));

    report::heading(&format!("release {version}: publish order"));
    let mut steps: Vec<Cmd> = order.iter().map(|package| publish(&workspace, package)).collect();
    let tag = format!("v{version}");
    steps.push(Cmd::new("git").args(["tag", "--annotate", &tag, "--message", &tag]));
    steps.push(Cmd::new("git").args(["push", "origin", &tag]));
    for step in &steps {
        report::result(&step.to_string());
    }
    if !problems.is_empty() {
        bail!("not ready:\n  {}", problems.join("\n  "));
    }
    if !flags.execute {
        report::note("\ndry run: nothing was published; `--execute` runs the commands above");
        return Ok(());
    }
    steps.iter().try_for_each(Cmd::run)
}

/// What stands between the tree and this release. A dirty tree only matters when it is for real.
fn problems(
    workspace: &Workspace,
    packages: &[&Package],
    version: &str,
    execute: bool,
) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for package in packages.iter().filter(|package| package.version.to_string() != version) {
        found.push(format!("{} is {}, not {version}", package.name, package.version));
    }
    found.extend(circular_tests(packages));
    let changelog = fs::read_to_string(workspace.root().join("CHANGELOG.md"))?;
    found.extend(changelog_problem(&changelog, version));
    if execute {
        let git = Cmd::new("git").args(["status", "--porcelain"]).dir(workspace.root());
        if !git.read()?.trim().is_empty() {
            found.push("the working tree has changes that are not committed".to_owned());
        }
    }
    Ok(found)
}

/// Dev-dependencies, with a version, on a crate that is published later: cargo asks the registry for
/// them and finds nothing. Without a version it leaves them out of what it publishes.
fn circular_tests(order: &[&Package]) -> Vec<String> {
    let mut found = Vec::new();
    for (position, package) in order.iter().enumerate() {
        let later = order.get(position..).unwrap_or_default();
        for dependency in &package.dependencies {
            let development = dependency.kind == DependencyKind::Development;
            let versioned = dependency.req.to_string() != "*";
            let is_later = later.iter().any(|other| other.name == dependency.name.as_str());
            if development && versioned && is_later {
                found.push(format!(
                    "{} has a dev-dependency with a version on {}, which is not published before \
                     it: give it a path only",
                    package.name, dependency.name
                ));
            }
        }
    }
    found
}

/// The changelog has a dated section for the version, with something in it.
fn changelog_problem(changelog: &str, version: &str) -> Option<String> {
    let head = format!("## [{version}] - ");
    let mut lines = changelog.lines().skip_while(|line| !line.starts_with(&head));
    let Some(found) = lines.next() else {
        return Some(format!("CHANGELOG.md has no line `{head}YYYY-MM-DD`"));
    };
    let date = found.strip_prefix(&head).unwrap_or_default();
    let dated = date.len() == 10 && date.chars().all(|c| c.is_ascii_digit() || c == '-');
    let section = lines.take_while(|line| !line.starts_with("## "));
    let entries = section.filter(|line| line.starts_with("- ")).count();
    match (dated, entries) {
        (false, _) => Some(format!("CHANGELOG.md: `{found}` has no date as YYYY-MM-DD")),
        (true, 0) => Some(format!("CHANGELOG.md has no entry below `{found}`")),
        (true, _) => None,
    }
}

/// Prints what each package would hold; returns why a package cannot be made.
fn list_contents(workspace: &Workspace, packages: &[&Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        let list = Cmd::cargo()
            .args(["package", "--list", "--allow-dirty", "-p", name])
            .dir(workspace.root());
        match list.read() {
            Ok(files) => {
                let count = files.lines().count();
                report::heading(&format!("{name}: {count} files   (again: {list})"));
                files.lines().for_each(|file| report::note(&format!("  {file}")));
            }
            Err(error) => found.push(format!("{error:#}")),
        }
    }
    found
}

fn publish(workspace: &Workspace, package: &Package) -> Cmd {
    Cmd::cargo().args(["publish", "-p", package.name.as_str()]).dir(workspace.root())
}

/// Every package after those it needs. Dev-dependencies do not count: cargo leaves those without a
/// version out of what it publishes.
fn publish_order<'a>(packages: &[&'a Package]) -> anyhow::Result<Vec<&'a Package>> {
    let needs = |package: &Package| -> Vec<String> {
        let own = package.dependencies.iter().filter(|dependency| {
            dependency.path.is_some() && dependency.kind != DependencyKind::Development
        });
        own.map(|dependency| dependency.name.clone()).collect()
    };
    let graph: Vec<(String, Vec<String>)> =
        packages.iter().map(|package| (package.name.to_string(), needs(package))).collect();
    let order = topological(&graph)?;
    let find = |name: &String| packages.iter().copied().find(|p| p.name == name.as_str());
    Ok(order.iter().filter_map(find).collect())
}

fn topological(graph: &[(String, Vec<String>)]) -> anyhow::Result<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    while order.len() < graph.len() {
        let waits = |needed: &String| {
            !order.contains(needed) && graph.iter().any(|(name, _)| name == needed)
        };
        let next =
            graph.iter().find(|(name, needs)| !order.contains(name) && !needs.iter().any(waits));
        let Some((name, _)) = next else {
            bail!("the crates depend on each other in a circle; in order so far: {order:?}");
        };
        order.push(name.clone());
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let owned = |needs: &[&str]| needs.iter().map(|name| (*name).to_owned()).collect();
        edges.iter().map(|(name, needs)| ((*name).to_owned(), owned(needs))).collect()
    }

    #[test]
    fn a_crate_is_published_after_those_it_needs() {
        let order =
            topological(&graph(&[("app", &["a", "core"]), ("a", &["core"]), ("core", &[])]));
        assert_eq!(order.unwrap(), ["core", "a", "app"]);
    }

    #[test]
    fn a_circle_is_an_error() {
        assert!(topological(&graph(&[("a", &["b"]), ("b", &["a"])])).is_err());
    }

    #[test]
    fn the_changelog_needs_a_dated_section_with_an_entry() {
        let good = "## [Unreleased]\n\n## [0.1.0] - 2026-11-23\n\n### Added\n- A thing.\n";
        assert_eq!(changelog_problem(good, "0.1.0"), None);
        for (bad, reason) in [
            ("## [Unreleased]\n- x\n", "has no line"),
            ("## [0.1.0] - soon\n- x\n", "has no date"),
            ("## [0.1.0] - 2026-11-23\n\n## [0.0.9] - 2026-01-01\n- x\n", "has no entry"),
        ] {
            assert!(
                changelog_problem(bad, "0.1.0").is_some_and(|text| text.contains(reason)),
                "{bad}"
            );
        }
    }
}
