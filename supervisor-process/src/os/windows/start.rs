//! Starting a program inside its job, with the handles it is meant to have and no others.
//!
//! The standard library starts a program first and lets it be put into a job afterwards, and it passes every inheritable
//! handle of this process on. Both are told to the system in the call that starts it instead: there is no moment in
//! which it runs, or hangs suspended, outside the job, whatever happens to this process.

#![expect(unsafe_code, reason = "calls of the system that start a program")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::ptr;
use std::sync::Arc;

use windows_sys::Win32::Foundation::{HANDLE, HANDLE_FLAG_INHERIT, SetHandleInformation};
use windows_sys::Win32::System::Threading::{
    CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW, CREATE_UNICODE_ENVIRONMENT, CreateProcessW,
    DeleteProcThreadAttributeList, EXTENDED_STARTUPINFO_PRESENT, InitializeProcThreadAttributeList,
    PROC_THREAD_ATTRIBUTE_HANDLE_LIST, PROC_THREAD_ATTRIBUTE_JOB_LIST, PROCESS_INFORMATION,
    STARTF_USESTDHANDLES, STARTUPINFOEXW, UpdateProcThreadAttribute,
};

use super::job::{Job, Registered};
use super::leader::Leader;
use super::{Marking, console};
use crate::command_line;

/// What a program's standard streams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streams {
    Nothing,
    Output,
    Channel,
}

/// What is to be started; the part of the standard library's builder that is needed here.
#[derive(Debug)]
pub(crate) struct Command {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: Option<PathBuf>,
    streams: Streams,
}

impl Command {
    pub(crate) fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            directory: None,
            streams: Streams::Nothing,
        }
    }

    pub(crate) fn args<S: AsRef<OsStr>>(&mut self, list: impl IntoIterator<Item = S>) -> &mut Self {
        self.arguments.extend(list.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Nothing is inherited here that is not named.
    pub(crate) fn env_clear(&mut self) -> &mut Self {
        self.environment.clear();
        self
    }

    pub(crate) fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        &mut self,
        list: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        let owned = |(name, value): (K, V)| (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.environment.extend(list.into_iter().map(owned));
        self
    }

    pub(crate) fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// What its environment says about who starts it.
    fn marking(&self) -> Option<Marking> {
        let value = |name: &str| self.environment.get(OsStr::new(name))?.to_str();
        Some(Marking {
            mark: value(crate::command::MARK_VARIABLE)?.to_owned(),
            service: value(crate::command::SERVICE_VARIABLE)?.to_owned(),
            incarnation: value(crate::command::INCARNATION_VARIABLE)?.parse().ok()?,
        })
    }
}

/// Every program is started in a group of its own here, so that a Ctrl-C of our console does not reach it.
pub(crate) const fn own_group(_command: &mut Command) {}

/// Sets the pipes of a child: none for input unless it has a channel, ours for output.
pub(crate) const fn set_stdio(command: &mut Command, channel: bool) {
    command.streams = if channel { Streams::Channel } else { Streams::Output };
}

/// Gives a child no streams at all.
pub(crate) const fn no_stdio(command: &mut Command) {
    command.streams = Streams::Nothing;
}

/// What a started command leaves in our hands.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) leader: Leader,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

/// Starts a command; nothing of it is left when this fails.
pub(crate) fn start(command: &mut Command) -> io::Result<Started> {
    let (mut stdin, mut stdout, mut stderr) = (None, None, None);
    let nothing: OwnedHandle = File::options().read(true).write(true).open("NUL")?.into();
    let mut theirs = [None, None, None];
    if command.streams == Streams::Channel {
        let (reader, writer) = io::pipe()?;
        theirs[0] = Some(OwnedHandle::from(reader));
        stdin = Some(ChildStdin::from(OwnedHandle::from(writer)));
    }
    if command.streams != Streams::Nothing {
        let (reader, writer) = io::pipe()?;
        theirs[1] = Some(OwnedHandle::from(writer));
        stdout = Some(ChildStdout::from(OwnedHandle::from(reader)));
        let (reader, writer) = io::pipe()?;
        theirs[2] = Some(OwnedHandle::from(writer));
        stderr = Some(ChildStderr::from(OwnedHandle::from(reader)));
    }
    let job = Arc::new(Job::new()?);
    let shared = console::ours();
    let streams = [0, 1, 2].map(|n: usize| theirs[n].as_ref().unwrap_or(&nothing));
    let (pid, process) = create(command, &job, streams, shared)?;
    let registered = Registered::new(pid, Arc::clone(&job), command.marking());
    let leader = Leader::new(pid, process, job, registered, shared)?;
    Ok(Started { leader, stdin, stdout, stderr })
}

fn create(
    command: &Command,
    job: &Job,
    streams: [&OwnedHandle; 3],
    shared_console: bool,
) -> io::Result<(u32, OwnedHandle)> {
    let program = wide(command.program.as_os_str());
    let arguments: Vec<_> = command.arguments.iter().map(|argument| wide(argument)).collect();
    let batch = command_line::is_batch(&command.program.to_string_lossy());
    let (mut application, mut line) = if batch {
        (interpreter(), command_line::of_batch(&program, &arguments)?)
    } else {
        (program.clone(), command_line::of_program(&program, &arguments)?)
    };
    if application.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    application.push(0);
    let variables = command.environment.iter().map(|(name, value)| (wide(name), wide(value)));
    let block = command_line::environment_block(variables.collect())?;
    let directory = command
        .directory
        .as_ref()
        .map(|directory| wide(directory.as_os_str()).into_iter().chain([0]).collect::<Vec<u16>>());
    let mut handles: Vec<HANDLE> = Vec::new();
    for stream in streams {
        if !handles.contains(&stream.as_raw_handle()) {
            inheritable(stream)?;
            handles.push(stream.as_raw_handle());
        }
    }
    let jobs = [job.raw()];
    let mut attributes = Attributes::new(2)?;
    attributes.set(PROC_THREAD_ATTRIBUTE_JOB_LIST, &jobs)?;
    attributes.set(PROC_THREAD_ATTRIBUTE_HANDLE_LIST, &handles)?;
    let mut startup = STARTUPINFOEXW::default();
    startup.StartupInfo.cb = u32::try_from(size_of_val(&startup)).unwrap_or(0);
    startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
    startup.StartupInfo.hStdInput = streams[0].as_raw_handle();
    startup.StartupInfo.hStdOutput = streams[1].as_raw_handle();
    startup.StartupInfo.hStdError = streams[2].as_raw_handle();
    startup.lpAttributeList = attributes.raw();
    let mut flags =
        EXTENDED_STARTUPINFO_PRESENT | CREATE_UNICODE_ENVIRONMENT | CREATE_NEW_PROCESS_GROUP;
    if !shared_console {
        flags |= CREATE_NO_WINDOW;
    }
    let mut made = PROCESS_INFORMATION::default();
    // SAFETY: every text ends with a NUL (two for the block) and lives until the call returns, as do the attribute list
    // and the arrays it points to; the line may be written to; `startup` is the extended form, as the flag says, and
    // its size is in it; no security attributes are given.
    let done = unsafe {
        CreateProcessW(
            application.as_ptr(),
            line.as_mut_ptr(),
            ptr::null(),
            ptr::null(),
            1,
            flags,
            block.as_ptr().cast(),
            directory.as_ref().map_or(ptr::null(), |directory| directory.as_ptr()),
            ptr::from_ref(&startup).cast(),
            &raw mut made,
        )
    };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so both handles are new and ours alone.
    let (process, _thread) = unsafe {
        (OwnedHandle::from_raw_handle(made.hProcess), OwnedHandle::from_raw_handle(made.hThread))
    };
    Ok((made.dwProcessId, process))
}

/// Lets a handle be inherited; what is started here inherits only what is listed for it. What another library starts at
/// the same moment may get a copy too, and closes it when it ends.
fn inheritable(handle: &OwnedHandle) -> io::Result<()> {
    // SAFETY: the handle is open, it is borrowed.
    let done = unsafe {
        SetHandleInformation(handle.as_raw_handle(), HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT)
    };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The program that runs batch files; never looked for in a path somebody else may write to.
fn interpreter() -> Vec<u16> {
    let root = std::env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
    wide(PathBuf::from(root).join(r"System32\cmd.exe").as_os_str())
}

fn wide(text: &OsStr) -> Vec<u16> {
    text.encode_wide().collect()
}

/// What a new process is given beside its startup information.
struct Attributes<'a> {
    /// Aligned for whatever the system keeps in it.
    list: Vec<u64>,
    borrowed: std::marker::PhantomData<&'a [HANDLE]>,
}

impl<'a> Attributes<'a> {
    fn new(count: u32) -> io::Result<Self> {
        let mut size = 0;
        // SAFETY: a null list only asks for its size, which is written to `size`.
        unsafe { InitializeProcThreadAttributeList(ptr::null_mut(), count, 0, &raw mut size) };
        let mut list = vec![0_u64; size.div_ceil(size_of::<u64>())];
        // SAFETY: the list has the room that was asked for.
        let done = unsafe {
            InitializeProcThreadAttributeList(list.as_mut_ptr().cast(), count, 0, &raw mut size)
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { list, borrowed: std::marker::PhantomData })
    }

    /// Adds an attribute that is a list of handles.
    fn set(&mut self, attribute: u32, handles: &'a [HANDLE]) -> io::Result<()> {
        // SAFETY: the list is initialised. The system keeps a pointer to the handles, which outlive this list by its
        // lifetime; their length in bytes is said, and nothing is asked back.
        let done = unsafe {
            UpdateProcThreadAttribute(
                self.raw(),
                0,
                attribute as usize,
                handles.as_ptr().cast(),
                size_of_val(handles),
                ptr::null_mut(),
                ptr::null(),
            )
        };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn raw(&mut self) -> *mut core::ffi::c_void {
        self.list.as_mut_ptr().cast()
    }
}

impl Drop for Attributes<'_> {
    fn drop(&mut self) {
        // SAFETY: `new` gives out initialised lists only, and nothing uses it after this.
        unsafe { DeleteProcThreadAttributeList(self.raw()) };
    }
}
