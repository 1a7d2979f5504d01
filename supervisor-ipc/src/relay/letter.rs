//! What a relay gives up for good, as it is kept for people.

use serde_json::Value;
use supervisor_core::Generation;

/// Longest name of a thing in a letter, in bytes.
const NAME_MAX: usize = 1024;
/// Longest word of a peer in a message to people, in characters.
const WORD_MAX: usize = 128;

/// Why a letter about a request is over.
pub(crate) const NOTHING_WAITS: &str =
    "its client was told that it failed and waits for no answer; make the request again from there";

/// A peer's word, short enough for a message.
pub(crate) fn shortened(word: &str) -> &str {
    word.char_indices().nth(WORD_MAX).map_or(word, |(end, _)| &word[..end])
}

/// Something servers died of, which no server is given any more.
///
/// It says which thing it was, never what was in it: a text and the arguments of a call may hold anything.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// Names it in its session; given to [`Relay::requeue`](super::Relay::requeue).
    pub number: u64,
    /// The method of the message that would give it to a server.
    pub method: String,
    /// Which one it was: name, version, size, digest.
    pub about: Value,
    /// Why it was given up.
    pub cause: String,
    /// The servers that died of it.
    pub generations: Vec<Generation>,
    /// Why it is over, if nobody waits for it any more; else it is part of the session, and can be given to a server again.
    pub over: Option<&'static str>,
}

/// Gives a uri as it may be shown: who may see it there (`user:password@`) and what was asked for (`?…`) are left out.
pub(crate) fn shown_uri(uri: &str) -> String {
    let uri = uri.split_once('?').map_or(uri, |(place, _)| place);
    let Some((scheme, rest)) = uri.split_once("://") else {
        return cut(uri);
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    cut(&format!("{scheme}://{host}{path}"))
}

fn cut(text: &str) -> String {
    match text.char_indices().find(|(at, c)| at + c.len_utf8() > NAME_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_shown_without_what_may_be_secret_and_never_at_length() {
        assert_eq!(shown_uri("file:///w/a%20b/c.rs"), "file:///w/a%20b/c.rs");
        assert_eq!(shown_uri("untitled:Untitled-1"), "untitled:Untitled-1");
        assert_eq!(shown_uri("https://me:secret@host/x?token=secret#f"), "https://host/x");
        assert_eq!(shown_uri("x://me@host"), "x://host");
        let long = shown_uri(&format!("file:///{}", "ä".repeat(9000)));
        assert!(long.len() <= NAME_MAX + 3 && long.ends_with('…'));
    }
}
