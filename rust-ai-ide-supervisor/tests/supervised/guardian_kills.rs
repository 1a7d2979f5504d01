//! The program killed again and again at random moments, with services of both policies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use supervisor_core::ports::ProcessTable;
use supervisor_process::SystemProcessTable;

use super::guardian::{guardian, killed, wait_for};
use super::place::{Place, kill};

/// Ends with a code that tells its run, and writes down that it began and that it is about to end.
const ENDING: &str = r#"n=$IDE_SUPERVISOR_INCARNATION; echo start $n >> LEDGER; sleep 0.2; echo end $n >> LEDGER; exit $((n % 100 + 1))"#;

fn config(ledger: &str) -> String {
    let service = |id: &str, script: &str, fate: &str| {
        format!(
            r#"
[[service]]
id = "{id}"
command = "sh"
args = ["-c", '{script}']
restart_policy = {{ type = "fixed_delay", delay = "20ms" }}
restart_intensity = "unlimited"
on_host_death = "{fate}"
"#
        )
    };
    let escaping = "(setsid sleep 600 &); exec sleep 600";
    service("dies-steady", escaping, "die")
        + &service("dies-ending", "(setsid sleep 600 &); sleep 0.1; exit 3", "die")
        + &service("stays-steady", escaping, "outlive")
        + &service("stays-ending", &ENDING.replace("LEDGER", ledger), "outlive")
}

/// The living runs of each service.
fn runs(place: &Place) -> BTreeMap<String, BTreeSet<u64>> {
    let mut runs: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for process in SystemProcessTable::new().marked(&place.mark()) {
        let of = runs.entry(process.service.to_string()).or_default();
        of.insert(process.incarnation.get());
    }
    runs
}

/// What was stored or told of ends with a code: the run and the code.
fn told(place: &Place) -> BTreeSet<(u64, i64)> {
    let database = rusqlite::Connection::open(place.state().join("supervisor.db")).unwrap();
    let mut told = BTreeSet::new();
    let mut take = |run: u64, text: &str| {
        if let Some((_, rest)) = text.split_once("exit code ") {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            told.insert((run, digits.parse().unwrap()));
        }
    };
    let mut journal = database
        .prepare("SELECT incarnation, reason FROM journal WHERE service = 'stays-ending'")
        .unwrap();
    let rows = journal.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)));
    for row in rows.unwrap() {
        let (run, reason) = row.unwrap();
        take(u64::try_from(run).unwrap(), &reason);
    }
    let audit = place.run(&["audit", "list", "-n", "10000"]);
    let audit = String::from_utf8_lossy(&audit.stdout).into_owned();
    for line in audit.lines().filter(|line| line.contains("stays-ending")) {
        if let Some((_, rest)) = line.split_once('#') {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            take(digits.parse().unwrap(), line);
        }
    }
    told
}

/// Twenty-five kills take some twenty seconds, each with a start of the program; `SUPERVISOR_KILLS` asks for more.
#[test]
fn a_supervisor_killed_at_random_moments_leaves_no_orphan_no_second_copy_and_loses_no_end() {
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    let seed = number("SUPERVISOR_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = number("SUPERVISOR_KILLS").unwrap_or(25);
    println!("SUPERVISOR_SEED={seed} SUPERVISOR_KILLS={kills}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut place = Place::new("");
    let ledger = place.dir.path().join("ledger");
    fs::write(place.dir.path().join("ide-supervisor.toml"), config(ledger.to_str().unwrap()))
        .unwrap();
    let (mut guardians, mut left) = (0, false);
    // Runs that went on when their guardian was killed too: nobody can see them end before the next start ends them.
    let mut unseen = BTreeSet::new();
    let newest = || -> Option<u64> {
        let lines = fs::read_to_string(&ledger).unwrap_or_default();
        lines.lines().filter_map(|line| line.strip_prefix("start ")?.parse().ok()).max()
    };
    for round in 0..kills {
        place.up = Some(place.spawn_up());
        if std::mem::take(&mut left) {
            // What both left behind is ended before anybody is answered.
            place.until("it answers", |_| true);
        }
        let moment = Duration::from_millis(random.u64(0..900));
        // poll: not a wait for anything; the moment of the kill is what is random here.
        std::thread::park_timeout(moment);
        // Now and then the guardian is killed too, or it alone a moment before.
        let guarding = guardian(&place).filter(|_| random.u8(..) < 32);
        if let Some(pid) = guarding {
            kill(pid);
            guardians += 1;
        }
        killed(&mut place);
        if guarding.is_some() {
            // One that was only just started has not written it down yet.
            unseen.extend(runs(&place).remove("stays-ending").unwrap_or_default());
            unseen.extend(newest());
            left = true;
            continue;
        }
        wait_for("what was to die is gone", || {
            runs(&place).keys().all(|service| !service.starts_with("dies"))
        });
        for (service, runs) in runs(&place) {
            assert_eq!(runs.len(), 1, "round {round}: two copies of {service}: {runs:?}");
        }
    }
    place.up();
    place.until("everything runs", |status| {
        ["dies-steady", "stays-steady"].iter().all(|id| Place::service(status, id)["ready"] == true)
    });
    assert!(place.run(&["stop", "stays-ending"]).status.success());
    let running = runs(&place);
    for id in ["dies-steady", "stays-steady"] {
        assert_eq!(running[id].len(), 1, "{running:?}");
    }
    assert!(place.run(&["audit", "verify"]).status.success());
    assert!(place.down().success());
    assert_eq!(place.marked(), 0);
    let (told, mut ended, mut lost) = (told(&place), 0_u64, 0_u64);
    // It may have been stopped in the moment before its exit.
    unseen.extend(newest());
    let lines = fs::read_to_string(&ledger).unwrap_or_default();
    for line in lines.lines() {
        let Some(run) = line.strip_prefix("end ").and_then(|run| run.parse::<u64>().ok()) else {
            continue;
        };
        ended += 1;
        let known = told.contains(&(run, i64::try_from(run % 100 + 1).unwrap()));
        if !known {
            println!("the end of run {run} was seen by nobody");
            lost += u64::from(!unseen.contains(&run));
        }
    }
    assert_eq!(lost, 0, "of {ended} ends that somebody could see");
    // A run that goes on without host and guardian and ends before the next start leaves no trace of a number that was
    // not stored; one that the next start finds keeps its number for itself.
    let (mut begun, mut over) = (BTreeSet::new(), BTreeSet::new());
    for line in lines.lines() {
        let Some((word, Ok(run))) = line.split_once(' ').map(|(word, run)| (word, run.parse()))
        else {
            continue;
        };
        if word == "end" {
            over.insert(run);
        } else {
            let untraced = unseen.contains(&run) && over.contains(&run);
            assert!(begun.insert(run) || untraced, "run {run} was started twice");
        }
    }
    println!("{kills} kills, {guardians} of them with the guardian, {ended} ends");
}
