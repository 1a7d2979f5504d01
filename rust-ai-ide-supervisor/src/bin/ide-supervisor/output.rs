//! The one place the program prints from.
//!
//! Machine output and answers go to standard output, progress and errors to standard error. Text that came from a
//! service is made harmless before it reaches a terminal. A reader that leaves (`| head`) ends the program quietly.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::exit_code::{Exit, Failure};

/// Gap between two columns of a table.
const GAP: &str = "  ";
/// Least width the last column of a table is cut to.
const LAST_COLUMN_MIN: usize = 20;

/// When text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How a piece of text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Good,
    Warn,
    Bad,
    Dim,
    Bold,
}

/// Prints to standard output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    colour: bool,
    /// Columns of the terminal, where it is one.
    width: Option<usize>,
}

impl Output {
    pub(crate) fn new(colour: Colour) -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            colour: match colour {
                Colour::Auto => terminal && may_colour(),
                Colour::Always => true,
                Colour::Never => false,
            },
            width: terminal
                .then(|| terminal_size::terminal_size().map(|(width, _)| width.0.into()))
                .flatten(),
        }
    }

    /// Wraps text in a style, if colour is on.
    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "31",
            Style::Dim => "2",
            Style::Bold => "1",
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Prints text as it is, with a line end.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        self.raw(&format!("{text}\n"))
    }

    /// Prints text as it is and makes sure it left the program.
    pub(crate) fn raw(self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error
            .kind()
        {
            io::ErrorKind::BrokenPipe => Failure::reader_left(),
            _ => Failure::new(Exit::Failed, format!("cannot write the output: {error}"))
                .help("check where standard output goes"),
        })
    }

    /// Begins the next of several pictures: on an empty screen of a terminal, else behind an empty line.
    pub(crate) fn next_screen(self) -> Result<(), Failure> {
        match self.width {
            Some(_) => self.raw("\u{1b}[H\u{1b}[2J"),
            None => self.line(""),
        }
    }

    /// Tells whether text is coloured.
    pub(crate) const fn is_coloured(self) -> bool {
        self.colour
    }

    /// Prints a value as one line of JSON.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot write JSON: {error}")))?;
        self.line(&text)
    }

    /// Prints a table, or on standard error that there is nothing to list.
    pub(crate) fn list(self, table: &Table, none: &str) -> Result<(), Failure> {
        if table.rows.is_empty() {
            progress(none);
            return Ok(());
        }
        self.table(table)
    }

    /// Prints a table; on a terminal the last column is cut to fit.
    pub(crate) fn table(self, table: &Table) -> Result<(), Failure> {
        self.raw(&table.render(self))
    }
}

/// Tells whether whoever reads does not mind colour.
fn may_colour() -> bool {
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    !no_colour && !dumb
}

/// Says something about the progress on standard error; nobody may be there to read it.
pub(crate) fn progress(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Says on standard error why a command failed and what to do next.
pub(crate) fn report(failure: &Failure) {
    if failure.message.is_empty() {
        return;
    }
    let mut text = format!("error: {}", failure.message);
    if let Some(help) = &failure.help {
        text.push_str("\n  = help: ");
        text.push_str(help);
    }
    progress(&text);
}

/// Makes text that came from elsewhere harmless for a terminal: control characters become visible stand-ins.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            // Also the invisible characters that reorder what is read.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Says how many there are of something, such as `1 service` or `3 services`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Rows under headings, columns as wide as they need to be.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<(Style, String)>>,
}

impl Table {
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; its texts are cleaned.
    pub(crate) fn row(&mut self, cells: Vec<(Style, String)>) {
        let clean = |(style, text): (Style, String)| (style, clean(&text));
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    pub(crate) fn render(&self, output: Output) -> String {
        let mut widths: Vec<usize> = self.headings.iter().map(|text| text.width()).collect();
        for row in &self.rows {
            for (width, (_, text)) in widths.iter_mut().zip(row) {
                *width = (*width).max(text.width());
            }
        }
        let before_last: usize = widths.iter().rev().skip(1).map(|width| width + GAP.len()).sum();
        let last_max = output.width.map(|all| all.saturating_sub(before_last).max(LAST_COLUMN_MIN));
        let heading = self.headings.iter().map(|text| (Style::Bold, (*text).to_owned())).collect();
        let mut text = String::new();
        for row in std::iter::once(&heading).chain(&self.rows) {
            let mut line = String::new();
            for (column, (style, cell)) in row.iter().enumerate() {
                let last = column + 1 == row.len();
                let shown = match last_max {
                    Some(max) if last => cut(cell, max),
                    _ => cell.clone(),
                };
                let pad = widths.get(column).map_or(0, |width| width.saturating_sub(shown.width()));
                line.push_str(&output.paint(*style, &shown));
                if !last {
                    line.push_str(&" ".repeat(pad));
                    line.push_str(GAP);
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Cuts text to a number of terminal columns.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > columns {
            break;
        }
        short.push(c);
    }
    short.push('…');
    short
}

/// Writes traces to stderr: warnings, or every step when asked for; RUST_LOG overrides both.
pub(crate) fn start_logging(detailed: bool) {
    let level = if detailed { "debug" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let colour = io::stderr().is_terminal() && may_colour();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .finish();
    // An error means that somebody set one up before, which then stays.
    drop(tracing::subscriber::set_global_default(subscriber));
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output { colour: false, width: None };

    fn table() -> Table {
        let mut table = Table::new(&["ID", "WHY"]);
        table.row(vec![(Style::Good, "größe".into()), (Style::Plain, "up".into())]);
        table.row(vec![
            (Style::Bad, "b".into()),
            (Style::Plain, "a rather long reason that does not fit".into()),
        ]);
        table
    }

    #[test]
    fn columns_line_up_by_what_a_terminal_shows_of_them() {
        let text = table().render(PLAIN);
        assert_eq!(text, "ID     WHY\ngröße  up\nb      a rather long reason that does not fit\n");
    }

    #[test]
    fn the_last_column_is_cut_on_a_narrow_terminal_and_colour_takes_no_room() {
        let narrow = Output { colour: true, width: Some(30) };
        let text = table().render(narrow);
        assert!(text.contains("\u{1b}[32mgröße\u{1b}[0m  up"), "{text}");
        assert!(text.contains("a rather long reason t…"), "{text}");
    }

    #[test]
    fn what_a_service_wrote_cannot_move_the_cursor() {
        assert_eq!(clean("\u{1b}[2Jx\u{202e}y\tz"), "\u{fffd}[2Jx\u{fffd}y z");
    }
}
