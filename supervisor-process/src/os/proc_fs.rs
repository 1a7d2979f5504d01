//! Linux: reading processes out of `/proc`; what cannot be read is treated as a stranger.

use std::fs;
use std::io::{self, Read};
use std::sync::OnceLock;

use supervisor_core::ProcessIdentity;

use super::reserve;

/// Flag of a kernel thread, which never has an environment (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// One line of `/proc/<pid>/stat`, as far as it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pid: u32,
    pub(crate) state: char,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
    pub(crate) start_time: u64,
    /// It has no environment because it is just being replaced by another program.
    pub(crate) between_programs: bool,
}

impl Entry {
    /// Reads one process.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        // One read into the stack: a search for what a crash left reads every process before the restart. The kernel
        // writes at most 52 numbers and a name of 64 bytes, which is no text if its owner likes it that way.
        let mut bytes = [0; 2048];
        let read = reserve::with(|| fs::File::open(format!("/proc/{pid}/stat")))
            .and_then(|mut file| file.read(&mut bytes))
            .ok()?;
        let name_end = bytes[..read].iter().rposition(|byte| *byte == b')')?;
        Self::parse(pid, std::str::from_utf8(&bytes[name_end..read]).ok()?)
    }

    /// The name in the second field may hold anything, parentheses and spaces included; the last one ends it.
    fn parse(pid: u32, text: &str) -> Option<Self> {
        let rest = &text[text.rfind(')')? + 1..];
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        // Field 9 holds the flags, field 22 the start time, field 50 where the environment is.
        let flags: u64 = fields.nth(2)?.parse().ok()?;
        let start_time = fields.nth(12)?.parse().ok()?;
        let between_programs = flags & KERNEL_THREAD == 0 && fields.nth(27) == Some("0");
        Some(Self { pid, state, parent, group, session, start_time, between_programs })
    }

    /// A zombie holds nothing any more but its exit status.
    pub(crate) const fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }

    pub(crate) fn identity(&self) -> ProcessIdentity {
        ProcessIdentity {
            boot_id: boot_id().to_owned(),
            pid: self.pid,
            start_time: self.start_time,
        }
    }
}

/// Every process of a moment, or as near to one as `/proc` gives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) entries: Vec<Entry>,
}

impl Snapshot {
    pub(crate) fn take() -> Self {
        let entries =
            pids().into_iter().flatten().filter_map(Entry::read).filter(Entry::is_alive).collect();
        Self { entries }
    }

    /// Adds every descendant of the processes picked so far.
    pub(crate) fn close_over_descendants(&self, picked: &mut Vec<Entry>) {
        let mut next = 0;
        while next < picked.len() {
            let parent = picked[next].pid;
            for entry in self.entries.iter().filter(|entry| entry.parent == parent) {
                if !picked.iter().any(|known| known.pid == entry.pid) {
                    picked.push(entry.clone());
                }
            }
            next += 1;
        }
    }
}

/// Names this boot; empty where the kernel does not tell, and then no identity ever matches one of another boot.
pub(crate) fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    })
}

/// Names the process that has this pid now.
pub(crate) fn identity_of(pid: u32) -> Option<ProcessIdentity> {
    Entry::read(pid).map(|entry| entry.identity())
}

/// Lists the processes there are.
pub(super) fn pids() -> io::Result<impl Iterator<Item = u32>> {
    let entries = reserve::with(|| fs::read_dir("/proc"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// What a process says when it is asked for its variables.
#[derive(Debug)]
pub(super) enum Asked {
    Environment(Vec<u8>),
    /// It has none, or none at the moment.
    Empty,
    /// It is not ours to ask.
    Stranger,
    Gone,
    /// It could not be asked; it may be anybody.
    NotNow,
}

/// Asks a process for the variables it was started with.
pub(super) fn ask(pid: u32) -> Asked {
    use rustix::io::Errno;
    let mut bytes = Vec::new();
    // The kernel shows at most what exec was given, which it limits itself; the cap only bounds a hostile neighbour.
    let read = reserve::with(|| fs::File::open(format!("/proc/{pid}/environ")))
        .and_then(|file| file.take(8 << 20).read_to_end(&mut bytes));
    match read {
        Ok(0) => Asked::Empty,
        Ok(_) => Asked::Environment(bytes),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Asked::Gone,
            // Linux 6.16 and later say this of one that has ended and is not reaped, too.
            Some(Errno::SRCH) => Asked::Empty,
            Some(Errno::ACCESS | Errno::PERM) => Asked::Stranger,
            _ => Asked::NotNow,
        },
    }
}

/// Reads the variables a process was started with; empty if they are not ours to read.
pub(crate) fn environment(pid: u32) -> Vec<u8> {
    match ask(pid) {
        Asked::Environment(bytes) => bytes,
        _ => Vec::new(),
    }
}

/// Resident bytes and processor time in clock ticks of one process.
pub(crate) fn usage(pid: u32) -> Option<(u64, u64)> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((pages * rustix::param::page_size() as u64, user + system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let text = "42 (a) b) (c) S 7 42 42 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 1 0 9876 1 2";
        let entry = Entry::parse(42, text).unwrap();
        assert_eq!((entry.state, entry.parent, entry.group, entry.start_time), ('S', 7, 42, 9876));
    }

    #[test]
    fn this_process_is_found_with_its_identity() {
        let me = std::process::id();
        assert_eq!(identity_of(me).unwrap().pid, me);
        assert!(Snapshot::take().entries.iter().any(|entry| entry.pid == me));
        assert_eq!(identity_of(u32::MAX), None);
    }
}
