//! The commands of pages: let in, sanitise, call the port, map the error.
//!
//! Every argument is taken as raw JSON. Tauri would answer an argument of a wrong type with a text of its own
//! before the command runs; this way each refusal is the same object and leaves the same log line.

use serde_json::Value;
use supervisor_core::checkpoint::CheckpointSummary;
use supervisor_core::event::SupervisorEvent;
use supervisor_core::journal::{Actor, AuditEntry};
use supervisor_core::message::ChannelStatus;
use supervisor_core::ports::RestoreSummary;
use supervisor_core::status::{LogLine, ServiceStatus};
use supervisor_core::{CheckpointId, ServiceId};
use tauri::ipc::Invoke;
use tauri::{Runtime, State};

use crate::dto::{InitOutcome, Snapshot, SupervisorHealth};
use crate::error::CommandError;
use crate::handle::SupervisorHandle;
use crate::sanitize::TauriInputSanitizer as Sanitize;

type Answer<T> = Result<T, CommandError>;
type Handle<'a> = State<'a, SupervisorHandle>;

pub(crate) fn handler<R: Runtime>() -> impl Fn(Invoke<R>) -> bool + Send + Sync + 'static {
    tauri::generate_handler![
        init_supervisor,
        register_service,
        start_supervisor_monitoring,
        get_supervisor_health,
        snapshot,
        list_services,
        start_service,
        stop_service,
        restart_service,
        service_logs,
        supervisor_events,
        list_channels,
        list_audit,
        create_checkpoint,
        load_checkpoint,
        list_checkpoints,
    ]
}

#[tauri::command]
async fn init_supervisor(handle: Handle<'_>) -> Answer<InitOutcome> {
    let _admitted = handle.admit()?;
    Ok(handle.init().await?)
}

#[tauri::command]
async fn register_service(
    handle: Handle<'_>,
    service: Option<Value>,
    spec: Option<Value>,
) -> Answer<ServiceId> {
    let _admitted = handle.admit()?;
    let spec = handle.registrable(service.as_ref(), spec.as_ref())?;
    Ok(handle.control()?.register(spec, Actor::Page).await?)
}

#[tauri::command]
async fn start_supervisor_monitoring(handle: Handle<'_>) -> Answer<()> {
    let _admitted = handle.admit()?;
    Ok(handle.control()?.start_monitoring().await?)
}

#[tauri::command]
async fn get_supervisor_health(handle: Handle<'_>) -> Answer<SupervisorHealth> {
    let _admitted = handle.admit()?;
    Ok(handle.health().await?)
}

#[tauri::command]
async fn snapshot(handle: Handle<'_>) -> Answer<Snapshot> {
    let _admitted = handle.admit()?;
    Ok(handle.snapshot().await?)
}

#[tauri::command]
async fn list_services(handle: Handle<'_>) -> Answer<Vec<ServiceStatus>> {
    let _admitted = handle.admit()?;
    Ok(handle.control()?.status().await?.services)
}

#[tauri::command]
async fn start_service(handle: Handle<'_>, service: Option<Value>) -> Answer<()> {
    let _admitted = handle.admit()?;
    let service = Sanitize::service_id("service", service.as_ref())?;
    Ok(handle.control()?.start(&service, Actor::Page).await?)
}

#[tauri::command]
async fn stop_service(handle: Handle<'_>, service: Option<Value>) -> Answer<()> {
    let _admitted = handle.admit()?;
    let service = Sanitize::service_id("service", service.as_ref())?;
    Ok(handle.control()?.stop(&service, Actor::Page).await?)
}

#[tauri::command]
async fn restart_service(handle: Handle<'_>, service: Option<Value>) -> Answer<()> {
    let _admitted = handle.admit()?;
    let service = Sanitize::service_id("service", service.as_ref())?;
    Ok(handle.control()?.restart(&service, Actor::Page).await?)
}

#[tauri::command]
async fn service_logs(
    handle: Handle<'_>,
    service: Option<Value>,
    limit: Option<Value>,
) -> Answer<Vec<LogLine>> {
    let _admitted = handle.admit()?;
    let service = Sanitize::service_id("service", service.as_ref())?;
    let limit = Sanitize::limit("limit", limit.as_ref())?;
    Ok(handle.control()?.logs(&service, limit).await?)
}

#[tauri::command]
async fn supervisor_events(
    handle: Handle<'_>,
    after: Option<Value>,
    limit: Option<Value>,
) -> Answer<Vec<SupervisorEvent>> {
    let _admitted = handle.admit()?;
    let after = Sanitize::sequence("after", after.as_ref())?;
    let limit = Sanitize::limit("limit", limit.as_ref())?;
    Ok(handle.control()?.events(after, limit).await?)
}

#[tauri::command]
async fn list_channels(handle: Handle<'_>) -> Answer<Vec<ChannelStatus>> {
    let _admitted = handle.admit()?;
    Ok(handle.control()?.channels().await?)
}

#[tauri::command]
async fn list_audit(
    handle: Handle<'_>,
    after: Option<Value>,
    limit: Option<Value>,
) -> Answer<Vec<AuditEntry>> {
    let _admitted = handle.admit()?;
    let after = Sanitize::sequence("after", after.as_ref())?;
    let limit = Sanitize::limit("limit", limit.as_ref())?;
    Ok(handle.control()?.audit(after, limit).await?)
}

#[tauri::command]
async fn create_checkpoint(handle: Handle<'_>) -> Answer<CheckpointId> {
    let _admitted = handle.admit()?;
    Ok(handle.control()?.create_checkpoint(Actor::Page).await?)
}

#[tauri::command]
async fn load_checkpoint(handle: Handle<'_>, checkpoint: Option<Value>) -> Answer<RestoreSummary> {
    let _admitted = handle.admit()?;
    let which = Sanitize::checkpoint("checkpoint", checkpoint.as_ref())?;
    Ok(handle.control()?.load_checkpoint(which).await?)
}

#[tauri::command]
async fn list_checkpoints(
    handle: Handle<'_>,
    limit: Option<Value>,
) -> Answer<Vec<CheckpointSummary>> {
    let _admitted = handle.admit()?;
    let limit = Sanitize::limit("limit", limit.as_ref())?;
    Ok(handle.control()?.checkpoints(limit).await?)
}
