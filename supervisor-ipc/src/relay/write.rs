//! Writing JSON-RPC messages.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;

use super::envelope::{Envelope, Id};

/// The message is no JSON.
pub const PARSE_ERROR: i64 = -32700;
/// The message is no valid request here.
pub const INVALID_REQUEST: i64 = -32600;
/// Nobody knows the method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// Something failed inside.
pub const INTERNAL_ERROR: i64 = -32603;

fn parts(pieces: &[&[u8]]) -> Bytes {
    let mut message = BytesMut::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    for piece in pieces {
        message.put_slice(piece);
    }
    message.freeze()
}

/// A string, number, value as JSON; what cannot be written as JSON becomes `null`.
fn json(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec())
}

/// Writes a request; `params` is JSON, or nothing for a request without parameters.
#[must_use]
pub fn request(id: &Id, method: &str, params: &[u8]) -> Bytes {
    let named: &[u8] = if params.is_empty() { b"" } else { br#","params":"# };
    parts(&[
        br#"{"jsonrpc":"2.0","id":"#,
        id.as_str().as_bytes(),
        br#","method":"#,
        &json(method),
        named,
        params,
        b"}",
    ])
}

/// Writes a notification; `params` is JSON.
#[must_use]
pub fn notification(method: &str, params: &[u8]) -> Bytes {
    parts(&[br#"{"jsonrpc":"2.0","method":"#, &json(method), br#","params":"#, params, b"}"])
}

/// Writes a notification with parameters that hold a text of `text` bytes.
pub(crate) fn written(method: &str, params: &impl Serialize, text: usize) -> Bytes {
    // Line ends and quotes of a text take a byte more.
    let mut message = BytesMut::with_capacity(text + text / 16 + 512).writer();
    let all = Notification { jsonrpc: "2.0", method, params };
    match serde_json::to_writer(&mut message, &all) {
        Ok(()) => message.into_inner().freeze(),
        Err(_) => notification(method, b"null"),
    }
}

#[derive(Serialize)]
struct Notification<'m, P> {
    jsonrpc: &'static str,
    method: &'m str,
    params: &'m P,
}

/// Writes the answer to a request; `result` is JSON.
#[must_use]
pub fn success(id: &Id, result: &[u8]) -> Bytes {
    parts(&[br#"{"jsonrpc":"2.0","id":"#, id.as_str().as_bytes(), br#","result":"#, result, b"}"])
}

/// Writes the error that answers a request; without an id it answers a message that could not be read.
#[must_use]
pub fn failure(
    id: Option<&Id>,
    code: i64,
    message: &str,
    data: Option<&serde_json::Value>,
) -> Bytes {
    let data = data.map_or_else(Vec::new, |data| [br#","data":"#.as_slice(), &json(data)].concat());
    parts(&[
        br#"{"jsonrpc":"2.0","id":"#,
        id.map_or("null", Id::as_str).as_bytes(),
        br#","error":{"code":"#,
        code.to_string().as_bytes(),
        br#","message":"#,
        &json(message),
        &data,
        b"}}",
    ])
}

/// Gives the message with another id and every other byte as it was; a message without an id stays as it is.
#[must_use]
pub fn with_id(message: &Bytes, id: &Id) -> Bytes {
    let Ok(envelope) = Envelope::read(message) else {
        return message.clone();
    };
    let Some(span) = envelope.id_span() else {
        return message.clone();
    };
    parts(&[&message[..span.start], id.as_str().as_bytes(), &message[span.end..]])
}
