//! The leader of a set: held by its handle, its end told by the system.

#![expect(unsafe_code, reason = "calls of the system that wait for a process")]

use std::io;
use std::os::windows::io::{AsRawHandle, OwnedHandle};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::Signal;
use supervisor_core::exit::ExitStatus;
use tokio::sync::watch;
use windows_sys::Win32::Foundation::{HANDLE, INVALID_HANDLE_VALUE, WAIT_OBJECT_0};
use windows_sys::Win32::System::Threading::{
    GetExitCodeProcess, INFINITE, RegisterWaitForSingleObject, UnregisterWaitEx,
    WT_EXECUTEONLYONCE, WaitForSingleObject,
};

use super::console;
use super::job::{Job, Registered};

/// The leader of a set. Its number is its own while this is held.
#[derive(Debug)]
pub(crate) struct Leader {
    pid: u32,
    end: End,
    job: Arc<Job>,
    _registered: Registered,
    /// It shares our console; if it does not, it has one of its own.
    shared_console: bool,
}

impl Leader {
    pub(super) fn new(
        pid: u32,
        process: OwnedHandle,
        job: Arc<Job>,
        registered: Registered,
        shared_console: bool,
    ) -> io::Result<Self> {
        // Should this fail, the last handle to the job goes, and with it what was started.
        let end = End::watch(process)?;
        Ok(Self { pid, end, job, _registered: registered, shared_console })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the end. Any number of callers, in any order, cancelled or not, get the same answer.
    pub(crate) async fn wait(&self) -> ExitStatus {
        self.end.wait().await
    }

    /// Tells how it ended, if it has.
    pub(crate) fn try_wait(&self) -> Option<ExitStatus> {
        self.end.status()
    }

    /// Blocks until the leader has ended, for at most `limit`.
    pub(crate) fn reap_within(&self, limit: Duration) {
        wait_for(&self.end.process, u32::try_from(limit.as_millis()).unwrap_or(INFINITE));
    }

    /// Asks the set to end, or kills it; an empty one is no error.
    ///
    /// What asks to end on Unix is a break event here; what stops, resumes or means something of a program's own has
    /// no counterpart and does nothing.
    pub(crate) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        match signal {
            Signal::Kill => self.job.kill(),
            Signal::Term | Signal::Int | Signal::Quit | Signal::Hup | Signal::Abrt => {
                if self.try_wait().is_some() {
                    return Ok(());
                }
                let asked = console::ask_to_end(self.pid, self.shared_console);
                // One that ended meanwhile has no console any more.
                if self.try_wait().is_some() { Ok(()) } else { asked }
            }
            Signal::Stop | Signal::Cont | Signal::Usr1 | Signal::Usr2 => Ok(()),
        }
    }

    /// Gives another handle to the job of its set, which lives as long as any.
    pub(crate) fn job_handle(&self) -> io::Result<OwnedHandle> {
        self.job.duplicate()
    }

    /// Tells how many of its set are alive.
    pub(crate) fn members(&self) -> u32 {
        self.job.active().unwrap_or(0)
    }

    /// Tells whether nothing of the set is left.
    pub(crate) fn group_is_empty(&self) -> bool {
        self.try_wait().is_some() && self.job.is_empty()
    }
}

/// The end of a process, told by the system's own threads.
#[derive(Debug)]
pub(crate) struct End {
    process: OwnedHandle,
    /// What the callback sets; boxed, because the system keeps its address.
    told: Box<watch::Sender<bool>>,
    wait: HANDLE,
}

// SAFETY: `wait` is a token of the system that any thread may give back, which only `drop` does, once; the rest is
// `Send` and `Sync` itself.
unsafe impl Send for End {}
// SAFETY: as above; nothing reads `wait` through a shared reference.
unsafe impl Sync for End {}

impl End {
    /// Begins to watch a process.
    pub(crate) fn watch(process: OwnedHandle) -> io::Result<Self> {
        let told = Box::new(watch::Sender::new(false));
        let mut wait = ptr::null_mut();
        // SAFETY: the process handle and the box live until `drop`, which first waits until the callback is over and
        // will not come any more. The callback is a function that never unwinds.
        let done = unsafe {
            RegisterWaitForSingleObject(
                &raw mut wait,
                process.as_raw_handle(),
                Some(ended),
                ptr::from_ref::<watch::Sender<bool>>(&told).cast(),
                INFINITE,
                WT_EXECUTEONLYONCE,
            )
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { process, told, wait })
    }

    pub(crate) async fn wait(&self) -> ExitStatus {
        let mut told = self.told.subscribe();
        loop {
            if let Some(status) = self.status() {
                return status;
            }
            // The sender is ours, so this cannot fail.
            drop(told.changed().await);
        }
    }

    pub(crate) fn status(&self) -> Option<ExitStatus> {
        if !wait_for(&self.process, 0) {
            return None;
        }
        let mut code = 0;
        // SAFETY: the handle is open, and `code` is written to.
        let done = unsafe { GetExitCodeProcess(self.process.as_raw_handle(), &raw mut code) };
        Some(if done == 0 { ExitStatus::Unknown } else { ExitStatus::Code(code.cast_signed()) })
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // SAFETY: the token is from `watch` and given back once. The invalid handle makes this wait until a callback
        // that has begun is over, so the box is not freed under it; it never runs on this thread.
        _ = unsafe { UnregisterWaitEx(self.wait, INVALID_HANDLE_VALUE) };
    }
}

/// Called by the system once the process has ended.
unsafe extern "system" fn ended(context: *mut core::ffi::c_void, _timed_out: bool) {
    // SAFETY: the context is the box of an `End`, which lives until this is over; it is only used through `&`.
    let told = unsafe { &*context.cast::<watch::Sender<bool>>() };
    told.send_replace(true);
}

/// Waits for the end of a process, for at most so many milliseconds; tells whether it has ended.
pub(super) fn wait_for(process: &OwnedHandle, millis: u32) -> bool {
    // SAFETY: the handle is open.
    (unsafe { WaitForSingleObject(process.as_raw_handle(), millis) }) == WAIT_OBJECT_0
}
