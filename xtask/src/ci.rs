//! `cargo xtask ci`: what CI runs, in its order, with missing parts as errors.

use std::time::Instant;

use anyhow::bail;

use crate::flags::{DocsFlags, LintFlags, TestFlags};
use crate::{docs, lint, report, test};

/// The stages as `.ci/run` spells them. Tests come last so that a log ends with their summary.
pub(crate) const STAGES: [&str; 3] =
    ["cargo xtask lint --strict", "cargo xtask docs --check", "cargo xtask test --strict"];

pub(crate) fn run() -> anyhow::Result<()> {
    let [lint, docs, test] = STAGES;
    let outcomes = [
        stage(lint, || lint::run(&LintFlags { strict: true, ..LintFlags::default() })),
        stage(docs, || docs::run(&DocsFlags { check: true, ..DocsFlags::default() })),
        stage(test, || test::run(&TestFlags { strict: true, ..TestFlags::default() })),
    ];
    let failed: Vec<&str> = outcomes.into_iter().filter_map(Result::err).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join("; "));
    }
    Ok(())
}

/// Runs one stage; a failed one is reported at once, and does not hide what the next would say.
fn stage(
    command: &'static str,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> Result<(), &'static str> {
    let begun = Instant::now();
    report::heading(command);
    let outcome = work();
    report::note(&format!("{command}: {} s", begun.elapsed().as_secs()));
    outcome.map_err(|error| {
        report::failure(&format!("{error:#}"));
        command
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn the_ci_script_runs_the_same_stages_in_the_same_order() {
        let script = std::fs::read_to_string(workspace::root().join(".ci/run")).unwrap();
        let found: Vec<_> = STAGES.iter().map(|stage| script.find(stage)).collect();
        assert!(found.iter().all(Option::is_some), "a stage is missing in .ci/run: {found:?}");
        assert!(found.is_sorted(), "the stages are in another order in .ci/run: {found:?}");
    }
}
