//! Bytes that nobody would write against what a host and a guardian read of each other.

use std::path::Path;

use supervisor_core::testing::fuzz::{drive, hash};

use super::protocol::*;
use super::wire::{FRAME_MAX, Incoming, Malformed};

const WORDS: &[&[u8]] = &[
    b"\x08\0\0\0IDEGUARD",
    b"\0\0\0\0",
    b"\x01\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x03\0\0\0svc",
    b"\x01\0\x01\0",
    b"\0",
    b"\x01",
    b"\xff",
];

/// What is taken for something is written as the same thing again.
fn heard<T: PartialEq + std::fmt::Debug>(
    decoded: &Result<T, Malformed>,
    encode: impl Fn(&T) -> Option<Vec<u8>>,
    decode: impl Fn(&[u8]) -> Result<T, Malformed>,
) -> u64 {
    let value = match decoded {
        Ok(value) => value,
        Err(Malformed(why)) => return hash(why),
    };
    let written = encode(value).unwrap();
    assert_eq!(decode(&written[4..]).as_ref(), Ok(value));
    hash(&format!("{value:?}").split(|c: char| !c.is_alphabetic()).next())
}

fn body(first: u8, bytes: &[u8]) -> u64 {
    let outcome = match first % 4 {
        0 => heard(&Hello::decode(bytes), Hello::encode, Hello::decode),
        1 => heard(&Welcome::decode(bytes), Welcome::encode, Welcome::decode),
        2 => {
            let encode = |(id, request): &(RequestId, Request)| request.encode(*id);
            heard(&Request::decode(bytes), encode, Request::decode)
        }
        _ => {
            let encode = |(id, reply): &(RequestId, Reply)| reply.encode(*id);
            heard(&Reply::decode(bytes), encode, Reply::decode)
        }
    };
    hash(&(first % 4, outcome))
}

/// The same frames come out however the bytes are cut; the first byte says what they are read as.
fn stream(input: &[u8]) -> u64 {
    let Some((first, bytes)) = input.split_first() else { return 0 };
    let cut = |step: usize| {
        let (mut incoming, mut found) = (Incoming::default(), Vec::new());
        for piece in bytes.chunks(step) {
            incoming.push(piece);
            loop {
                match incoming.next(FRAME_MAX) {
                    Ok(Some(frame)) => found.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(Malformed(why)) => return (found, Some(why)),
                }
            }
        }
        (found, None)
    };
    let whole = cut(bytes.len().max(1));
    assert_eq!(whole, cut(usize::from(first / 4) + 1));
    let outcomes: Vec<u64> = whole.0.iter().take(4).map(|frame| body(*first, frame)).collect();
    hash(&(outcomes, whole.1))
}

fn corpus(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name)
}

#[test]
fn no_bytes_break_what_a_host_and_a_guardian_hear() {
    drive(&corpus("guardian"), stream, WORDS);
}
