//! Comparing document names without rewriting them.

/// A form in which two spellings of one document are equal: escapes resolved, drive letter small.
///
/// Only compared, never sent: both sides keep the spelling they chose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UriKey(Box<str>);

impl UriKey {
    pub(crate) fn new(uri: &str) -> Self {
        let mut bytes = unescaped(uri);
        let scheme = bytes.iter().position(|byte| *byte == b':').unwrap_or(0);
        bytes[..scheme].make_ascii_lowercase();
        // file:///C:/ and file:///c%3A/ are one place.
        if bytes.starts_with(b"file:///") && bytes.get(9) == Some(&b':') {
            bytes[8].make_ascii_lowercase();
        }
        Self(String::from_utf8_lossy(&bytes).into())
    }

    /// A notebook may be open as a text, too; that is another document.
    pub(crate) fn of_notebook(uri: &str) -> Self {
        // No name of a text begins with a blank.
        Self(format!(" {}", Self::new(uri).0).into())
    }
}

fn unescaped(uri: &str) -> Vec<u8> {
    let bytes = uri.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        let escaped = (bytes[at] == b'%')
            .then(|| digits.and_then(|two| u8::from_str_radix(two, 16).ok()))
            .flatten();
        plain.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_document_are_equal_and_others_are_not() {
        let key = UriKey::new;
        assert_eq!(key("file:///c%3A/a%20b"), key("FILE:///C:/a b"));
        assert_eq!(key("file:///c%3a/x"), key("file:///c%3A/x"));
        assert_ne!(key("file:///a/X"), key("file:///a/x"));
        assert_ne!(key("untitled:1"), key("untitled:2"));
        assert_eq!(key("%"), key("%"));
        assert_ne!(key("file:///%zz"), key("file:///zz"));
    }
}
