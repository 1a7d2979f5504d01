//! `cargo xtask fuzz`: the fuzz targets, for longer than in an ordinary test run.
//!
//! They are tests of their crate, which run for a moment each time; here they get the time that is asked for. What
//! breaks one is kept in its corpus, where each run begins.

use crate::flags::FuzzFlags;
use crate::report;
use crate::shell::Cmd;

/// Crates with fuzz targets, the tests that hold them, and the one among others where they are not alone.
const TARGETS: &[(&str, &[&str], Option<&str>)] = &[
    ("supervisor-ipc", &["--test", "fuzz"], None),
    (
        "supervisor-process",
        &["--lib"],
        Some("guardian::fuzz_tests::no_bytes_break_what_a_host_and_a_guardian_hear"),
    ),
    (
        "rust-ai-ide-supervisor",
        &["--lib"],
        Some("daemon::fuzz_tests::no_bytes_break_what_is_heard_on_the_control_socket"),
    ),
];

/// Runs all of them, also after one has found something.
pub(crate) fn run(flags: &FuzzFlags) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for (package, tests, only) in TARGETS {
        let wanted = flags.target.as_deref();
        if only.is_some_and(|only| wanted.is_some_and(|wanted| !only.contains(wanted))) {
            continue;
        }
        report::heading(&format!("fuzz {package}"));
        // Optimised: an input costs a twentieth, so a minute sees twenty times as many. Overflows stay errors.
        let mut command = Cmd::cargo()
            .args(["test", "--release", "-p", package])
            .args(tests.iter().copied())
            .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
            .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
            .env("FUZZ_FOR", flags.seconds.to_string());
        if let Some(seed) = flags.seed {
            command = command.env("FUZZ_SEED", seed.to_string());
        }
        command = command.args(only.or(wanted)).args(["--", "--nocapture"]);
        found.extend(command.run().err());
    }
    match found.into_iter().next() {
        Some(error) => Err(error.context(
            "a target broke, or could not be built: the input it broke on is in its corpus (after an abort in the \
             file named above, to be put there) and is tried first by every run, so mend it and commit both",
        )),
        None => Ok(()),
    }
}
