//! Walking over JSON by hand, without reading what is not asked for.

use std::borrow::Cow;
use std::ops::Range;

use super::envelope::{MALFORMED_DEPTH, Malformed};

/// Gives the first member of this name of an object, as it stands in it, and looks at nothing behind it.
pub(crate) fn member<'t>(object: &'t str, name: &str) -> Option<&'t str> {
    let mut walk = Walk { bytes: object.as_bytes(), at: 0 };
    walk.blanks();
    walk.expect(b'{').ok()?;
    loop {
        walk.blanks();
        let key = walk.string().ok()?;
        walk.blanks();
        walk.expect(b':').ok()?;
        walk.blanks();
        let value = walk.value().ok()?;
        if key_name(&object[key]) == name {
            return Some(&object[value]);
        }
        walk.blanks();
        walk.expect(b',').ok()?;
    }
}

/// Shows each member of an object, its name and its value as it stands there; false when it is no object, or not whole.
pub(crate) fn members<'t>(object: &'t str, mut each: impl FnMut(&str, &'t str)) -> bool {
    let mut walk = Walk { bytes: object.as_bytes(), at: 0 };
    let mut walk_all = || {
        walk.blanks();
        walk.expect(b'{')?;
        walk.blanks();
        if walk.peek() == Some(b'}') {
            return Ok(());
        }
        loop {
            walk.blanks();
            let key = walk.string()?;
            walk.blanks();
            walk.expect(b':')?;
            walk.blanks();
            let value = walk.value()?;
            each(&key_name(&object[key]), &object[value]);
            walk.blanks();
            if walk.peek() == Some(b'}') {
                return Ok::<_, Malformed>(());
            }
            walk.expect(b',')?;
        }
    };
    walk_all().is_ok()
}

/// The text of a JSON string; what cannot be read is an empty text, which is no name of anything.
pub(super) fn key_name(raw: &str) -> Cow<'_, str> {
    if raw.contains('\\') {
        return Cow::Owned(serde_json::from_str(raw).unwrap_or_default());
    }
    Cow::Borrowed(raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')).unwrap_or_default())
}

/// Bytes that are looked at word by word before blocks are: most texts are names.
const NEAR: usize = 32;
/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// Finds the quote that ends a text. Only quotes are looked for: one that is part of the text has an odd number of
/// backslashes before it.
fn text_end(text: &[u8]) -> Option<usize> {
    let near = text.len().min(NEAR);
    if let Some(found) = end_within(text, 0, near) {
        return Some(found);
    }
    let mut at = near;
    while at >= 2
        && let Some(block) = text[at - 2..].first_chunk::<{ BLOCK + 2 }>()
    {
        if may_hold_end(block)
            && let Some(found) = end_within(text, at, at + BLOCK)
        {
            return Some(found);
        }
        at += BLOCK;
    }
    end_within(text, at, text.len())
}

/// Tells whether a text may end in a block, which stands behind its first two bytes: there is a quote without a backslash
/// before it, or with two. Written so that it has no branches and becomes a few vector instructions: a text that is program
/// code has an escaped quote in nearly every block.
fn may_hold_end(block: &[u8; BLOCK + 2]) -> bool {
    let mut any = 0;
    for at in 0..BLOCK {
        let quote = u8::from(block[at + 2] == b'"');
        let escaped = u8::from(block[at + 1] == b'\\') & u8::from(block[at] != b'\\');
        any |= quote & (escaped ^ 1);
    }
    any != 0
}

/// Finds the quote that ends a text among these bytes of it.
fn end_within(text: &[u8], from: usize, to: usize) -> Option<usize> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let ends = |at: usize| {
        let escapes = text[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        escapes % 2 == 0
    };
    let mut at = from;
    while let Some(word) = text[at..to].first_chunk::<8>() {
        let zero_where_quote = u64::from_le_bytes(*word) ^ (EACH * u64::from(b'"'));
        // The lowest marked byte is a zero for certain; one above it may be marked for its neighbour's borrow.
        let mut marks =
            zero_where_quote.wrapping_sub(EACH) & !zero_where_quote & (EACH * u64::from(0x80_u8));
        while marks != 0 {
            let found = at + (marks.trailing_zeros() / 8) as usize;
            if text[found] == b'"' && ends(found) {
                return Some(found);
            }
            marks &= marks - 1;
        }
        at += 8;
    }
    (at..to).find(|found| text[*found] == b'"' && ends(*found))
}

pub(super) struct Walk<'m> {
    pub(super) bytes: &'m [u8],
    pub(super) at: usize,
}

impl Walk<'_> {
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(Malformed::Object);
        }
        self.at += 1;
        Ok(())
    }

    /// Walks over a string and gives its range, quotes included.
    pub(super) fn string(&mut self) -> Result<Range<usize>, Malformed> {
        let start = self.at;
        self.expect(b'"')?;
        let inside = self.bytes.get(self.at..).unwrap_or_default();
        self.at += text_end(inside).ok_or(Malformed::Object)? + 1;
        Ok(start..self.at)
    }

    /// Walks over a value and gives its range.
    pub(super) fn value(&mut self) -> Result<Range<usize>, Malformed> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => return self.string(),
            Some(b'{' | b'[') => self.nested()?,
            Some(_) => {
                while self.peek().is_some_and(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
                }) {
                    self.at += 1;
                }
            }
            None => return Err(Malformed::Object),
        }
        if self.at == start { Err(Malformed::Object) } else { Ok(start..self.at) }
    }

    fn nested(&mut self) -> Result<(), Malformed> {
        let mut depth = 0_usize;
        loop {
            match self.peek().ok_or(Malformed::Object)? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
            if depth > MALFORMED_DEPTH {
                return Err(Malformed::Depth);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_at_its_first_quote_without_an_odd_number_of_backslashes() {
        let slow = |text: &[u8]| {
            let mut at = 0;
            while at < text.len() {
                match text[at] {
                    b'"' => return Some(at),
                    b'\\' => at += 2,
                    _ => at += 1,
                }
            }
            None
        };
        let mut random = fastrand::Rng::with_seed(7);
        for length in 0..300 {
            for alphabet in [
                br#""\x"#.as_slice(),
                br#""\!#xxxxxxxxxxxxxxx"#,
                br#""\\\\\\\\\\"#,
                b"xxx\\",
                b"\"",
            ] {
                for _ in 0..60 {
                    let text: Vec<u8> =
                        (0..length).map(|_| alphabet[random.usize(..alphabet.len())]).collect();
                    assert_eq!(text_end(&text), slow(&text), "{}", text.escape_ascii());
                }
            }
            // Texts that are long although they are full of quotes and backslashes.
            for units in [
                ["x", "y", "z", r#"\""#],
                [r"\\", r#"\""#, r"\n", r#"\\\""#],
                [r"\\", r"\\", "x", r"\\"],
            ] {
                let mut text: Vec<u8> =
                    (0..length).flat_map(|_| units[random.usize(..4)].bytes()).collect();
                let end = text.len();
                text.extend_from_slice(br#"","x":"y\""#);
                assert_eq!(text_end(&text), Some(end), "{}", text.escape_ascii());
                text.truncate(end);
                assert_eq!(text_end(&text), None, "{}", text.escape_ascii());
            }
        }
    }

    #[test]
    fn a_member_is_found_and_nothing_behind_it_is_looked_at() {
        let text = r#" {"a":{"uri":1},"\u0062" : {"uri":"x"} , "c":[ broken"#;
        assert_eq!(member(text, "b"), Some(r#"{"uri":"x"}"#));
        assert_eq!(member(text, "uri"), None);
        assert_eq!(member(text, "c"), None);
        for other in ["", "[]", "{}", "7", "{\"a\"", "{\"a\":"] {
            assert_eq!(member(other, "a"), None, "{other}");
        }
    }
}
