//! Where a host runs: what it does to signals, descriptors and children, who is above it, whose its directory is.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use supervisor_core::config::HostDeathPolicy::{Die, Outlive};
use supervisor_core::exit::ExitStatus;

use super::host::{Host, Place};
use super::support::*;

const ESCAPES: &str = "(setsid sleep 600 &); sleep 600; :";

#[tokio::test]
async fn children_of_a_host_with_blocked_and_ignored_signals_and_stray_descriptors_start_clean() {
    // Ignored and blocked signals are inherited by what is executed, descriptors that are not closed at exec too.
    let host = [
        "sh",
        "-c",
        "exec 7</dev/null 8>/dev/null; exec env --ignore-signal --block-signal \"$@\"",
        "sh",
    ];
    let works = Command::new(host[0]).args(&host[1..]).arg("true").stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("skipped: env of this system cannot change signals");
        return;
    }
    let den = Den::new();
    let seen = den.path().join("seen");
    let script = format!(
        "grep -E '^Sig(Blk|Ign)' /proc/self/status > {0}.part; ls /proc/self/fd | tr '\\n' ' ' >> {0}.part; echo >> {0}.part; mv {0}.part {0}; exec sleep 600",
        seen.display()
    );
    let mut host =
        Host::start_in(&den, Place::Within(&host), "wait", &[(Die, "svc", &script)]).await;
    let own = std::fs::read_to_string(format!("/proc/{}/status", host.pid)).unwrap();
    assert!(!own.contains("SigIgn:\t0000000000000000"), "the host does ignore signals: {own}");
    assert!(!own.contains("SigBlk:\t0000000000000000"), "the host does block signals: {own}");
    let text = eventually("what the child saw", || std::fs::read_to_string(&seen).ok()).await;
    let zeros = "0000000000000000";
    assert!(text.contains(&format!("SigBlk:\t{zeros}")), "{text}");
    assert!(text.contains(&format!("SigIgn:\t{zeros}")), "{text}");
    // ls has the directory itself open as the fourth.
    assert!(text.contains("0 1 2 3 \n"), "{text}");
    host.kill();
    den.nothing_left().await;
}

#[tokio::test]
async fn codes_are_right_and_sets_end_with_a_host_in_which_something_reaps_every_child() {
    let den = Den::new();
    let services = [
        (Die, "code", "sleep 0.1; exit 7"),
        (Outlive, "signal", "sleep 0.1; kill -SEGV $$"),
        (Die, "escapes", "(setsid sleep 600 &); sleep 0.2; exit 9"),
    ];
    let mut host = Host::start_in(&den, Place::Reaping, "codes", &services).await;
    assert_eq!(words_in(&den.path().join("codes")).await, ["7", "1011", "9"]);
    assert!(!den.marked().is_empty(), "what escaped is there, and is the guardian's");
    host.kill();
    den.nothing_left().await;
}

#[tokio::test]
async fn below_a_foreign_reaper_sets_end_with_their_host_and_what_outlives_is_adopted() {
    let den = Den::new();
    let services = [(Die, "dies", ESCAPES), (Outlive, "stays", ESCAPES)];
    let host = Host::start_in(&den, Place::BelowAReaper, "wait", &services).await;
    signal(host.pid, rustix::process::Signal::KILL);
    eventually("what dies is gone", || (den.marked().len() == 3).then_some(())).await;
    assert!(is_alive(host.leaders[1]) && is_alive(host.guardian));
    let spawner = within(den.spawner()).await;
    assert_eq!(guardian_of(&spawner), host.guardian, "the same one");
    let mut found = within(spawner.outlived()).await.unwrap();
    let child = found.remove(0).into_child();
    assert_eq!(child.identity().pid, host.leaders[1]);
    within(child.kill_set(LIMIT)).await;
    assert_eq!(within(child.wait()).await, ExitStatus::Signal(9));
    drop(child);
    within(spawner.close()).await;
    assert!(!is_alive(host.guardian), "waited for, although it is nobody's child here");
    den.nothing_left().await;
}

#[tokio::test]
async fn a_state_directory_that_is_not_ours_alone_is_refused_and_nothing_is_signalled() {
    let den = Den::new();
    // What a guardian that died between fork and exec leaves, which opening would end.
    let mut left = Stranger::start(
        Command::new("sleep")
            .arg("600")
            .env("IDE_SUPERVISOR_GUARDIAN", den.mark())
            .env("IDE_SUPERVISOR_MARK", den.mark()),
    );
    let set = |mode| {
        std::fs::set_permissions(den.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let mut cases = vec![(0o755, None, "chmod 700"), (0o777, None, "mode 0777")];
    if rustix::process::geteuid().is_root() {
        cases.push((0o700, Some(65534), "belongs to user 65534"));
    }
    for (mode, owner, said) in cases {
        set(mode);
        std::os::unix::fs::chown(den.path(), owner, None).unwrap();
        let refused = within(open(den.path())).await.unwrap_err();
        let text = supervisor_core::error::chain(&refused);
        assert!(text.contains(said) && text.contains("state directory"), "{text}");
        assert!(den.guardians().is_empty() && !den.path().join("guardian.lock").exists());
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut guardian = Command::new(GUARDIAN)
            .args(["--ide-supervisor-guardian".as_ref(), den.path().as_os_str()])
            .arg(den.mark())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        let text = super::hostile::all_of(ours);
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains(said), "the guardian refuses it by itself: {text}");
        assert!(!guardian.wait().unwrap().success());
        assert!(!den.path().join("guardian.sock").exists(), "and makes nothing in it");
    }
    assert!(left.0.try_wait().unwrap().is_none(), "it was not signalled");
    std::os::unix::fs::chown(den.path(), Some(rustix::process::geteuid().as_raw()), None).unwrap();
    set(0o700);
    let spawner = within(den.spawner()).await;
    eventually("it is ended once the directory is ours", || left.0.try_wait().unwrap()).await;
    within(spawner.close()).await;
    den.nothing_left().await;
}
