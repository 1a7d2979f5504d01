//! Bytes that nobody would write against what a supervisor and its clients read on the control socket.

use std::path::Path;

use supervisor_core::testing::fuzz::{drive, hash};
use tokio::io::AsyncReadExt as _;

use super::protocol::{ANSWER_BYTES_MAX, Answer, REQUEST_BYTES_MAX, Request};
use super::wire::Frames;

const WORDS: &[&[u8]] = &[
    b"\0\0\0\x1b{\"id\":1,\"call\":\"status\"    }",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\0\x01\0\0",
    b"\0\x01\0\x01",
    b"\"id\":",
    b"\"call\":\"logs\"",
    b"\"call\":\"storage\"",
    b"\"storage\":",
    b"\"service\":\"a\"",
    b"\"limit\":10000",
    b"\"after\":null",
    b"\"answer\":\"missed\"",
    b"\"body\":",
    b"{",
    b"}",
    b"[",
    b"\"",
    b",",
];

/// What is read as a request or an answer is written as the same again, and what is none ends the reading with a reason.
async fn read<T>(bytes: &[u8], at: usize, most: usize) -> (usize, Option<String>)
where
    T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug,
{
    let (first, second) = bytes.split_at(at.min(bytes.len()));
    let source = tokio::io::join(first.chain(second), tokio::io::sink());
    let mut frames = Frames::new(source, most);
    let mut count = 0;
    loop {
        match frames.receive::<T>(most).await {
            Ok(Some(value)) => {
                count += 1;
                let text = serde_json::to_vec(&value).unwrap();
                assert_eq!(serde_json::from_slice::<T>(&text).unwrap(), value);
            }
            Ok(None) => return (count, None),
            Err(error) => return (count, Some(error.to_string())),
        }
    }
}

/// The first byte says which side reads, and where the bytes are cut in two.
fn control(input: &[u8]) -> u64 {
    let Some((first, bytes)) = input.split_first() else { return 0 };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read = async |at| {
        if first % 2 == 0 {
            read::<Request>(bytes, at, REQUEST_BYTES_MAX).await
        } else {
            read::<Answer>(bytes, at, ANSWER_BYTES_MAX).await
        }
    };
    let whole = runtime.block_on(read(bytes.len()));
    assert_eq!(whole, runtime.block_on(read(usize::from(first / 2))));
    let reason =
        whole.1.map(|text| text.chars().filter(|c| c.is_alphabetic()).take(60).collect::<String>());
    hash(&(first % 2, whole.0.min(4), reason))
}

#[test]
fn no_bytes_break_what_is_heard_on_the_control_socket() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/control");
    drive(&corpus, control, WORDS);
}
