//! A thread for each pipe: anonymous pipes know no readiness.

use std::io::{self, Read};
use std::time::Duration;

use tokio::sync::watch;

use super::super::Take;

/// Bytes a reading thread hands over at a time.
const CHUNK: usize = 64 * 1024;

/// A pipe that a thread can read.
pub(crate) trait Pipe: Read + Send + 'static {}
impl<T: Read + Send + 'static> Pipe for T {}

/// Reads pipes, each on a thread of its own, which ends with the pipe.
#[derive(Debug)]
pub(crate) struct PipeReader;

/// A pipe that is being read.
#[derive(Debug)]
pub(crate) struct PipeHandle(watch::Receiver<bool>);

impl PipeReader {
    pub(crate) const fn start() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn add(
        &self,
        mut pipe: impl Pipe,
        mut take: Box<dyn Take>,
    ) -> io::Result<PipeHandle> {
        let (at_end, watched) = watch::channel(false);
        let read = move || {
            let mut buffer = vec![0; CHUNK];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => take.chunk(&buffer[..read]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        tracing::debug!(%error, "reading a service's output ended");
                        break;
                    }
                }
            }
            take.end();
            at_end.send_replace(true);
        };
        std::thread::Builder::new().name("supervisor-pipe".to_owned()).spawn(read)?;
        Ok(PipeHandle(watched))
    }
}

impl PipeHandle {
    /// Waits until the pipe was read to its end, for at most `limit`: somebody else may hold it open.
    pub(crate) async fn last_words(&self, limit: Duration) {
        let mut at_end = self.0.clone();
        drop(tokio::time::timeout(limit, at_end.wait_for(|at_end| *at_end)).await);
    }
}
