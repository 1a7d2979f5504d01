//! What supervision costs its host: nothing while all is well, and for a start nothing that grows with the host.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use supervisor_core::ServiceId;
use supervisor_core::config::ServiceSpec;
use supervisor_core::state::Phase;
use supervisor_process::Engine;

use crate::host::{as_host, engine, hosted};
use crate::support::LIMIT;

/// The memory of a host that would be felt if it were copied.
const HOST_BYTES: usize = 128 * 1024 * 1024;
const PAGE: usize = 4096;
/// Fewest pages it consists of, all of them large.
const PAGES_MIN: u64 = HOST_BYTES as u64 / (2 * 1024 * 1024);

async fn sleepers(engine: &Engine, count: usize) -> Vec<ServiceId> {
    let mut ids = Vec::new();
    for n in 0..count {
        let mut spec = ServiceSpec::new(format!("s{n}"), "sleep").unwrap();
        spec.args = vec!["600".to_owned()];
        let id = engine.register(spec, None).await.unwrap();
        engine.start(&id).await.unwrap();
        ids.push(id);
    }
    ids
}

/// Page faults of this thread so far that read nothing from a disk.
fn faults() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    after_name.split(' ').nth(7).unwrap().parse().unwrap()
}

fn write_to_each_page(memory: &mut [u8]) {
    for page in memory.chunks_mut(PAGE) {
        page[0] = page[0].wrapping_add(1);
    }
    black_box(memory);
}

#[test]
#[ignore = "started by another test as a host with much memory"]
fn heavy() {
    let ran = as_host(async |mark| {
        let mut memory = vec![1_u8; HOST_BYTES];
        write_to_each_page(&mut memory);
        let before = faults();
        write_to_each_page(&mut memory);
        let settled = faults() - before;
        let engine = engine(mark);
        sleepers(&engine, 1).await;
        let before = faults();
        write_to_each_page(&mut memory);
        // A copy of the page tables makes the first write to each page a fault.
        let felt = faults() - before;
        assert!(felt < settled + PAGES_MIN / 2, "{felt} faults after a start, {settled} before it");
        engine.shutdown(LIMIT).await.unwrap();
    });
    if ran {
        println!("not felt");
    }
}

#[tokio::test]
async fn starting_a_service_copies_nothing_of_its_hosts_memory() {
    hosted("light::heavy", "", "not felt").await;
}

/// How often each thread of this process but the calling one went to sleep so far.
fn sleeps() -> BTreeMap<String, u64> {
    let own = fs::read_link("/proc/thread-self").unwrap();
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter(|task| Some(task.file_name().as_os_str()) != own.file_name())
        .filter_map(|task| Some((task.file_name().into_string().ok()?, switches(&task.path())?)))
        .collect()
}

fn switches(task: &Path) -> Option<u64> {
    let status = fs::read_to_string(task.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

#[test]
#[ignore = "started by another test as a host of services that idle"]
fn idle() {
    let ran = as_host(async |mark| {
        let engine = engine(mark);
        let ids = sleepers(&engine, 50).await;
        assert!(ids.iter().all(|id| engine.state(id).unwrap().phase == Phase::Running));
        let windows = LIMIT.as_secs();
        let quiet = (0..windows).any(|_| {
            let before = sleeps();
            // poll: a second in which no thread did anything, within 30 of them.
            std::thread::park_timeout(Duration::from_secs(1));
            let after = sleeps();
            before.iter().all(|(thread, count)| after.get(thread).is_none_or(|now| now == count))
        });
        assert!(quiet, "no second without work: {:?}", sleeps());
        engine.shutdown(LIMIT).await.unwrap();
    });
    if ran {
        println!("all quiet");
    }
}

#[tokio::test]
async fn fifty_services_that_idle_wake_their_host_for_nothing() {
    hosted("light::idle", "", "all quiet").await;
}
