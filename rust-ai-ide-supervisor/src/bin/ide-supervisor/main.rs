//! The `ide-supervisor` program: parses the command line, runs one command, ends with the number scripts expect.

mod args;
mod commands;
mod exit_code;
mod os;
mod output;
mod render;
mod services;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // Before anything else: the process that owns the services is this program run again.
    rust_ai_ide_supervisor::guardian::run_if_asked();
    let (watcher, words) = os::worker_of(std::env::args_os());
    commands::run(args::Args::parse_from(words), watcher)
}
