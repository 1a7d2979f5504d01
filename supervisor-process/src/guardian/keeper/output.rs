//! Reading what services write, through one buffer, into the files their capture asks for.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use supervisor_core::config::CaptureLimits;
use supervisor_core::status::OutputStream;
use supervisor_core::text::ByteSize;

use super::super::protocol::Capture;
use crate::capture::{DropCause, Output, Pump};
use crate::os::Take;

/// Bytes read at a time, through one buffer for all pipes (the default size of a pipe on Linux).
const READ_MAX: usize = 64 * 1024;
/// Most bytes taken from a pipe at its service's end: what fits into a pipe an unprivileged process may make.
const LAST_WORDS_MAX: usize = 1024 * 1024;

/// Begins a run's output, in the place of an earlier run of its service if that is known.
pub(super) fn begin(capture: &Capture, known: Option<Output>) -> Output {
    let output = known.unwrap_or_else(|| {
        Output::new(Some(PathBuf::from(OsString::from_vec(capture.directory.clone()))))
    });
    let limits = CaptureLimits {
        max_bytes: ByteSize(capture.max_bytes),
        files: capture.files,
        max_line: ByteSize(capture.max_line),
        max_rate: capture.max_rate.map(ByteSize),
    };
    let secrets = capture.secrets.iter().cloned();
    output.begin_run(&limits, secrets.filter_map(|it| String::from_utf8(it).ok()).collect(), None);
    output
}

/// One pipe a service writes to.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) pipe: OwnedFd,
    pump: Pump,
}

impl Source {
    /// Takes the reading end of a pipe.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn new(pipe: OwnedFd, stream: OutputStream, output: &Output) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe, pump: output.pump(stream) })
    }

    /// Reads once.
    pub(super) fn read(&mut self, buffer: &mut Buffer) -> Got {
        match rustix::io::read(&self.pipe, buffer.0.as_mut_slice()) {
            Ok(read) if read > 0 => {
                self.pump.chunk(&buffer.0[..read]);
                Got::Some(read)
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Got::Nothing,
            _ => {
                self.pump.end();
                Got::End
            }
        }
    }

    /// Takes what has begun to be dropped since it was asked for last.
    pub(super) fn take_began(&mut self) -> Vec<DropCause> {
        self.pump.take_began()
    }

    /// Reads what is in the pipe now, so that the last words are known when the end is told.
    pub(super) fn drain(&mut self, buffer: &mut Buffer) -> Got {
        let mut taken = 0;
        loop {
            match self.read(buffer) {
                Got::Some(read) if taken < LAST_WORDS_MAX => taken += read,
                other => return other,
            }
        }
    }
}

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Got {
    Some(usize),
    Nothing,
    End,
}

/// The one buffer.
#[derive(Debug)]
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    pub(super) fn new() -> Self {
        Self(vec![0; READ_MAX])
    }
}
