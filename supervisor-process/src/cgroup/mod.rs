//! Containment by cgroup v2: every run in a group of its own that nothing it starts can leave, and that one write kills.
//!
//! A layer over another spawner, whose own layers stay in force: a group is joined just after the start, so what the
//! first instructions of a program started is fetched in by the layers below.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use supervisor_core::error::SpawnError;
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{
    ChildHandle, ChildStdio, KillReport, ProcessSpawner, SpawnRequest, Survivor,
};
use supervisor_core::{ProcessIdentity, Signal};
use tokio::time::Instant;

use crate::os::{self, Entry, Pinned};

/// What the directories of a supervisor are called, before its pid.
const PREFIX: &str = "ide-supervisor-";
/// Rounds in which what was started before its leader joined is fetched in; what forks belongs to its parent's group.
const FETCHES: usize = 3;
/// Pause between two looks whether a killed group is empty.
const LOOK: Duration = Duration::from_millis(2);
/// Longest time the drop of a child waits for its killed group, so that its directory can go.
const REMOVE_WITHIN: Duration = Duration::from_millis(100);

/// A directory of cgroup v2 below which every run gets a group of its own; removed when dropped.
#[derive(Debug)]
pub struct Cgroups {
    base: PathBuf,
    memory: bool,
    /// Groups whose processes were still dying when they should have gone.
    leftovers: Mutex<Vec<PathBuf>>,
}

impl Cgroups {
    /// Looks for the cgroup v2 of this process, and takes a directory in it if it is ours to write.
    ///
    /// # Errors
    /// Why there is none to be had: no cgroup v2 is mounted, it is not delegated to this user, or the kernel is older
    /// than 5.14. A retry does not help.
    ///
    /// # Platform
    /// **Linux** only.
    pub fn find() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let directory = locate(&mounts, &own).ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "no cgroup v2 is mounted here")
        })?;
        Self::below(&directory)
    }

    /// Takes a directory below `parent`, which somebody delegated to this user.
    ///
    /// What supervisors that are gone left there is removed, as far as it is empty.
    ///
    /// # Errors
    /// As for [`find`](Self::find).
    pub fn below(parent: &Path) -> io::Result<Self> {
        remove_abandoned(parent);
        let name = format!("{PREFIX}{}-{:016x}", std::process::id(), fastrand::u64(..));
        let base = parent.join(name);
        fs::create_dir(&base)?;
        if !base.join("cgroup.kill").exists() {
            fs::remove_dir(&base)?;
            let text = "it is no cgroup v2, or the kernel is older than 5.14";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        // Offered only where the parent hands the controller down; without it ceilings are measured, as everywhere.
        let offered = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
        let memory = offered.split_ascii_whitespace().any(|name| name == "memory")
            && fs::write(base.join("cgroup.subtree_control"), "+memory").is_ok();
        Ok(Self { base, memory, leftovers: Mutex::default() })
    }

    fn group(&self, name: &str, memory_max: Option<u64>) -> io::Result<Group> {
        let mut leftovers = self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
        leftovers.retain(|path| fs::remove_dir(path).is_err() && path.exists());
        drop(leftovers);
        let group = Group(self.base.join(name));
        fs::create_dir(&group.0)?;
        if let Some(max) = memory_max.filter(|_| self.memory) {
            group.limit_memory(max);
        }
        Ok(group)
    }

    fn remove(&self, group: &Group) {
        if fs::remove_dir(&group.0).is_err() && group.0.exists() {
            self.leftovers.lock().unwrap_or_else(PoisonError::into_inner).push(group.0.clone());
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let leftovers = self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
        for path in leftovers.iter().chain([&self.base]) {
            // What is still populated stays; the next supervisor here removes it.
            drop(fs::remove_dir(path));
        }
    }
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

fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        let Some(pid) = owner.and_then(|pid| pid.parse().ok()) else { continue };
        if Entry::read(pid).is_some() {
            continue;
        }
        for group in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
            if group.path().is_dir() {
                drop(fs::remove_dir(group.path()));
            }
        }
        drop(fs::remove_dir(entry.path()));
    }
}

/// The group of one run.
#[derive(Debug, Clone)]
struct Group(PathBuf);

impl Group {
    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.0.join(file), text)
    }

    /// Lets the kernel kill the whole group beyond so many bytes.
    fn limit_memory(&self, max: u64) {
        let limits = [("memory.max", max.to_string()), ("memory.oom.group", "1".to_owned())];
        for (file, value) in limits {
            if let Err(error) = self.write(file, &value) {
                tracing::debug!(file, %error, "a ceiling is measured instead of enforced");
            }
        }
    }

    fn admit(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// What cannot be read counts as populated, unless there is no group any more.
    fn populated(&self) -> bool {
        match self.count("cgroup.events", "populated") {
            Ok(count) => count != 0,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    fn killed_for_memory(&self) -> bool {
        self.count("memory.events", "oom_kill").is_ok_and(|count| count > 0)
    }

    fn count(&self, file: &str, name: &str) -> io::Result<u64> {
        let text = fs::read_to_string(self.0.join(file))?;
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        found.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Fetches a run in: its leader, then what it had started by then.
    fn fetch(&self, child: &dyn ChildHandle) -> io::Result<()> {
        self.admit(child.identity().pid)?;
        for _ in 0..FETCHES {
            let inside = self.pids();
            let outside: Vec<u32> = child
                .members()
                .into_iter()
                .map(|member| member.pid)
                .filter(|pid| !inside.contains(pid))
                .collect();
            if outside.is_empty() {
                break;
            }
            for pid in outside {
                // One that is gone already needs no place.
                drop(self.admit(pid));
            }
        }
        Ok(())
    }

    /// Pins what is in the group and unknown to the layers below: no marks, no living parent.
    fn strangers(&self, known: &[ProcessIdentity]) -> Vec<(ProcessIdentity, Pinned)> {
        let unknown = self.pids().into_iter().filter(|pid| !known.iter().any(|it| it.pid == *pid));
        let pinned: Vec<_> = unknown
            .filter_map(os::identity_of)
            .filter_map(|identity| Pinned::new(&identity).map(|pinned| (identity, pinned)))
            .collect();
        // Asked again now that no number can change hands: what is still a member is what was pinned.
        let inside = self.pids();
        pinned.into_iter().filter(|(identity, _)| inside.contains(&identity.pid)).collect()
    }
}

/// Puts every run of another spawner into a group of its own.
#[derive(Debug)]
pub(crate) struct CgroupSpawner {
    inner: Arc<dyn ProcessSpawner>,
    cgroups: Arc<Cgroups>,
}

impl CgroupSpawner {
    pub(crate) fn new(inner: Arc<dyn ProcessSpawner>, cgroups: Cgroups) -> Self {
        Self { inner, cgroups: Arc::new(cgroups) }
    }
}

#[async_trait]
impl ProcessSpawner for CgroupSpawner {
    async fn spawn(&self, request: SpawnRequest) -> Result<Box<dyn ChildHandle>, SpawnError> {
        let name = format!("{}.{}", request.service, request.incarnation);
        let memory_max = request.spec.limits.memory.map(supervisor_core::text::ByteSize::bytes);
        let child: Arc<dyn ChildHandle> = Arc::from(self.inner.spawn(request).await?);
        let (cgroups, moved) = (Arc::clone(&self.cgroups), Arc::clone(&child));
        // Moving a process between groups can take the kernel milliseconds.
        let joined = tokio::task::spawn_blocking(move || {
            let group = cgroups.group(&name, memory_max)?;
            group.fetch(moved.as_ref()).inspect_err(|_| cgroups.remove(&group))?;
            Ok::<_, io::Error>(group)
        });
        let group = match joined.await {
            Ok(Ok(group)) => Some(group),
            Ok(Err(error)) => {
                // It is contained by the layers below, as everywhere where there is no cgroup.
                tracing::warn!(%error, "a run could not be put into a cgroup of its own");
                None
            }
            Err(_) => None,
        };
        Ok(Box::new(CgroupChild { inner: child, group, cgroups: Arc::clone(&self.cgroups) }))
    }

    fn containment(&self) -> Vec<String> {
        [vec!["cgroup_v2".to_owned()], self.inner.containment()].concat()
    }
}

#[derive(Debug)]
struct CgroupChild {
    inner: Arc<dyn ChildHandle>,
    /// Nothing if the run could not be put into one.
    group: Option<Group>,
    cgroups: Arc<Cgroups>,
}

impl CgroupChild {
    fn populated(&self) -> bool {
        self.group.as_ref().is_some_and(Group::populated)
    }

    fn strangers(&self) -> Vec<(ProcessIdentity, Pinned)> {
        let known = self.inner.members();
        self.group.as_ref().map(|group| group.strangers(&known)).unwrap_or_default()
    }
}

#[async_trait]
impl ChildHandle for CgroupChild {
    fn identity(&self) -> ProcessIdentity {
        self.inner.identity()
    }

    async fn wait(&self) -> ExitStatus {
        self.inner.wait().await
    }

    async fn signal_set(&self, signal: Signal) -> io::Result<()> {
        // Found before anything ends by the signal; the rest must not get it twice, which many take for "at once".
        let strangers = self.strangers();
        self.inner.signal_set(signal).await?;
        strangers.iter().try_for_each(|(_, process)| process.signal(signal))
    }

    async fn kill_set(&self, confirm: Duration) -> KillReport {
        let deadline = Instant::now() + confirm;
        if let Some(Err(error)) = self.group.as_ref().map(Group::kill) {
            tracing::warn!(%error, "a cgroup could not be killed; its processes are, one by one");
        }
        let mut report = self.inner.kill_set(confirm).await;
        while self.populated() && Instant::now() < deadline {
            for (_, process) in self.strangers() {
                // One that is gone already is what was wanted.
                drop(process.signal(Signal::Kill));
            }
            tokio::time::sleep(LOOK).await;
        }
        if self.populated() {
            let state = |pid| Entry::read(pid).map_or('?', |entry| entry.state);
            for (identity, _) in self.strangers() {
                let state = state(identity.pid);
                report.survivors.push(Survivor { identity, state });
            }
        }
        report
    }

    fn set_is_empty(&self) -> bool {
        self.inner.set_is_empty() && !self.populated()
    }

    fn members(&self) -> Vec<ProcessIdentity> {
        let strangers = self.strangers().into_iter().map(|(identity, _)| identity);
        self.inner.members().into_iter().chain(strangers).collect()
    }

    fn take_stdio(&self) -> Option<ChildStdio> {
        self.inner.take_stdio()
    }

    fn last_lines(&self, max: usize) -> Vec<String> {
        self.inner.last_lines(max)
    }

    fn killed_for_memory(&self) -> bool {
        self.group.as_ref().is_some_and(Group::killed_for_memory)
    }
}

impl Drop for CgroupChild {
    fn drop(&mut self) {
        let Some(group) = &self.group else { return };
        if group.populated() {
            // What does not go by it is not waited for longer: a drop blocks its thread.
            drop(group.kill());
            let deadline = std::time::Instant::now() + REMOVE_WITHIN;
            while group.populated() && std::time::Instant::now() < deadline {
                std::thread::park_timeout(LOOK);
            }
        }
        self.cgroups.remove(group);
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
    fn a_groups_files_are_written_and_read_as_the_kernel_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let group = Group(directory.path().to_owned());
        let put = |file: &str, text: &str| fs::write(directory.path().join(file), text).unwrap();
        let read = |file: &str| fs::read_to_string(directory.path().join(file)).unwrap();
        group.limit_memory(64 << 20);
        assert_eq!(
            (read("memory.max").as_str(), read("memory.oom.group").as_str()),
            ("67108864", "1")
        );
        group.admit(42).unwrap();
        assert_eq!(read("cgroup.procs"), "42");
        put("cgroup.procs", "42\n43\n");
        assert_eq!(group.pids(), [42, 43]);
        group.kill().unwrap();
        assert_eq!(read("cgroup.kill"), "1");
        put("cgroup.events", "populated 1\nfrozen 0\n");
        assert!(group.populated());
        put("cgroup.events", "populated 0\nfrozen 0\n");
        assert!(!group.populated());
        put("cgroup.events", "nonsense");
        assert!(group.populated(), "what cannot be read is not empty");
        assert!(!group.killed_for_memory());
        put("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 1\n");
        assert!(group.killed_for_memory());
    }

    #[test]
    fn a_directory_that_is_no_cgroup_is_refused_and_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let error = Cgroups::below(directory.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
