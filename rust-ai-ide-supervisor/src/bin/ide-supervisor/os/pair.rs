//! Linux: two processes for one session, so that whichever of them is killed, the other ends the server's whole set.
//!
//! The one the client started (the watcher) starts itself again and waits. That one (the worker) carries the session over
//! the standard streams it inherited, so that the watcher costs a message nothing. Both are sub-reapers: a process of the
//! server that leaves its group, its session and its parent still ends up below one of them, whatever it did to its
//! environment.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process, set_child_subreaper,
    set_parent_process_death_signal, waitid,
};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::exit_code::Exit;
use crate::output::progress;

/// First argument of a worker; the pid of its watcher is the second.
const WATCHED_BY: &str = "--ide-supervisor-watched-by";
/// How long killed processes are waited for; one that a device holds is left to the system then.
const CONFIRM: Duration = Duration::from_secs(5);
/// Pause between two looks at what was killed.
const LOOK: Duration = Duration::from_millis(1);

/// Takes the watcher's pid out of a worker's command line.
pub(crate) fn worker_of(words: impl Iterator<Item = OsString>) -> (Option<u32>, Vec<OsString>) {
    let mut words: Vec<OsString> = words.collect();
    if words.get(1).is_none_or(|first| first != WATCHED_BY) {
        return (None, words);
    }
    let watcher = words.get(2).and_then(|pid| pid.to_str()?.parse().ok());
    if watcher.is_some() {
        words.drain(1..3);
    }
    (watcher, words)
}

/// Makes this process the watcher of a session and gives its exit code once the session is over and nothing is left.
///
/// Gives nothing when no worker could be started; the session goes on in this process then, unwatched.
pub(crate) fn watch() -> Option<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let unwatched = |error: io::Error| {
        progress(&format!(
            "ide-supervisor wrap: cannot start the process that carries the session ({error}); if this one is killed, \
             its server may be left behind"
        ));
    };
    runtime.block_on(async {
        let worker = start().map_err(unwatched).ok()?;
        Some(wait_for(worker).await)
    })
}

fn start() -> io::Result<Child> {
    set_child_subreaper(Some(getpid()))?;
    // The very program that runs, even if its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    let mut words = std::env::args_os();
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    command.args([WATCHED_BY, &getpid().as_raw_nonzero().to_string()]).args(words);
    if !io::IsTerminal::is_terminal(&io::stdin()) {
        // A kill of our group must leave one of the two. A terminal is read by its foreground group only.
        command.process_group(0);
    }
    command.spawn()
}

async fn wait_for(mut worker: Child) -> u8 {
    let mut asked = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(|kind| signal(kind).ok());
    let [terminate, interrupt, hangup] = &mut asked;
    let status = loop {
        tokio::select! {
            status = worker.wait() => break status,
            () = next(terminate) => {}
            () = next(interrupt) => {}
            () = next(hangup) => {}
        }
        if let Some(pid) = worker.id().and_then(pid) {
            // Unreaped, so the pid is its own; it may have ended, which is what is asked for.
            _ = kill_process(pid, Signal::TERM);
        }
    };
    end_descendants().await;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => u8::try_from(code).unwrap_or(1),
            (None, ended_by) => {
                progress(&format!(
                    "ide-supervisor wrap: the process that carried the session was ended by signal {}; its server was \
                     ended with it",
                    ended_by.unwrap_or(0)
                ));
                Exit::Failed as u8
            }
        },
        Err(_) => Exit::Failed as u8,
    }
}

async fn next(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// What a worker knows of its watcher: the system continues it when that has ended, even if it was stopped.
#[derive(Debug)]
pub(crate) struct Watcher {
    pid: Pid,
    continued: tokio::signal::unix::Signal,
}

impl Watcher {
    /// Finds the watcher and makes this process the reaper of whatever its server leaves behind.
    ///
    /// # Errors
    /// When it is gone, or is not what started this process.
    pub(crate) fn find(watcher: u32) -> io::Result<Self> {
        let continued = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
        set_parent_process_death_signal(Some(Signal::CONT))?;
        // Looked at after the system was told: if it ends from now on, that is said.
        let Some(pid) = getppid().filter(|parent| pid(watcher) == Some(*parent)) else {
            let text = format!("process {watcher} is not what started this one");
            return Err(io::Error::other(text));
        };
        // For people and `ps`; without it the name is that of the link it was started by.
        drop(fs::write("/proc/self/comm", "ide-supervisor"));
        Ok(Self { pid, continued })
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn ended(&mut self) {
        while getppid() == Some(self.pid) {
            // Somebody else may continue it, too.
            if self.continued.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

/// Kills every process below this one, those included that become its children by that, and reaps them.
///
/// # Cancel safety
/// Safe; call it again.
pub(crate) async fn end_descendants() {
    let deadline = Instant::now() + CONFIRM;
    loop {
        let children: Vec<Pid> = children().into_iter().filter_map(pid).collect();
        if children.is_empty() {
            return;
        }
        for child in &children {
            // Unreaped children, so their pids are their own.
            _ = kill_process(*child, Signal::KILL);
        }
        for child in &children {
            _ = waitid(WaitId::Pid(*child), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        if Instant::now() >= deadline {
            progress("ide-supervisor wrap: a process of the server does not end, killed as it is");
            return;
        }
        // poll: a kill takes a moment; CONFIRM at most.
        tokio::time::sleep(LOOK).await;
    }
}

fn children() -> Vec<u32> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|it| fs::read_to_string(it.path().join("children")).ok());
    let all: Vec<String> = lists.collect();
    all.iter()
        .flat_map(|list| list.split_ascii_whitespace())
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
