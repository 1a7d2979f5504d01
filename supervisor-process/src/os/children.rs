//! Linux and macOS: the processes this process started and has not let go of: no orphans, whatever else is known of them.
//!
//! One list for the whole process, because a sub-reaper is one for the whole process: an orphan is told from a
//! child by not being on it.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

#[cfg(target_os = "linux")]
use rustix::process::{Pid, WaitId, WaitIdOptions};

/// Held while a child exists that may not be on the list yet.
static STARTING: RwLock<()> = RwLock::new(());

/// A quick way to spread process numbers, which the kernel hands out and nobody chooses.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct PidHasher(u64);

pub(super) type ByPid = BuildHasherDefault<PidHasher>;
pub(super) type PidSet = HashSet<u32, ByPid>;

impl Hasher for PidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

fn list() -> MutexGuard<'static, PidSet> {
    static LIST: OnceLock<Mutex<PidSet>> = OnceLock::new();
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

/// Starts a child and lists it before anybody could take it for an orphan.
pub(super) fn listed<T, E>(
    start: impl FnOnce() -> Result<T, E>,
    pid: impl FnOnce(&T) -> u32,
) -> Result<(T, Listed), E> {
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    let child = start()?;
    let pid = pid(&child);
    list().insert(pid);
    Ok((child, Listed(pid)))
}

/// Tells whether this is a child that we started and have not let go of.
#[cfg(target_os = "linux")]
pub(super) fn is_listed(pid: u32) -> bool {
    list().contains(&pid)
}

/// Leaves out what we started, and ourselves.
pub(super) fn without(pids: impl Iterator<Item = u32>) -> Vec<u32> {
    let (list, me) = (list(), std::process::id());
    pids.filter(|pid| *pid != me && !list.contains(pid)).collect()
}

/// Reaps zombies that are our children and were not started by us: orphans a sub-reaper was given.
#[cfg(target_os = "linux")]
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
