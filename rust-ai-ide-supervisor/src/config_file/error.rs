//! What is wrong with a configuration file, and where.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use supervisor_core::error::{Classified, ErrorClass};

/// Most mistakes of one file that are shown; whoever reads them mends those first.
const PROBLEMS_MAX: usize = 20;
/// Longest piece of a source line that is shown, in characters; a longer line is cut around the mistake.
const LINE_SHOWN_MAX: usize = 110;

/// A configuration file that cannot be used; nothing was started. The text is the whole message for a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFileError {
    /// No configuration file from the working directory upwards.
    #[error(
        "no {name} in {} or any directory above it\n  = help: write one with `ide-supervisor config init`, or name one with --config",
        start.display()
    )]
    NotFound {
        /// The name looked for.
        name: &'static str,
        /// Where the search began.
        start: PathBuf,
    },
    /// The file could not be read.
    #[error("{}: cannot be read\n  = help: check that the path is a file you may read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error(
        "{}: larger than {limit} bytes, so this is not a configuration file\n  = expected: an ide-supervisor.toml, usually a few hundred lines",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read, in bytes.
        limit: u64,
    },
    /// Mistakes at places in the file.
    #[error(transparent)]
    Problems(Problems),
    /// There is a file already where one should be written.
    #[error("{}: exists already, and is left as it is\n  = help: check it with `ide-supervisor config check`, or remove it first", path.display())]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Classified for ConfigFileError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "config_file_not_found",
            Self::Read { .. } => "config_file_unreadable",
            Self::TooLarge { .. } => "config_file_too_large",
            Self::Problems(_) => "config_file_invalid",
            Self::AlreadyExists { .. } => "config_file_exists",
            Self::Write { .. } => "config_file_unwritable",
        }
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Permanent
    }
}

/// The mistakes in a configuration file, at least one, in the order of the file; displayed one after the other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    problems: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// Gives the first of them, at most 20.
    #[must_use]
    pub fn shown(&self) -> &[Problem] {
        &self.problems
    }

    /// Gives how many there are beside those.
    #[must_use]
    pub const fn more(&self) -> usize {
        self.more
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "\n\n" })?;
        }
        match (self.problems.len() + self.more, self.more) {
            (0 | 1, _) => Ok(()),
            (all, 0) => write!(f, "\n\n{all} mistakes"),
            (all, more) => write!(f, "\n\n{all} mistakes, of which {more} are not shown"),
        }
    }
}

/// A mistake at a place in a configuration file, displayed like a compiler's message: file, line and column, the
/// source line with a caret, what was expected, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    path: PathBuf,
    line: usize,
    column: usize,
    message: String,
    source_line: Option<SourceLine>,
    expected: Option<String>,
    help: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct SourceLine {
    text: String,
    caret_start: usize,
    caret_len: usize,
}

impl Problem {
    /// Gives the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the line, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Gives the column in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// Gives the message without its place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Gives what would have been accepted.
    #[must_use]
    pub fn expected(&self) -> Option<&str> {
        self.expected.as_deref()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path.display(), self.line, self.column, self.message)?;
        let gutter = self.line.to_string().len();
        if let Some(source) = &self.source_line {
            let blank = " ".repeat(gutter);
            write!(f, "\n{blank} |\n{} | {}", self.line, source.text)?;
            let indent = " ".repeat(source.caret_start);
            let carets = "^".repeat(source.caret_len);
            write!(f, "\n{blank} | {indent}{carets}")?;
        }
        let blank = " ".repeat(gutter);
        if let Some(expected) = &self.expected {
            write!(f, "\n{blank} = expected: {expected}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{blank} = help: {help}")?;
        }
        Ok(())
    }
}

/// A mistake while its place is still a span of the source.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) expected: Option<String>,
    pub(super) help: Option<String>,
    /// Whether the source line may hold a secret and must not be repeated.
    pub(super) hide_line: bool,
}

impl Finding {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), expected: None, help: None, hide_line: false }
    }

    pub(super) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(super) fn help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    /// Turns the span into a line of `text`, the source of the file at `path`.
    fn locate(self, path: &Path, text: &str) -> Problem {
        let (start, end) = boundaries(text, &self.span);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let column = text[line_start..start].chars().count();
        let marked = text[start..end.min(line_end)].chars().count().max(1);
        let empty = text[line_start..line_end].trim().is_empty();
        let source_line = (!self.hide_line && !empty)
            .then(|| cut(text[line_start..line_end].trim_end_matches('\r'), column, marked));
        Problem {
            path: path.to_owned(),
            line: text[..line_start].matches('\n').count() + 1,
            column: column + 1,
            message: self.message,
            source_line,
            expected: self.expected,
            help: self.help,
        }
    }
}

/// Turns what was found in `text`, the source of the file at `path`, into an error.
pub(super) fn locate(mut found: Vec<Finding>, path: &Path, text: &str) -> ConfigFileError {
    found.sort_by_key(|finding| finding.span.start);
    // A service that depends on itself is one mistake in its values and one between services.
    found.dedup_by(|a, b| a.span == b.span && a.message == b.message);
    let more = found.len().saturating_sub(PROBLEMS_MAX);
    found.truncate(PROBLEMS_MAX);
    let problems = found.into_iter().map(|finding| finding.locate(path, text)).collect();
    ConfigFileError::Problems(Problems { problems, more })
}

/// Moves a span onto character boundaries inside the text.
fn boundaries(text: &str, span: &Range<usize>) -> (usize, usize) {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    // A mistake at the very end of a file that ends in a newline belongs to the last line, not to the one after it.
    let start =
        if start == text.len() && text.ends_with('\n') && start > 0 { start - 1 } else { start };
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    (start, end)
}

/// Cuts a long line around the mistake and makes it safe to print.
fn cut(line: &str, column: usize, marked: usize) -> SourceLine {
    // One character for one, so that the caret stays under its place.
    let printable = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    let chars: Vec<char> = line.chars().map(printable).collect();
    if chars.len() <= LINE_SHOWN_MAX {
        return SourceLine { text: chars.iter().collect(), caret_start: column, caret_len: marked };
    }
    let from = column.saturating_sub(LINE_SHOWN_MAX / 3);
    let to = (from + LINE_SHOWN_MAX).min(chars.len());
    let mut text: String = chars[from..to].iter().collect();
    let mut caret_start = column - from;
    if from > 0 {
        text.insert(0, '…');
        caret_start += 1;
    }
    if to < chars.len() {
        text.push('…');
    }
    SourceLine {
        text,
        caret_start,
        caret_len: marked.min((to - from + 1).saturating_sub(column - from)).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        Finding::new(span, "bad").locate(Path::new("f.toml"), text).to_string()
    }

    #[test]
    fn the_caret_stands_under_the_mistake() {
        assert_eq!(
            shown("a = 1\nbé = 2\n", 12..13),
            "f.toml:2:6: bad\n  |\n2 | bé = 2\n  |      ^"
        );
    }

    #[test]
    fn a_mistake_at_the_end_of_the_file_is_on_the_last_line() {
        assert!(shown("a = [\n", 6..6).starts_with("f.toml:1:6: "));
        assert!(shown("", 0..0).starts_with("f.toml:1:1: "));
    }

    #[test]
    fn a_long_line_is_cut_around_the_mistake_and_control_characters_are_replaced() {
        let line = format!("{}\u{1b}X{}", "a".repeat(5000), "b".repeat(5000));
        let text = shown(&line, 5001..5002);
        assert!(text.len() < 1000, "{text}");
        assert!(!text.contains('\u{1b}'));
        let mut lines = text.lines().skip(2);
        let source: Vec<char> = lines.next().unwrap().chars().collect();
        let caret = lines.next().unwrap().chars().position(|c| c == '^').unwrap();
        // The gutter of the source line is as wide as the one of the caret line.
        assert_eq!(source[caret], 'X');
    }

    #[test]
    fn any_span_is_survived() {
        for text in ["", "\n", "é", "a\nb"] {
            for start in 0..6 {
                for end in 0..6 {
                    let text = shown(text, Range { start, end });
                    assert!(text.contains("bad"));
                }
            }
        }
    }
}
