//! Framings, the walk over a message, and the endpoint.

use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value};
use supervisor_core::config::FramingKind;
use supervisor_core::message::IpcMessage;
use supervisor_ipc::Endpoint;
use supervisor_ipc::relay::{Envelope, Frames, Id, Shape, with_id};
use tokio::io::AsyncReadExt as _;

use supervisor_core::testing::fuzz::hash;

const FRAME_MAX: usize = 2000;
const JUNK_MAX: usize = 500;

pub(crate) const FRAME_WORDS: &[&[u8]] = &[
    b"Content-Length: ",
    b"content-length:",
    b"Content-Length: 5\r\n\r\nhello",
    b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\n",
    b"\r\n\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b":",
    b" ",
    b"\0\0\0\x03abc",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"{}",
    b"xxxxxxxxxxxxxxxx",
];

pub(crate) const JSON_WORDS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"\\\"",
    b"\\u0069",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b" ",
    b"\n",
    b"\"id\"",
    b"\"method\"",
    b"\"params\"",
    b"\"result\"",
    b"\"error\"",
    b"\"jsonrpc\":\"2.0\"",
    b"null",
    b"true",
    b"1",
    b"-0",
    b"1e5",
    b"\"i\\u0064\":",
    b"\xc3\xbc",
    b"\xff",
    b"{}",
    b"[]",
    b"\"x\"",
    b"{\"a\":",
];

pub(crate) const ENDPOINT_WORDS: &[&[u8]] = &[
    b"\0\0\0\x1d{\"k\":\"hello\",\"version\":1    }",
    b"\0\0\0\x12{\"k\":\"ping\",\"s\":1}",
    b"\0\0\0\x10{\"k\":\"a\",\"s\":  9}",
    b"\"k\":\"m\"",
    b"\"k\":\"hello\"",
    b"\"version\":1",
    b"\"session\":\"00000000-0000-0000-0000-000000000001\"",
    b"\"idle\":1",
    b"\"handled\":18446744073709551615",
    b"\"m\":{\"id\":\"00000000-0000-0000-0000-000000000002\",\"message_type\":\"t\",\"payload\":1,\"timestamp\":\"2026-01-01T00:00:00Z\",\"retry_count\":0}",
    b"\"push\":{\"window\":9,\"bytes\":900}",
    b"\"push\":{\"session\":\"00000000-0000-0000-0000-000000000001\",\"handled\":1}",
    b"\"s\":",
    b"\0\0\0",
    b"{",
    b"}",
    b",",
];

type Read = (Vec<Bytes>, Option<String>);

fn cut<'a>(kind: FramingKind, pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut frames = Frames::new(kind, FRAME_MAX, JUNK_MAX);
    let (mut source, mut found) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        source.extend_from_slice(piece);
        loop {
            match frames.cut(&mut source) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= FRAME_MAX, "a frame beyond the limit");
                    found.push(frame);
                }
                Ok(None) => break,
                Err(error) => return (found, Some(error.to_string())),
            }
        }
    }
    // What no limit bounds is not reserved.
    assert!(source.capacity() <= 64 * 1024, "{} bytes reserved", source.capacity());
    (found, None)
}

/// The same frames come out however the bytes are cut; the first byte says which framing and how they are.
pub(crate) fn frames(input: &[u8]) -> u64 {
    let Some((first, bytes)) = input.split_first() else { return 0 };
    let kind = match first % 3 {
        0 => FramingKind::Length,
        1 => FramingKind::Lsp,
        _ => FramingKind::Mcp,
    };
    let whole = cut(kind, std::iter::once(bytes));
    let pieces = cut(kind, bytes.chunks(usize::from(first / 3) + 1));
    assert_eq!(whole.0, pieces.0, "{kind:?}");
    assert_eq!(whole.1.is_some(), pieces.1.is_some(), "{:?} {:?}", whole.1, pieces.1);
    // A line that ends in two carriage returns keeps one, and loses it when it is written as a line again.
    for frame in whole.0.iter().filter(|frame| !frame.ends_with(b"\r")) {
        let mut written = std::collections::VecDeque::new();
        let written =
            match Frames::new(kind, FRAME_MAX, JUNK_MAX).queue(frame.clone(), &mut written) {
                Ok(()) => written.into_iter().flatten().collect::<Vec<u8>>(),
                Err(error) => panic!("what was read cannot be written: {error}"),
            };
        let (again, _) = cut(kind, std::iter::once(written.as_slice()));
        assert_eq!(again, std::slice::from_ref(frame));
    }
    hash(&(first % 3, whole.0.len().min(6), without_digits(whole.1)))
}

fn without_digits(text: Option<String>) -> Option<String> {
    text.map(|text| text.chars().filter(|c| c.is_alphabetic()).take(80).collect())
}

/// What the walk takes for members is what serde does.
pub(crate) fn envelope(input: &[u8]) -> u64 {
    let theirs = serde_json::from_slice::<Map<String, Value>>(input);
    let envelope = match Envelope::read(input) {
        Ok(envelope) => envelope,
        Err(error) => return hash(&(error.to_string(), theirs.is_ok())),
    };
    let raw = [envelope.params(), envelope.result(), envelope.error()];
    if let Ok(theirs) = &theirs {
        for (ours, name) in raw.iter().zip(["params", "result", "error"]) {
            let ours: Option<Value> = ours.and_then(|raw| serde_json::from_str(raw).ok());
            assert_eq!(ours.as_ref(), theirs.get(name), "{name}");
        }
        if envelope.shape() != Shape::Response {
            assert_eq!(theirs.get("method").and_then(Value::as_str), Some(&*envelope.method()));
        }
        if let Some(id) = envelope.id() {
            let renamed = with_id(&Bytes::copy_from_slice(input), &Id::text("other"));
            let renamed: Map<String, Value> = serde_json::from_slice(&renamed).unwrap();
            assert_eq!(renamed.get("id"), Some(&Value::from("other")), "{id}");
            assert_eq!(renamed.len(), theirs.len());
        }
    }
    let present = raw.map(|raw| raw.map(|raw| raw.as_bytes()[0]));
    hash(&(envelope.shape() as u8, present, envelope.id().is_some(), theirs.is_ok()))
}

/// An endpoint says well-formed frames whatever it hears, and handles no id twice.
pub(crate) fn endpoint(input: &[u8]) -> u64 {
    let handled = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&handled);
    let endpoint = Endpoint::new(move |message: IpcMessage| {
        notes.lock().unwrap().push(message.id);
        std::future::ready(message.payload.as_bool().map(Value::from))
    });
    let (first, second) = input.split_at(input.len() / 2);
    let mut said = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let served = runtime.block_on(async {
        let pusher = endpoint.pusher();
        for n in 0..3 {
            drop(pusher.push(message(n)).await);
        }
        endpoint.serve(tokio::io::join(first.chain(second), &mut said)).await
    });
    let (frames, failed) = all(&said);
    assert_eq!(failed, None);
    for frame in &frames {
        let frame: Map<String, Value> = serde_json::from_slice(frame).unwrap();
        assert!(frame.contains_key("k"), "{frame:?}");
    }
    let mut ids = handled.lock().unwrap().clone();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id was handled twice");
    let error = served.err().map(|error| error.to_string());
    hash(&(without_digits(error), frames.len().min(8), count.min(4)))
}

/// Something that an endpoint has to say.
fn message(n: u128) -> IpcMessage {
    IpcMessage {
        id: uuid::Uuid::from_u128(n),
        message_type: "t".into(),
        payload: Value::Null,
        timestamp: chrono::DateTime::UNIX_EPOCH,
        retry_count: 0,
    }
}

/// Frames of what an endpoint said, of any size.
fn all(bytes: &[u8]) -> Read {
    let mut frames = Frames::new(FramingKind::Length, usize::MAX / 2, 0);
    let (mut source, mut found) = (BytesMut::from(bytes), Vec::new());
    loop {
        match frames.cut(&mut source) {
            Ok(Some(frame)) => found.push(frame),
            Ok(None) if source.is_empty() => return (found, None),
            // It was cut off where the peer stopped reading, which a peer made of memory never does.
            Ok(None) => return (found, Some(format!("{} bytes too many", source.len()))),
            Err(error) => return (found, Some(error.to_string())),
        }
    }
}
