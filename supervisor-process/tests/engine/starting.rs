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
async fn a_program_that_is_being_written_is_tried_again_and_burns_no_attempt() {
    let world = World::new();
    // A copy, so that nobody else has it open.
    let program = world.path("program");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let writing = std::fs::OpenOptions::new().append(true).open(&program).unwrap();
    let mut spec = ServiceSpec::new("svc", program.to_str().unwrap()).unwrap();
    spec.args = vec!["1000".to_owned()];
    let id = world.register(spec).await;
    let error = world.engine.start(&id).await.unwrap_err();
    assert!(supervisor_core::error::chain(&error).contains("being written"), "{error:?}");
    let state = world.until_phase(&id, Phase::Backoff).await;
    assert!(state.reason.contains("being written"), "{}", state.reason);
    drop(writing);
    let state = world.until_phase(&id, Phase::Running).await;
    assert_eq!(state.attempt, 0);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_replaced_while_it_runs_is_the_new_one_after_the_next_restart() {
    let world = World::new();
    let version = |n: u32| format!("#!/bin/sh\necho {n} > version; exec sleep 1000\n");
    let program = file(&world.path("program"), &version(1), 0o755);
    let mut spec = world.sh("svc", "");
    (spec.command, spec.args) = (program, Vec::new());
    spec.restart_policy = RestartPolicy::Always;
    let id = world.up(spec).await;
    assert_eq!(world.line_in("version").await, "1");
    // As an update does it: a new file takes the place of the old one.
    file(&world.path("next"), &version(2), 0o755);
    std::fs::rename(world.path("next"), world.path("program")).unwrap();
    std::fs::remove_file(world.path("version")).unwrap();
    assert_eq!(world.state(&id).phase, Phase::Running, "the old one is not disturbed");
    world.engine.restart(&id).await.unwrap();
    assert_eq!(world.line_in("version").await, "2");
    // Replaced by something that cannot run: a clear error, and nothing runs.
    file(&world.path("next"), "not a program", 0o644);
    std::fs::rename(world.path("next"), world.path("program")).unwrap();
    world.engine.restart(&id).await.unwrap_err();
    let state = world.until_phase(&id, Phase::Failed).await;
    assert!(state.reason.contains("may not be executed"), "{}", state.reason);
    assert!(marked(&world.mark).is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_too_large_for_the_system_are_refused_for_good_and_named() {
    let world = World::new();
    let mut spec = world.sh("svc", "exit 0");
    // Each of them is fine; together they are more than any stack limit lets a program have.
    spec.args = vec!["x".repeat(128 * 1024 - 1); 4000];
    fails(&world, spec, "arguments").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_service_nothing_of_it_is_registered() {
    let world = World::new();
    let base = || ServiceSpec::new("svc", "sleep").unwrap();
    let with = |change: fn(&mut ServiceSpec)| {
        let mut spec = base();
        change(&mut spec);
        spec
    };
    let wrong = [
        with(|spec| spec.id = "../svc".into()),
        with(|spec| spec.id = "svc\0".into()),
        with(|spec| spec.command = "sl\0eep".into()),
        with(|spec| spec.args = vec!["a\0".into()]),
        with(|spec| spec.working_dir = Some("a\0".into())),
        with(|spec| drop(spec.environment.insert("A=B".into(), "c".into()))),
        with(|spec| drop(spec.environment.insert("IDE_SUPERVISOR_MARK".into(), "mine".into()))),
    ];
    for spec in wrong {
        let error = world.engine.register(spec, None).await.unwrap_err();
        assert!(matches!(error, SupervisorError::Config(_)), "{error:?}");
    }
    assert!(world.engine.states().is_empty());
    assert!(!world.path("logs").exists());
    world.register(base()).await;
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
