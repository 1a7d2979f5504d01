//! Job objects: a set is a job, which nothing it starts can leave, and which ends with the last handle to it.

#![expect(unsafe_code, reason = "calls of the system about job objects")]

use std::collections::HashMap;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use windows_sys::Win32::Foundation::{ERROR_MORE_DATA, HANDLE};
use windows_sys::Win32::System::JobObjects::{
    CreateJobObjectW, JOB_OBJECT_LIMIT_ACTIVE_PROCESS, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_BASIC_ACCOUNTING_INFORMATION, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JobObjectBasicAccountingInformation, JobObjectBasicProcessIdList,
    JobObjectExtendedLimitInformation, QueryInformationJobObject, SetInformationJobObject,
    TerminateJobObject,
};

use super::Marking;

/// Exit code of what a kill ended: what a shell says of a program killed by a signal.
pub(super) const KILLED: u32 = 137;
/// Processes of a job that are listed at once; a list that is longer is asked for again with more room.
const LISTED: usize = 64;
/// Room beyond which no list is asked for.
const LISTED_MAX: usize = 1 << 20;

/// A job object that ends everything in it when the last handle to it is closed.
#[derive(Debug)]
pub(crate) struct Job(OwnedHandle);

impl Job {
    /// Makes an empty job that nothing can break away from.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: both pointers may be null: no security attributes (so the handle is not inherited) and no name.
        let handle = unsafe { CreateJobObjectW(ptr::null(), ptr::null()) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above made it, and nobody else has it.
        let job = Self(unsafe { OwnedHandle::from_raw_handle(handle) });
        job.limit(None)?;
        Ok(job)
    }

    /// Takes over a handle to a job.
    pub(super) const fn from_handle(handle: OwnedHandle) -> Self {
        Self(handle)
    }

    /// Gives another handle to it; it lives as long as any.
    pub(super) fn duplicate(&self) -> io::Result<OwnedHandle> {
        self.0.try_clone()
    }

    pub(super) fn raw(&self) -> HANDLE {
        self.0.as_raw_handle()
    }

    /// Sets how many processes may be in it at once; none is no limit.
    pub(super) fn limit(&self, processes: Option<u32>) -> io::Result<()> {
        let mut information = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        let basic = &mut information.BasicLimitInformation;
        basic.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
        if let Some(max) = processes {
            basic.LimitFlags |= JOB_OBJECT_LIMIT_ACTIVE_PROCESS;
            basic.ActiveProcessLimit = max;
        }
        let length = size_of_val(&information);
        // SAFETY: the class wants this structure, which lives until the call returns, and `length` is its size.
        let done = unsafe {
            SetInformationJobObject(
                self.raw(),
                JobObjectExtendedLimitInformation,
                ptr::from_ref(&information).cast(),
                u32::try_from(length).unwrap_or(0),
            )
        };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Tells how many of its processes are alive.
    pub(super) fn active(&self) -> io::Result<u32> {
        let mut information = JOBOBJECT_BASIC_ACCOUNTING_INFORMATION::default();
        let length = size_of_val(&information);
        // SAFETY: the class fills this structure, which lives until the call returns, and `length` is its size; no
        // length is asked back.
        let done = unsafe {
            QueryInformationJobObject(
                self.raw(),
                JobObjectBasicAccountingInformation,
                ptr::from_mut(&mut information).cast(),
                u32::try_from(length).unwrap_or(0),
                ptr::null_mut(),
            )
        };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(information.ActiveProcesses) }
    }

    /// Tells whether nothing of it is alive; what cannot be asked counts as alive.
    pub(crate) fn is_empty(&self) -> bool {
        self.active().is_ok_and(|active| active == 0)
    }

    /// Kills everything in it.
    pub(crate) fn kill(&self) -> io::Result<()> {
        // SAFETY: the handle is ours and open.
        let done = unsafe { TerminateJobObject(self.raw(), KILLED) };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Names its living processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut room = LISTED;
        loop {
            // Two numbers of 32 bits, how many there are and how many are listed, and then the list.
            let mut list = vec![0_usize; room + 8 / size_of::<usize>()];
            let length = size_of_val(list.as_slice());
            // SAFETY: the class fills a structure of two `u32` and an array of `usize`; the room is `length` bytes,
            // aligned for `usize`, lives until the call returns, and no length is asked back.
            let done = unsafe {
                QueryInformationJobObject(
                    self.raw(),
                    JobObjectBasicProcessIdList,
                    list.as_mut_ptr().cast(),
                    u32::try_from(length).unwrap_or(0),
                    ptr::null_mut(),
                )
            };
            if done != 0 {
                return listed(&list);
            }
            let error = io::Error::last_os_error();
            let more = error.raw_os_error() == Some(ERROR_MORE_DATA.cast_signed());
            if !more || room >= LISTED_MAX {
                return Vec::new();
            }
            room *= 4;
        }
    }
}

/// Reads the list the system wrote.
fn listed(list: &[usize]) -> Vec<u32> {
    let bytes: Vec<u8> =
        list.iter().take(8 / size_of::<usize>()).flat_map(|n| n.to_ne_bytes()).collect();
    let count = bytes.get(4..8).and_then(|four| four.try_into().ok()).map_or(0, u32::from_ne_bytes);
    let pids = list.iter().skip(8 / size_of::<usize>()).take(count as usize);
    pids.filter_map(|pid| u32::try_from(*pid).ok()).collect()
}

/// A set this process holds a handle to.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) job: Arc<Job>,
    pub(super) marking: Option<Marking>,
}

/// The sets this process holds, by leader. A leader's number is its own while somebody holds a handle to it, which
/// whoever registers a set does.
pub(super) fn known() -> MutexGuard<'static, HashMap<u32, Known>> {
    static KNOWN: OnceLock<Mutex<HashMap<u32, Known>>> = OnceLock::new();
    // A map of handles is valid after any statement.
    KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a set among those that are known.
#[derive(Debug)]
pub(crate) struct Registered(u32);

impl Registered {
    /// Makes a set known until this is dropped.
    pub(crate) fn new(leader: u32, job: Arc<Job>, marking: Option<Marking>) -> Self {
        known().insert(leader, Known { job, marking });
        Self(leader)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        known().remove(&self.0);
    }
}
