//! Commands and kills in random order against real processes.

use std::time::Duration;

use supervisor_core::config::{RestartIntensity, RestartPolicy};
use supervisor_core::state::Phase;

use crate::support::{LIMIT, World, marked};

/// Steps of one run; about ten seconds.
const STEPS: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_and_killed_in_any_order_it_ends_where_it_was_told_to() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new();
    let scripts = [
        "exec sleep 1000",
        "trap '' TERM; while :; do sleep 0.02; done",
        "setsid sleep 1000 & exec sleep 1000",
        "sleep 0.05; exit 1",
        "sh -c 'trap \"\" TERM; while :; do sleep 0.02; done' & exec sleep 1000",
    ];
    let mut ids = Vec::new();
    for (n, script) in scripts.iter().enumerate() {
        let mut spec = world.sh(&format!("svc-{n}"), script);
        spec.shutdown_timeout = Duration::from_millis(50);
        spec.restart_policy =
            RestartPolicy::FixedDelay { delay: Duration::from_millis(random.u64(0..20)) };
        spec.restart_intensity = RestartIntensity::UNLIMITED;
        ids.push(world.register(spec).await);
    }
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..STEPS {
        let id = ids[random.usize(..ids.len())].clone();
        let (engine, what) = (world.engine.clone(), random.u8(0..5));
        match what {
            0..3 => {
                asked.spawn(async move {
                    // Every command is answered; whether it was overtaken by another does not matter here.
                    let done = async {
                        drop(match what {
                            0 => engine.start(&id).await,
                            1 => engine.stop(&id).await,
                            _ => engine.restart(&id).await,
                        });
                    };
                    tokio::time::timeout(LIMIT, done).await.is_ok()
                });
            }
            3 => {
                let pids = marked(&world.mark);
                if let Some(pid) = random.choice(pids) {
                    // It may be gone by now; then there is nobody to kill.
                    drop(
                        std::process::Command::new("sh")
                            .args(["-c", &format!("kill -9 {pid} 2>/dev/null")])
                            .status(),
                    );
                }
            }
            // poll: no condition is waited for; the pause is part of the random history.
            _ => tokio::time::sleep(Duration::from_millis(random.u64(0..40))).await,
        }
    }
    while let Some(answered) = asked.join_next().await {
        assert!(answered.unwrap(), "a command was not answered; SEED={seed}");
    }
    for id in &ids {
        tokio::time::timeout(LIMIT, world.engine.stop(id)).await.unwrap().unwrap();
        assert_eq!(world.state(id).phase, Phase::Stopped, "SEED={seed}");
    }
    assert!(marked(&world.mark).is_empty(), "SEED={seed}");
    for id in &ids[..3] {
        tokio::time::timeout(LIMIT, world.engine.start(id)).await.unwrap().unwrap();
        world.until_phase(id, Phase::Running).await;
    }
    world.finish().await;
}
