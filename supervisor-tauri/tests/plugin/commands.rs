//! What commands do, answer and refuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use supervisor_core::config::ServiceSpec;
use supervisor_core::error::SupervisorError;
use supervisor_core::ports::{MockEventSubscription, MockSupervisorControl, SupervisorControl};
use supervisor_tauri::Builder;
use tauri::ipc::InvokeBody;
use uuid::Uuid;

use crate::fake::Fake;
use crate::page::{Page, open, try_open};

const ALL: [&str; 4] = [
    "supervisor-tauri:default",
    "supervisor-tauri:operate",
    "supervisor-tauri:checkpoint",
    "supervisor-tauri:configure",
];

fn opened(configure: impl FnOnce(Builder) -> Builder) -> (Page, Arc<Fake>) {
    let (fake, _deliveries) = Fake::new();
    let fake = Arc::new(fake);
    let plugin = configure(Builder::new().control(Arc::clone(&fake) as _));
    (open(plugin, &ALL, None), fake)
}

fn declared() -> ServiceSpec {
    ServiceSpec::new("lsp", "server").unwrap()
}

/// Checks the four fields and gives the code.
fn code(error: &Value) -> String {
    let fields: Vec<&String> = error.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["code", "correlation_id", "message", "retryable"], "{error}");
    assert!(error["correlation_id"].as_str().unwrap().parse::<Uuid>().is_ok());
    assert!(error["retryable"].is_boolean() && !error["message"].as_str().unwrap().is_empty());
    error["code"].as_str().unwrap().to_owned()
}

#[test]
fn each_command_reaches_the_supervisor_as_the_page() {
    let (page, fake) = opened(|plugin| plugin.declare_service(declared()));
    page.invoke("init_supervisor", json!({})).unwrap();
    let id = page.invoke("register_service", json!({"service": "lsp"})).unwrap();
    assert_eq!(id, "lsp");
    page.invoke("start_supervisor_monitoring", json!({})).unwrap();
    for command in ["start_service", "stop_service", "restart_service"] {
        page.invoke(command, json!({"service": "lsp"})).unwrap();
    }
    page.invoke("service_logs", json!({"service": "lsp", "limit": 5})).unwrap();
    let events = page.invoke("supervisor_events", json!({"after": 3})).unwrap();
    assert_eq!(events[0]["type"], "ModeChanged");
    page.invoke("list_audit", json!({"limit": 10_000})).unwrap();
    page.invoke("list_checkpoints", json!({})).unwrap();
    page.invoke("create_checkpoint", json!({})).unwrap();
    page.invoke("load_checkpoint", json!({})).unwrap();
    page.invoke("load_checkpoint", json!({"checkpoint": Uuid::nil()})).unwrap();
    assert_eq!(page.invoke("list_channels", json!({})).unwrap(), json!([]));
    assert_eq!(page.invoke("list_services", json!({})).unwrap()[0]["phase"], "running");
    let nil = Uuid::nil();
    assert_eq!(
        fake.calls(),
        [
            "register lsp Page".to_owned(),
            "start_monitoring".to_owned(),
            "start lsp Page".to_owned(),
            "stop lsp Page".to_owned(),
            "restart lsp Page".to_owned(),
            "logs lsp 5".to_owned(),
            "events Some(3) 200".to_owned(),
            "audit None 10000".to_owned(),
            "checkpoints 200".to_owned(),
            "create_checkpoint Page".to_owned(),
            "load_checkpoint Latest".to_owned(),
            format!("load_checkpoint Id(CheckpointId({nil}))"),
        ]
    );
}

#[test]
fn health_sums_up_and_snapshot_carries_the_revision() {
    let (page, _fake) = opened(|plugin| plugin.declare_service(declared()));
    page.invoke("register_service", json!({"service": "lsp"})).unwrap();
    let health = page.invoke("get_supervisor_health", json!({})).unwrap();
    assert_eq!(health["healthy"], true, "{health}");
    assert_eq!(health["phases"], json!({"running": 1}));
    assert_eq!((&health["services"], &health["ready"]), (&json!(1), &json!(1)));
    let snapshot = page.invoke("snapshot", json!({})).unwrap();
    assert_eq!(snapshot["revision"], 0);
    assert_eq!(snapshot["status"]["supervisor"]["state"], "running");
}

#[test]
fn an_error_of_the_supervisor_is_an_object_with_its_code() {
    let (page, _fake) = opened(|plugin| plugin);
    let error = page.invoke("stop_service", json!({"service": "nobody"})).unwrap_err();
    assert_eq!(code(&error), "unknown_service");
    assert_eq!(error["message"], "there is no service nobody");
    assert_eq!(error["retryable"], false);
}

#[test]
fn hostile_arguments_never_reach_the_supervisor() {
    let (page, fake) = opened(|plugin| plugin.declare_service(declared()));
    let hostile = [
        json!(null),
        json!(""),
        json!("../x"),
        json!("a\0b"),
        json!("\u{1b}[2J"),
        json!("x".repeat(100_000)),
        json!(-1),
        json!(1.5),
        json!([]),
        json!({"$ne": 1}),
        json!(true),
    ];
    for value in &hostile {
        for command in
            ["start_service", "stop_service", "restart_service", "service_logs", "register_service"]
        {
            let error = page.invoke(command, json!({"service": value})).unwrap_err();
            assert_eq!(code(&error), "security_input", "{command} {value}");
        }
    }
    // `null` is how a page leaves an argument out; everything else of the wrong kind is refused.
    for value in &hostile[1..] {
        for (command, argument) in [
            ("service_logs", "limit"),
            ("supervisor_events", "after"),
            ("supervisor_events", "limit"),
            ("list_audit", "after"),
            ("list_audit", "limit"),
            ("list_checkpoints", "limit"),
            ("load_checkpoint", "checkpoint"),
        ] {
            let error =
                page.invoke(command, json!({"service": "lsp", argument: value})).unwrap_err();
            assert_eq!(code(&error), "security_input", "{command} {argument} {value}");
        }
    }
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[test]
fn a_body_of_bytes_never_reaches_the_supervisor() {
    let (page, fake) = opened(|plugin| plugin);
    let body = InvokeBody::Raw(vec![0xff; 64]);
    page.invoke_from("tauri://localhost", "stop_service", body).unwrap_err();
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[test]
fn a_page_registers_only_what_was_declared() {
    let (page, fake) = opened(|plugin| plugin.declare_service(declared()));
    for arguments in
        [json!({"service": "other"}), json!({"spec": {"id": "sh", "command": "/bin/sh"}})]
    {
        let error = page.invoke("register_service", arguments).unwrap_err();
        assert_eq!(code(&error), "security_not_permitted");
    }
    let both = json!({"service": "lsp", "spec": {"id": "sh", "command": "/bin/sh"}});
    for arguments in [json!({}), both] {
        let error = page.invoke("register_service", arguments).unwrap_err();
        assert_eq!(code(&error), "security_input");
    }
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[test]
fn a_policy_accepts_what_it_names_and_refuses_the_rest() {
    let policy = |spec: &ServiceSpec| match spec.command.as_str() {
        "server" => Ok(()),
        _ => Err("only server".to_owned()),
    };
    let (page, fake) = opened(|plugin| plugin.command_policy(policy));
    let error = page
        .invoke("register_service", json!({"spec": {"id": "sh", "command": "/bin/sh"}}))
        .unwrap_err();
    assert_eq!(code(&error), "security_not_permitted");
    assert!(error["message"].as_str().unwrap().ends_with("only server"));
    page.invoke("register_service", json!({"spec": {"id": "a", "command": "server"}})).unwrap();
    let error = page
        .invoke("register_service", json!({"spec": {"id": "/", "command": "server"}}))
        .unwrap_err();
    assert_eq!(code(&error), "security_input");
    assert_eq!(fake.calls(), ["register a Page"]);
}

#[test]
fn before_there_is_a_supervisor_health_says_so_and_the_rest_is_refused() {
    let page = open(Builder::new(), &ALL, None);
    let health = page.invoke("get_supervisor_health", json!({})).unwrap();
    assert_eq!((&health["initialised"], &health["healthy"]), (&json!(false), &json!(false)));
    let error = page.invoke("snapshot", json!({})).unwrap_err();
    assert_eq!(code(&error), "not_initialised");
    let error = page.invoke("init_supervisor", json!({})).unwrap_err();
    assert_eq!(code(&error), "not_configured");
}

#[test]
fn init_makes_one_supervisor_and_may_be_repeated_after_a_failure() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let factory = move || {
        let attempt = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if attempt == 0 {
                return Err(SupervisorError::ShuttingDown);
            }
            Ok(Arc::new(Fake::new().0) as Arc<dyn SupervisorControl>)
        }
    };
    let page = open(Builder::new().factory(factory), &ALL, None);
    let error = page.invoke("init_supervisor", json!({})).unwrap_err();
    assert_eq!(code(&error), "shutting_down");
    for created in [true, false, false] {
        let outcome = page.invoke("init_supervisor", json!({})).unwrap();
        assert_eq!(outcome["created"], created);
    }
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
}

#[test]
fn a_mock_of_the_port_serves_as_supervisor() {
    let mut control = MockSupervisorControl::new();
    control.expect_subscribe().times(1).returning(|| {
        let mut subscription = MockEventSubscription::new();
        subscription.expect_next().returning(|| None);
        Box::new(subscription)
    });
    control
        .expect_stop()
        .withf(|service, _| service.as_str() == "lsp")
        .times(1)
        .returning(|_, _| Err(SupervisorError::ShuttingDown));
    let page = open(Builder::new().control(Arc::new(control)).keep_running_at_exit(), &ALL, None);
    let error = page.invoke("stop_service", json!({"service": "lsp"})).unwrap_err();
    assert_eq!(code(&error), "shutting_down");
}

#[test]
fn a_setting_or_a_declaration_that_is_not_valid_stops_the_application_with_its_name() {
    for settings in [json!({"tick_ms": 1}), json!({"batch_max": "many"}), json!({"tick": 5})] {
        let error = try_open(Builder::new(), &ALL, Some(settings)).err().unwrap().to_string();
        assert!(error.contains("supervisor-tauri"), "{error}");
    }
    let twice = Builder::new().declare_service(declared()).declare_service(declared());
    assert!(try_open(twice, &ALL, None).err().unwrap().to_string().contains("lsp"));
}
