//! The dashboard as a person meets it: a real window of the built application, on a display nobody sees.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a test says what it leaves out")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

mod browser;

use browser::{LIMIT, Window};

/// Longest time for a process to be gone.
const GONE: Duration = Duration::from_secs(30);

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
}

async fn is_gone(pid: u32) {
    let deadline = Instant::now() + GONE;
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        // poll: the application's end stops its services; half a minute at most.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_window_shows_a_crash_obeys_the_keyboard_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let Some(window) = Window::open(&directory.path().join("state")).await else { return };
    for service in ["first", "second"] {
        window.column(service, "state", "running").await;
    }

    let killed = window.pid("first").await;
    kill(killed);
    window.column("first", "restarts", "1").await;
    window.column("first", "state", "running").await;
    window.until("the page says so", "document.body.innerText.includes('signal 9')").await;
    assert_ne!(window.pid("first").await, killed);

    assert_eq!(window.told("Stop second").await, ("button".into(), "Stop second".into()));
    window.press("Stop second").await;
    window.column("second", "state", "stopped").await;
    window.press("Start second").await;
    window.column("second", "state", "running").await;

    let left = [window.pid("first").await, window.pid("second").await];
    window.close();
    for pid in left {
        is_gone(pid).await;
    }
}

#[tokio::test]
async fn a_page_that_misses_every_event_heals_from_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let Some(window) = Window::open(&directory.path().join("state")).await else { return };
    window.column("second", "state", "running").await;
    // What the page knows is spoilt, and from here on no event makes it ask: the timer alone can mend it.
    let spoil = "heal = async () => {}; rows.clear(); document.getElementById('services').replaceChildren();";
    window.script(spoil).await;
    window.column("first", "state", "running").await;
    window.column("second", "state", "running").await;
    let left = [window.pid("first").await, window.pid("second").await];
    window.close();
    for pid in left {
        is_gone(pid).await;
    }
}

#[tokio::test]
async fn an_application_that_is_killed_takes_its_services_along() {
    let directory = tempfile::tempdir().unwrap();
    let Some(window) = Window::open(&directory.path().join("state")).await else { return };
    for service in ["first", "second"] {
        window.column(service, "state", "running").await;
    }
    let left = [window.pid("first").await, window.pid("second").await];
    window.kill().await;
    for pid in left {
        is_gone(pid).await;
    }
}

/// What a process was started with: whose service it is, and of which run.
fn marks(pid: u32) -> Option<(String, String)> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |name: &str| {
        let mut pairs = environment.split(|byte| *byte == 0);
        let found = pairs.find_map(|pair| pair.strip_prefix(format!("{name}=").as_bytes()))?;
        Some(String::from_utf8_lossy(found).into_owned())
    };
    let service = format!("{} {}", value("IDE_SUPERVISOR_MARK")?, value("IDE_SUPERVISOR_SERVICE")?);
    Some((service, value("IDE_SUPERVISOR_INCARNATION")?))
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[tokio::test]
async fn a_page_whose_process_crashes_touches_no_service_and_supervision_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let Some(window) = Window::open(&directory.path().join("state")).await else { return };
    for service in ["first", "second"] {
        window.column(service, "state", "running").await;
    }
    let (first, second) = (window.pid("first").await, window.pid("second").await);
    let (service, run) = marks(first).unwrap();
    let is_next = |pid: &u32| marks(*pid).is_some_and(|it| it.0 == service && it.1 != run);

    let page = window.page();
    kill(page);
    is_gone(page).await;
    // Nobody but the supervisor below the lost page can do this.
    kill(first);
    let deadline = Instant::now() + LIMIT;
    let again = loop {
        if let Some(pid) = processes().find(is_next) {
            break pid;
        }
        assert!(Instant::now() < deadline, "nobody restarted the service");
        // poll: a restart without a page; a minute at most.
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(Path::new(&format!("/proc/{second}")).exists(), "the other one runs on");

    window.close();
    for pid in [again, second] {
        is_gone(pid).await;
    }
}
