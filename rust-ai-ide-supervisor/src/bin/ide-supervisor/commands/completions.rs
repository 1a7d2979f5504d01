//! `completions` and `man`: made from the command line itself.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Args;
use crate::exit_code::{Exit, Failure};
use crate::output::Output;

const NAME: &str = "ide-supervisor";

pub(crate) fn completions(shell: Shell, output: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut public(), NAME, &mut script);
    output.raw(&String::from_utf8_lossy(&script))
}

pub(crate) fn man(dir: Option<&Path>, output: Output) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new(Exit::Failed, format!("cannot write the manual: {error}"));
    if let Some(dir) = dir {
        return clap_mangen::generate_to(public(), dir)
            .and_then(|()| std::fs::write(dir.join(format!("{NAME}.1")), page()?))
            .map_err(|error| {
                failed(error).help("name a directory that exists and you may write to")
            });
    }
    output.raw(&String::from_utf8_lossy(&page().map_err(failed)?))
}

/// Gives the command line without its hidden commands, which completion scripts would offer otherwise.
fn public() -> Command {
    let whole = Args::command();
    let visible = whole.get_subcommands().filter(|command| !command.is_hide_set());
    let mut public = Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments().cloned())
        .subcommands(visible.cloned())
        .disable_help_subcommand(true);
    if let Some(about) = whole.get_about() {
        public = public.about(about.clone());
    }
    if let Some(more) = whole.get_after_help() {
        public = public.after_help(more.clone());
    }
    public
}

/// Makes the page of the program: every command with its options, and the exit codes they share.
fn page() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(public()).render(&mut page)?;
    let mut text = String::from(".SH COMMANDS\n");
    let mut whole = public();
    whole.build();
    for command in whole.get_subcommands() {
        describe(command, NAME, &mut text);
    }
    text.push_str(".SH \"EXIT STATUS\"\n");
    for exit in Exit::ALL {
        text.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", exit as u8, exit.meaning()));
    }
    page.extend_from_slice(text.as_bytes());
    Ok(page)
}

/// Writes a command and the commands below it; `before` is what is typed before its name.
fn describe(command: &Command, before: &str, text: &mut String) {
    let typed = format!("{before} {}", command.get_name());
    let below: Vec<&Command> = command.get_subcommands().collect();
    if !below.is_empty() {
        for command in below {
            describe(command, &typed, text);
        }
        return;
    }
    text.push_str(&format!(".SS \"{}\"\n", roff(&typed)));
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        text.push_str(&format!("{}\n", roff(&about.to_string())));
    }
    let own = |argument: &&clap::Arg| {
        !argument.is_global_set() && !["help", "version"].contains(&argument.get_id().as_str())
    };
    for argument in command.get_arguments().filter(own) {
        let help = argument.get_help().map(ToString::to_string);
        text.push_str(&format!(
            ".TP\n\\fB{}\\fR\n{}\n",
            roff(&argument.to_string()),
            roff(&help.unwrap_or_default())
        ));
    }
}

/// Escapes what roff would read as its own: backslashes, hyphens it would break at, and a dot that starts a line.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    let guard = |line: &str| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    };
    escaped.lines().map(guard).collect::<Vec<_>>().join("\n")
}
