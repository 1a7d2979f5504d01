//! Reading who a JSON-RPC message is for, without touching the rest of it.
//!
//! Written by hand because a relay looks at every message: the outer object is walked once, strings are skipped by a
//! search for quotes alone, nothing is copied, and nothing recurses, so that depth costs no stack.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;

use super::walk::{Walk, key_name};

/// Deepest nesting that is read.
pub const MALFORMED_DEPTH: usize = 10_000;

/// Why a message is no JSON-RPC message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// It is not UTF-8.
    Encoding,
    /// It is no JSON object, or one that is cut off or goes on too long.
    Object,
    /// It is a list: several messages in one, which only old revisions of MCP allow.
    Batch,
    /// It is nested deeper than [`MALFORMED_DEPTH`].
    Depth,
    /// An id that is neither number, string nor `null`, or a method that is no string, or one of them twice.
    Member,
    /// Neither request, notification nor answer.
    Shape,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoding => "it is not UTF-8",
            Self::Object => "it is no JSON object",
            Self::Batch => "it is a batch of messages",
            Self::Depth => "it is nested too deeply",
            Self::Member => "its id or method is of the wrong kind, or there twice",
            Self::Shape => "it is neither request, notification nor answer",
        })
    }
}

/// The id of a request, in one form for each id: `1.0` is `1`, and `"\u0061"` is `"a"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Box<str>);

impl Id {
    /// Makes an id of a number.
    #[must_use]
    pub fn number(number: u64) -> Self {
        Self(number.to_string().into())
    }

    /// Makes an id of a text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self(serde_json::Value::from(text).to_string().into())
    }

    /// Gives it as JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads an id that stands as JSON; nothing if it is neither number nor string.
    #[must_use]
    pub fn parse(raw: &str) -> Option<Self> {
        let first = *raw.as_bytes().first()?;
        if first == b'"' {
            if !raw.contains('\\') {
                return Some(Self(raw.into()));
            }
            return serde_json::from_str::<String>(raw).ok().map(|text| Self::text(&text));
        }
        if raw.bytes().all(|byte| byte.is_ascii_digit()) && (raw.len() == 1 || first != b'0') {
            return Some(Self(raw.into()));
        }
        let number: serde_json::Number = serde_json::from_str(raw).ok()?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the value is checked to be whole and small"
        )]
        let whole = number
            .as_f64()
            .filter(|value| value.fract() == 0.0 && value.abs() < 9e15)
            .map(|value| (value as i64).to_string());
        Some(Self(
            number
                .as_i64()
                .map(|n| n.to_string())
                .or(whole)
                .unwrap_or_else(|| raw.to_owned())
                .into(),
        ))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Method and id: wants an answer.
    Request,
    /// Method without id.
    Notification,
    /// Result or error.
    Response,
}

/// The members of one message, as they stand in it.
#[derive(Debug, Clone)]
pub struct Envelope<'m> {
    text: &'m str,
    id: Option<Range<usize>>,
    method: Option<Range<usize>>,
    params: Option<Range<usize>>,
    result: Option<Range<usize>>,
    error: Option<Range<usize>>,
    shape: Shape,
}

impl<'m> Envelope<'m> {
    /// Reads the outer object of a message.
    ///
    /// # Errors
    /// [`Malformed`]; a retry does not help.
    pub fn read(message: &'m [u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(message).map_err(|_| Malformed::Encoding)?;
        let mut envelope = Self {
            text,
            id: None,
            method: None,
            params: None,
            result: None,
            error: None,
            shape: Shape::Notification,
        };
        let mut walk = Walk { bytes: message, at: 0 };
        walk.blanks();
        match walk.peek() {
            Some(b'{') => walk.at += 1,
            Some(b'[') => return Err(Malformed::Batch),
            _ => return Err(Malformed::Object),
        }
        envelope.members(&mut walk)?;
        walk.blanks();
        if walk.peek().is_some() {
            return Err(Malformed::Object);
        }
        envelope.judge()?;
        Ok(envelope)
    }

    fn members(&mut self, walk: &mut Walk<'_>) -> Result<(), Malformed> {
        walk.blanks();
        if walk.peek() == Some(b'}') {
            walk.at += 1;
            return Ok(());
        }
        loop {
            walk.blanks();
            let key = walk.string()?;
            walk.blanks();
            walk.expect(b':')?;
            walk.blanks();
            let value = walk.value()?;
            let slot = match key_name(&self.text[key]).as_ref() {
                "id" => Some(&mut self.id),
                "method" => Some(&mut self.method),
                "params" => Some(&mut self.params),
                "result" => Some(&mut self.result),
                "error" => Some(&mut self.error),
                _ => None,
            };
            if slot.is_some_and(|slot| slot.replace(value).is_some()) {
                return Err(Malformed::Member);
            }
            walk.blanks();
            match walk.peek() {
                Some(b',') => walk.at += 1,
                Some(b'}') => {
                    walk.at += 1;
                    return Ok(());
                }
                _ => return Err(Malformed::Object),
            }
        }
    }

    fn judge(&mut self) -> Result<(), Malformed> {
        if let Some(id) = self.raw(self.id.as_ref()) {
            let simple = id == "null"
                || id.starts_with(['"', '-'])
                || id.starts_with(|c: char| c.is_ascii_digit());
            if !simple || Id::parse(id).is_none() && id != "null" {
                return Err(Malformed::Member);
            }
        }
        let answer = self.result.is_some() || self.error.is_some();
        self.shape = match self.raw(self.method.as_ref()) {
            Some(method) if !method.starts_with('"') => return Err(Malformed::Member),
            Some(_) if answer => return Err(Malformed::Shape),
            Some(_) if self.id.is_some() => Shape::Request,
            Some(_) => Shape::Notification,
            None if answer && self.id.is_some() => Shape::Response,
            None => return Err(Malformed::Shape),
        };
        Ok(())
    }

    fn raw(&self, range: Option<&Range<usize>>) -> Option<&'m str> {
        range.map(|range| &self.text[range.clone()])
    }

    /// Tells what the message is.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// Gives the id; nothing if there is none or it is `null`.
    #[must_use]
    pub fn id(&self) -> Option<Id> {
        self.raw(self.id.as_ref()).and_then(Id::parse)
    }

    /// Tells where in the message its id stands.
    #[must_use]
    pub fn id_span(&self) -> Option<Range<usize>> {
        self.id.clone()
    }

    /// Gives the method; the empty text for an answer.
    #[must_use]
    pub fn method(&self) -> Cow<'m, str> {
        self.raw(self.method.as_ref()).map_or(Cow::Borrowed(""), key_name)
    }

    /// Gives the parameters as they stand in the message.
    #[must_use]
    pub fn params(&self) -> Option<&'m str> {
        self.raw(self.params.as_ref())
    }

    /// Gives the result as it stands in the message.
    #[must_use]
    pub fn result(&self) -> Option<&'m str> {
        self.raw(self.result.as_ref())
    }

    /// Gives the error as it stands in the message.
    #[must_use]
    pub fn error(&self) -> Option<&'m str> {
        self.raw(self.error.as_ref())
    }

    /// Reads the parameters; nothing if they are absent or of another kind.
    #[must_use]
    pub fn read_params<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.params()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::{failure, notification, request, success, with_id};
    use super::*;

    #[test]
    fn a_message_is_told_apart_and_its_members_are_its_own_bytes() {
        let text = br#" { "jsonrpc" : "2.0", "x": {"id": 9}, "id" : 7 , "method":"a\/b", "params": [ 1, "}\"" ] } "#;
        let envelope = Envelope::read(text).unwrap();
        assert_eq!(envelope.shape(), Shape::Request);
        assert_eq!(envelope.id(), Some(Id::number(7)));
        assert_eq!(envelope.method(), "a/b");
        assert_eq!(envelope.params(), Some(r#"[ 1, "}\"" ]"#));
        let renamed = with_id(&Bytes::from_static(text), &Id::text("q\"x"));
        assert_eq!(renamed, std::str::from_utf8(text).unwrap().replace(": 7 ", ": \"q\\\"x\" "),);
    }

    #[test]
    fn one_id_has_one_form_however_it_is_written() {
        let id = |raw: &str| {
            Envelope::read(format!("{{\"id\":{raw},\"result\":1}}").as_bytes()).unwrap().id()
        };
        assert_eq!(id("1.0"), id("1"));
        assert_eq!(id("10e-1"), id("1"));
        assert_eq!(id(r#""\u0061/""#), id(r#""a\/""#));
        assert_ne!(id("1"), id(r#""1""#));
        assert_eq!(id("null"), None);
        assert_eq!(id("-3"), Some(Id(Box::from("-3"))));
    }

    #[test]
    fn what_is_no_message_is_refused_and_says_why() {
        let cases: &[(&[u8], Malformed)] = &[
            (b"\xff{}", Malformed::Encoding),
            (b"hello", Malformed::Object),
            (b"", Malformed::Object),
            (b"{\"id\":1", Malformed::Object),
            (b"{\"id\":1,\"result\":\"x\\\"}", Malformed::Object),
            (b"{\"id\":1,\"result\":1} x", Malformed::Object),
            (b"[{}]", Malformed::Batch),
            (b"{\"id\":{},\"method\":\"a\"}", Malformed::Member),
            (b"{\"id\":1,\"id\":2,\"method\":\"a\"}", Malformed::Member),
            (b"{\"id\":1,\"method\":7}", Malformed::Member),
            (b"{\"id\":1}", Malformed::Shape),
            (b"{\"result\":1}", Malformed::Shape),
            (b"{\"id\":1,\"method\":\"a\",\"result\":1}", Malformed::Shape),
        ];
        for (message, expected) in cases {
            let text = String::from_utf8_lossy(message);
            assert_eq!(Envelope::read(message).map(|_| ()), Err(*expected), "{text}");
        }
        let deep = format!("{{\"id\":1,\"result\":{}", "[".repeat(1_000_000));
        assert_eq!(Envelope::read(deep.as_bytes()).map(|_| ()), Err(Malformed::Depth));
    }

    #[test]
    fn what_is_written_is_read() {
        let id = Id::text("ä\n");
        for (message, shape) in [
            (request(&id, "m", b"{}"), Shape::Request),
            (notification("m", b"[]"), Shape::Notification),
            (success(&id, b"null"), Shape::Response),
            (failure(Some(&id), -1, "x\"y", Some(&serde_json::json!({"a": 1}))), Shape::Response),
        ] {
            let envelope = Envelope::read(&message).unwrap();
            assert_eq!(envelope.shape(), shape);
            assert!(serde_json::from_slice::<serde_json::Value>(&message).is_ok());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_and_what_serde_reads_it_reads_alike(
            bytes in proptest::collection::vec(prop::sample::select(br#"{}[]":,\ 1aeu-.idmethodresult"#.to_vec()), 0..60),
        ) {
            let ours = Envelope::read(&bytes);
            let theirs = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes);
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                let read = |raw: Option<&str>| raw.and_then(|raw| serde_json::from_str::<serde_json::Value>(raw).ok());
                prop_assert_eq!(read(ours.result()), theirs.get("result").cloned());
                prop_assert_eq!(read(ours.params()), theirs.get("params").cloned());
            }
        }
    }
}
