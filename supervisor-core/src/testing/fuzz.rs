//! Bytes that nobody would write against what reads bytes of others.
//!
//! A target takes an input and tells its outcome in a number. Inputs grow out of those in a directory, the corpus, which are
//! tried first: what was found once stays there. One whose outcome was not seen before joins them in memory and is changed
//! further. One that breaks the target is written into the corpus; one that aborts the process is left in a file whose name is
//! printed at the start. `FUZZ_FOR` gives the seconds of each target (0.3 otherwise), `FUZZ_SEED` repeats a run.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and a run names its seed and what it found"
)]

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::policy::SplitMix;

/// Inputs that are changed further; at the bound a random one makes room.
const POOL_MAX: usize = 4096;
/// Longest time for one input; all of them are small.
const SLOW: Duration = Duration::from_secs(5);

/// Something that takes bytes and tells their outcome in a number.
pub type Target = fn(&[u8]) -> u64;

struct Random(SplitMix);

impl Random {
    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.0.next_u64() % end as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.0.next_u64().to_le_bytes()[7]
    }
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Where the input under way is while it is: an abort, for want of memory or of stack, leaves nothing else behind.
struct UnderWay {
    file: File,
    place: PathBuf,
}

impl UnderWay {
    fn new(name: &str) -> Self {
        let place = std::env::temp_dir().join(format!("fuzz-{name}-{}", std::process::id()));
        let file =
            File::create(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
        Self { file, place }
    }

    fn note(&mut self, input: &[u8]) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(input)?;
        self.file.set_len(input.len() as u64)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // What panicked is in the corpus.
        drop(std::fs::remove_file(&self.place));
    }
}

/// Runs one input; one that panics or takes too long is kept for the next run and for a person.
fn run(corpus: &Path, target: Target, under_way: &mut UnderWay, input: &[u8]) -> u64 {
    let noted = under_way.note(input);
    noted.unwrap_or_else(|error| panic!("{}: {error}", under_way.place.display()));
    let began = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    let took = began.elapsed();
    match outcome {
        Ok(outcome) if took < SLOW => outcome,
        outcome => {
            let what =
                if outcome.is_err() { "panics".to_owned() } else { format!("took {took:?}") };
            let kept = corpus.join(format!("found-{:016x}", hash(&input)));
            let place = match std::fs::write(&kept, input) {
                Ok(()) => format!("kept as {}: commit it with its mend", kept.display()),
                Err(error) => format!("not kept: {error}"),
            };
            panic!("an input {what}, {place}: {}", input.escape_ascii());
        }
    }
}

/// Drives a target with what is in `corpus` and what becomes of it; `words` are what the format knows.
///
/// # Panics
/// When the target panics or takes longer than five seconds for an input, which is written into `corpus` first; and for a
/// corpus that is not there or empty.
pub fn drive(corpus: &Path, target: Target, words: &[&[u8]]) {
    let name = corpus.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let seed = variable("FUZZ_SEED").unwrap_or_else(|| hash(&(Instant::now(), std::process::id())));
    let time = Duration::from_secs_f64(variable("FUZZ_FOR").unwrap_or(0.3));
    let mut under_way = UnderWay::new(&name);
    let place = under_way.place.display();
    eprintln!(
        "{name}: FUZZ_SEED={seed}; after an abort the input is in {place}: put it into the corpus"
    );
    let mut pool: Vec<Vec<u8>> = Vec::new();
    let mut seen = HashSet::new();
    for file in files(corpus) {
        let input = std::fs::read(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        seen.insert(run(corpus, target, &mut under_way, &input));
        pool.push(input);
    }
    let mut random = Random(SplitMix::new(seed));
    let (began, mut inputs) = (Instant::now(), 0_u64);
    while began.elapsed() < time {
        let mut input = pool[random.below(pool.len())].clone();
        let other = &pool[random.below(pool.len())];
        for _ in 0..=random.below(4) {
            mutate(&mut input, other, words, &mut random);
        }
        inputs += 1;
        if seen.insert(run(corpus, target, &mut under_way, &input)) {
            if pool.len() >= POOL_MAX {
                pool.swap_remove(random.below(pool.len()));
            }
            pool.push(input);
        }
    }
    eprintln!("{name}: {inputs} inputs, {} different outcomes, nothing found", seen.len());
}

fn files(corpus: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(corpus).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    let mut files = listed.unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    assert!(!files.is_empty(), "{}: nothing to begin with", corpus.display());
    files.sort();
    files
}

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

/// Gives a number for an outcome: the same for inputs that need not be told apart.
#[must_use]
pub fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Some range of at most `most` bytes.
fn range(length: usize, most: usize, random: &mut Random) -> std::ops::Range<usize> {
    let start = random.below(length + 1);
    let end = length.min(start + random.below(most + 1));
    start..end
}

/// The digits around some place; nothing if there are none from there on.
fn number(input: &[u8], random: &mut Random) -> Option<std::ops::Range<usize>> {
    let from = random.below(input.len() + 1);
    let start = from + input[from..].iter().position(u8::is_ascii_digit)?;
    let digits = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    Some(start..start + digits)
}

/// Changes `input` once; `other` is another input, `words` are what the format knows.
fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut Random) {
    let length = input.len();
    let at = random.below(length + 1);
    let word = words[random.below(words.len())];
    match random.below(11) {
        0 if length > 0 => input[at.min(length - 1)] ^= 1 << random.below(8),
        1 if length > 0 => input[at.min(length - 1)] = random.byte(),
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
                let number = NUMBERS[random.below(NUMBERS.len())];
                drop(input.splice(place, number.bytes()));
            }
        }
        8 => {
            let piece = &other[range(other.len(), 256, random)];
            drop(input.splice(at..at, piece.iter().copied()));
        }
        9 => drop(input.splice(at..at, word.repeat(1 << random.below(9)))),
        _ => input.truncate(at),
    }
    input.truncate(LONGEST);
}
