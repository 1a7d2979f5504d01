//! Containment by cgroup v2: every run in a group of its own that nothing it starts can leave, and that one write kills.
//!
//! A layer over another spawner, whose own layers stay in force: a group is joined just after the start, so what the
//! first instructions of a program started is fetched in by the layers below. `group.rs` is one run's group,
//! `spawner.rs` puts runs into theirs.

mod group;
mod spawner;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use supervisor_core::{Incarnation, ServiceId};
use tokio::sync::Semaphore;

pub(crate) use spawner::{CgroupSpawner, adopted};

use group::Group;

use crate::os::Entry;

/// What the directories of a supervisor are called, before the hash of its mark, its pid and a random number.
const PREFIX: &str = "ide-supervisor-";
/// Pause between two looks whether a killed group is empty.
const LOOK: Duration = Duration::from_millis(2);
/// Longest time a group that an earlier supervisor left is waited for once it is killed.
const LEFTOVER_WITHIN: Duration = Duration::from_secs(2);

/// A directory of cgroup v2 below which every run gets a group of its own; removed when dropped.
#[derive(Debug)]
pub struct Cgroups {
    base: PathBuf,
    /// What every directory of this mark begins with.
    own: String,
    memory: bool,
    /// Groups whose processes were still dying when they should have gone.
    leftovers: Mutex<Vec<PathBuf>>,
    /// Moves one process at a time: the kernel does the same, and it can take it milliseconds.
    turn: Semaphore,
    /// The last run could not be put into a group.
    refused: AtomicBool,
    /// Runs that earlier supervisors with this mark had a group for.
    earlier_runs: Vec<(ServiceId, Incarnation)>,
}

impl Cgroups {
    /// Looks for the cgroup v2 of this process, and takes a directory in it if it is ours to write.
    ///
    /// What supervisors that are gone left there is removed, as far as it is empty; what those with the same `mark` left
    /// running is ended by [`end_leftovers`](Self::end_leftovers).
    ///
    /// # Errors
    /// Why there is none to be had: no cgroup v2 is mounted, it is not delegated to this user, or the kernel is older
    /// than 5.14. A retry does not help.
    ///
    /// # Platform
    /// **Linux** only.
    pub fn find(mark: &str) -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let directory = locate(&mounts, &own)
            .ok_or_else(|| unsupported("no cgroup v2 that holds this process is mounted"))?;
        Self::below(&directory, mark)
    }

    /// Takes a directory below `parent`, which somebody delegated to this user and in which this process is.
    ///
    /// # Errors
    /// As for [`find`](Self::find).
    pub fn below(parent: &Path, mark: &str) -> io::Result<Self> {
        // Who may not write here may move nothing out of it either.
        let not_ours = |error: io::Error| {
            let text = format!("{} is not delegated to this user: {error}", parent.display());
            io::Error::new(error.kind(), text)
        };
        writable(&parent.join("cgroup.procs")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => unsupported("it is no cgroup v2"),
            _ => not_ours(error),
        })?;
        let own = format!("{PREFIX}{:016x}-", hash(mark));
        // Looked at first: the group of a run that has ended is empty, and goes.
        let earlier_runs = runs_below(parent, &own);
        remove_abandoned(parent);
        let base = parent.join(format!("{own}{}-{:08x}", std::process::id(), fastrand::u32(..)));
        fs::create_dir(&base).map_err(not_ours)?;
        if let Err(error) = usable(&base) {
            fs::remove_dir(&base)?;
            return Err(error);
        }
        // Offered only where the parent hands the controller down; without it ceilings are measured, as everywhere.
        let offered = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
        let memory = offered.split_ascii_whitespace().any(|name| name == "memory")
            && fs::write(base.join("cgroup.subtree_control"), "+memory").is_ok();
        let (leftovers, turn, refused) =
            (Mutex::default(), Semaphore::new(1), AtomicBool::new(false));
        Ok(Self { base, own, memory, leftovers, turn, refused, earlier_runs })
    }

    /// Gives the directory that holds the groups.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.base
    }

    /// Gives the runs that supervisors with the same mark before this one had a group for, once, those that had ended
    /// included; a group whose run ended while its supervisor lived is gone.
    #[must_use]
    pub fn take_earlier_runs(&mut self) -> Vec<(ServiceId, Incarnation)> {
        std::mem::take(&mut self.earlier_runs)
    }

    /// Kills what earlier supervisors with this mark left in their groups, but for the runs that are kept, and gives how
    /// many processes that were. Blocks until they are gone, at most two seconds.
    ///
    /// The caller makes sure that no other supervisor with the same mark lives.
    #[must_use]
    pub fn end_leftovers(&self, kept: &[(ServiceId, Incarnation)]) -> usize {
        let kept: Vec<String> = kept.iter().map(|(id, run)| name_of(id, *run)).collect();
        let groups = self.earlier().flat_map(|base| directories(&base));
        let groups: Vec<Group> = groups
            .filter(|path| {
                path.file_name().is_some_and(|name| !kept.iter().any(|kept| name == kept.as_str()))
            })
            .map(Group)
            .collect();
        let mut ended = 0;
        for group in &groups {
            ended += group.pids().len();
            if let Err(error) = group.kill() {
                tracing::warn!(%error, group = %group.0.display(), "what is in it could not be killed");
            }
        }
        let deadline = Instant::now() + LEFTOVER_WITHIN;
        while groups.iter().any(Group::populated) && Instant::now() < deadline {
            std::thread::park_timeout(LOOK);
        }
        for base in groups.iter().filter_map(|group| {
            // What still dies stays; the next supervisor here removes it.
            drop(fs::remove_dir(&group.0));
            group.0.parent()
        }) {
            drop(fs::remove_dir(base));
        }
        ended
    }

    /// The directories of other supervisors with this mark.
    fn earlier(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let siblings = self.base.parent().map(directories).unwrap_or_default();
        siblings.into_iter().filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            *path != self.base && name.is_some_and(|name| name.starts_with(&self.own))
        })
    }

    /// Finds the group an earlier supervisor with this mark put a run into, if its leader is in it.
    fn known(&self, service: &ServiceId, run: Incarnation, leader: u32) -> Option<Group> {
        let name = name_of(service, run);
        let groups = self.earlier().map(|base| Group(base.join(&name)));
        groups.into_iter().find(|group| group.pids().contains(&leader))
    }

    fn group(&self, name: &str, memory_max: Option<u64>) -> io::Result<Group> {
        self.lock().retain(|path| fs::remove_dir(path).is_err() && path.exists());
        let group = Group(self.base.join(name));
        fs::create_dir(&group.0)?;
        if let Some(max) = memory_max.filter(|_| self.memory) {
            group.limit_memory(max);
        }
        Ok(group)
    }

    fn remove(&self, group: &Group) {
        if fs::remove_dir(&group.0).is_err() && group.0.exists() {
            self.lock().push(group.0.clone());
            return;
        }
        if let Some(base) = group.0.parent().filter(|base| *base != self.base) {
            // An earlier supervisor's; its last group was removed if this succeeds.
            drop(fs::remove_dir(base));
        }
    }

    /// Tells whether runs are put into groups as far as is known.
    fn in_force(&self) -> bool {
        !self.refused.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        // A list of paths is valid after any statement.
        self.leftovers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for path in self.lock().iter().chain([&self.base]) {
            // What is still populated stays; the next supervisor here removes it.
            drop(fs::remove_dir(path));
        }
    }
}

fn name_of(service: &ServiceId, run: Incarnation) -> String {
    format!("{service}.{run}")
}

fn run_of(name: &str) -> Option<(ServiceId, Incarnation)> {
    let (service, run) = name.rsplit_once('.')?;
    Some((ServiceId::new(service).ok()?, Incarnation(run.parse().ok()?)))
}

/// Names the runs that have a group in a directory of `parent` that begins with `own`.
fn runs_below(parent: &Path, own: &str) -> Vec<(ServiceId, Incarnation)> {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let bases = directories(parent).into_iter();
    let bases = bases.filter(|base| name(base).is_some_and(|name| name.starts_with(own)));
    let groups = bases.flat_map(|base| directories(&base));
    groups.filter_map(|group| run_of(&name(&group)?)).collect()
}

fn unsupported(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// FNV-1a: the same in every build, and short enough for a directory's name.
fn hash(mark: &str) -> u64 {
    mark.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(unix)]
fn writable(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::access(path, rustix::fs::Access::WRITE_OK)?)
}

#[cfg(not(unix))]
fn writable(_: &Path) -> io::Result<()> {
    Err(io::ErrorKind::NotFound.into())
}

/// Tells whether processes can be put into groups below this new directory, and killed there.
fn usable(base: &Path) -> io::Result<()> {
    if !base.join("cgroup.kill").exists() {
        return Err(unsupported("it is no cgroup v2, or the kernel is older than 5.14"));
    }
    let kind = fs::read_to_string(base.join("cgroup.type"))?;
    if kind.trim() == "domain" {
        return Ok(());
    }
    Err(unsupported("groups here are for threads, not for processes"))
}

fn directories(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Finds the directory of this process's group among the mounts.
fn locate(mounts: &str, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mount = mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // The root is another group's where only a part of the tree is mounted, as in a container.
        (kind.starts_with("cgroup2 ")).then(|| (root.to_owned(), point.to_owned()))
    })?;
    let inside = path.strip_prefix(mount.0.trim_end_matches('/')).unwrap_or(path);
    Some(Path::new(&mount.1).join(inside.trim_start_matches('/')))
}

/// Removes the empty directories of supervisors that are gone, whatever their mark.
fn remove_abandoned(parent: &Path) {
    for base in directories(parent) {
        let name = base.file_name().and_then(|name| name.to_str());
        let owner = name.and_then(|name| name.strip_prefix(PREFIX)?.split('-').nth(1));
        let Some(pid) = owner.and_then(|pid| pid.parse().ok()) else { continue };
        if Entry::read(pid).is_some() {
            continue;
        }
        for group in directories(&base) {
            drop(fs::remove_dir(group));
        }
        drop(fs::remove_dir(base));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_this_process_is_found_under_its_mount() {
        let mounts = "25 20 0:22 / /sys rw - sysfs sysfs rw\n\
            30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let own = "0::/user.slice/user-1000.slice/app.scope\n";
        let found = locate(mounts, own).unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/user.slice/user-1000.slice/app.scope"));
        // Hybrid: the old controllers beside it.
        let mounts = "31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = locate(mounts, "4:memory:/x\n0::/\n").unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/unified"));
        // A part of the tree, as a container sees it.
        let mounts = "32 25 0:28 /kube/pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = locate(mounts, "0::/kube/pod/app\n").unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/app"));
        assert_eq!(locate("25 20 0:22 / /sys rw - sysfs sysfs rw\n", "0::/\n"), None);
        assert_eq!(locate(mounts, "4:memory:/x\n"), None);
    }

    #[test]
    fn groups_name_the_runs_of_earlier_supervisors_with_this_mark_and_of_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["own-1-a/svc.a.7", "own-2-b/svc.a.9", "own-2-b/not a run.x", "other-1-a/b.3"] {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        let mut found = runs_below(directory.path(), "own-");
        found.sort();
        let service = ServiceId::new("svc.a").unwrap();
        assert_eq!(name_of(&service, Incarnation(7)), "svc.a.7");
        assert_eq!(found, [(service.clone(), Incarnation(7)), (service, Incarnation(9))]);
    }

    #[test]
    fn a_directory_that_is_no_cgroup_is_refused_and_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let error = Cgroups::below(directory.path(), "mark").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
