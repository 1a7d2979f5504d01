//! Positions and edits of a document's text, in the encoding that was agreed on.

use serde::Deserialize;

/// A text that grows gets a sixteenth of itself for what comes next.
const SPARE: usize = 16;

/// What a column counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Encoding {
    /// Bytes.
    Utf8,
    /// UTF-16 code units; what a server that says nothing means.
    #[default]
    Utf16,
    /// Characters.
    Utf32,
}

impl Encoding {
    pub(crate) fn from_name(name: Option<&str>) -> Self {
        match name {
            Some("utf-8") => Self::Utf8,
            Some("utf-32") => Self::Utf32,
            _ => Self::Utf16,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Utf16 => "utf-16",
            Self::Utf32 => "utf-32",
        }
    }

    const fn width(self, character: char) -> usize {
        match self {
            Self::Utf8 => character.len_utf8(),
            Self::Utf16 => character.len_utf16(),
            Self::Utf32 => 1,
        }
    }
}

/// A position as it stands in a message; a number no document has is clamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Position {
    pub(crate) line: u64,
    pub(crate) character: u64,
}

/// Two positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Range {
    pub(crate) start: Position,
    pub(crate) end: Position,
}

/// One entry of `contentChanges`; without a range it is the whole text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Change {
    #[serde(default)]
    pub(crate) range: Option<Range>,
    pub(crate) text: String,
}

/// Finds the end of the line that begins at `start`: before its line end, and after it.
fn line_end(text: &str, start: usize) -> (usize, usize) {
    let rest = &text.as_bytes()[start..];
    match memchr::memchr2(b'\n', b'\r', rest) {
        None => (text.len(), text.len()),
        Some(found) => {
            let pair = rest[found] == b'\r' && rest.get(found + 1) == Some(&b'\n');
            (start + found, start + found + 1 + usize::from(pair))
        }
    }
}

/// Finds the byte a position means. Beyond the last line is the end of the text, beyond a line its end, within a
/// character its beginning.
pub(crate) fn offset(text: &str, position: Position, encoding: Encoding) -> usize {
    let mut start = 0;
    for _ in 0..position.line {
        let (end, next) = line_end(text, start);
        if end == next {
            return text.len();
        }
        start = next;
    }
    let (end, _) = line_end(text, start);
    let line = &text[start..end];
    let wanted = usize::try_from(position.character).unwrap_or(usize::MAX);
    if line.is_ascii() {
        return start + wanted.min(line.len());
    }
    let mut units = 0;
    for (at, character) in line.char_indices() {
        units += encoding.width(character);
        if units > wanted {
            return start + at;
        }
    }
    end
}

/// Finds the position of a byte.
#[cfg(test)]
pub(crate) fn position(text: &str, offset: usize, encoding: Encoding) -> Position {
    let (mut line, mut start) = (0, 0);
    loop {
        let (end, next) = line_end(text, start);
        if offset <= end || end == next {
            let units: usize = text[start..offset.min(end)]
                .chars()
                .map(|character| encoding.width(character))
                .sum();
            return Position { line, character: units as u64 };
        }
        if offset < next {
            let units: usize = text[start..end].chars().map(|c| encoding.width(c)).sum();
            return Position { line, character: units as u64 };
        }
        line += 1;
        start = next;
    }
}

/// Makes room for so many more bytes: the text alone would double what it holds.
fn make_room(text: &mut String, more: usize) {
    if text.capacity() - text.len() < more {
        text.reserve_exact(more + text.len() / SPARE);
    }
}

/// Applies the changes of one message in order, each to the result of the one before.
pub(crate) fn apply(text: &mut String, changes: Vec<Change>, encoding: Encoding) {
    for change in changes {
        match change.range {
            None => *text = change.text,
            Some(range) => {
                let start = offset(text, range.start, encoding);
                let end = offset(text, range.end, encoding).max(start);
                make_room(text, change.text.len());
                text.replace_range(start..end, &change.text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(line: u64, character: u64) -> Position {
        Position { line, character }
    }

    #[test]
    fn a_column_counts_what_was_agreed_on() {
        let text = "a\u{1F600}b\r\nä\rz\n";
        for (encoding, b, z) in
            [(Encoding::Utf8, 5, 2), (Encoding::Utf16, 3, 1), (Encoding::Utf32, 2, 1)]
        {
            assert_eq!(offset(text, at(0, b), encoding), 5, "{encoding:?}");
            assert_eq!(offset(text, at(1, z), encoding), 10, "{encoding:?}");
            assert_eq!(position(text, 5, encoding), at(0, b));
        }
        assert_eq!(&text[offset(text, at(2, 0), Encoding::Utf16)..], "z\n");
    }

    #[test]
    fn what_lies_outside_is_clamped_and_a_half_character_is_its_beginning() {
        let text = "a\u{1F600}b\nc";
        assert_eq!(offset(text, at(0, 99), Encoding::Utf16), 6);
        assert_eq!(offset(text, at(99, 0), Encoding::Utf16), text.len());
        assert_eq!(offset(text, at(u64::MAX, u64::MAX), Encoding::Utf8), text.len());
        assert_eq!(offset(text, at(0, 2), Encoding::Utf16), 1, "the middle of a surrogate pair");
        assert_eq!(offset(text, at(0, 3), Encoding::Utf8), 1, "the middle of four bytes");
        assert_eq!(offset("", at(0, 0), Encoding::Utf8), 0);
    }

    #[test]
    fn a_text_that_is_typed_into_holds_little_more_than_itself() {
        let mut text = "x".repeat(4000);
        let (mut moves, mut last) = (0, text.capacity());
        for _ in 0..2000 {
            let range = Some(Range { start: at(0, 5), end: at(0, 5) });
            apply(&mut text, vec![Change { range, text: "y".into() }], Encoding::Utf16);
            assert!(text.capacity() <= text.len() + text.len() / SPARE + 1, "{}", text.capacity());
            moves += usize::from(std::mem::replace(&mut last, text.capacity()) != text.capacity());
        }
        assert!(moves <= 8, "it was moved {moves} times");
    }

    #[test]
    fn changes_of_one_message_apply_each_to_the_result_of_the_last() {
        let mut text = "one\r\ntwo".to_owned();
        let change = |start, end, new: &str| Change {
            range: Some(Range { start, end }),
            text: new.to_owned(),
        };
        apply(
            &mut text,
            vec![
                change(at(0, 3), at(1, 0), " \u{1F600}"),
                change(at(0, 6), at(0, 9), "2"),
                change(at(9, 9), at(0, 0), "!"),
            ],
            Encoding::Utf16,
        );
        assert_eq!(text, "one \u{1F600}2!");
        apply(&mut text, vec![Change { range: None, text: "new".into() }], Encoding::Utf16);
        assert_eq!(text, "new");
    }
}
