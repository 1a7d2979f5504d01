//! The three real services built into the program: what `demo` supervises.
//!
//! Each is a program of its own, started as a hidden subcommand, with no knowledge of the supervisor beyond
//! `READY=1` on the notify socket, which any service may send. Each can be told to misbehave, so that a
//! demonstration can break it in ways a signal cannot.

mod fault;
mod http;
mod language_server;
mod model_manager;
mod webhooks;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::args::duration;
use crate::os;

/// A service built into the program.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum DemoService {
    /// Speaks the language server protocol on standard input and output.
    LanguageServer,
    /// Loads a model for a while, then serves health and inference over HTTP.
    ModelManager {
        #[command(flatten)]
        listen: Listen,
        /// How long loading takes.
        #[arg(long, default_value = "2s", value_parser = duration)]
        load: Duration,
    },
    /// Stores what is posted to it and lists it.
    Webhooks {
        #[command(flatten)]
        listen: Listen,
        /// File the hooks are stored in.
        #[arg(long)]
        store: PathBuf,
    },
}

/// Where a service listens.
#[derive(Debug, clap::Args)]
pub(crate) struct Listen {
    /// Port on 127.0.0.1; 0 for any free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// File the port in use is written to.
    #[arg(long)]
    port_file: Option<PathBuf>,
}

/// Runs a service until it is asked to end.
pub(crate) fn run(service: &DemoService) -> ExitCode {
    let ended = match service {
        DemoService::LanguageServer => return language_server::run(),
        DemoService::ModelManager { listen, load } => model_manager::run(listen, *load),
        DemoService::Webhooks { listen, store } => webhooks::run(listen, store),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("cannot serve: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells whoever started this service that it is ready, where somebody wants to know.
fn notify_ready() {
    if let Err(error) = os::notify("READY=1\n") {
        say(&format!("cannot report readiness: {error}"));
    }
}

/// Writes a line to the service's own log, its standard error.
fn say(line: &str) {
    use std::io::Write as _;
    // A log nobody reads any more is no reason to stop serving.
    drop(writeln!(std::io::stderr(), "{line}"));
}
