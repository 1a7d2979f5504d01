//! Linux: whether processes get the processors they ask for, and what one that hangs is doing.

use std::fs;
use std::time::{Duration, Instant};

use super::Entry;

/// Processor time burnt to find out how much slower than free this host runs.
const BURN: Duration = Duration::from_millis(4);
/// Longest time that may take.
const BURN_MAX: Duration = Duration::from_millis(200);
/// Threads of a hanging process that are described.
const THREADS_SHOWN: usize = 16;

/// Processor time of a set: had, and waited for while others had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ProcessorTime {
    pub(crate) had: Duration,
    pub(crate) waited: Duration,
    /// Whether a process of the set is suspended: it waits for a signal, not for a processor.
    pub(crate) suspended: bool,
}

/// Sums up the processor time of these processes, thread by thread; nothing where the kernel does not count it.
pub(crate) fn processor_time(set: &[u32]) -> Option<ProcessorTime> {
    let mut sum = ProcessorTime::default();
    let mut counted = false;
    for pid in set {
        sum.suspended |= Entry::read(*pid).is_some_and(|entry| matches!(entry.state, 'T' | 't'));
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let mut nanos = text.split_ascii_whitespace().map_while(|word| word.parse().ok());
            if let (Some(had), Some(waited)) = (nanos.next(), nanos.next()) {
                sum.had += Duration::from_nanos(had);
                sum.waited += Duration::from_nanos(waited);
                counted = true;
            }
        }
    }
    counted.then_some(sum)
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
    let stat = read("stat");
    let state = stat.rfind(") ").and_then(|at| stat[at + 2..].chars().next()).unwrap_or('?');
    let waits = read("wchan");
    let waits = if waits.is_empty() || waits == "0" { "user code" } else { waits.as_str() };
    format!("{name} {state} in {waits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_of_this_process_is_counted_and_of_nobody_is_not() {
        let before = processor_time(&[std::process::id()]).unwrap();
        let began = Instant::now();
        while processor_time(&[std::process::id()]).unwrap().had <= before.had {
            assert!(began.elapsed() < Duration::from_secs(30), "busy and not counted");
        }
        assert!(!before.suspended);
        assert_eq!(processor_time(&[]), None);
        assert_eq!(processor_time(&[u32::MAX]), None);
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
