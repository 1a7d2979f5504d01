//! The dashboard as a person meets it: a real window of the built application, on a display nobody sees.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a test says what it leaves out")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

mod browser;

use browser::Window;

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
