//! The real capability file of the application: what its window may do, and what it may not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use rust_ai_ide_supervisor::{Actor, SupervisorControl};
use serde_json::{Value, json};
use supervisor_dashboard::{Options, context, plugin, supervisor};
use tauri::test::{INVOKE_KEY, MockRuntime, get_ipc_response, mock_builder};
use tauri::webview::InvokeRequest;
use tauri::{WebviewWindow, WebviewWindowBuilder};

fn ask(
    window: &WebviewWindow<MockRuntime>,
    command: &str,
    body: Value,
    url: &str,
) -> Result<Value, Value> {
    let request = InvokeRequest {
        cmd: format!("plugin:supervisor-tauri|{command}"),
        callback: tauri::ipc::CallbackFn(0),
        error: tauri::ipc::CallbackFn(1),
        url: url.parse().unwrap(),
        body: body.into(),
        headers: Default::default(),
        invoke_key: INVOKE_KEY.to_string(),
    };
    get_ipc_response(window, request).map(|body| body.deserialize::<Value>().unwrap())
}

#[test]
fn the_window_may_look_and_operate_but_not_choose_what_runs() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { config: None, state_dir: directory.path().join("state") };
    let control: Arc<dyn SupervisorControl> =
        tauri::async_runtime::block_on(supervisor(&options)).unwrap();
    tauri::async_runtime::block_on(control.start_monitoring()).unwrap();
    let app = mock_builder().plugin(plugin(Arc::clone(&control))).build(context()).unwrap();
    let window = WebviewWindowBuilder::new(&app, "main", Default::default()).build().unwrap();
    let local = "tauri://localhost";

    let snapshot = ask(&window, "snapshot", json!({}), local).unwrap();
    assert_eq!(snapshot["status"]["services"].as_array().unwrap().len(), 2);
    ask(&window, "restart_service", json!({ "service": "first" }), local).unwrap();
    ask(&window, "create_checkpoint", json!({}), local).unwrap();
    let refused = ask(&window, "stop_service", json!({ "service": "nobody" }), local).unwrap_err();
    assert_eq!(refused["code"], "unknown_service");

    assert!(ask(&window, "register_service", json!({ "service": "first" }), local).is_err());
    assert!(ask(&window, "init_supervisor", json!({}), local).is_err());
    assert!(ask(&window, "snapshot", json!({}), "https://example.com").is_err());

    tauri::async_runtime::block_on(control.shutdown(Actor::Host)).unwrap();
}
