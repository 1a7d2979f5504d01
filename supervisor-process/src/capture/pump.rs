//! The thread that reads every pipe.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use supervisor_core::status::OutputStream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::Output;
use super::lines::{Cutter, Line};
use crate::os;

/// Bytes read at a time, through one buffer for all pipes (the default size of a pipe on Linux).
const READ_MAX: usize = 64 * 1024;

/// The one thread that reads output; ends when dropped, pipes it still reads are closed then.
#[derive(Debug)]
pub(crate) struct CaptureThread {
    handle: Handle,
    stop: Arc<Notify>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Counts the pipes of one run that are not at their end yet.
#[derive(Debug, Clone)]
pub(crate) struct Pipes(Arc<watch::Sender<u32>>);

impl Pipes {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Waits until every pipe was read to its end, for at most `limit`: somebody else may hold one open.
    pub(crate) async fn at_end(&self, limit: Duration) {
        let mut open = self.0.subscribe();
        drop(tokio::time::timeout(limit, open.wait_for(|open| *open == 0)).await);
    }
}

/// Counts a pipe as open until it is dropped, on whatever path its reading ends.
#[derive(Debug)]
struct OpenPipe(Pipes);

impl OpenPipe {
    fn new(pipes: &Pipes) -> Self {
        pipes.0.send_modify(|open| *open += 1);
        Self(pipes.clone())
    }
}

impl Drop for OpenPipe {
    fn drop(&mut self) {
        self.0.0.send_modify(|open| *open -= 1);
    }
}

impl CaptureThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), Arc::new(Notify::new()));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("supervisor-capture".to_owned())
            .spawn(move || runtime.block_on(stopped.notified()))?;
        Ok(Self { handle, stop, thread: Some(thread) })
    }

    /// Reads a pipe to its end into `output`; the thread owns the reading and ends it when it ends itself.
    pub(crate) fn read(&self, pipe: impl os::Pipe, cutter: Cutter, output: Output, pipes: &Pipes) {
        let open = OpenPipe::new(pipes);
        // A pipe that cannot be registered is closed by being dropped; the service sees a closed pipe, not a stall.
        drop(self.handle.spawn(async move {
            if let Err(error) = pump(pipe, cutter, &output).await {
                tracing::debug!(%error, "reading a service's output ended");
            }
            drop(open);
        }));
    }
}

impl Drop for CaptureThread {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // Joined so that nothing writes to a log after its owner is gone; the loop wakes at once.
            drop(thread.join());
        }
    }
}

async fn pump(pipe: impl os::Pipe, mut cutter: Cutter, output: &Output) -> io::Result<()> {
    let mut source = os::register(pipe)?;
    loop {
        let mut taken = Taken::default();
        let read = source.read_with(|reader| read_once(reader, &mut cutter, &mut taken)).await?;
        if read == 0 {
            cutter.end(|line| taken.add(line));
        }
        taken.keep(output);
        if read == 0 {
            return Ok(());
        }
        // A flood of one service takes turns with the others.
        tokio::task::yield_now().await;
    }
}

/// Lines of one read, gathered so that the output is locked once.
#[derive(Debug, Default)]
struct Taken {
    bytes: Vec<u8>,
    ends: Vec<(OutputStream, usize)>,
}

impl Taken {
    fn add(&mut self, line: Line<'_>) {
        self.bytes.extend_from_slice(line.text);
        self.ends.push((line.stream, self.bytes.len()));
    }

    fn keep(&self, output: &Output) {
        if self.ends.is_empty() {
            return;
        }
        let mut start = 0;
        let lines: Vec<_> = self
            .ends
            .iter()
            .map(|(stream, end)| {
                let text = &self.bytes[start..*end];
                start = *end;
                Line { stream: *stream, text }
            })
            .collect();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        output.keep(&lines, i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    }
}

fn read_once(reader: &mut dyn Read, cutter: &mut Cutter, taken: &mut Taken) -> io::Result<usize> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; READ_MAX]);
    }
    BUFFER.with_borrow_mut(|buffer| {
        let read = reader.read(buffer)?;
        cutter.push(&buffer[..read], |line| taken.add(line));
        Ok(read)
    })
}
