//! The group of one run: who is in it, and ending all of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use supervisor_core::ProcessIdentity;

use crate::child::descendants;
use crate::os::{self, Pinned};

/// Rounds in which what was started before its leader joined is fetched in; what forks belongs to its parent's group.
const FETCHES: usize = 3;
/// Linux's word for a process that is not there.
const ESRCH: i32 = 3;

/// The group of one run.
#[derive(Debug, Clone)]
pub(super) struct Group(pub(super) PathBuf);

impl Group {
    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.0.join(file), text)
    }

    /// Lets the kernel kill the whole group beyond so many bytes.
    pub(super) fn limit_memory(&self, max: u64) {
        let limits = [("memory.max", max.to_string()), ("memory.oom.group", "1".to_owned())];
        for (file, value) in limits {
            if let Err(error) = self.write(file, &value) {
                tracing::debug!(file, %error, "a ceiling is measured instead of enforced");
            }
        }
    }

    pub(super) fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// What cannot be read counts as populated, unless there is no group any more.
    pub(super) fn populated(&self) -> bool {
        match self.count("cgroup.events", "populated") {
            Ok(count) => count != 0,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    pub(super) fn killed_for_memory(&self) -> bool {
        self.count("memory.events", "oom_kill").is_ok_and(|count| count > 0)
    }

    fn count(&self, file: &str, name: &str) -> io::Result<u64> {
        let text = fs::read_to_string(self.0.join(file))?;
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        found.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Fetches a run in: its leader, then what it had started by then. What it started and left behind already is found by
    /// the layers below, as everywhere; looking for that here would read every process of the system at each start.
    ///
    /// # Errors
    /// What the system said; [`io::ErrorKind::NotFound`] when the leader has ended.
    pub(super) fn fetch(&self, leader: &ProcessIdentity) -> io::Result<()> {
        self.admit(leader)?;
        for _ in 0..FETCHES {
            let inside = self.pids();
            let below = descendants(vec![leader.clone()]);
            let mut outside = below.iter().filter(|it| !inside.contains(&it.pid)).peekable();
            if outside.peek().is_none() {
                break;
            }
            for entry in outside {
                // One that is gone already needs no place.
                drop(self.admit(&entry.identity()));
            }
        }
        Ok(())
    }

    /// Moves one process in, and nobody else: who held its number before and after held it in between.
    fn admit(&self, process: &ProcessIdentity) -> io::Result<()> {
        let is_it = || os::identity_of(process.pid).is_some_and(|now| now == *process);
        if !is_it() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let moved = self.write("cgroup.procs", &process.pid.to_string());
        if moved.is_ok() && is_it() {
            return Ok(());
        }
        if let Err(error) = moved
            && error.raw_os_error() != Some(ESRCH)
        {
            return Err(error);
        }
        if let Some(parent) = self.0.parent().and_then(Path::parent)
            && self.pids().contains(&process.pid)
        {
            // Whoever has its number now goes back to where such processes come from.
            drop(fs::write(parent.join("cgroup.procs"), process.pid.to_string()));
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Pins what is in the group and unknown to the layers below: no marks, no living parent.
    pub(super) fn strangers(&self, known: &[ProcessIdentity]) -> Vec<(ProcessIdentity, Pinned)> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let own = os::identity_of(std::process::id()).unwrap();
        group.admit(&own).unwrap();
        assert_eq!(read("cgroup.procs"), own.pid.to_string());
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
    fn a_number_that_is_somebody_elses_by_now_is_not_moved() {
        let directory = tempfile::tempdir().unwrap();
        let group = Group(directory.path().to_owned());
        let mut other = os::identity_of(std::process::id()).unwrap();
        other.start_time += 1;
        let error = group.admit(&other).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!directory.path().join("cgroup.procs").exists());
    }
}
