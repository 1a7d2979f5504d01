//! The calls other programs are written against, exactly as they read in the documentation.

use std::collections::HashMap;
use std::time::Duration;

use rust_ai_ide_supervisor::{
    Actor, IpcMessage, IpcMonitor, Outcome, RecoveryConfig, RestartPolicy, ServiceConfig,
    StatePersistence, Supervisor, SupervisorControl, SupervisorError,
};

fn service(id: &str) -> ServiceConfig {
    ServiceConfig {
        id: id.into(),
        name: "A sleeper".into(),
        command: "sleep".into(),
        args: vec!["600".into()],
        working_dir: None,
        environment: HashMap::new(),
        health_check_timeout: Duration::from_secs(30),
        restart_policy: RestartPolicy::ExponentialBackoff {
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
            max_attempts: 5,
        },
        shutdown_timeout: Duration::from_secs(10),
        critical: false,
    }
}

/// The supervisor of the documentation keeps its state in the working directory, so this test has one of its own.
#[tokio::test]
async fn a_supervisor_is_made_given_a_service_and_started() -> Result<(), SupervisorError> {
    let directory = tempfile::tempdir().unwrap();
    std::env::set_current_dir(directory.path()).unwrap();
    let supervisor = Supervisor::new()?;
    supervisor.register_service(service("sleeper")).await?;
    supervisor.start_monitoring().await?;
    let status = supervisor.status().await?;
    assert!(status.services[0].ready);
    assert!(directory.path().join(".ide-supervisor/supervisor.db").is_file());
    supervisor.shutdown(Actor::Host).await?;
    assert!(supervisor.finished().await.clean);
    Ok(())
}

#[tokio::test]
async fn a_checkpoint_is_created_of_collections_nobody_annotates_and_loaded()
-> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let (db_path, checkpoint_dir) =
        (directory.path().join("supervisor.db"), directory.path().join("checkpoints"));
    let persistence = StatePersistence::new(db_path, checkpoint_dir).await?;
    let services = Default::default();
    let pending_operations = Default::default();
    let id = persistence.create_checkpoint(&services, &pending_operations).await?;
    let snapshot = persistence.load_latest_checkpoint().await?;
    assert_eq!(snapshot.id, id);
    Ok(())
}

#[tokio::test]
async fn a_message_gets_a_receipt_that_is_awaited_for_its_outcome()
-> Result<(), Box<dyn std::error::Error>> {
    let monitor = IpcMonitor::with_config(RecoveryConfig {
        message_ttl: Duration::from_millis(20),
        ..RecoveryConfig::default()
    });
    monitor.register_channel("ai_lsp".to_string()).await?;
    let message = IpcMessage {
        id: uuid::Uuid::now_v7(),
        message_type: "completion".to_string(),
        payload: serde_json::json!({ "prefix": "fn " }),
        timestamp: chrono::DateTime::UNIX_EPOCH,
        retry_count: 0,
    };
    let receipt = monitor.send_message("ai_lsp", message).await;
    assert!(receipt.accepted().is_ok());
    assert_eq!(receipt.await, Outcome::Expired);
    Ok(())
}

#[tokio::test]
async fn one_service_too_many_is_refused_and_not_half_registered() {
    let directory = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::builder().state_dir(directory.path().join("s")).build().unwrap();
    for n in 0..10 {
        supervisor.register_service(service(&format!("s{n}"))).await.unwrap();
    }
    let error = supervisor.register_service(service("one-too-many")).await.unwrap_err();
    assert!(matches!(error, SupervisorError::TooManyServices { limit: 10, .. }), "{error}");
    assert_eq!(supervisor.status().await.unwrap().services.len(), 10);
    let error = supervisor.register_service(service("s1")).await.unwrap_err();
    assert!(matches!(
        error,
        SupervisorError::AlreadyRegistered { .. } | SupervisorError::TooManyServices { .. }
    ));
    let error = supervisor.register_service(service("../x")).await.unwrap_err();
    assert!(error.to_string().contains("invalid id"), "{error}");
    supervisor.shutdown(Actor::Host).await.unwrap();
    let error = supervisor.register_service(service("late")).await.unwrap_err();
    assert!(matches!(error, SupervisorError::ShuttingDown), "{error}");
}

#[tokio::test]
async fn a_supervisor_keeps_every_promise_of_what_commands_one() {
    let directory = tempfile::tempdir().unwrap();
    let supervisor =
        Supervisor::builder().state_dir(directory.path().join("state")).build().unwrap();
    let mut lasting = supervisor_core::config::ServiceSpec::from(service("lasting"));
    lasting.autostart = false;
    supervisor_core::testing::control_contract::control(&supervisor, lasting).await;
}

#[tokio::test]
async fn a_shutdown_that_is_asked_for_while_monitoring_starts_comes_to_its_end()
-> Result<(), SupervisorError> {
    let directory = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::builder().state_dir(directory.path().join("state")).build()?;
    supervisor.register_service(service("sleeper")).await?;
    let both =
        async { tokio::join!(supervisor.start_monitoring(), supervisor.shutdown(Actor::Host)) };
    let (_, ended) = tokio::time::timeout(Duration::from_secs(30), both).await.expect("it ends");
    ended?;
    let status = supervisor.status().await;
    assert!(status.is_err() || status.unwrap().services.iter().all(|one| one.pid.is_none()));
    Ok(())
}

#[tokio::test]
async fn a_shutdown_waits_for_no_start_that_waits_for_a_slow_dependency()
-> Result<(), SupervisorError> {
    use supervisor_core::config::{ProbeKind, ProbeRole, ProbeSpec, ServiceSpec};
    use supervisor_core::status::SupervisorPhase;
    let directory = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::builder().state_dir(directory.path().join("state")).build()?;
    let mut slow = ServiceSpec::from(service("slow"));
    let mut never = ProbeSpec::new(ProbeRole::Readiness, ProbeKind::Exec);
    never.command = vec!["false".to_owned()];
    slow.probes = vec![never];
    let mut waits = ServiceSpec::from(service("waits"));
    waits.depends_on = serde_json::from_str(r#"[{"id":"slow"}]"#).unwrap();
    supervisor.register_service(slow).await?;
    supervisor.register_service(waits).await?;
    let mut watched = supervisor.events();
    let starting = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.start_monitoring().await }
    });
    // Until the one runs and the other waits for it.
    let up = async {
        while let Some(delivery) = watched.next().await {
            let text = format!("{delivery:?}");
            if text.contains("slow") && text.contains("to: Running") {
                break;
            }
        }
    };
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, up).await.expect("it comes up");
    assert!(!starting.is_finished(), "its dependent waits");
    assert_eq!(supervisor.status().await?.supervisor.state, SupervisorPhase::Running);
    tokio::time::timeout(limit, supervisor.shutdown(Actor::Host)).await.expect("it ends")?;
    let started = tokio::time::timeout(limit, starting).await.expect("it is told").unwrap();
    assert!(matches!(started, Err(SupervisorError::ShuttingDown)), "{started:?}");
    Ok(())
}
