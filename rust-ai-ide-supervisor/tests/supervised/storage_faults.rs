//! Storage that fails under a supervisor that runs: services go on, nothing is lost without being told.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::TWO;
use crate::place::{LIMIT, Place, all_ready, kill, pid_of, text};

const CHATTY: &str = r#"
[[service]]
id = "steady"
command = "sleep"
args = ["600"]
restart_policy = { type = "always" }
restart_intensity = "unlimited"

[[service]]
id = "chatty"
command = "sh"
args = ["-c", "while :; do echo a line that has to be stored somewhere; sleep 0.05; done"]
restart_policy = { type = "always" }
"#;

/// A place whose state directory is a file system of its own, with so many bytes.
struct SmallDisk(Place);

impl SmallDisk {
    fn mount(config: &str, bytes: u64) -> Option<Self> {
        let place = Place::new(config);
        fs::DirBuilder::new().mode(0o700).create(place.state()).unwrap();
        let options = format!("size={bytes},mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(place.state());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(place))
    }

    /// Takes what is free on the disk; gives the file that does.
    fn fill(&self, n: usize) -> PathBuf {
        let hog = self.0.state().join(format!("hog{n}"));
        let mut file = fs::File::create(&hog).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        hog
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(mut up) = self.0.up.take() {
            drop(up.kill());
            drop(up.wait());
        }
        drop(Command::new("umount").arg("-l").arg(self.0.state()).output());
    }
}

fn restarts(place: &Place, id: &str) -> u64 {
    Place::service(&place.status().unwrap(), id)["restarts"].as_u64().unwrap()
}

fn kill_and_see_it_back(place: &Place, id: &str) {
    let before = restarts(place, id);
    kill(pid_of(&Place::service(&place.status().unwrap(), id)));
    place.until("it is back", |status| {
        let service = Place::service(status, id);
        service["restarts"].as_u64() > Some(before) && service["phase"] == "running"
    });
}

fn mode(place: &Place) -> String {
    place.status().unwrap()["supervisor"]["mode"].as_str().unwrap().to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn with_database_checkpoints_and_logs_on_a_full_disk_supervision_goes_on_and_catches_up() {
    let Some(mut disk) = SmallDisk::mount(CHATTY, 8 << 20) else {
        println!("LEFT OUT: mounting a file system of 8 MB is not permitted here");
        return;
    };
    disk.0.up();
    disk.0.until("both run", all_ready);
    let good = text(&disk.0.run(&["checkpoint", "create"]).stdout).trim().to_owned();
    let supervisor = disk.0.up.as_ref().unwrap().id();
    let (began, mut hogs) = (Instant::now(), Vec::new());
    while mode(&disk.0) == "normal" {
        assert!(began.elapsed() < LIMIT, "the disk never became full");
        hogs.push(disk.fill(hogs.len()));
        kill_and_see_it_back(&disk.0, "steady");
    }
    kill_and_see_it_back(&disk.0, "steady");
    kill_and_see_it_back(&disk.0, "chatty");
    let refused = disk.0.run(&["checkpoint", "create"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("disk is full"), "{}", text(&refused.stderr));
    let verified = disk.0.run(&["checkpoint", "verify", &good]);
    assert!(verified.status.success(), "the last good one is as it was");
    let counted = restarts(&disk.0, "steady");

    hogs.iter().for_each(|hog| fs::remove_file(hog).unwrap());
    disk.0.until("storage is back", |status| status["supervisor"]["mode"] == "normal");
    assert_eq!(disk.0.status().unwrap()["supervisor"]["pid"], supervisor, "it never went away");
    assert!(disk.0.run(&["checkpoint", "create"]).status.success());
    let audited = || {
        let rows = text(&disk.0.run(&["audit", "list", "-n", "10000"]).stdout);
        let gap = rows.contains("rows are missing here");
        (
            rows.lines().filter(|row| row.contains("steady") && row.contains("-> running")).count(),
            gap,
        )
    };
    let began = Instant::now();
    // The first start and each restart, or a row that says how many are missing.
    while audited().0 as u64 <= counted && !audited().1 {
        assert!(began.elapsed() < LIMIT, "{:?} of {counted} restarts are in the trail", audited());
    }
    assert!(disk.0.run(&["audit", "verify"]).status.success());
    let began = Instant::now();
    loop {
        let events = text(&disk.0.run(&["events", "--json", "-n", "10000"]).stdout);
        let modes = events.lines().filter(|line| line.contains("ModeChanged"));
        let told: Vec<_> = modes.filter(|line| line.contains("disk_full")).collect();
        if !told.is_empty() {
            break;
        }
        assert!(began.elapsed() < LIMIT, "the full disk is not among the events: {events}");
    }
    assert!(disk.0.down().success());
    disk.0.up();
    assert_eq!(restarts(&disk.0, "steady"), counted, "counted in memory, stored once it could be");
    assert!(disk.0.down().success());
}

/// A supervisor that took a checkpoint and a backup and was killed.
fn killed() -> Place {
    let mut place = Place::new(TWO);
    place.up();
    place.until("both run", all_ready);
    assert!(place.run(&["checkpoint", "create"]).status.success());
    assert!(place.run(&["backup", "create"]).status.success());
    kill_and_see_it_back(&place, "steady");
    let mut up = place.up.take().unwrap();
    up.kill().unwrap();
    up.wait().unwrap();
    place
}

fn flip_to_the_end(path: &Path, from: u64) {
    let mut file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
    file.seek(SeekFrom::Start(from)).unwrap();
    file.write_all(&bytes).unwrap();
}

#[test]
fn a_log_torn_in_the_middle_of_a_frame_costs_no_more_than_what_was_torn() {
    let mut place = killed();
    let log = place.state().join("supervisor.db-wal");
    let length = fs::metadata(&log).unwrap().len();
    fs::File::options().write(true).open(&log).unwrap().set_len(length - 100).unwrap();
    place.up();
    let status = place.until("both run", all_ready);
    assert_eq!(status["services"].as_array().unwrap().len(), 2);
    assert!(place.down().success());
}

#[test]
fn a_wrecked_database_is_kept_aside_and_the_services_go_on_from_the_newest_sound_copy() {
    let mut place = killed();
    drop(fs::remove_file(place.state().join("supervisor.db-wal")));
    flip_to_the_end(&place.state().join("supervisor.db"), 4096);
    place.up();
    place.until("both run", all_ready);
    let kept = fs::read_dir(place.state().join("quarantine")).unwrap().count();
    assert!(kept > 0, "the wreck is kept");
    let doctor = text(&place.run(&["doctor"]).stdout);
    assert!(doctor.contains("recovery") && doctor.contains("quarantine"), "{doctor}");
    assert!(place.down().success());
}

#[test]
fn a_database_wrecked_under_a_running_supervisor_stops_no_service() {
    let mut place = Place::new(TWO);
    place.up();
    place.until("both run", all_ready);
    let database = place.state().join("supervisor.db");
    flip_to_the_end(&database, 0);
    kill_and_see_it_back(&place, "steady");
    kill_and_see_it_back(&place, "steady");
    let output = place.run(&["down"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    place.up.take().unwrap().wait().unwrap();
    assert_eq!(place.marked(), 0);
    place.up();
    let status = place.until("both run", all_ready);
    assert_eq!(status["services"].as_array().unwrap().len(), 2, "and the next one starts");
    assert!(place.down().success());
}

#[test]
fn a_database_of_a_newer_program_is_refused_with_both_versions_and_not_touched() {
    let place = killed();
    let database = place.state().join("supervisor.db");
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.execute_batch("PRAGMA user_version = 99; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    let before = fs::read(&database).unwrap();
    let left = place.marked();
    let output = place.spawn_up().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(8));
    let said = text(&output.stderr);
    assert!(said.contains("99") && said.contains("backup"), "{said}");
    assert_eq!(fs::read(&database).unwrap(), before);
    assert!(place.marked() <= left, "nothing was started");
}

/// Two at once, over and over, each time on what the killed winner before left.
#[test]
fn of_two_supervisors_that_start_at_once_one_runs_and_the_lock_of_a_killed_one_stops_nobody() {
    let place = Place::new("[[service]]\nid = \"one\"\ncommand = \"sleep\"\nargs = [\"600\"]\n");
    for round in 0..8 {
        let mut both = [place.spawn_up(), place.spawn_up()];
        let deadline = Instant::now() + LIMIT;
        let loser = loop {
            let ended = both.iter_mut().position(|one| one.try_wait().unwrap().is_some());
            if let Some(loser) = ended {
                break loser;
            }
            assert!(Instant::now() < deadline, "round {round}: both run");
            // poll: until one of the two has ended, at most 30 s.
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        };
        let [first, second] = both;
        let (lost, mut won) = if loser == 0 { (first, second) } else { (second, first) };
        let lost = lost.wait_with_output().unwrap();
        assert_eq!(lost.status.code(), Some(6), "round {round}: {}", text(&lost.stderr));
        assert!(text(&lost.stderr).contains(&won.id().to_string()), "{}", text(&lost.stderr));
        place.until("the other one runs its service", |status| {
            status["supervisor"]["pid"] == won.id() && status["services"][0]["ready"] == true
        });
        assert_eq!(place.marked(), 1, "one copy of the service");
        won.kill().unwrap();
        won.wait().unwrap();
    }
}
