//! `completions` and `man`: made from the command line itself.

use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Args;
use crate::exit_code::{Exit, Failure};
use crate::output::Output;

const NAME: &str = "ide-supervisor";

pub(crate) fn completions(shell: Shell, output: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), NAME, &mut script);
    output.raw(&String::from_utf8_lossy(&script))
}

pub(crate) fn man(dir: Option<&Path>, output: Output) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new(Exit::Failed, format!("cannot write the manual: {error}"));
    if let Some(dir) = dir {
        return clap_mangen::generate_to(Args::command(), dir)
            .and_then(|()| std::fs::write(dir.join(format!("{NAME}.1")), page()?))
            .map_err(|error| {
                failed(error).help("name a directory that exists and you may write to")
            });
    }
    output.raw(&String::from_utf8_lossy(&page().map_err(failed)?))
}

/// Makes the page of the program, with the exit codes every command shares.
fn page() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Args::command()).render(&mut page)?;
    let mut text = String::from(".SH \"EXIT STATUS\"\n");
    for exit in Exit::ALL {
        text.push_str(&format!(
            ".TP\n\\fB{}\\fR\n{}\n",
            exit as u8,
            exit.meaning()
        ));
    }
    page.extend_from_slice(text.as_bytes());
    Ok(page)
}
