//! The command line of `cargo xtask`.

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Maintains the workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks format, lints, docs, architecture and tidiness; changes nothing
    Lint(LintFlags),
    /// Runs every test this machine can run, and says what it left out
    Test(TestFlags),
    /// Runs the benchmarks and prints each figure as a ratio to its floor
    Bench(BenchFlags),
    /// Gives every decoder bytes that nobody would write, for as long as asked; keeps what breaks one
    Fuzz(FuzzFlags),
    /// Builds the API docs and regenerates the man page, completions and config schema
    Docs(DocsFlags),
    /// Guards the database migrations against edits
    Migrations {
        #[command(subcommand)]
        action: MigrationsAction,
    },
    /// Installs what the window parts need to compile, or prints the command that does
    Setup(SetupFlags),
    /// Builds and tests for another system from Linux: Windows under Wine, macOS type-check only
    Cross(CrossFlags),
    /// Runs exactly what CI runs: lint, docs and test, with missing tools as errors
    Ci,
    /// Checks that a release is ready and prints the steps; `--execute` publishes
    Release(ReleaseFlags),
}

#[derive(Debug, Default, Args)]
pub(crate) struct LintFlags {
    /// Only these steps; all when none is named
    pub(crate) steps: Vec<crate::lint::StepName>,
    /// Treat missing optional parts (the window's development files) as errors
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Default, Args)]
pub(crate) struct TestFlags {
    /// Only this crate; may be repeated
    #[arg(short, long = "package", value_name = "CRATE")]
    pub(crate) packages: Vec<String>,
    /// Run through cargo-nextest (doc tests still run through cargo)
    #[arg(long)]
    pub(crate) nextest: bool,
    /// Treat missing optional tools as errors
    #[arg(long)]
    pub(crate) strict: bool,
    /// Handed on to `cargo test`, for example a test name
    #[arg(last = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct BenchFlags {
    /// Benchmarks or crates to run; all when none is named
    pub(crate) names: Vec<String>,
    /// Print the measurements as a JSON array on stdout instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Fail when a target is missed
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FuzzFlags {
    /// How long, in seconds; all targets run side by side
    #[arg(long = "for", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) seconds: u64,
    /// Repeats the run that printed this seed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Only targets whose test name holds this
    pub(crate) target: Option<String>,
}

/// Reads `60` or `60s`.
fn seconds(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.strip_suffix('s').unwrap_or(text).parse()
}

#[derive(Debug, Default, Args)]
pub(crate) struct DocsFlags {
    /// Change nothing; fail when a generated file is not up to date
    #[arg(long)]
    pub(crate) check: bool,
    /// Open the API docs in a browser
    #[arg(long, conflicts_with = "check")]
    pub(crate) open: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum MigrationsAction {
    /// Fails when a migration was edited, removed or not yet recorded
    Check,
    /// Records new migrations in the golden list; refuses when a recorded one changed
    Bless,
}

#[derive(Debug, Default, Args)]
pub(crate) struct SetupFlags {
    /// Only print the commands
    #[arg(long)]
    pub(crate) print: bool,
    /// Also install the programs that some tests drive: python3, node, npm, clangd, rust-analyzer, ruff, MCP packages
    #[arg(long)]
    pub(crate) tools: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CrossFlags {
    /// The system to build for
    pub(crate) system: System,
    /// A cargo command and its arguments; `check` on the default members when left out
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) cargo: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// x86_64-pc-windows-gnu: check, build, and test or run under Wine
    Windows,
    /// aarch64-apple-darwin: check and clippy only
    Macos,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ReleaseFlags {
    /// Publish for real
    #[arg(long)]
    pub(crate) execute: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn the_time_of_fuzzing_is_given_with_or_without_its_unit() {
        for (text, wanted) in [("90s", Some(90)), ("90", Some(90)), ("1m", None), ("-1", None)] {
            let flags = Flags::try_parse_from(["xtask", "fuzz", &format!("--for={text}")]);
            let seconds = flags.ok().and_then(|flags| match flags.command {
                Command::Fuzz(fuzz) => Some(fuzz.seconds),
                _ => None,
            });
            assert_eq!(seconds, wanted, "{text}");
        }
    }

    #[test]
    fn cargo_arguments_of_cross_pass_through_with_their_dashes() {
        let flags =
            Flags::parse_from(["xtask", "cross", "windows", "check", "-p", "supervisor-core"]);
        let Command::Cross(cross) = flags.command else { panic!("not cross: {flags:?}") };
        assert_eq!(cross.cargo, ["check", "-p", "supervisor-core"]);
    }
}
