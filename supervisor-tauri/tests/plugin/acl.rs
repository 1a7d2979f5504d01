//! Who may call what, resolved by Tauri from the permission files this crate ships.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use supervisor_tauri::Builder;
use tauri::ipc::InvokeBody;

use crate::fake::Fake;
use crate::page::{manifest, open};

const READING: [&str; 8] = [
    "get_supervisor_health",
    "snapshot",
    "list_services",
    "service_logs",
    "supervisor_events",
    "list_channels",
    "list_audit",
    "list_checkpoints",
];
const OPERATING: [&str; 4] =
    ["start_supervisor_monitoring", "start_service", "stop_service", "restart_service"];
const CHECKPOINTING: [&str; 3] = ["create_checkpoint", "load_checkpoint", "list_checkpoints"];
const CONFIGURING: [&str; 2] = ["init_supervisor", "register_service"];

/// Invokes every command and gives the names of those the access list let through.
fn let_through(permissions: &[&str]) -> BTreeSet<&'static str> {
    let (fake, _deliveries) = Fake::new();
    let page = open(Builder::new().control(Arc::new(fake)), permissions, None);
    let all = READING.into_iter().chain(OPERATING).chain(CHECKPOINTING).chain(CONFIGURING);
    all.filter(|command| match page.invoke(command, json!({"service": "lsp"})) {
        Ok(_) => true,
        // A command that ran and failed answers with our object; a refusal by Tauri is a text.
        Err(error) => error.is_object(),
    })
    .collect()
}

#[test]
fn the_default_set_reads_and_nothing_else() {
    assert_eq!(let_through(&["supervisor-tauri:default"]), BTreeSet::from(READING));
}

#[test]
fn the_operate_set_cannot_choose_what_runs() {
    assert_eq!(let_through(&["supervisor-tauri:operate"]), BTreeSet::from(OPERATING));
}

#[test]
fn the_checkpoint_set_takes_lists_and_loads_checkpoints() {
    assert_eq!(let_through(&["supervisor-tauri:checkpoint"]), BTreeSet::from(CHECKPOINTING));
}

#[test]
fn the_configure_set_makes_and_registers() {
    assert_eq!(let_through(&["supervisor-tauri:configure"]), BTreeSet::from(CONFIGURING));
}

#[test]
fn nothing_granted_means_nothing_let_through() {
    assert_eq!(let_through(&[]), BTreeSet::new());
}

#[test]
fn a_single_permission_lets_one_command_through() {
    assert_eq!(
        let_through(&["supervisor-tauri:allow-stop-service"]),
        BTreeSet::from(["stop_service"])
    );
}

#[test]
fn a_denied_command_stays_denied_inside_a_granted_set() {
    let granted = let_through(&["supervisor-tauri:operate", "supervisor-tauri:deny-stop-service"]);
    assert!(!granted.contains("stop_service") && granted.contains("start_service"));
}

#[test]
fn a_page_from_elsewhere_is_refused_what_the_application_may_do() {
    let (fake, _deliveries) = Fake::new();
    let fake = Arc::new(fake);
    let page = open(
        Builder::new().control(Arc::clone(&fake) as _),
        &["supervisor-tauri:default", "supervisor-tauri:operate"],
        None,
    );
    for url in ["https://example.com", "http://localhost:8080", "file:///etc/passwd"] {
        for command in ["snapshot", "stop_service"] {
            let body = InvokeBody::Json(json!({"service": "lsp"}));
            page.invoke_from(url, command, body).unwrap_err();
        }
    }
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[test]
fn every_command_has_its_permissions_and_every_set_names_existing_ones() {
    let manifest = manifest();
    let commands: BTreeSet<&str> =
        READING.into_iter().chain(OPERATING).chain(CHECKPOINTING).chain(CONFIGURING).collect();
    assert_eq!(manifest.permissions.len(), 2 * commands.len(), "an allow and a deny each");
    for command in commands {
        let allow = format!("allow-{}", command.replace('_', "-"));
        assert!(manifest.permissions.contains_key(&allow), "{allow}");
    }
    for set in manifest.permission_sets.values().chain(&manifest.default_permission) {
        for permission in &set.permissions {
            assert!(
                manifest.permissions.contains_key(permission),
                "{}: {permission}",
                set.identifier
            );
        }
    }
}
