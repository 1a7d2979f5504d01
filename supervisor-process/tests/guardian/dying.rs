//! A host that is gone, by whatever route: what was to die with it is gone too.

use std::time::{Duration, Instant};

use supervisor_core::config::HostDeathPolicy::{Die, Outlive};

use super::host::Host;
use super::support::*;

/// Longest time a host's end may take to be the end of what dies with it; a second is what is promised, and this is what
/// a machine busy with other things may make of it. The benchmark `guardian` measures it.
const GONE: Duration = Duration::from_secs(5);

/// A leader, a child in its group, one in a session of its own that ignores SIGTERM, one without its environment.
const FAMILY: &str = "trap '' TERM; sleep 600 & (setsid sh -c 'trap \"\" TERM HUP; sleep 600; :' &); (setsid env -i $(command -v sleep) 600 &); sleep 600; :";

#[tokio::test(flavor = "multi_thread")]
async fn whole_sets_are_gone_after_the_host_whatever_ended_it() {
    for end in ["wait", "panic", "abort", "exit", "return", "hangup"] {
        let den = Den::new();
        let mut host =
            Host::start(&den, end, &[(Die, "a", FAMILY), (Die, "b", "sleep 600; :")]).await;
        if end == "wait" {
            host.kill();
        } else {
            drop(tokio::task::block_in_place(|| host.process.wait()));
        }
        let began = Instant::now();
        eventually("the sets are gone", || {
            let gone = host.leaders.iter().all(|pid| !is_alive(*pid)) && den.marked().is_empty();
            gone.then_some(())
        })
        .await;
        let took = began.elapsed();
        println!("{end}: gone after {took:?}");
        assert!(took < GONE, "{end}: {took:?}");
        den.nothing_left().await;
        drop(host);
        assert!(!den.path().join("guardian.sock").exists(), "{end}: the guardian tidied up");
    }
}

#[tokio::test]
async fn a_host_killed_in_the_middle_of_a_stop_leaves_no_set_that_ignores_the_signal() {
    let den = Den::new();
    let script = format!("trap '' TERM; touch {}; {FAMILY}", den.path().join("deaf").display());
    let mut host = Host::start(&den, "stop", &[(Die, "deaf", &script)]).await;
    assert!(is_alive(host.leaders[0]), "it ignores the signal");
    host.kill();
    den.nothing_left().await;
}

#[tokio::test]
async fn a_host_killed_while_its_guardian_is_stopped_leaves_nothing_once_that_goes_on() {
    let den = Den::new();
    let mut host = Host::start(&den, "wait", &[(Die, "a", "sleep 600; :")]).await;
    signal(host.guardian, rustix::process::Signal::STOP);
    host.kill();
    assert!(is_alive(host.leaders[0]));
    // The next host wakes it: nobody else would.
    let spawner = within(den.spawner()).await;
    assert!(within(spawner.outlived()).await.unwrap().is_empty());
    assert!(!is_alive(host.leaders[0]), "gone before the next host is told that nothing is left");
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn what_dies_is_told_from_what_outlives() {
    let den = Den::new();
    let services = [(Die, "dies", FAMILY), (Outlive, "stays", "exec sleep 600")];
    let mut host = Host::start(&den, "wait", &services).await;
    host.kill();
    let (dies, stays) = (host.leaders[0], host.leaders[1]);
    eventually("the one is gone", || (!is_alive(dies)).then_some(())).await;
    assert!(is_alive(stays));
    assert!(is_alive(host.guardian), "it guards what is left");
    signal(stays, rustix::process::Signal::KILL);
    den.nothing_left().await;
}

#[tokio::test]
async fn a_child_outlives_the_thread_that_started_it() {
    let den = Den::new();
    let spawner = std::sync::Arc::new(den.spawner().await);
    let handle = tokio::runtime::Handle::current();
    let theirs = std::sync::Arc::clone(&spawner);
    let (send, receive) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        let child = handle.block_on(spawn(&theirs, sh("svc", "sleep 600; :", Die), 1));
        drop(send.send(child));
    });
    let child = within(receive).await.unwrap();
    let joined = tokio::task::spawn_blocking(move || thread.join());
    within(joined).await.unwrap().unwrap();
    let wait = tokio::time::timeout(Duration::from_millis(100), child.wait());
    assert!(wait.await.is_err(), "it runs on");
    within(child.kill_set(LIMIT)).await;
    drop(child);
    within(spawner.close()).await;
    den.nothing_left().await;
}
