//! A host that is killed again and again at random moments, with services of both policies.

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::config::HostDeathPolicy::{Die, Outlive};
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ChildHandle, ProcessSpawner, ProcessTable};
use supervisor_process::SystemProcessTable;
use supervisor_process::guardian::GuardianSpawner;

use super::host::again;
use super::support::*;

const DIR: &str = "GUARDIAN_RANDOM_DIR";
const OUTLIVING: [&str; 3] = ["stays-0", "stays-1", "stays-2"];
const DYING: [&str; 2] = ["dies-0", "dies-1"];

/// What the hosts wrote down, line by line: `start svc run` before a start, `runs svc run` after it, `exit svc run code`.
struct Ledger(PathBuf);

impl Ledger {
    fn note(&self, what: &str, service: &str, run: u64, code: i32) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
        // One write: a killed host leaves a whole line or none.
        file.write_all(format!("{what} {service} {run} {code}\n").as_bytes()).unwrap();
    }

    fn lines(&self) -> Vec<(String, String, u64, i32)> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let service = words[1].to_owned();
                (words[0].to_owned(), service, words[2].parse().unwrap(), words[3].parse().unwrap())
            })
            .collect()
    }

    /// The newest run of each service that was begun.
    fn newest(&self) -> HashMap<String, u64> {
        let mut newest = HashMap::new();
        for (_, service, run, _) in self.lines() {
            let known = newest.entry(service).or_insert(0);
            *known = run.max(*known);
        }
        newest
    }
}

fn ledger(dir: &Path) -> Ledger {
    Ledger(dir.join("ledger"))
}

/// The code a run ends with, so that a record can be told from a guess.
fn code_of(run: u64) -> i32 {
    i32::try_from(run % 100).unwrap() + 1
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(-status.signal().unwrap_or(1000))
}

/// Takes over what outlived the host before, and notes how it ended if it has.
async fn take_over(
    spawner: &GuardianSpawner,
    ledger: &Ledger,
) -> HashMap<String, (u64, Box<dyn ChildHandle>)> {
    let mut running = HashMap::new();
    let noted = ledger.lines();
    for outlived in spawner.outlived().await.unwrap() {
        let (service, run) = (outlived.service.to_string(), outlived.incarnation.get());
        match outlived.status {
            None => {
                running.insert(service, (run, outlived.into_child()));
            }
            Some(status) => {
                let known = noted
                    .iter()
                    .any(|(what, id, known, _)| what == "exit" && *id == service && *known == run);
                if !known {
                    ledger.note("exit", &service, run, code(status));
                }
                drop(outlived.into_child());
            }
        }
    }
    running
}

async fn keep(
    spawner: Arc<GuardianSpawner>,
    ledger: Arc<Ledger>,
    service: &'static str,
    mut running: Option<(u64, Box<dyn ChildHandle>)>,
    mut next: u64,
) {
    loop {
        if let Some((run, child)) = running.take() {
            let status = child.wait().await;
            ledger.note("exit", service, run, code(status));
            child.kill_set(LIMIT).await;
        }
        ledger.note("start", service, next, 0);
        let script = format!("sleep 0.0{}; exit {}", 2 + next % 5, code_of(next));
        let child = spawner.spawn(request(sh(service, &script, Outlive), next)).await.unwrap();
        ledger.note("runs", service, next, 0);
        running = Some((next, child));
        next += 1;
    }
}

#[test]
fn a_process_that_was_asked_to_is_a_host_that_keeps_services() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let ledger = Arc::new(ledger(&dir));
        let spawner = Arc::new(open(&dir).await.unwrap());
        let mut running = take_over(&spawner, &ledger).await;
        spawner.forget_recorded();
        let newest = ledger.newest();
        let next = |id: &str| newest.get(id).copied().unwrap_or(0) + 1;
        let mut dying = Vec::new();
        for id in DYING {
            let run = next(id);
            ledger.note("start", id, run, 0);
            let script = "(setsid sleep 600 &); sleep 600; :";
            dying.push(spawner.spawn(request(sh(id, script, Die), run)).await.unwrap());
        }
        let mut tasks = Vec::new();
        for id in OUTLIVING {
            let (spawner, ledger) = (Arc::clone(&spawner), Arc::clone(&ledger));
            tasks.push(tokio::spawn(keep(spawner, ledger, id, running.remove(id), next(id))));
        }
        for task in tasks {
            task.await.unwrap();
        }
        drop(dying);
    });
}

fn copies(mark: &str) -> BTreeMap<String, usize> {
    let mut copies = BTreeMap::new();
    for process in SystemProcessTable::new().marked(mark) {
        if is_alive(process.identity.pid) {
            *copies.entry(format!("{}#{}", process.service, process.incarnation)).or_default() += 1;
        }
    }
    copies
}

/// Two hundred kills take some fifteen seconds: that many because the windows they are to hit are microseconds wide.
#[tokio::test]
async fn a_host_killed_two_hundred_times_leaves_no_orphan_no_second_copy_and_loses_no_end() {
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    let seed = number("GUARDIAN_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = number("GUARDIAN_KILLS").unwrap_or(200);
    println!("GUARDIAN_SEED={seed} GUARDIAN_KILLS={kills}");
    let mut random = fastrand::Rng::with_seed(seed);
    let den = Den::new();
    let ledger = ledger(den.path());
    for round in 0..kills {
        let mut host = again("random::a_process_that_was_asked_to_is_a_host_that_keeps_services")
            .env(DIR, den.path())
            .spawn()
            .unwrap();
        // poll: not a wait for anything; the moment of the kill is what is random here.
        tokio::time::sleep(Duration::from_micros(random.u64(0..90_000))).await;
        host.kill().unwrap();
        host.wait().unwrap();
        eventually("what was to die is gone", || {
            copies(&den.mark()).keys().all(|id| !id.starts_with("dies")).then_some(())
        })
        .await;
        let mut of: BTreeMap<String, usize> = BTreeMap::new();
        for id in copies(&den.mark()).keys() {
            let (service, _) = id.split_once('#').unwrap();
            *of.entry(service.to_owned()).or_default() += 1;
        }
        assert!(
            of.values().all(|runs| *runs == 1),
            "round {round}: two runs of one service: {of:?}"
        );
    }
    let spawner = within(den.spawner()).await;
    for (service, (run, child)) in within(take_over(&spawner, &ledger)).await {
        ledger.note("exit", &service, run, code(within(child.wait()).await));
        within(child.kill_set(LIMIT)).await;
    }
    within(spawner.close()).await;
    den.nothing_left().await;
    let lines = ledger.lines();
    let mut runs = 0;
    for (_, service, run, _) in
        lines.iter().filter(|(what, id, ..)| what == "runs" && id.starts_with("stays"))
    {
        let ends: Vec<i32> = lines
            .iter()
            .filter(|(what, id, of, _)| what == "exit" && id == service && of == run)
            .map(|(.., code)| *code)
            .collect();
        assert!(!ends.is_empty(), "the end of {service} #{run} is lost");
        assert!(ends.iter().all(|code| *code == code_of(*run)), "{service} #{run}: {ends:?}");
        runs += 1;
    }
    assert!(kills < 50 || runs > 20, "the hosts did run services: {runs}");
}
