//! Linux: the processes this process started and has not let go of: no orphans, whatever else is known of them.
//!
//! One list for the whole process, because a sub-reaper is one for the whole process: an orphan is told from a
//! child by not being on it.

use std::collections::HashSet;
use std::io;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use rustix::process::{Pid, WaitId, WaitIdOptions};

/// Held while a child exists that may not be on the list yet.
static STARTING: RwLock<()> = RwLock::new(());

fn list() -> MutexGuard<'static, HashSet<u32>> {
    static LIST: OnceLock<Mutex<HashSet<u32>>> = OnceLock::new();
    LIST.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place on the list, given back when dropped.
#[derive(Debug)]
pub(super) struct Listed(u32);

impl Drop for Listed {
    fn drop(&mut self) {
        list().remove(&self.0);
    }
}

/// Starts a command and lists its process before anybody could take it for an orphan.
pub(super) fn spawn(command: &mut Command) -> io::Result<(Child, Listed)> {
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    list().insert(child.id());
    let listed = Listed(child.id());
    Ok((child, listed))
}

/// Leaves out what we started, and ourselves.
pub(super) fn without(pids: impl Iterator<Item = u32>) -> Vec<u32> {
    let (list, me) = (list(), std::process::id());
    pids.filter(|pid| *pid != me && !list.contains(pid)).collect()
}

/// Reaps zombies that are our children and were not started by us: orphans a sub-reaper was given.
pub(super) fn reap_orphans(pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    // While nothing is being started, what is not on the list is certainly not ours.
    let _none_starting = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    for pid in without(pids.iter().copied()) {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
        // Of one pid, never of any child; an error means that it was no child of ours.
        _ = rustix::process::waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
    }
}
