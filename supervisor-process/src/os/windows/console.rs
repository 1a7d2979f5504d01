//! Asking a program to end: a break event of its console, the one thing a program without a window hears.

#![expect(unsafe_code, reason = "calls of the system about consoles")]

use std::io;
use std::sync::{Mutex, PoisonError};

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::Console::{
    AttachConsole, CTRL_BREAK_EVENT, FreeConsole, GenerateConsoleCtrlEvent, GetConsoleProcessList,
    GetStdHandle, STD_ERROR_HANDLE, STD_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, SetStdHandle,
};

/// Tells whether this process has a console, which its children then share.
pub(super) fn ours() -> bool {
    let mut pids = [0; 1];
    // SAFETY: room for one number, and it is said to be one.
    (unsafe { GetConsoleProcessList(pids.as_mut_ptr(), 1) }) > 0
}

/// Sends a break event to the group of a leader and to nothing else.
///
/// Where this process has no console the leader was given one of its own without a window; that is entered for the
/// moment. Events of ours cannot come back to us: they go to the group alone. What this process writes to its standard
/// streams in that moment may be lost; one without a console has a window or none, and seldom writes there.
pub(super) fn ask_to_end(leader: u32, shared: bool) -> io::Result<()> {
    /// A process has one console, so only one of ours can be entered at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let _entered = if shared { None } else { Some(Entered::new(leader)?) };
    // SAFETY: takes two numbers. The group is the leader's: it was made with one, and a handle to it is held.
    let sent = unsafe { GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, leader) };
    if sent == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The console of another process, while we are in it.
struct Entered {
    /// Our standard streams, which entering replaces.
    streams: [HANDLE; 3],
}

const STREAMS: [STD_HANDLE; 3] = [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE];

impl Entered {
    fn new(of: u32) -> io::Result<Self> {
        // SAFETY: takes a number; what it gives is not ours to close.
        let streams = STREAMS.map(|stream| unsafe { GetStdHandle(stream) });
        if !ours() {
            // A process started from a shell that is no console's holds on to what is none, and so can enter no other.
            // SAFETY: takes nothing; whoever has no console loses none.
            _ = unsafe { FreeConsole() };
        }
        // SAFETY: takes a number; it fails if this process has a console by now, or that one has none.
        if unsafe { AttachConsole(of) } == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { streams })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // SAFETY: takes nothing; `new` entered that console.
        _ = unsafe { FreeConsole() };
        for (stream, handle) in STREAMS.into_iter().zip(self.streams) {
            // SAFETY: the handles are what stood there before; nobody closed them, for the system replaced them only.
            _ = unsafe { SetStdHandle(stream, handle) };
        }
    }
}
