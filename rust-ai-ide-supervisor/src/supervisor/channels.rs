//! Joining services to their channels: every incarnation of a service is a generation of its channel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use supervisor_core::config::{ChannelBinding, RecoveryConfig, TransportKind};
use supervisor_core::error::SupervisorError;
use supervisor_core::ports::{ChildStdio, StdioReceiver};
use supervisor_core::{Incarnation, ServiceId};
use supervisor_ipc::{ChannelOptions, IpcMonitor, StdioSlot, TcpTransport, Transport};

/// Hands each service's pipes to its channel. A channel has the name of its service.
#[derive(Debug, Default)]
pub(super) struct ChannelHub {
    slots: Mutex<HashMap<ServiceId, Arc<StdioSlot>>>,
}

impl ChannelHub {
    /// Registers and attaches the channel a service names.
    pub(super) async fn bind(
        &self,
        ipc: &IpcMonitor,
        service: &ServiceId,
        binding: &ChannelBinding,
    ) -> Result<(), SupervisorError> {
        let options =
            ChannelOptions { config: RecoveryConfig::default(), framing: binding.framing };
        let channel = ipc.register_channel_with(service.as_str(), options).await?;
        let path = binding.path.clone().unwrap_or_default();
        let transport: Arc<dyn Transport> = match binding.transport {
            TransportKind::Stdio => {
                let slot = Arc::new(StdioSlot::default());
                self.lock().insert(service.clone(), Arc::clone(&slot));
                slot
            }
            TransportKind::Tcp => {
                Arc::new(TcpTransport::new(binding.address.clone().unwrap_or_default()))
            }
            TransportKind::Unix | TransportKind::Pipe => local(path),
        };
        channel.attach(transport).await?;
        Ok(())
    }

    /// Forgets a service and closes its channel.
    pub(super) async fn unbind(&self, ipc: &IpcMonitor, service: &ServiceId) {
        self.lock().remove(service);
        ipc.close_channel(service.as_str()).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ServiceId, Arc<StdioSlot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(unix)]
fn local(path: std::path::PathBuf) -> Arc<dyn Transport> {
    Arc::new(supervisor_ipc::UnixTransport::new(path))
}

#[cfg(windows)]
fn local(path: std::path::PathBuf) -> Arc<dyn Transport> {
    Arc::new(supervisor_ipc::PipeTransport::new(path))
}

impl StdioReceiver for ChannelHub {
    fn attach(&self, service: &ServiceId, incarnation: Incarnation, stdio: ChildStdio) {
        if let Some(slot) = self.lock().get(service) {
            slot.attach(service, incarnation, stdio);
        }
    }
}
