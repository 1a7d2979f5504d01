//! Changing an input a little, with a liking for what means something.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Longest input in bytes.
const LONGEST: usize = 8 * 1024;
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "1.0",
    "1e3",
    "00",
    "255",
    "65536",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
];

pub(crate) fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Some range of at most `most` bytes.
fn range(length: usize, most: usize, random: &mut fastrand::Rng) -> std::ops::Range<usize> {
    let start = random.usize(..=length);
    let end = length.min(start + random.usize(..=most));
    start..end
}

/// The digits around some place; nothing if there are none from there on.
fn number(input: &[u8], random: &mut fastrand::Rng) -> Option<std::ops::Range<usize>> {
    let from = random.usize(..=input.len());
    let start = from + input[from..].iter().position(u8::is_ascii_digit)?;
    let digits = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    Some(start..start + digits)
}

/// Changes `input` once; `other` is another input, `words` are what the format knows.
pub(crate) fn mutate(
    input: &mut Vec<u8>,
    other: &[u8],
    words: &[&[u8]],
    random: &mut fastrand::Rng,
) {
    let length = input.len();
    let at = random.usize(..=length);
    let word = words[random.usize(..words.len())];
    match random.u8(..11) {
        0 if length > 0 => input[at.min(length - 1)] ^= 1 << random.u8(..8),
        1 if length > 0 => input[at.min(length - 1)] = random.u8(..),
        2 => drop(input.drain(range(length, 16, random))),
        3 => {
            let copy = input[range(length, 64, random)].to_vec();
            drop(input.splice(at..at, copy));
        }
        4 | 5 => drop(input.splice(at..at, word.iter().copied())),
        6 => {
            let place = range(length, word.len() + 4, random);
            drop(input.splice(place, word.iter().copied()));
        }
        7 => {
            if let Some(place) = number(input, random) {
                let number = NUMBERS[random.usize(..NUMBERS.len())];
                drop(input.splice(place, number.bytes()));
            }
        }
        8 => {
            let piece = &other[range(other.len(), 256, random)];
            drop(input.splice(at..at, piece.iter().copied()));
        }
        9 => drop(input.splice(at..at, word.repeat(1 << random.usize(..9)))),
        _ => input.truncate(at),
    }
    input.truncate(LONGEST);
}
