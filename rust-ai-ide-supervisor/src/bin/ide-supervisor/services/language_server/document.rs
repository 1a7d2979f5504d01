//! One open document, kept in step by edits in UTF-16 positions.

use serde_json::Value;

/// One open document.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document {
    pub(super) uri: String,
    pub(super) version: i64,
    pub(super) text: String,
}

/// Tells whether a character is part of a word.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

impl Document {
    /// Reads the `textDocument` of a `didOpen`.
    pub(super) fn open(item: &Value) -> Option<Self> {
        Some(Self {
            uri: item["uri"].as_str()?.to_owned(),
            version: item["version"].as_i64()?,
            text: item["text"].as_str()?.to_owned(),
        })
    }

    /// Applies one entry of `contentChanges`; a change without a range replaces the whole text.
    #[must_use]
    pub(super) fn change(&mut self, change: &Value) -> bool {
        let Some(text) = change["text"].as_str() else {
            return false;
        };
        let range = &change["range"];
        if range.is_null() {
            text.clone_into(&mut self.text);
            return true;
        }
        let (Some(start), Some(end)) = (self.offset(&range["start"]), self.offset(&range["end"]))
        else {
            return false;
        };
        if start > end {
            return false;
        }
        self.text.replace_range(start..end, text);
        true
    }

    /// Gives the byte offset of a position; beyond the end of a line or of the text means that end, as the protocol says.
    pub(super) fn offset(&self, position: &Value) -> Option<usize> {
        let line = position["line"].as_u64()?;
        let character = position["character"].as_u64()?;
        let mut start = 0;
        for _ in 0..line {
            match self.text[start..].find('\n') {
                Some(newline) => start += newline + 1,
                None => return Some(self.text.len()),
            }
        }
        let rest = &self.text[start..];
        let content = rest.split('\n').next().unwrap_or(rest);
        let content = content.strip_suffix('\r').unwrap_or(content);
        let mut units = 0;
        for (at, c) in content.char_indices() {
            if units >= character {
                return Some(start + at);
            }
            units += c.len_utf16() as u64;
        }
        Some(start + content.len())
    }

    /// Gives the position of a byte offset as line and UTF-16 character.
    pub(super) fn position(&self, offset: usize) -> Value {
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        serde_json::json!({
            "line": before.matches('\n').count(),
            "character": before[line_start..].encode_utf16().count(),
        })
    }

    /// Gives the part of the word that ends at `offset`.
    pub(super) fn word_before(&self, offset: usize) -> &str {
        let before = &self.text[..offset];
        let start = before
            .char_indices()
            .rev()
            .take_while(|(_, c)| is_word(*c))
            .last()
            .map_or(offset, |(at, _)| at);
        &before[start..]
    }

    /// Gives the word around `offset` and where it starts.
    pub(super) fn word_at(&self, offset: usize) -> Option<(usize, &str)> {
        let start = offset - self.word_before(offset).len();
        let length = self.text[start..].find(|c| !is_word(c)).unwrap_or(self.text.len() - start);
        (length > 0).then(|| (start, &self.text[start..start + length]))
    }

    /// Gives every word with its byte offset.
    pub(super) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        let base = self.text.as_ptr().addr();
        self.text
            .split(|c| !is_word(c))
            .filter(|word| !word.is_empty())
            .map(move |word| (word.as_ptr().addr() - base, word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(text: &str) -> Document {
        Document { uri: "file:///a".into(), version: 1, text: text.into() }
    }

    #[test]
    fn a_position_and_its_offset_are_each_others_inverse() {
        let document = document("a\u{1f600}b\r\né\n\nend");
        for (offset, c) in document.text.char_indices() {
            // Inside a line ending there is no position of its own.
            if c != '\r' && c != '\n' {
                assert_eq!(document.offset(&document.position(offset)), Some(offset));
            }
        }
        assert_eq!(
            document.offset(&json!({ "line": 99, "character": 0 })),
            Some(document.text.len())
        );
        assert_eq!(document.offset(&json!({ "line": 0, "character": 99 })), Some(6));
    }

    #[test]
    fn a_change_backwards_or_without_text_is_refused_and_changes_nothing() {
        let mut changed = document("abc");
        let backwards = json!({ "text": "x", "range": {
            "start": { "line": 0, "character": 2 }, "end": { "line": 0, "character": 1 } } });
        assert!(!changed.change(&backwards));
        assert!(!changed.change(&json!({})));
        assert_eq!(changed, document("abc"));
    }

    #[test]
    fn the_word_under_the_cursor_is_found_from_any_place_in_it() {
        let document = document("fn größe_2()");
        for offset in [3, 5, 11, 12] {
            let at = document.text.ceil_char_boundary(offset);
            assert_eq!(document.word_at(at), Some((3, "größe_2")), "at {at}");
        }
        assert_eq!(document.word_at(document.text.len()), None);
    }
}
