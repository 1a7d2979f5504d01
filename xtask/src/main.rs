//! `cargo xtask`: the commands that maintain this workspace.
//!
//! One file per command, plain `std::process`, no knowledge of the crates it looks after beyond the
//! tables in [`lint::layering`] and [`tools`]. Every command prints what it runs, so that a person
//! can repeat any step by hand.

use std::process::ExitCode;

use clap::Parser;

mod bench;
mod ci;
mod cross;
mod docs;
mod flags;
mod fuzz;
mod lint;
mod migrations;
mod release;
mod report;
mod setup;
mod shell;
mod test;
mod tidy;
mod tools;
mod workspace;

fn main() -> ExitCode {
    let flags = flags::Flags::parse();
    match run(flags.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: flags::Command) -> anyhow::Result<()> {
    use flags::Command;
    match command {
        Command::Lint(flags) => lint::run(&flags),
        Command::Test(flags) => test::run(&flags),
        Command::Bench(flags) => bench::run(&flags),
        Command::Fuzz(flags) => fuzz::run(&flags),
        Command::Docs(flags) => docs::run(&flags),
        Command::Migrations { action } => migrations::run(action),
        Command::Setup(flags) => setup::run(&flags),
        Command::Cross(flags) => cross::run(&flags),
        Command::Ci => ci::run(),
        Command::Release(flags) => release::run(&flags),
    }
}
