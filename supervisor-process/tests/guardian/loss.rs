//! A guardian that is killed or stopped while its host lives.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use supervisor_core::config::HostDeathPolicy::{Die, Outlive};
use supervisor_core::exit::ExitStatus;
use supervisor_core::ports::{ProcessSpawner, ProcessTable};
use supervisor_process::SystemProcessTable;
use supervisor_process::guardian::GuardianNews;

use super::support::*;

#[tokio::test]
async fn a_killed_guardian_is_known_at_once_its_sets_are_ended_and_the_next_start_has_another() {
    let den = Den::new();
    let spawner = den.spawner().await;
    let first = guardian_of(&spawner);
    let script = "(setsid sleep 600 &); sleep 600; :";
    let dies = spawn(&spawner, sh("dies", script, Die), 1).await;
    let stays = spawn(&spawner, sh("stays", script, Outlive), 1).await;
    signal(first, Signal::KILL);
    let mut news = spawner.news();
    within(news.wait_for(|news| *news == GuardianNews::Lost)).await.unwrap();
    for child in [&dies, &stays] {
        assert_eq!(within(child.wait()).await, ExitStatus::Signal(9));
        eventually("its set is empty", || child.set_is_empty().then_some(())).await;
        assert!(within(child.kill_set(LIMIT)).await.survivors.is_empty());
        child.signal_set(supervisor_core::Signal::Term).await.unwrap();
    }
    assert!(den.marked().is_empty(), "nothing of it is left before it is said to be empty");
    let again = within(spawner.spawn(request(sh("dies", script, Die), 2))).await.unwrap();
    assert_ne!(guardian_of(&spawner), first);
    assert!(matches!(&*spawner.news().borrow(), GuardianNews::Guarding { replaced: true, .. }));
    within(again.kill_set(LIMIT)).await;
    drop((dies, stays, again));
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn a_guardian_killed_in_the_middle_of_starts_leaves_no_second_copy() {
    let seed = std::env::var("GUARDIAN_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("GUARDIAN_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let den = Den::new();
    let spawner = Arc::new(den.spawner().await);
    for round in 1..=25 {
        let starts: Vec<_> = (0..4)
            .map(|n| {
                let spawner = Arc::clone(&spawner);
                let spec = sh(&format!("svc-{n}"), "exec sleep 600", Die);
                tokio::spawn(async move { spawner.spawn(request(spec, round)).await })
            })
            .collect();
        let wait = Duration::from_micros(random.u64(0..4000));
        // poll: not a wait for anything; the moment of the kill is what is random here.
        tokio::time::sleep(wait).await;
        for guardian in den.guardians() {
            signal(guardian, Signal::KILL);
        }
        let mut held = Vec::new();
        for start in starts {
            held.push(within(start).await.unwrap());
        }
        let mut copies: HashMap<String, u32> = HashMap::new();
        for process in SystemProcessTable::new().marked(&den.mark()) {
            *copies.entry(process.service.to_string()).or_default() += 1;
        }
        assert!(copies.values().all(|copies| *copies == 1), "round {round}: {copies:?}");
        for child in held.iter().flatten() {
            within(child.kill_set(LIMIT)).await;
        }
    }
    within(spawner.close()).await;
    den.nothing_left().await;
}

/// Takes as long as the host's patience with a mute guardian, about five seconds.
#[tokio::test]
async fn a_stopped_guardian_is_told_to_go_on_and_nothing_is_lost() {
    let den = Den::new();
    let spawner = den.spawner().await;
    let guardian = guardian_of(&spawner);
    let child = spawn(&spawner, sh("svc", "sleep 0.1; exit 6", Die), 1).await;
    signal(guardian, Signal::STOP);
    let other = within(spawner.spawn(request(sh("other", "exit 7", Die), 1))).await.unwrap();
    assert_eq!(within(child.wait()).await, ExitStatus::Code(6));
    assert_eq!(within(other.wait()).await, ExitStatus::Code(7));
    assert_eq!(guardian_of(&spawner), guardian, "the same one");
    drop((child, other));
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_no_process() {
    let den = Den::new();
    let spawner = Arc::new(den.spawner().await);
    for policy in [Die, Outlive] {
        let theirs = Arc::clone(&spawner);
        let spec = sh("svc", "exec sleep 600", policy);
        let start = tokio::spawn(async move { theirs.spawn(request(spec, 1)).await });
        tokio::task::yield_now().await;
        start.abort();
        drop(start.await);
    }
    eventually("nothing runs", || den.marked().is_empty().then_some(())).await;
    within(spawner.close()).await;
    den.nothing_left().await;
}

#[tokio::test]
async fn what_hides_its_environment_is_ended_after_the_guardian_too() {
    let den = Den::new();
    let spawner = den.spawner().await;
    let script = "env -i /bin/sleep 600 & exec env -i /bin/sleep 600";
    let child = spawn(&spawner, sh("hides", script, Die), 1).await;
    let leader = child.identity();
    let members = eventually("two that show no mark", || {
        let members = child.members();
        (members.len() == 2 && den.marked().is_empty()).then_some(members)
    })
    .await;
    signal(guardian_of(&spawner), Signal::KILL);
    eventually("its set is empty", || child.set_is_empty().then_some(())).await;
    let table = SystemProcessTable::new();
    assert!(!table.is_alive(&leader), "the leader runs on unseen");
    let left: Vec<_> = members.iter().filter(|member| table.is_alive(member)).collect();
    for member in &left {
        signal(member.pid, Signal::KILL);
    }
    assert!(left.is_empty(), "a member runs on unseen: {left:?}");
    drop(child);
    within(spawner.close()).await;
    den.nothing_left().await;
}
