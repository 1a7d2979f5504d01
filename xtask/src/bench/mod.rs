//! `cargo xtask bench`: runs each crate's benchmarks and prints one table of ratios.
//!
//! A benchmark is a `[[bench]]` with `harness = false` that prints one JSON object per measurement
//! on a line of stdout; `CONTRIBUTING.md` documents the fields. Ratios to a floor measured in the
//! same run are what counts: absolute figures change from machine to machine.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, bail};

use crate::flags::BenchFlags;
use crate::report;
use crate::shell::Cmd;
use crate::workspace::Workspace;

mod measurement;
mod table;

use measurement::{Measurement, Verdict};

/// One `[[bench]]` of one crate.
#[derive(Debug, Clone)]
struct Bench {
    package: String,
    name: String,
    features: Vec<String>,
}

pub(crate) fn run(flags: &BenchFlags) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    let benches = select(discover(&workspace), &flags.names)?;
    let mut measurements = Vec::new();
    let mut failed = Vec::new();
    for bench in &benches {
        report::heading(&format!("bench {}   (again: cargo xtask bench {0})", bench.name));
        // The others still run: a figure less is better than none.
        match measure(&workspace, bench) {
            Ok(found) => measurements.extend(found),
            Err(error) => {
                report::failure(&format!("{}: {error:#}", bench.name));
                failed.push(bench.name.clone());
            }
        }
    }
    if flags.json {
        report::result(&serde_json::to_string_pretty(&measurements)?);
    } else {
        report::result(&table::render(&measurements));
    }
    if !failed.is_empty() {
        bail!("benchmarks that did not finish: {}", failed.join(", "));
    }
    let missed = measurements.iter().filter(|m| m.verdict() == Verdict::Missed).count();
    if flags.strict && missed > 0 {
        bail!("{missed} targets missed");
    }
    Ok(())
}

fn discover(workspace: &Workspace) -> Vec<Bench> {
    let mut benches = Vec::new();
    for package in workspace.buildable_members() {
        for target in package.targets.iter().filter(|target| target.is_bench()) {
            benches.push(Bench {
                package: package.name.to_string(),
                name: target.name.clone(),
                features: target.required_features.clone(),
            });
        }
    }
    benches
}

/// The benches that are named, or whose crate is; all when nothing is named.
fn select(mut benches: Vec<Bench>, names: &[String]) -> anyhow::Result<Vec<Bench>> {
    for name in names {
        if !benches.iter().any(|bench| bench.name == *name || bench.package == *name) {
            let known: Vec<&str> = benches.iter().map(|bench| bench.name.as_str()).collect();
            bail!("no benchmark or crate is named {name}; there are: {}", known.join(", "));
        }
    }
    if !names.is_empty() {
        benches.retain(|bench| names.contains(&bench.name) || names.contains(&bench.package));
    }
    Ok(benches)
}

fn measure(workspace: &Workspace, bench: &Bench) -> anyhow::Result<Vec<Measurement>> {
    let mut command = Cmd::cargo().args(["bench", "-p", &bench.package, "--bench", &bench.name]);
    if !bench.features.is_empty() {
        command = command.args(["--features".to_owned(), bench.features.join(",")]);
    }
    let command = command.dir(workspace.root());
    report::command(&command.to_string());
    let mut child = command.command().stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("the benchmark has no stdout")?;
    let mut measurements = Vec::new();
    let mut unreadable = None;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        match measurement::parse(&line) {
            None => report::note(&line),
            Some(Ok(measurement)) => {
                report::note(&table::one_line(&measurement));
                measurements.push(measurement);
            }
            // Read on, so that the benchmark does not die of a closed pipe and hide the reason.
            Some(Err(error)) => unreadable = Some(error.context(format!("in the line {line}"))),
        }
    }
    let status = child.wait()?;
    if let Some(error) = unreadable {
        return Err(error);
    }
    if !status.success() {
        bail!("`{command}` failed with {status}");
    }
    if measurements.is_empty() {
        bail!("`{command}` printed no measurement");
    }
    Ok(measurements)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(package: &str, name: &str) -> Bench {
        Bench { package: package.to_owned(), name: name.to_owned(), features: Vec::new() }
    }

    fn selected(names: &[&str]) -> anyhow::Result<Vec<String>> {
        let benches =
            vec![bench("process", "restart"), bench("process", "spawn"), bench("ipc", "trip")];
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Ok(select(benches, &names)?.into_iter().map(|bench| bench.name).collect())
    }

    #[test]
    fn benches_are_chosen_by_their_name_or_their_crate() {
        assert_eq!(selected(&[]).unwrap(), ["restart", "spawn", "trip"]);
        assert_eq!(selected(&["process"]).unwrap(), ["restart", "spawn"]);
        assert_eq!(selected(&["trip"]).unwrap(), ["trip"]);
    }

    #[test]
    fn an_unknown_bench_is_refused_with_the_names_there_are() {
        let error = selected(&["tripp"]).unwrap_err().to_string();
        assert!(error.contains("restart, spawn, trip"), "{error}");
    }
}
