//! The guardian as a program of its own, for hosts that name one instead of being run again themselves.

use std::process::ExitCode;

fn main() -> ExitCode {
    supervisor_process::guardian::run_if_asked();
    // It came back, so nobody asked it to be a guardian.
    ExitCode::from(2)
}
