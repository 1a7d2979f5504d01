//! The pipe between a host and its guardian, who is at its other end, and handles that pass through it.

#![expect(unsafe_code, reason = "calls of the system about pipes, users and handles")]

use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::{AsRawHandle, FromRawHandle, IntoRawHandle, OwnedHandle};
use std::ptr;
use std::sync::Arc;

use supervisor_core::ProcessIdentity;
use tokio::net::windows::named_pipe::{NamedPipeClient, NamedPipeServer, ServerOptions};
use windows_sys::Win32::Foundation::{
    DUPLICATE_CLOSE_SOURCE, DUPLICATE_SAME_ACCESS, DuplicateHandle, ERROR_FILENAME_EXCED_RANGE,
    ERROR_INVALID_PARAMETER, ERROR_PIPE_BUSY, HANDLE, LocalFree,
};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
};
use windows_sys::Win32::Security::{
    GetTokenInformation, PSECURITY_DESCRIPTOR, SECURITY_ATTRIBUTES, TOKEN_QUERY, TOKEN_USER,
    TokenUser,
};
use windows_sys::Win32::Storage::FileSystem::SECURITY_IDENTIFICATION;
use windows_sys::Win32::System::Pipes::{
    GetNamedPipeClientProcessId, GetNamedPipeServerProcessId, WaitNamedPipeW,
};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, OpenProcessToken, PROCESS_DUP_HANDLE, PROCESS_QUERY_LIMITED_INFORMATION,
    PROCESS_SYNCHRONIZE, PROCESS_TERMINATE,
};

pub(crate) use super::super::step::Step;
use super::Marking;
use super::job::{Job, Registered};
use super::leader::{End, wait_for};
use super::process::{made, open};
use crate::scan::SetKey;

/// Names the layers that contain sets of a guardian here, strongest first.
pub(crate) fn containment() -> Vec<String> {
    ["guardian", "job_object"].map(str::to_owned).into()
}

/// What travels with an answer.
pub(crate) type Passed = OwnedHandle;

/// A set's job, so that the host can end it when the guardian is gone; forgotten when dropped.
pub(crate) type Grip = Registered;

/// Takes a set's job out of what was passed, where it is the first.
pub(crate) fn grip(
    passed: &mut Vec<Passed>,
    leader: &ProcessIdentity,
    key: &SetKey,
) -> Option<Grip> {
    if passed.is_empty() {
        return None;
    }
    let job = Arc::new(Job::from_handle(passed.remove(0)));
    let marking = Marking {
        mark: key.mark.to_string(),
        service: key.service.to_string(),
        incarnation: key.incarnation.get(),
    };
    Some(Registered::new(leader.pid, job, Some(marking)))
}

/// Gives what the system called an error; one of our own has the number that comes nearest.
pub(crate) fn code_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| {
        let code = match error.kind() {
            io::ErrorKind::ArgumentListTooLong => ERROR_FILENAME_EXCED_RANGE,
            _ => ERROR_INVALID_PARAMETER,
        };
        code.cast_signed()
    })
}

/// Names the process that listens under a name; none if nobody does, or if all its instances stay taken.
///
/// It sees a connection that ends at once.
pub(crate) fn server_behind(name: &str) -> Option<u32> {
    let mut options = std::fs::File::options();
    // It may learn who we are, and cannot act in our name.
    options.read(true).write(true).security_qos_flags(SECURITY_IDENTIFICATION);
    let text = wide(name);
    for _ in 0..BUSY_TRIES {
        match options.open(name) {
            Ok(pipe) => return server_of(&pipe).ok(),
            Err(error) if error.raw_os_error() == Some(ERROR_PIPE_BUSY.cast_signed()) => {
                // SAFETY: the text ends with a NUL. Whether an instance became free is seen by trying again.
                _ = unsafe { WaitNamedPipeW(text.as_ptr(), BUSY_MILLIS) };
            }
            Err(_) => return None,
        }
    }
    None
}

/// How often an instance that somebody else took meanwhile is waited for again.
const BUSY_TRIES: u32 = 20;
/// How long an instance is waited for at a time.
const BUSY_MILLIS: u32 = 100;

/// Instances of the pipe there may be: one connected host, and those that are greeted or refused.
const INSTANCES: usize = 16;

/// Makes an instance of a pipe that this user alone may open, from this machine alone.
///
/// The first one fails where somebody has a pipe of this name already.
pub(crate) fn listen(name: &str, first: bool) -> io::Result<NamedPipeServer> {
    let user = user_of(None)?;
    // Owner and the one who may do anything: this user. Nothing is inherited, nobody else is named.
    let text = wide(&format!("O:{user}D:P(A;;GA;;;{user})"));
    let mut descriptor: PSECURITY_DESCRIPTOR = ptr::null_mut();
    // SAFETY: the text ends with a NUL; the descriptor is written to; its size is not asked for.
    let done = unsafe {
        ConvertStringSecurityDescriptorToSecurityDescriptorW(
            text.as_ptr(),
            SDDL_REVISION_1,
            &raw mut descriptor,
            ptr::null_mut(),
        )
    };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = Local(descriptor);
    let mut attributes = SECURITY_ATTRIBUTES {
        nLength: u32::try_from(size_of::<SECURITY_ATTRIBUTES>()).unwrap_or(0),
        lpSecurityDescriptor: descriptor.0,
        bInheritHandle: 0,
    };
    let mut options = ServerOptions::new();
    options.first_pipe_instance(first).reject_remote_clients(true).max_instances(INSTANCES);
    // SAFETY: the attributes are valid, and they and the descriptor live until the call returns.
    unsafe {
        options.create_with_security_attributes_raw(name, ptr::from_mut(&mut attributes).cast())
    }
}

/// Names the process that connected.
pub(crate) fn client_of(pipe: &NamedPipeServer) -> io::Result<u32> {
    let mut pid = 0;
    // SAFETY: the handle is open, the number is written to.
    let done = unsafe { GetNamedPipeClientProcessId(pipe.as_raw_handle(), &raw mut pid) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

/// Names the process that made a pipe.
pub(crate) fn server_of(pipe: &impl AsRawHandle) -> io::Result<u32> {
    let mut pid = 0;
    // SAFETY: the handle is open, the number is written to.
    let done = unsafe { GetNamedPipeServerProcessId(pipe.as_raw_handle(), &raw mut pid) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

/// Opens a pipe of this name.
pub(crate) fn connect(name: &str) -> io::Result<NamedPipeClient> {
    // Whoever made it learns who we are and cannot act in our name: what tokio asks for unless told otherwise.
    tokio::net::windows::named_pipe::ClientOptions::new().open(name)
}

/// A process at the other end, held so that its number stays its own.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    process: OwnedHandle,
}

impl Peer {
    /// Holds a process of this user; of another one it is refused.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let rights = PROCESS_DUP_HANDLE
            | PROCESS_QUERY_LIMITED_INFORMATION
            | PROCESS_SYNCHRONIZE
            | PROCESS_TERMINATE;
        let process = open(pid, rights)?;
        if user_of(Some(&process))? != user_of(None)? {
            let text = "it belongs to another user and is not trusted";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let start_time = made(&process)?;
        Ok(Self { pid, start_time, process })
    }

    /// Tells whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        wait_for(&self.process, 0)
    }

    /// Watches for its end.
    pub(crate) fn end(&self) -> io::Result<End> {
        End::watch(self.process.try_clone()?)
    }

    /// Ends it; one that is gone is what was wanted.
    pub(crate) fn kill(&self) -> io::Result<()> {
        super::process::terminate(&self.process)
    }

    /// Takes a handle over that it offers. A number that is none of its handles is an error and harms nobody.
    pub(crate) fn take(&self, offered: u64) -> io::Result<OwnedHandle> {
        let offered = usize::try_from(offered).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut taken: HANDLE = ptr::null_mut();
        // SAFETY: both processes are open; the handle named is one of theirs, so whatever it is, nothing of ours is
        // closed; ours is new and not inherited.
        let done = unsafe {
            DuplicateHandle(
                self.process.as_raw_handle(),
                ptr::without_provenance_mut(offered),
                GetCurrentProcess(),
                &raw mut taken,
                0,
                0,
                DUPLICATE_SAME_ACCESS | DUPLICATE_CLOSE_SOURCE,
            )
        };
        if done == 0 || taken.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above made it, and nobody else has it.
        Ok(unsafe { OwnedHandle::from_raw_handle(taken) })
    }
}

/// Offers a handle to whoever takes it over; nobody else closes it.
pub(crate) fn offer(handle: OwnedHandle) -> u64 {
    handle.into_raw_handle().addr() as u64
}

/// Memory the system gave out.
struct Local(*mut core::ffi::c_void);

impl Drop for Local {
    fn drop(&mut self) {
        // SAFETY: the calls that fill one say that it is given back so, once.
        unsafe { LocalFree(self.0) };
    }
}

/// Gives the user a process runs as, this one if none is named, in the system's own words.
fn user_of(process: Option<&OwnedHandle>) -> io::Result<String> {
    // SAFETY: takes nothing; the pseudo handle needs no closing.
    let process = process.map_or_else(|| unsafe { GetCurrentProcess() }, |it| it.as_raw_handle());
    let mut token: HANDLE = ptr::null_mut();
    // SAFETY: the process handle is open, the token is written to.
    if unsafe { OpenProcessToken(process, TOKEN_QUERY, &raw mut token) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above made it, and nobody else has it.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    // Room for the structure and the longest identifier there is (68 bytes), aligned for a pointer.
    let mut room = [0_u64; 32];
    let length = u32::try_from(size_of_val(&room)).unwrap_or(0);
    let mut used = 0;
    // SAFETY: the class fills a `TOKEN_USER` and what it points to, within `length` bytes of the room.
    let done = unsafe {
        GetTokenInformation(
            token.as_raw_handle(),
            TokenUser,
            room.as_mut_ptr().cast(),
            length,
            &raw mut used,
        )
    };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call filled it, and the room is aligned for it.
    let user = unsafe { room.as_ptr().cast::<TOKEN_USER>().read() };
    let mut text = ptr::null_mut();
    // SAFETY: the identifier is in the room, which lives; the text is written to.
    if unsafe { ConvertSidToStringSidW(user.User.Sid, &raw mut text) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let _text = Local(text.cast());
    let mut units = Vec::new();
    let mut at = text;
    // SAFETY: the text ends with a NUL, and nothing after that is read.
    unsafe {
        while *at != 0 {
            units.push(*at);
            at = at.add(1);
        }
    }
    String::from_utf16(&units).map_err(io::Error::other)
}

fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}
