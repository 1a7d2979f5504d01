//! Linux: the system's counter of processes and threads, and the number it gave out last.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// The least a new process or thread costs the kernel, well below what was ever measured (about 10 µs).
const CREATION_MIN: Duration = Duration::from_micros(3);

/// A moment in the life of the system's counter of processes; see [`Census::moment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(super) created: u64,
    pub(super) at: Instant,
}

/// The kernel's counter of processes and threads, read through files kept open: it is asked when there may be no
/// descriptor left.
#[derive(Debug)]
pub(super) struct Counter {
    load: File,
    stat: File,
    max: File,
    text: Vec<u8>,
    pub(super) pid_max: u32,
    /// Created since boot, as of `read_at`.
    created: u64,
    read_at: Instant,
    processors: u64,
}

impl Counter {
    pub(super) fn open() -> Option<Self> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // The processors this process may use can be fewer than there are; so the most there can be is taken.
        let processors = std::fs::read_to_string("/sys/devices/system/cpu/possible")
            .ok()
            .and_then(|text| text.trim().rsplit(['-', ',']).next()?.parse::<usize>().ok())
            .map_or(processors, |last| processors.max(last + 1));
        let mut counter = Self {
            load: File::open("/proc/loadavg").ok()?,
            stat: File::open("/proc/stat").ok()?,
            max: File::open("/proc/sys/kernel/pid_max").ok()?,
            text: Vec::new(),
            pid_max: 0,
            created: 0,
            read_at: Instant::now(),
            processors: processors as u64,
        };
        counter.read()?;
        Some(counter)
    }

    /// Tells whether half of all numbers may have been given out since a moment. Once round the circle a number may be
    /// another process's; half of it leaves room for numbers in use.
    ///
    /// The kernel is asked only when that is possible at all by the time that passed: the answer is some kilobytes long.
    pub(super) fn is_half_round(&mut self, since: Moment) -> Option<bool> {
        let elapsed = self.read_at.elapsed().as_nanos() / CREATION_MIN.as_nanos();
        let at_most = u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_mul(self.processors);
        let half_after = |created: u64, pid_max: u32| {
            created.saturating_sub(since.created) >= u64::from(pid_max) / 2
        };
        if !half_after(self.created.saturating_add(at_most), self.pid_max) {
            return Some(false);
        }
        self.read()?;
        Some(half_after(self.created, self.pid_max))
    }

    fn read(&mut self) -> Option<()> {
        let read_at = Instant::now();
        self.pid_max = again(&self.max, &mut self.text)?.trim().parse().ok()?;
        let text = again(&self.stat, &mut self.text)?;
        let line = text.lines().rev().find_map(|line| line.strip_prefix("processes "))?;
        self.created = line.trim().parse().ok()?;
        self.read_at = read_at;
        Some(())
    }

    /// The number given out last.
    pub(super) fn last(&mut self) -> Option<u32> {
        let text = again(&self.load, &mut self.text)?;
        text.split_ascii_whitespace().next_back()?.parse().ok()
    }
}

/// Reads a file of `/proc` from its beginning, into a buffer that is kept.
fn again<'a>(file: &File, buffer: &'a mut Vec<u8>) -> Option<&'a str> {
    buffer.resize(buffer.capacity().max(4096), 0);
    loop {
        // The kernel writes these files anew for each read from the start, and whole if there is room.
        match file.read_at(buffer, 0) {
            Ok(read) if read < buffer.len() => {
                buffer.truncate(read);
                return std::str::from_utf8(buffer).ok();
            }
            Ok(_) => buffer.resize(buffer.len() * 4, 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

impl Moment {
    /// The last one that is certainly not after now.
    pub(super) fn of(counter: Option<&Counter>) -> Self {
        Self { created: counter.map_or(0, |counter| counter.created), at: Instant::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_counts_every_process_and_names_the_last_number() {
        let mut counter = Counter::open().unwrap();
        counter.read().unwrap();
        let before = counter.created;
        let mut child = std::process::Command::new("true").spawn().unwrap();
        counter.read().unwrap();
        assert!(counter.created > before);
        let now = Moment { created: counter.created, at: Instant::now() };
        assert_eq!(counter.is_half_round(now), Some(false));
        let long_ago = Moment { created: 0, ..now };
        let round = counter.created >= u64::from(counter.pid_max) / 2;
        assert_eq!(counter.is_half_round(long_ago), Some(round));
        assert!(counter.last().unwrap() > 0);
        child.wait().unwrap();
    }
}
