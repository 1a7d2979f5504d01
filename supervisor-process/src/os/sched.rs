//! Linux: whether processes get the processors they ask for, and what one that hangs is doing.

use std::fs;
use std::time::{Duration, Instant};

/// Processor time burnt to find out how much slower than free this host runs.
const BURN: Duration = Duration::from_millis(4);
/// Longest time that may take.
const BURN_MAX: Duration = Duration::from_millis(200);
/// Threads of a hanging process that are described.
const THREADS_SHOWN: usize = 16;

/// One thread at a moment: the processor time it had and waited for so far, and whether it wants a processor now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) had: Duration,
    /// Counted by the kernel when the wait is over.
    pub(crate) waited: Duration,
    pub(crate) state: char,
}

/// Looks at every thread of these processes; nothing where the kernel does not count their time.
pub(crate) fn threads(set: &[u32]) -> Option<Vec<Thread>> {
    let mut found = Vec::new();
    for pid in set {
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            found.extend(thread_at(&thread.path()));
        }
    }
    (!found.is_empty()).then_some(found)
}

fn thread_at(path: &std::path::Path) -> Option<Thread> {
    let id = path.file_name()?.to_str()?.parse().ok()?;
    let times = fs::read_to_string(path.join("schedstat")).ok()?;
    let mut nanos = times.split_ascii_whitespace().map_while(|word| word.parse().ok());
    let (had, waited) = (nanos.next()?, nanos.next()?);
    let state = state_in(&fs::read(path.join("stat")).ok()?)?;
    Some(Thread { id, had: Duration::from_nanos(had), waited: Duration::from_nanos(waited), state })
}

/// Finds the state letter behind the name, which may hold anything.
fn state_in(stat: &[u8]) -> Option<char> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2).map(|byte| char::from(*byte))
}

/// Finds out how many times longer than alone a program that computes takes here now; blocks for at most 200 ms.
pub(crate) fn slowdown() -> f64 {
    let used = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    };
    let (began, before) = (Instant::now(), used());
    let mut burnt = Duration::ZERO;
    while burnt < BURN && began.elapsed() < BURN_MAX {
        std::hint::spin_loop();
        burnt = used().saturating_sub(before);
    }
    began.elapsed().as_secs_f64() / burnt.max(Duration::from_micros(1)).as_secs_f64()
}

/// Gives how many processors there are.
pub(crate) fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// Says what a process that hangs is doing, as far as the kernel tells: itself, then thread by thread.
pub(crate) fn diagnosis(pid: u32) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = read("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map_or_else(|| "?".to_owned(), |value| value.trim_start_matches(':').trim().to_owned())
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .take(THREADS_SHOWN)
        .map(|thread| described(&thread.path()))
        .collect();
    format!(
        "state {}, {} threads, {} resident, {descriptors} descriptors; {}",
        field("State"),
        field("Threads"),
        field("VmRSS"),
        threads.join("; ")
    )
}

/// One thread: its name, its state letter, and what it waits in.
fn described(thread: &std::path::Path) -> String {
    let read = |name: &str| fs::read_to_string(thread.join(name)).unwrap_or_default();
    // A name is the program's to choose, and goes into events and logs.
    let name: String = read("comm").chars().filter(|c| !c.is_control()).collect();
    let state = fs::read(thread.join("stat")).ok().and_then(|stat| state_in(&stat)).unwrap_or('?');
    let waits = read("wchan");
    let waits = if waits.is_empty() || waits == "0" { "user code" } else { waits.as_str() };
    format!("{name} {state} in {waits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_of_this_process_are_counted_and_of_nobody_are_not() {
        let had =
            || threads(&[std::process::id()]).unwrap().iter().map(|it| it.had).sum::<Duration>();
        let (before, began) = (had(), Instant::now());
        while had() <= before {
            assert!(began.elapsed() < Duration::from_secs(30), "busy and not counted");
        }
        assert_eq!(threads(&[]), None);
        assert_eq!(threads(&[u32::MAX]), None);
    }

    #[test]
    fn a_name_with_parentheses_hides_no_state() {
        assert_eq!(state_in(b"42 (a) R (b) S 7"), Some('S'));
        assert_eq!(state_in(b"42 (a)"), None);
        assert_eq!(state_in(b""), None);
    }

    #[test]
    fn nothing_runs_faster_than_alone() {
        assert!(slowdown() >= 0.9, "{}", slowdown());
    }

    #[test]
    fn a_diagnosis_names_state_and_threads() {
        let said = diagnosis(std::process::id());
        assert!(
            said.contains("state ") && said.contains(" threads") && said.contains(" in "),
            "{said}"
        );
    }
}
