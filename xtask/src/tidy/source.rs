//! A Rust file seen twice: as written, and as code with comments and literals blanked.
//!
//! Rules that look for tokens read the code view, so that a word in a comment, a message or a test's
//! sample is not mistaken for the thing itself. Both views have the same lines.

/// The text of a Rust file and its code view.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) text: &'a str,
    code: String,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, code: Blanker::new(text).run() }
    }

    /// Line numbers from 1, each with the line as written and as code.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &'a str, &str)> {
        let both = self.text.lines().zip(self.code.lines());
        both.enumerate().map(|(index, (text, code))| (index + 1, text, code))
    }

    /// The `//!` block that opens the file; empty when there is none.
    pub(crate) fn module_doc(&self) -> String {
        let doc = self.text.lines().take_while(|line| line.starts_with("//!"));
        doc.collect::<Vec<_>>().join("\n")
    }

    /// Whether `marker` stands in a comment on this line or in the comment block right above it.
    pub(crate) fn explained_by(&self, line: usize, marker: &str) -> bool {
        let lines: Vec<&str> = self.text.lines().collect();
        let comment = |text: &&str| text.trim_start().starts_with("//");
        let above = lines.iter().take(line - 1).rev().copied().take_while(comment);
        lines.get(line - 1).copied().into_iter().chain(above).any(|text| text.contains(marker))
    }
}

/// Whether `token` stands in `code` with no identifier character before it.
pub(crate) fn has_token(code: &str, token: &str) -> bool {
    code.match_indices(token).any(|(at, _)| {
        let before = code.get(..at).and_then(|head| head.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Copies a file, replacing what is not code by spaces.
struct Blanker {
    input: Vec<char>,
    at: usize,
    output: String,
}

impl Blanker {
    fn new(text: &str) -> Self {
        Self { input: text.chars().collect(), at: 0, output: String::with_capacity(text.len()) }
    }

    fn run(mut self) -> String {
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('/')) => self.blank_while(|b| b.peek(0).is_some_and(|c| c != '\n')),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.string(),
                ('r', Some('"' | '#')) if !self.after_identifier() => self.raw_string(),
                ('b' | 'c', Some('r')) if !self.after_identifier() => {
                    self.keep();
                    self.raw_string();
                }
                ('\'', Some('\\')) => {
                    self.blank(3);
                    self.blank_while(|b| b.peek(0).is_some_and(|c| c != '\'' && c != '\n'));
                    self.blank(1);
                }
                ('\'', _) if self.peek(2) == Some('\'') => self.blank(3),
                _ => self.keep(),
            }
        }
        self.output
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.input.get(self.at + ahead).copied()
    }

    fn after_identifier(&self) -> bool {
        self.output.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
    }

    fn keep(&mut self) {
        self.output.extend(self.peek(0));
        self.at += 1;
    }

    fn blank(&mut self, count: usize) {
        for _ in 0..count {
            let Some(c) = self.peek(0) else { return };
            self.output.push(if c == '\n' { '\n' } else { ' ' });
            self.at += 1;
        }
    }

    fn blank_while(&mut self, more: impl Fn(&Self) -> bool) {
        while more(self) {
            self.blank(1);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('*')) => {
                    depth += 1;
                    self.blank(2);
                }
                ('*', Some('/')) => {
                    depth -= 1;
                    self.blank(2);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.blank(1),
            }
        }
    }

    fn string(&mut self) {
        self.blank(1);
        while let Some(c) = self.peek(0) {
            match c {
                '\\' => self.blank(2),
                '"' => return self.blank(1),
                _ => self.blank(1),
            }
        }
    }

    /// At an `r`: a raw string, or a raw identifier such as `r#type`, which is kept.
    fn raw_string(&mut self) {
        let hashes = (1..).take_while(|&ahead| self.peek(ahead) == Some('#')).count();
        if self.peek(1 + hashes) != Some('"') {
            return self.keep();
        }
        self.blank(2 + hashes);
        let closes = |b: &Self| {
            b.peek(0) == Some('"') && (1..=hashes).all(|ahead| b.peek(ahead) == Some('#'))
        };
        self.blank_while(|b| b.peek(0).is_some() && !closes(b));
        self.blank(1 + hashes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new(text).code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_blanked_and_code_is_kept() {
        assert_eq!(code("a(); // todo!()\nb(\"unsafe {\", 'x');"), "a(); b( , );");
        assert_eq!(code("/* a /* nested */ still */ c"), "c");
        assert_eq!(code(r###"f(r#"dbg!("x")"#, br"y\", c)"###), "f( , b , c)");
        assert_eq!(code(r"g('\'', '\u{7f}', 'a')"), "g( , , )");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(
            code("fn f<'a>(x: &'a str, r#type: u8) {}"),
            "fn f<'a>(x: &'a str, r#type: u8) {}"
        );
        assert_eq!(code("let var = 1; for x in r {}"), "let var = 1; for x in r {}");
    }

    #[test]
    fn both_views_have_the_same_lines() {
        let text = "a(\"one\\\n two\");\n/* x\n y */ b();\n";
        let source = Source::new(text);
        assert_eq!(source.text.lines().count(), source.code.lines().count());
        assert_eq!(
            source.lines().last().map(|(line, _, code)| (line, code.trim())),
            Some((4, "b();"))
        );
    }

    #[test]
    fn a_token_inside_a_longer_name_is_another_token() {
        assert!(has_token("x = dbg!(y)", "dbg!"));
        assert!(!has_token("my_dbg!(y)", "dbg!"));
    }
}
