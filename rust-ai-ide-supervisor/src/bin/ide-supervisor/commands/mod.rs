//! One module a command; this one hands over to them.

mod completions;
mod config;
mod control;
mod demo;
pub(crate) mod doctor;
mod source;
mod storage;
mod top;
mod up;
mod watch;
mod wrap;

use std::process::ExitCode;

use crate::args::running::RunningCommand;
use crate::args::{Args, Command};
use crate::exit_code::{Exit, Failure};
use crate::output::{self, Output};
use crate::services;

/// Runs a command and says why if it fails; `watcher` is the pid of the process that started this one to carry a session.
pub(crate) fn run(args: Args, watcher: Option<u32>) -> ExitCode {
    let output = Output::new(args.color);
    let ended = match args.command {
        // A service is another program that happens to live in this file.
        Command::DemoService(service) => return services::run(&service),
        Command::Wrap(session) => return wrap::run(&session, watcher),
        Command::Running(RunningCommand::Up(up)) => up::run(&up, output),
        Command::Running(RunningCommand::Demo(demo)) => demo::run(&demo, output),
        Command::Running(command) => control::run(command, output),
        Command::DemoSupervisor(target) => demo::supervise(&target, output),
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

/// Runs an asynchronous command on a runtime of its own.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::Failed, format!("cannot start: {error}")))?;
    let result = runtime.block_on(command);
    // A thread that waits for standard input cannot be woken; it ends with the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
    result
}
