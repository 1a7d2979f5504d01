//! One module a command; this one hands over to them.

mod completions;
mod config;
pub(crate) mod doctor;

use std::process::ExitCode;

use crate::args::{Args, Command};
use crate::exit_code::Failure;
use crate::output::{self, Output};
use crate::services;

/// Runs a command and says why if it fails.
pub(crate) fn run(args: Args) -> ExitCode {
    let output = Output::new(args.color);
    let ended = match args.command {
        // A service is another program that happens to live in this file.
        Command::DemoService(service) => return services::run(&service),
        Command::Config(command) => config::run(&command, output),
        Command::Doctor(doctor) => doctor::run(&doctor, output),
        Command::Completions { shell } => completions::completions(shell, output),
        Command::Man { dir } => completions::man(dir.as_deref(), output),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    output::report(failure);
    failure.exit.into()
}
