//! Finding the guardian of a state directory, or starting one.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use supervisor_core::Signal;
use supervisor_core::error::ProcessError;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use super::super::protocol::{
    GREETING_MAX, Hello, Refusal, VERSION_MAX, VERSION_MIN, Welcome, build,
};
use super::super::wire::Incoming;
use super::super::{ARGUMENT, GuardianProgram, LOCK, SOCKET, armed};
use super::link::Guardian;
use crate::command::{GUARDIAN_VARIABLE, INCARNATION_VARIABLE, MARK_VARIABLE, SERVICE_VARIABLE};
use crate::os::guardian as os;
use crate::os::{self as system, Pinned, Snapshot};

/// How long finding or starting may take altogether.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a guardian may take to answer a greeting before it is told to go on, and again before it is killed.
const GREETING: Duration = Duration::from_secs(3);
/// Starts in a row that come to nothing before it is given up: the program is none that can be a guardian.
const STARTS_MAX: u32 = 3;
/// How long the host before this one may take to be gone: it may be sending what it asked last, or the end of a killed
/// one may be held up by a program it was starting.
const HAND_OVER: Duration = Duration::from_secs(2);
/// Longest pause between two questions whether it is.
const HAND_OVER_LOOK: Duration = Duration::from_millis(200);
/// Pause before looking again at a guardian that is starting or leaving.
const LOOK: Duration = Duration::from_millis(5);

/// Says why there can be no guardian here, if that is so: the program was never made one that can be run again.
///
/// One that lives in the state directory already is used whatever the program is.
///
/// # Errors
/// The reason, with the way out.
pub fn available(state_dir: &Path, program: &GuardianProgram) -> Result<(), String> {
    if *program == GuardianProgram::Itself && !armed() && holder(state_dir).is_none() {
        return Err(NOT_ARMED.to_owned());
    }
    Ok(())
}

/// Gives the pid of the guardian of a state directory, if one lives.
#[must_use]
pub fn running(state_dir: &Path) -> Option<u32> {
    holder(state_dir)
}

/// What a host that cannot be run again is told.
const NOT_ARMED: &str = "this program cannot be run again as a guardian; call \
                         supervisor_process::guardian::run_if_asked() first in main, or name a program that does";

/// Where a guardian is looked for.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) state_dir: PathBuf,
    pub(super) mark: String,
    pub(super) program: GuardianProgram,
}

/// A greeted connection.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) stream: UnixStream,
    pub(super) guardian: Guardian,
}

fn failed(action: &str, source: io::Error) -> ProcessError {
    ProcessError::Os { action: action.to_owned(), source: source.into() }
}

fn refused(text: impl Into<String>) -> ProcessError {
    failed("reaching the guardian", io::Error::other(text.into()))
}

/// A process that was to be a guardian and did not become ours.
struct NotGreeted(Option<Child>);

impl Drop for NotGreeted {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It is our unreaped child, so its pid is certainly still its own; it guards nothing yet.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// What a greeting came to.
enum Greeted {
    Welcome(Guardian),
    /// It ended meanwhile, or is not the one for this directory.
    Gone,
    /// It does not answer.
    Mute,
    /// Another host is connected to it, or its end was not noticed yet.
    Owned(String),
}

/// Finds the guardian of a state directory or starts one, and greets it.
///
/// # Errors
/// [`ProcessError::Os`] that says what to do; nothing is left that was not there before.
pub(super) async fn find_or_start(place: &Place) -> Result<Connected, ProcessError> {
    let dir = File::open(&place.state_dir)
        .map_err(|error| failed("opening the state directory for the guardian", error))?;
    check_directory(&dir, place)?;
    let deadline = Instant::now() + LIMIT;
    let (mut mute, mut starts) = (0, 0);
    let (mut owned_until, mut pause) = (None, LOOK);
    while Instant::now() < deadline && starts < STARTS_MAX {
        let (socket, started) = match os::connect(&dir, SOCKET) {
            Ok(socket) => {
                check_peer(&socket)?;
                (socket, None)
            }
            Err(_) if holder(&place.state_dir).is_some() => {
                // poll: it is starting or leaving; LIMIT above bounds it.
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(_) => {
                starts += 1;
                let (socket, child) = start(place)?;
                (socket, Some(NotGreeted(Some(child))))
            }
        };
        let stream = into_stream(socket)?;
        match greet(&stream).await? {
            Greeted::Welcome(guardian) => {
                if let Some(mut started) = started {
                    // Its end is waited for through what pins it from here on.
                    drop(started.0.take());
                }
                return Ok(Connected { stream, guardian });
            }
            // poll: it is starting or leaving; LIMIT above bounds it.
            Greeted::Gone => tokio::time::sleep(LOOK).await,
            Greeted::Mute => {
                mute += 1;
                wake_or_kill(&place.state_dir, mute);
            }
            Greeted::Owned(text) => {
                let until = *owned_until.get_or_insert_with(|| Instant::now() + HAND_OVER);
                if Instant::now() >= until {
                    return Err(refused(text));
                }
                // poll: the host before is leaving; HAND_OVER bounds it.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(HAND_OVER_LOOK);
            }
        }
    }
    Err(refused(format!(
        "none answers in {}; its guardian.log may say why, and whoever holds its {LOCK} is in the way",
        place.state_dir.display()
    )))
}

/// Whoever else may write where the guardian's socket is could put another in its place.
fn check_directory(dir: &File, place: &Place) -> Result<(), ProcessError> {
    os::own_directory(dir).map_err(|reason| {
        refused(format!("the state directory {} is refused: {reason}", place.state_dir.display()))
    })
}

fn into_stream(socket: OwnedFd) -> Result<UnixStream, ProcessError> {
    UnixStream::from_std(socket.into()).map_err(|error| failed("reaching the guardian", error))
}

/// A guardian of another user would be a stranger that was put there for us.
fn check_peer(socket: &OwnedFd) -> Result<(), ProcessError> {
    let (uid, pid) =
        os::peer(socket).map_err(|error| failed("asking who the guardian is", error))?;
    if uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(refused(format!("process {pid} of user {uid} listens in its place; it is not trusted")))
}

async fn greet(stream: &UnixStream) -> Result<Greeted, ProcessError> {
    let hello = Hello::ours().encode().unwrap_or_default();
    match os::send(stream, &hello, &[]) {
        Ok(sent) if sent == hello.len() => {}
        _ => return Ok(Greeted::Gone),
    }
    let answer = match timeout(GREETING, first_frame(stream)).await {
        Err(_) => return Ok(Greeted::Mute),
        Ok(Err(_)) => return Ok(Greeted::Gone),
        Ok(Ok(body)) => Welcome::decode(&body),
    };
    match answer {
        Ok(Welcome::Accepted { build: theirs, version, .. })
            if !(VERSION_MIN..=VERSION_MAX).contains(&version) =>
        {
            Err(refused(format!(
                "the guardian {theirs} answers in version {version} of its protocol, {} speaks {VERSION_MIN} to \
                 {VERSION_MAX}; end it, and try again",
                build()
            )))
        }
        Ok(Welcome::Accepted { pid, start_time, build, version }) => {
            tracing::debug!(pid, build, version, "a guardian answers");
            let pinned = Guardian::pin(pid, start_time);
            Ok(pinned.map_or(Greeted::Gone, Greeted::Welcome))
        }
        Ok(Welcome::Refused { why: Refusal::Elsewhere, .. }) => Ok(Greeted::Gone),
        Ok(Welcome::Refused { why: Refusal::Version, text }) => Err(refused(format!(
            "{text}; stop its services with the program that started them, or end it, and try again"
        ))),
        Ok(Welcome::Refused { why: Refusal::Owned, text }) => Ok(Greeted::Owned(text)),
        Ok(Welcome::Refused { text, .. }) => Err(refused(text)),
        Err(malformed) => Err(refused(format!("what listens there is none: {malformed}"))),
    }
}

/// Reads the first frame and not a byte of what follows it.
async fn first_frame(stream: &UnixStream) -> io::Result<Vec<u8>> {
    let mut incoming = Incoming::default();
    let mut with = Vec::new();
    loop {
        stream.readable().await?;
        let mut byte = [0; 1];
        let read = stream.try_io(Interest::READABLE, || os::receive(stream, &mut byte, &mut with));
        match read {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => incoming.push(&byte),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        let next = incoming.next(GREETING_MAX * 4);
        if let Some(body) = next.map_err(|malformed| io::Error::other(malformed.to_string()))? {
            return Ok(body.to_vec());
        }
    }
}

/// Names the process that holds the guardian's lock, as the kernel knows it; no text in any file is believed.
pub(super) fn holder(state_dir: &Path) -> Option<u32> {
    let file = File::options().read(true).write(true).open(state_dir.join(LOCK)).ok()?;
    os::Lock::holder(&file)
}

/// Tells a mute guardian to go on, and kills it if that did not help; whoever does not hold the lock is left alone.
fn wake_or_kill(state_dir: &Path, times: u32) {
    let Some(pid) = holder(state_dir) else { return };
    let Some(pinned) = system::identity_of(pid).and_then(|identity| Pinned::new(&identity)) else {
        return;
    };
    // Asked again after pinning: what holds the lock now is what we hold.
    if holder(state_dir) != Some(pid) {
        return;
    }
    let signal = if times > 1 { Signal::Kill } else { Signal::Cont };
    tracing::warn!(pid, %signal, "a guardian does not answer");
    // One that is gone already is what was wanted.
    drop(pinned.signal(signal));
}

fn start(place: &Place) -> Result<(OwnedFd, Child), ProcessError> {
    let program = match &place.program {
        GuardianProgram::Named(program) => program.clone(),
        GuardianProgram::Itself if armed() => {
            os::own_program().map_err(|error| failed("finding this program's own file", error))?
        }
        GuardianProgram::Itself => {
            return Err(refused(NOT_ARMED));
        }
    };
    end_unfinished(&place.mark);
    let (ours, theirs) =
        os::pair().map_err(|error| failed("making the guardian's socket", error))?;
    let mut command = Command::new(&program);
    command.arg0("ide-guardian").arg(ARGUMENT).arg(&place.state_dir).arg(&place.mark);
    // Not the host's environment, which may hold secrets; but if the host is a service itself, its supervisor must
    // find this process too.
    command.env_clear().env(GUARDIAN_VARIABLE, &place.mark);
    for outer in [MARK_VARIABLE, SERVICE_VARIABLE, INCARNATION_VARIABLE] {
        if let Some(value) = std::env::var_os(outer) {
            command.env(outer, value);
        }
    }
    command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    let action = format!("starting the guardian {}", program.display());
    let child = command.spawn().map_err(|error| failed(&action, error))?;
    Ok((ours, child))
}

/// Kills what a guardian that died in the middle of a start left between fork and exec: it still carries the
/// guardian's own environment, and nobody holds the lock, so no living guardian does.
pub(super) fn end_unfinished(mark: &str) {
    for entry in Snapshot::take().entries {
        if system::guardian_mark(entry.pid).as_deref() == Some(mark)
            && let Some(pinned) = Pinned::new(&entry.identity())
        {
            // One that is gone already is what was wanted.
            drop(pinned.signal(Signal::Kill));
        }
    }
}
