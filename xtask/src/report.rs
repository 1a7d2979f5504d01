//! Everything xtask prints, in one place: progress on stderr, results on stdout.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool prints; this is the only module that does"
)]

use std::io::IsTerminal as _;

/// Announces a stage, set apart from the output of the programs it runs.
pub(crate) fn heading(text: &str) {
    eprintln!("\n{}", paint("1;36", &format!("== {text}")));
}

/// Echoes a command in a form that can be pasted into a shell.
pub(crate) fn command(text: &str) {
    eprintln!("{}", paint("2", &format!("$ {text}")));
}

/// One line of progress.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Something left out or degraded that the reader must not miss.
pub(crate) fn warning(text: &str) {
    eprintln!("{} {text}", paint("1;33", "warning:"));
}

/// The reason the command fails.
pub(crate) fn failure(text: &str) {
    eprintln!("{} {text}", paint("1;31", "error:"));
}

/// A result: what another program may want to read.
pub(crate) fn result(text: &str) {
    println!("{text}");
}

fn paint(code: &str, text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some() || !std::io::stderr().is_terminal();
    if plain { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
}
