//! `cargo xtask fuzz`: the fuzz targets, for longer than in an ordinary test run.
//!
//! They are tests of their crate, which run for a moment each time; here they get the time that is asked for. What
//! breaks one is kept in its corpus, where each run begins.

use crate::flags::FuzzFlags;
use crate::report;
use crate::shell::Cmd;

/// Crates with fuzz targets, and the test that holds them.
const TARGETS: &[(&str, &str)] = &[("supervisor-ipc", "fuzz")];

pub(crate) fn run(flags: &FuzzFlags) -> anyhow::Result<()> {
    for (package, test) in TARGETS {
        report::heading(&format!("fuzz {package}"));
        // Optimised: an input costs a twentieth, so a minute sees twenty times as many. Overflows stay errors.
        let mut command = Cmd::cargo()
            .args(["test", "--release", "-p", package, "--test", test])
            .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
            .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
            .env("FUZZ_FOR", flags.seconds.to_string());
        if let Some(seed) = flags.seed {
            command = command.env("FUZZ_SEED", seed.to_string());
        }
        command.args(flags.target.iter().map(String::as_str).chain(["--", "--nocapture"])).run()?;
    }
    Ok(())
}
