//! `supervisor-dashboard [CONFIG]`: a window over the services of a configuration file.

use std::process::ExitCode;

use supervisor_dashboard::{Options, run};

fn main() -> ExitCode {
    // Before there is a window: the small process that owns the services is this program, run again.
    rust_ai_ide_supervisor::guardian::run_if_asked();
    let config = std::env::args_os().nth(1).map(Into::into);
    let state_dir = std::env::var_os("SUPERVISOR_STATE_DIR")
        .map_or_else(|| ".ide-supervisor".into(), Into::into);
    match run(&Options { config, state_dir }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "there is no window yet that could say it")]
fn complain(error: &dyn std::error::Error) {
    eprintln!("error: {error}");
}
