//! What a failed start says, and what it leaves: nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use supervisor_core::ServiceId;
use supervisor_core::config::{RestartPolicy, ServiceSpec};
use supervisor_core::error::SupervisorError;
use supervisor_core::exit::ExitReason;
use supervisor_core::state::Phase;

use crate::support::{World, marked};

async fn fails(world: &World, mut spec: ServiceSpec, wanted: &str) {
    spec.restart_policy = RestartPolicy::Always;
    let id = world.register(spec).await;
    let error = world.engine.start(&id).await.unwrap_err();
    let said = supervisor_core::error::chain(&error);
    assert!(said.contains(wanted), "{said}");
    let state = world.until_phase(&id, Phase::Failed).await;
    assert!(state.reason.contains(wanted), "{}", state.reason);
    assert_eq!(state.last_exit.unwrap().reason, ExitReason::SpawnFailed);
    assert_eq!(state.identity, None);
    assert!(marked(&world.mark).is_empty());
}

fn file(path: &Path, text: &str, mode: u32) -> String {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_is_named() {
    let world = World::new();
    fails(&world, ServiceSpec::new("path", "/nonexistent/program").unwrap(), "no such file").await;
    fails(&world, ServiceSpec::new("name", "no-such-program-anywhere").unwrap(), "no such program")
        .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_be_executed_is_named() {
    let world = World::new();
    let program = file(&world.path("program"), "#!/bin/sh\n", 0o644);
    fails(&world, ServiceSpec::new("svc", program).unwrap(), "may not be executed").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_interpreter_is_told_from_a_missing_program() {
    let world = World::new();
    let program = file(&world.path("program"), "#!/nonexistent/interpreter\n", 0o755);
    fails(&world, ServiceSpec::new("svc", program).unwrap(), "interpreter").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_working_directory_is_told_from_a_missing_program() {
    let world = World::new();
    let mut spec = world.sh("svc", "exit 0");
    spec.working_dir = Some(world.path("missing"));
    fails(&world, spec, "working directory").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relative_program_in_a_missing_directory_blames_the_directory() {
    let world = World::new();
    let mut spec = world.sh("svc", "exit 0");
    spec.command = "./program".to_owned();
    spec.working_dir = Some(world.path("missing"));
    fails(&world, spec, "working directory").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_service_too_many_is_refused_with_nothing_half_started() {
    let world = World::with(|builder| builder.max_services(1));
    let first = world.up(world.sh("first", "exec sleep 1000")).await;
    let second = world.register(world.sh("second", "echo ran > ran; exec sleep 1000")).await;
    let error = world.engine.start(&second).await.unwrap_err();
    assert!(matches!(error, SupervisorError::TooManyServices { limit: 1, .. }), "{error:?}");
    assert_eq!(world.state(&second).phase, Phase::Registered);
    assert!(!world.path("ran").exists());
    world.engine.stop(&first).await.unwrap();
    world.engine.start(&second).await.unwrap();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_free_again_after_a_start_that_failed() {
    let world = World::with(|builder| builder.max_services(1));
    let bad = world.register(ServiceSpec::new("bad", "/nonexistent/program").unwrap()).await;
    world.engine.start(&bad).await.unwrap_err();
    world.until_phase(&bad, Phase::Failed).await;
    world.up(world.sh("good", "exec sleep 1000")).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_doubled_services_and_a_closed_engine_are_refused() {
    let world = World::new();
    let nobody = ServiceId::new("nobody").unwrap();
    assert!(matches!(
        world.engine.start(&nobody).await,
        Err(SupervisorError::UnknownService { .. })
    ));
    let id = world.up(world.sh("svc", "exec sleep 1000")).await;
    let twice = world.engine.register(world.sh("svc", "exit 0"), None).await;
    assert!(matches!(twice, Err(SupervisorError::AlreadyRegistered { .. })));
    let engine = world.engine.clone();
    world.finish().await;
    assert!(matches!(engine.start(&id).await, Err(SupervisorError::ShuttingDown)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_service_is_gone_with_its_process() {
    let world = World::new();
    let id = world.up(world.sh("svc", "exec sleep 1000")).await;
    world.engine.remove(&id).await.unwrap();
    assert_eq!(world.engine.state(&id), None);
    assert!(marked(&world.mark).is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_gets_its_own_variables_and_no_others() {
    let world = World::new();
    let mut spec = world.sh("svc", "env > seen; echo done > done");
    spec.environment.insert("OWN".to_owned(), "value".to_owned());
    world.up(spec).await;
    world.line_in("done").await;
    let seen = std::fs::read_to_string(world.path("seen")).unwrap();
    assert!(
        seen.contains("OWN=value\n") && seen.contains("IDE_SUPERVISOR_SERVICE=svc\n"),
        "{seen}"
    );
    assert!(!seen.contains("CARGO_MANIFEST_DIR="), "{seen}");
    world.finish().await;
}
