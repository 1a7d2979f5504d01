//! A service's output: read off the critical path, cut into lines, kept in rotating files and a short memory.
//!
//! One thread with one event loop reads every pipe, so a flood of one service delays neither a restart nor a
//! probe, and memory does not grow with the number of services: all pipes are read through one buffer.

mod files;
mod lines;
mod pump;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use supervisor_core::config::CaptureLimits;
use supervisor_core::exit::LAST_LINES_MAX;
use supervisor_core::status::LogLine;

pub(crate) use files::read_tail;
pub(crate) use lines::Cutter;
pub(crate) use pump::{CaptureThread, Pipes};

use files::LogFiles;

/// Longest line kept in memory for an exit report, in characters; files keep more.
const REMEMBERED_LINE_MAX: usize = 400;
/// Secrets shorter than this are not searched for: they would match everywhere and hide everything.
const SECRET_LEN_MIN: usize = 4;
/// What stands where a secret stood.
const REDACTED: &str = "[redacted]";

/// What one service wrote, over all of its incarnations.
#[derive(Debug, Clone)]
pub(crate) struct Output(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    files: LogFiles,
    last: VecDeque<String>,
    secrets: Vec<String>,
}

impl Output {
    pub(crate) fn new(directory: PathBuf, limits: &CaptureLimits, secrets: Vec<String>) -> Self {
        let secrets = secrets.into_iter().filter(|secret| secret.len() >= SECRET_LEN_MIN).collect();
        let files = LogFiles::new(directory, limits.max_bytes.bytes(), limits.files);
        Self(Arc::new(Mutex::new(Kept { files, last: VecDeque::new(), secrets })))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Every statement under the lock leaves it valid; a panic of another holder changes nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the last lines, at most `max`, oldest first.
    pub(crate) fn last_lines(&self, max: usize) -> Vec<String> {
        let kept = self.lock();
        kept.last.iter().skip(kept.last.len().saturating_sub(max)).cloned().collect()
    }

    /// Forgets the last lines, so that they are those of one run.
    pub(crate) fn begin_run(&self) {
        self.lock().last.clear();
    }

    /// Gives the last `limit` lines from the files.
    pub(crate) fn tail(&self, limit: usize) -> std::io::Result<Vec<LogLine>> {
        let paths = {
            let mut kept = self.lock();
            kept.files.flush();
            kept.files.paths()
        };
        read_tail(&paths, limit)
    }

    fn keep(&self, lines: &[lines::Line<'_>], at_millis: i64) {
        let mut kept = self.lock();
        for line in lines {
            let redacted = redact(line.text, &kept.secrets);
            let text = redacted.as_deref().unwrap_or(line.text);
            kept.files.write(at_millis, line.stream, text);
            if kept.last.len() == LAST_LINES_MAX {
                kept.last.pop_front();
            }
            let shown: String =
                String::from_utf8_lossy(text).chars().take(REMEMBERED_LINE_MAX).collect();
            kept.last.push_back(shown);
        }
        kept.files.flush();
    }
}

/// Replaces every secret in a line; nothing if there is none.
fn redact(text: &[u8], secrets: &[String]) -> Option<Vec<u8>> {
    if secrets.is_empty() {
        return None;
    }
    let mut redacted: Option<Vec<u8>> = None;
    for secret in secrets {
        let line = redacted.as_deref().unwrap_or(text);
        if let Some(at) = find(line, secret.as_bytes()) {
            let mut rest = line;
            let mut clean = Vec::with_capacity(line.len());
            let mut next = Some(at);
            while let Some(at) = next {
                clean.extend_from_slice(&rest[..at]);
                clean.extend_from_slice(REDACTED.as_bytes());
                rest = &rest[at + secret.len()..];
                next = find(rest, secret.as_bytes());
            }
            clean.extend_from_slice(rest);
            redacted = Some(clean);
        }
    }
    redacted
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_of_every_secret_is_replaced() {
        let secrets = vec!["hunter2".to_owned(), "s3cr3t".to_owned()];
        let clean = redact(b"a hunter2 b hunter2 s3cr3t", &secrets).unwrap();
        assert_eq!(String::from_utf8(clean).unwrap(), "a [redacted] b [redacted] [redacted]");
        assert_eq!(redact(b"nothing here", &secrets), None);
    }
}
