//! Windows: finding the guardian of a state directory, or starting one.

use std::io;
use std::os::windows::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use supervisor_core::error::ProcessError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::windows::named_pipe::NamedPipeClient;
use tokio::time::{Instant, timeout};

use super::super::protocol::{GREETING_MAX, Hello, Refusal, Welcome};
use super::super::wire::Incoming;
use super::super::{ARGUMENT, GuardianProgram, armed, pipe_name};
use crate::command::{INCARNATION_VARIABLE, MARK_VARIABLE, SERVICE_VARIABLE};
use crate::os::guardian::{self as os, Peer};

/// How long finding or starting may take altogether.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a guardian may take to answer a greeting before it is killed.
const GREETING: Duration = Duration::from_secs(10);
/// How long the end of the host before this one may take to reach the guardian.
const HANDED_OVER: Duration = Duration::from_secs(2);
/// Starts in a row that come to nothing before it is given up: the program is none that can be a guardian.
const STARTS_MAX: u32 = 3;
/// Pause before looking again at a guardian that is starting or leaving.
const LOOK: Duration = Duration::from_millis(5);
/// All instances of the pipe are taken for a moment.
const PIPE_BUSY: i32 = 231;
/// Neither shares our console nor has one: nobody's Ctrl-C reaches it, and it can enter its services' consoles.
const DETACHED_PROCESS: u32 = 0x8;
/// What a program needs of the environment to work at all.
const ESSENTIALS: [&str; 4] = ["SystemRoot", "SystemDrive", "TEMP", "TMP"];

/// Says why there can be no guardian here, if that is so: the program was never made one that can be run again.
///
/// One that lives in the state directory already is used whatever the program is.
///
/// # Errors
/// The reason, with the way out.
pub fn available(state_dir: &Path, program: &GuardianProgram) -> Result<(), String> {
    if *program == GuardianProgram::Itself && !armed() && running(state_dir).is_none() {
        return Err(NOT_ARMED.to_owned());
    }
    Ok(())
}

/// Gives the pid of the guardian of a state directory, if one lives.
#[must_use]
pub fn running(state_dir: &Path) -> Option<u32> {
    os::server_behind(&pipe_name(state_dir))
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
    pub(super) stream: NamedPipeClient,
    pub(super) guardian: Peer,
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
            // A handle to it is held, so it is certainly the one; it guards nothing yet.
            drop(child.kill());
        }
    }
}

/// What a greeting came to.
enum Greeted {
    Welcome,
    /// It ended meanwhile.
    Gone,
    /// It does not answer.
    Mute,
    /// Another host has it.
    Owned(String),
}

/// Finds the guardian of a state directory or starts one, and greets it.
///
/// # Errors
/// [`ProcessError::Os`] that says what to do; nothing is left that was not there before.
pub(super) async fn find_or_start(place: &Place) -> Result<Connected, ProcessError> {
    let name = pipe_name(&place.state_dir);
    let begun = Instant::now();
    let mut starts = 0;
    let mut started = NotGreeted(None);
    while begun.elapsed() < LIMIT {
        let mut stream = match os::connect(&name) {
            Ok(stream) => stream,
            Err(error) if error.raw_os_error() == Some(PIPE_BUSY) => {
                // poll: others are being greeted or refused; LIMIT above bounds it.
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !is_starting(&mut started) {
                    if starts == STARTS_MAX {
                        break;
                    }
                    starts += 1;
                    started = NotGreeted(Some(start(place)?));
                }
                // poll: it is starting or leaving; LIMIT above bounds it.
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Err(error) => return Err(failed("opening the guardian's pipe", error)),
        };
        let Ok(pid) = os::server_of(&stream) else { continue };
        // A guardian of another user would be a stranger that was put there for us.
        let guardian = Peer::open(pid).map_err(|error| {
            failed(&format!("trusting process {pid}, which listens as the guardian"), error)
        })?;
        match greet(&mut stream, &guardian).await? {
            Greeted::Welcome => {
                drop(started.0.take());
                return Ok(Connected { stream, guardian });
            }
            Greeted::Owned(text) if begun.elapsed() > HANDED_OVER => return Err(refused(text)),
            Greeted::Mute => {
                tracing::warn!(pid, "a guardian does not answer; it is killed");
                guardian.kill().map_err(|error| failed("ending a mute guardian", error))?;
            }
            // poll: it is starting or leaving, or has not seen yet that its host is gone; LIMIT above bounds it.
            Greeted::Gone | Greeted::Owned(_) => tokio::time::sleep(LOOK).await,
        }
    }
    Err(refused(format!(
        "none answers in {}; its guardian.log may say why",
        place.state_dir.display()
    )))
}

/// Tells whether what was started to be a guardian may yet become one.
fn is_starting(started: &mut NotGreeted) -> bool {
    started.0.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
}

async fn greet(stream: &mut NamedPipeClient, guardian: &Peer) -> Result<Greeted, ProcessError> {
    let hello = Hello::ours().encode().unwrap_or_default();
    if stream.write_all(&hello).await.is_err() {
        return Ok(Greeted::Gone);
    }
    let answer = match timeout(GREETING, first_frame(stream)).await {
        Err(_) => return Ok(Greeted::Mute),
        Ok(Err(_)) => return Ok(Greeted::Gone),
        Ok(Ok(body)) => Welcome::decode(&body),
    };
    match answer {
        Ok(Welcome::Accepted { pid, start_time, build, version }) => {
            tracing::debug!(pid, build, version, "a guardian answers");
            let same = (pid, start_time) == (guardian.pid, guardian.start_time);
            Ok(if same { Greeted::Welcome } else { Greeted::Gone })
        }
        Ok(Welcome::Refused { why: Refusal::Elsewhere, .. }) => Ok(Greeted::Gone),
        Ok(Welcome::Refused { why: Refusal::Owned, text }) => Ok(Greeted::Owned(text)),
        Ok(Welcome::Refused { why: Refusal::Version, text }) => Err(refused(format!(
            "{text}; stop its services with the program that started them, or end it, and try again"
        ))),
        Ok(Welcome::Refused { text, .. }) => Err(refused(text)),
        Err(malformed) => Err(refused(format!("what listens there is none: {malformed}"))),
    }
}

/// Reads the first frame and not a byte of what follows it.
async fn first_frame(stream: &mut NamedPipeClient) -> io::Result<Vec<u8>> {
    let mut incoming = Incoming::default();
    loop {
        incoming.push(&[stream.read_u8().await?]);
        let next = incoming.next(GREETING_MAX * 4);
        if let Some(body) = next.map_err(|malformed| io::Error::other(malformed.to_string()))? {
            return Ok(body.to_vec());
        }
    }
}

fn start(place: &Place) -> Result<Child, ProcessError> {
    let program = match &place.program {
        GuardianProgram::Named(program) => program.clone(),
        GuardianProgram::Itself if armed() => std::env::current_exe()
            .map_err(|error| failed("finding the program to run as a guardian", error))?,
        GuardianProgram::Itself => return Err(refused(NOT_ARMED)),
    };
    let mut command = Command::new(&program);
    command.arg(ARGUMENT).arg(&place.state_dir).arg(&place.mark).creation_flags(DETACHED_PROCESS);
    // Not the host's environment, which may hold secrets; but if the host is a service itself, it says so.
    command.env_clear();
    for name in
        ESSENTIALS.into_iter().chain([MARK_VARIABLE, SERVICE_VARIABLE, INCARNATION_VARIABLE])
    {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let action = format!("starting the guardian {}", program.display());
    command.spawn().map_err(|error| failed(&action, error))
}

/// Nothing of a guardian that died in the middle of a start is left: it was in a job from its first instruction on.
pub(super) const fn end_unfinished(_mark: &str) {}
