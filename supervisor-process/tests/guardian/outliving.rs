//! What outlives its host: it runs on, its output is kept, its end is recorded, and the next host takes it over.

use supervisor_core::config::HostDeathPolicy::{Die, Outlive};
use supervisor_core::exit::ExitStatus;

use super::host::Host;
use super::support::*;

#[tokio::test]
async fn it_runs_on_with_its_output_kept_and_is_taken_over_with_the_same_pid() {
    let den = Den::new();
    let go = den.path().join("go");
    let script = format!(
        "echo before; while ! test -e {}; do sleep 0.01; done; echo after; sleep 600; :",
        go.display()
    );
    let mut host = Host::start(&den, "wait", &[(Outlive, "svc", &script)]).await;
    host.kill();
    std::fs::write(&go, "").unwrap();
    let log = den.path().join("logs/svc/output.log");
    eventually("output written after the host's death", || {
        std::fs::read_to_string(&log).ok()?.contains("after").then_some(())
    })
    .await;
    let spawner = within(den.spawner()).await;
    assert_eq!(guardian_of(&spawner), host.guardian, "the same guardian");
    let mut found = within(spawner.outlived()).await.unwrap();
    assert_eq!(found.len(), 1);
    let outlived = found.remove(0);
    assert_eq!((outlived.service.as_str(), outlived.incarnation.get()), ("svc", 1));
    assert_eq!(outlived.identity.pid, host.leaders[0]);
    assert_eq!(outlived.status, None);
    let child = outlived.into_child();
    assert!(child.members().contains(&child.identity()));
    child.signal_set(supervisor_core::Signal::Term).await.unwrap();
    assert_eq!(
        within(child.wait()).await,
        ExitStatus::Signal(15),
        "a real exit of an adopted child"
    );
    drop(child);
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn an_end_nobody_saw_is_told_to_the_next_host_with_its_code_or_signal() {
    let den = Den::new();
    let wait = "while kill -0 $PPID; do sleep 0.01; test -e GO && break; done 2>/dev/null";
    let wait = wait.replace("GO", den.path().join("go").to_str().unwrap());
    let (code, segv) = (format!("{wait}; exit 41"), format!("{wait}; kill -SEGV $$"));
    let services = [
        (Outlive, "code", code.as_str()),
        (Outlive, "signal", &segv),
        (Outlive, "on", "sleep 600; :"),
    ];
    let mut host = Host::start(&den, "wait", &services).await;
    host.kill();
    std::fs::write(den.path().join("go"), "").unwrap();
    eventually("both ended", || {
        (!is_alive(host.leaders[0]) && !is_alive(host.leaders[1])).then_some(())
    })
    .await;
    let spawner = within(den.spawner()).await;
    let mut found = within(spawner.outlived()).await.unwrap();
    found.sort_by(|a, b| a.service.as_str().cmp(b.service.as_str()));
    let seen: Vec<_> = found.iter().map(|one| (one.service.as_str(), one.status)).collect();
    let expected = [
        ("code", Some(ExitStatus::Code(41))),
        ("on", None),
        ("signal", Some(ExitStatus::Signal(11))),
    ];
    assert_eq!(seen, expected);
    for one in found {
        let child = one.into_child();
        within(child.kill_set(LIMIT)).await;
    }
    spawner.forget_recorded();
    within(spawner.close()).await;
    den.nothing_left().await;
    let spawner = within(den.spawner()).await;
    let left = within(spawner.outlived()).await.unwrap();
    let left: Vec<_> = left.iter().map(|one| one.service.as_str()).collect();
    assert_eq!(left, ["on"], "what was read is forgotten, what came after it is not");
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn an_end_survives_the_guardian_too() {
    let den = Den::new();
    let services = [(Outlive, "ends", "sleep 0.2; exit 42"), (Outlive, "stays", "exec sleep 600")];
    let mut host = Host::start(&den, "wait", &services).await;
    host.kill();
    eventually("it ended", || (!is_alive(host.leaders[0])).then_some(())).await;
    let recorded = den.path().join("guardian.exits");
    eventually("it is recorded", || {
        std::fs::read_to_string(&recorded).ok()?.contains(" C 42 ").then_some(())
    })
    .await;
    signal(host.guardian, rustix::process::Signal::KILL);
    let spawner = within(den.spawner()).await;
    assert_ne!(guardian_of(&spawner), host.guardian);
    let found = within(spawner.outlived()).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].status, Some(ExitStatus::Code(42)));
    drop(found);
    signal(host.leaders[1], rustix::process::Signal::KILL);
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn a_channel_of_what_outlived_its_host_is_handed_to_the_next_one() {
    use std::io::{Read, Write};
    let den = Den::new();
    let spawner = den.spawner().await;
    let spec = super::running::with_channel(sh("svc", "cat", Outlive));
    let child = spawn(&spawner, spec, 1).await;
    drop(child.take_stdio());
    drop(child);
    let pid = den.marked()[0];
    drop(spawner);
    let spawner = within(den.spawner()).await;
    let mut found = within(spawner.outlived()).await.unwrap();
    let child = found.remove(0).into_child();
    assert_eq!(child.identity().pid, pid, "the end of the host's pipes was not the end of it");
    let stdio = child.take_stdio().expect("its channel");
    let talked = tokio::task::spawn_blocking(move || {
        let (mut stdin, mut stdout) = (stdio.stdin, stdio.stdout);
        stdin.write_all(b"again").unwrap();
        let mut heard = [0; 5];
        stdout.read_exact(&mut heard).unwrap();
        heard
    });
    assert_eq!(&within(talked).await.unwrap(), b"again");
    within(child.kill_set(LIMIT)).await;
    drop(child);
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn a_flood_does_not_stop_what_outlives_and_sigpipe_never_comes() {
    let den = Den::new();
    let services = [(Outlive, "loud", "exec yes"), (Die, "dies", "sleep 600; :")];
    let mut host = Host::start(&den, "wait", &services).await;
    host.kill();
    let log = den.path().join("logs/loud/output.log");
    let size = || std::fs::metadata(&log).map_or(0, |found| found.len());
    eventually("the one is gone", || (!is_alive(host.leaders[1])).then_some(())).await;
    for _ in 0..3 {
        let before = std::fs::metadata(&log).and_then(|found| found.modified()).ok();
        eventually("more output", || {
            let now = std::fs::metadata(&log).and_then(|found| found.modified()).ok();
            (now != before && size() > 0).then_some(())
        })
        .await;
    }
    assert!(is_alive(host.leaders[0]));
    signal(host.leaders[0], rustix::process::Signal::KILL);
    den.nothing_left().await;
}
