//! A service's output: read off the critical path, cut into lines, kept in rotating files and a short memory.
//!
//! One thread with one event loop reads every pipe, so a flood of one service delays neither a restart nor a
//! probe, and memory does not grow with the number of services: all pipes are read through one buffer.

mod drops;
mod files;
mod lines;
mod rate;
mod secrets;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use supervisor_core::config::CaptureLimits;
use supervisor_core::exit::LAST_LINES_MAX;
use supervisor_core::status::{DroppedOutput, LogLine, OutputStream};
use supervisor_core::text::ByteSize;
use supervisor_core::{Incarnation, ServiceId};

pub(crate) use drops::{DropCause, DropWatch};
pub(crate) use files::read_tail;

use drops::Tally;
use files::LogFiles;
use lines::{Cutter, Line};
use rate::Rate;
use secrets::Secrets;

use crate::os::{self, PipeHandle, PipeReader};

/// Longest line kept in memory for an exit report, in characters; files keep more.
const REMEMBERED_LINE_MAX: usize = 400;

/// The thread that reads every service's output; ends when dropped, pipes it still reads are closed then.
#[derive(Debug)]
pub(crate) struct CaptureThread(PipeReader);

/// The pipes of one run.
#[derive(Debug, Default)]
pub(crate) struct Pipes(Vec<PipeHandle>);

/// What one service wrote, over all of its incarnations.
#[derive(Debug, Clone)]
pub(crate) struct Output(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    files: LogFiles,
    last: VecDeque<String>,
    line_max: usize,
    rate: Option<Rate>,
    secrets: Secrets,
    tally: Tally,
    owner: Option<Owner>,
}

/// The run that is captured, and who is told when output of it begins to be dropped.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) service: ServiceId,
    pub(crate) incarnation: Incarnation,
    pub(crate) watch: DropWatch,
}

/// One pipe's way into the output of its service.
#[derive(Debug)]
pub(crate) struct Pump {
    cutter: Cutter,
    output: Output,
    /// Every byte also goes to our own standard error.
    pass: bool,
    /// What has begun to be dropped, for who asks; at most one of each cause a run.
    began: Vec<DropCause>,
}

impl CaptureThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn start() -> std::io::Result<Self> {
        PipeReader::start().map(Self)
    }

    /// Reads a pipe to its end into `output`; with `pass` every byte also goes to our own standard error, as it came.
    pub(crate) fn read(
        &self,
        pipe: impl os::Pipe,
        stream: OutputStream,
        output: &Output,
        pipes: &mut Pipes,
        pass: bool,
    ) {
        let pump = Pump { pass, ..output.pump(stream) };
        match self.0.add(pipe, Box::new(pump)) {
            Ok(handle) => pipes.0.push(handle),
            Err(error) => tracing::warn!(%error, "a service's output is not captured"),
        }
    }
}

impl Pipes {
    /// Keeps the last words of a run that ended. Whoever else holds a pipe open is waited for at most `limit`, and
    /// only on systems where a pipe cannot be asked what is in it.
    pub(crate) async fn last_words(&self, limit: Duration) {
        for pipe in &self.0 {
            pipe.last_words(limit).await;
        }
    }
}

impl Output {
    pub(crate) fn new(directory: Option<PathBuf>) -> Self {
        let files = LogFiles::new(directory);
        Self(Arc::new(Mutex::new(Kept {
            line_max: 0,
            files,
            last: VecDeque::new(),
            rate: None,
            secrets: Secrets::new(Vec::new()),
            tally: Tally::default(),
            owner: None,
        })))
    }

    /// Begins a run: with limits and secrets that may have changed since the last one, and without its last lines.
    pub(crate) fn begin_run(
        &self,
        limits: &CaptureLimits,
        secrets: Vec<String>,
        owner: Option<Owner>,
    ) {
        let mut kept = self.lock();
        kept.tally.begin_run();
        kept.owner = owner;
        kept.files.limit(limits.max_bytes.bytes(), limits.files);
        kept.line_max = line_max(limits, &kept.files);
        let rate = limits.max_rate.map(ByteSize::bytes);
        if rate != kept.rate.as_ref().map(Rate::per_second) {
            kept.rate = rate.map(|rate| Rate::new(rate, Instant::now()));
        }
        kept.secrets = Secrets::new(secrets);
        kept.last.clear();
    }

    /// Gives the way in for one stream of the run that was begun.
    pub(crate) fn pump(&self, stream: OutputStream) -> Pump {
        let cutter = Cutter::new(stream, self.lock().line_max);
        Pump { cutter, output: self.clone(), pass: false, began: Vec::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Every statement under the lock leaves it valid; a panic of another holder changes nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives what was not kept, over every run.
    pub(crate) fn dropped(&self) -> DroppedOutput {
        self.lock().tally.counts
    }

    /// Gives the last lines, at most `max`, oldest first.
    pub(crate) fn last_lines(&self, max: usize) -> Vec<String> {
        let kept = self.lock();
        kept.last.iter().skip(kept.last.len().saturating_sub(max)).cloned().collect()
    }

    /// Gives the last `limit` lines from the files.
    pub(crate) fn tail(&self, limit: usize) -> std::io::Result<Vec<LogLine>> {
        let paths = {
            let mut guard = self.lock();
            let kept = &mut *guard;
            if let Some(note) = kept.rate.as_mut().and_then(Rate::note) {
                let mut gathered = Vec::new();
                let mut batch = kept.files.batch(now_millis(), &mut gathered);
                batch.line(OutputStream::Supervisor, note.as_bytes());
            }
            kept.files.paths()
        };
        read_tail(&paths, limit)
    }
}

impl Pump {
    /// Keeps the lines that `cut` hands over: at most `lines`, and notes about them. Tells what begins to be dropped.
    fn keep(&mut self, lines: usize, cut: impl FnOnce(&mut Cutter, &mut dyn FnMut(Line<'_>))) {
        thread_local! {
            /// Room for what is written at once; one a thread, whatever the number of services.
            static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let mut guard = self.output.lock();
        let kept = &mut *guard;
        let mut counts = kept.tally.counts;
        GATHERED.with_borrow_mut(|gathered| {
            let mut batch = kept.files.batch(now_millis(), gathered);
            let mut left = lines;
            if let Some(rate) = &mut kept.rate {
                rate.advance(Instant::now());
            }
            let mut kept_last = true;
            cut(&mut self.cutter, &mut |line| {
                // A note belongs to the line before it, and goes with it.
                let note = line.stream == OutputStream::Supervisor;
                left = left.saturating_sub(usize::from(!note));
                if note && !kept_last {
                    return;
                }
                if let Some(rate) = kept.rate.as_mut().filter(|_| !note) {
                    let verdict = rate.admit(line.text.len());
                    kept_last = verdict != rate::Verdict::Drop;
                    let note = match verdict {
                        rate::Verdict::Keep => None,
                        rate::Verdict::KeepAfter(note) => Some(note),
                        rate::Verdict::Drop => {
                            counts.rate_lines += 1;
                            counts.rate_bytes += line.text.len() as u64 + 1;
                            return;
                        }
                    };
                    if let Some(note) = note {
                        batch.line(OutputStream::Supervisor, note.as_bytes());
                    }
                }
                let clean = kept.secrets.redact(line.text);
                let text = clean.as_deref().unwrap_or(line.text);
                batch.line(line.stream, text);
                if left < LAST_LINES_MAX {
                    remember(&mut kept.last, text);
                }
            });
        });
        let (lines, bytes) = self.cutter.take_cut();
        counts.cut_lines += lines;
        counts.cut_bytes += bytes;
        (counts.unwritten_lines, counts.aged_bytes) = kept.files.lost();
        if counts != kept.tally.counts {
            self.began.extend(kept.tally.advance(counts));
        }
        let owner = if self.began.is_empty() { None } else { kept.owner.clone() };
        drop(guard);
        if let Some(owner) = owner {
            for cause in self.began.drain(..) {
                owner.watch.tell(&owner.service, owner.incarnation, cause);
            }
        }
    }

    /// Takes what has begun to be dropped and was told nobody.
    #[cfg(unix)]
    pub(crate) fn take_began(&mut self) -> Vec<DropCause> {
        std::mem::take(&mut self.began)
    }
}

fn line_max(limits: &CaptureLimits, files: &LogFiles) -> usize {
    usize::try_from(limits.max_line.bytes()).unwrap_or(usize::MAX).min(files.line_max())
}

fn now_millis() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn remember(last: &mut VecDeque<String>, text: &[u8]) {
    if last.len() == LAST_LINES_MAX {
        last.pop_front();
    }
    // A character has at most four bytes; what is beyond is not looked at.
    let text = &text[..text.len().min(4 * REMEMBERED_LINE_MAX)];
    last.push_back(String::from_utf8_lossy(text).chars().take(REMEMBERED_LINE_MAX).collect());
}

impl os::Take for Pump {
    fn chunk(&mut self, bytes: &[u8]) {
        if self.pass {
            // Whoever read our standard error may be gone; what is captured is not.
            drop(std::io::stderr().write_all(bytes));
        }
        let lines = memchr::memchr_iter(b'\n', bytes).count();
        if lines == 0 {
            return self.cutter.push(bytes, |_: Line<'_>| {});
        }
        self.keep(lines, |cutter, each| cutter.push(bytes, each));
    }

    fn end(&mut self) {
        self.keep(1, |cutter, each| cutter.end(each));
    }
}
