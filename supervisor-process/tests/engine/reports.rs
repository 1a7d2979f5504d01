//! What services say of themselves, and what is made of it.

use std::time::Duration;

use supervisor_core::config::{ProbeKind, ProbeRole, ProbeSpec, RestartPolicy};
use supervisor_core::exit::{ExitReason, ExitStatus};
use supervisor_core::state::Phase;

use crate::fixture::{self, behind_shell, say};
use crate::support::{World, eventually, is_alive, signal};

fn heartbeat(role: ProbeRole) -> ProbeSpec {
    let mut probe = ProbeSpec::new(role, ProbeKind::Heartbeat);
    probe.period = Some(Duration::from_millis(400));
    probe
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_process_a_service_names_is_followed_and_its_end_is_the_end_of_the_run() {
    let world = World::new();
    // The notifier is the leader; the real work is done by a session of its own.
    let mut spec = behind_shell(&world, "svc", "beats", |notifier| {
        format!("setsid sh -c 'echo $$ > deep; exec sleep 1000' & exec {notifier}")
    });
    spec.restart_policy = RestartPolicy::FixedDelay { delay: Duration::from_secs(600) };
    let id = world.up(spec).await;
    let deep = world.pid_in("deep").await;
    let leader = world.until_phase(&id, Phase::Running).await.identity.unwrap().pid;
    // Neither a stranger nor one that does not exist is taken for it.
    for wrong in [1, std::process::id(), u32::MAX] {
        say(&world, &format!("MAINPID={wrong}")).await;
    }
    say(&world, "STATUS=heard").await;
    world.until(&id, |state| state.reason.contains("heard")).await;
    assert_eq!(world.state(&id).identity.unwrap().pid, leader);
    say(&world, &format!("MAINPID={deep}")).await;
    world.until(&id, |state| state.identity.as_ref().is_some_and(|it| it.pid == deep)).await;
    // The leader's end is nobody's business any more.
    std::fs::write(world.path("leave"), "0\n").unwrap();
    eventually("the leader's end", || (!is_alive(leader)).then_some(())).await;
    assert_eq!(world.state(&id).phase, Phase::Running);
    signal(deep, "KILL");
    let state = world.until_phase(&id, Phase::Backoff).await;
    let exit = state.last_exit.unwrap();
    assert_eq!(exit.reason, ExitReason::Crash);
    // Its parent, not we, reaped it: a kernel before 6.15 does not tell how it ended.
    let known = [ExitStatus::Signal(9), ExitStatus::Unknown];
    assert!(exit.status.is_some_and(|status| known.contains(&status)), "{exit:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_longer_for_a_service_that_asks_for_it() {
    let world = World::new();
    // Both ignore the signal, the one to say something of it, the other to end in its own time.
    let mut spec = behind_shell(&world, "svc", "beats", |notifier| {
        format!(
            "(trap '' TERM; exec {notifier}) & trap 'echo asked > asked' TERM; echo set > set
            until test -e enough; do sleep 0.02; done; echo done > done"
        )
    });
    let grace = Duration::from_secs(3);
    spec.shutdown_timeout = grace;
    let id = world.up(spec).await;
    world.line_in("address").await;
    world.line_in("set").await;
    let began = std::time::Instant::now();
    let stop = tokio::spawn({
        let (engine, id) = (world.engine.clone(), id.clone());
        async move { engine.stop(&id).await }
    });
    world.line_in("asked").await;
    assert!(world.state(&id).reason.contains("SIGTERM sent"), "{}", world.state(&id).reason);
    say(&world, "EXTEND_TIMEOUT_USEC=60000000").await;
    // Well beyond its grace it is still there.
    eventually("one and a half times the grace", || {
        assert_eq!(world.state(&id).phase, Phase::Stopping, "{}", world.state(&id).reason);
        (began.elapsed() > grace * 3 / 2).then_some(())
    })
    .await;
    std::fs::write(world.path("enough"), "").unwrap();
    std::fs::write(world.path("leave"), "0\n").unwrap();
    tokio::time::timeout(Duration::from_secs(20), stop).await.unwrap().unwrap().unwrap();
    assert_eq!(world.state(&id).last_exit.unwrap().status, Some(ExitStatus::Code(0)));
    assert_eq!(world.line_in("done").await, "done", "it ended by itself");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_says_that_it_is_stopping_is_believed_and_its_end_is_judged_as_any_other() {
    let world = World::new();
    let mut spec = fixture::service(&world, "svc", "fixture::notifier", "beats");
    spec.restart_policy = RestartPolicy::FixedDelay { delay: Duration::from_secs(600) };
    let id = world.up(spec).await;
    say(&world, "STOPPING=1").await;
    let state = world.until(&id, |it| it.reason.contains("it says that it is stopping")).await;
    assert_eq!((state.phase, state.restarts), (Phase::Running, 0));
    std::fs::write(world.path("leave"), "3\n").unwrap();
    let state = world.until_phase(&id, Phase::Backoff).await;
    let exit = state.last_exit.unwrap();
    assert_eq!((exit.reason, exit.status), (ExitReason::Crash, Some(ExitStatus::Code(3))));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_up_when_the_service_says_so_and_is_told_how_often_to_report() {
    let world = World::new();
    let mut spec = behind_shell(&world, "svc", "beats", |notifier| {
        format!(
            "echo $WATCHDOG_USEC > period; until test -e begin; do sleep 0.02; done
            exec {notifier}"
        )
    });
    spec.probes = vec![heartbeat(ProbeRole::Startup), heartbeat(ProbeRole::Liveness)];
    spec.health_check_timeout = Duration::from_secs(60);
    let id = world.up(spec).await;
    assert_eq!(world.line_in("period").await, "400000");
    assert_eq!(world.state(&id).phase, Phase::Starting);
    std::fs::write(world.path("begin"), "").unwrap();
    world.until_phase(&id, Phase::Running).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_talks_without_end_keeps_no_stop_from_it() {
    let world = World::new();
    let spec = fixture::service(&world, "svc", "fixture::flooder", "floods");
    let id = world.up(spec).await;
    world.until(&id, |state| state.reason.contains("it says")).await;
    tokio::time::timeout(Duration::from_secs(20), world.engine.stop(&id)).await.unwrap().unwrap();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_a_status_or_a_probes_answer_is_shown_to_nobody() {
    let world = World::new();
    let mut spec = fixture::service(&world, "svc", "fixture::notifier", "beats");
    spec.environment.insert("TOKEN".to_owned(), "hunter2-hunter2".to_owned());
    spec.secret_environment = vec!["TOKEN".to_owned()];
    let target = "http://127.0.0.1:1/health?token=hunter2-hunter2";
    let mut ready = ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Http).with_target(target);
    ready.period = Some(Duration::from_millis(50));
    let mut other = ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Tcp);
    other.period = ready.period;
    other.target = Some("hunter2-hunter2.invalid:80".to_owned());
    spec.probes = vec![ready, other];
    let id = world.up(spec).await;
    say(&world, "STATUS=my token is hunter2-hunter2").await;
    world.until(&id, |state| state.reason.contains("[redacted]")).await;
    world
        .until_event(|event| {
            let text = format!("{event:?}");
            text.contains("HealthCheckCompleted") && text.contains("[redacted]")
        })
        .await;
    let everything = format!("{:?}{:?}", world.state(&id), world.events());
    assert!(!everything.contains("hunter2"), "{everything}");
    world.finish().await;
}
