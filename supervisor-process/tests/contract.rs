//! Core's contract suite on real processes.

#![cfg(unix)]
use supervisor_core::config::ServiceSpec;
use supervisor_core::testing::process_contract;
use supervisor_process::SystemSpawner;

#[tokio::test]
async fn the_systems_spawner_keeps_every_promise_of_a_spawner() {
    let logs = tempfile::tempdir().unwrap();
    let mark = format!("contract-{}", std::process::id());
    let spawner = SystemSpawner::new(mark, Some(logs.path().into()), false).unwrap();
    let lasting =
        ServiceSpec { args: vec!["600".into()], ..ServiceSpec::new("svc", "sleep").unwrap() };
    let missing = ServiceSpec::new("svc", "no-such-program-anywhere").unwrap();
    process_contract::spawner(&spawner, lasting, missing).await;
}
