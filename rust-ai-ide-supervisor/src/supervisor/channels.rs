//! Joining services to their channels: every incarnation of a service is a generation of its channel, and what the channel
//! finds out about the service reaches the engine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use supervisor_core::config::{ChannelBinding, TransportKind};
use supervisor_core::error::{SupervisorError, chain};
use supervisor_core::ports::{ChannelWatch, ChildStdio, ProbeRequest, StdioReceiver};
use supervisor_core::{Incarnation, ServiceId};
use supervisor_ipc::{ChannelOptions, IpcMonitor, StdioSlot, TcpTransport, Transport};
use supervisor_process::ChannelPing;

/// Hands each service's pipes to its channel. A channel has the name of its service.
#[derive(Debug, Default)]
pub(super) struct ChannelHub {
    slots: Mutex<HashMap<ServiceId, Arc<StdioSlot>>>,
    joined: OnceLock<Joined>,
}

/// What the hub lies between. The engine is held weakly, because it holds the hub.
#[derive(Debug)]
struct Joined {
    ipc: IpcMonitor,
    engine: Arc<dyn ChannelWatch>,
}

impl ChannelHub {
    /// Joins the monitor and the engine; before that the hub has nothing to bind. A second call changes nothing.
    pub(super) fn join(&self, ipc: IpcMonitor, engine: Arc<dyn ChannelWatch>) {
        drop(self.joined.set(Joined { ipc, engine }));
    }

    /// Registers and attaches the channel a service names.
    pub(super) async fn bind(
        &self,
        ipc: &IpcMonitor,
        service: &ServiceId,
        binding: &ChannelBinding,
    ) -> Result<(), SupervisorError> {
        let config = binding.recovery.as_deref().cloned().unwrap_or_default();
        let options = ChannelOptions { config, framing: binding.framing };
        let channel = ipc.register_channel_with(service.as_str(), options).await?;
        let path = binding.path.clone().unwrap_or_default();
        let transport: Arc<dyn Transport> = match binding.transport {
            TransportKind::Stdio => {
                let engine = self.joined.get().map(|joined| Arc::clone(&joined.engine));
                let slot = Arc::new(engine.map_or_else(StdioSlot::default, StdioSlot::watched));
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

    /// Tells a service's channel that the service was started or is ready; nothing for one that has none.
    pub(super) fn started(&self, service: &ServiceId) {
        let joined = self.joined.get();
        if let Some(channel) = joined.and_then(|joined| joined.ipc.channel(service.as_str())) {
            channel.peer_started();
        }
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

#[async_trait]
impl ChannelPing for ChannelHub {
    async fn ping(&self, request: &ProbeRequest) -> Result<String, String> {
        let joined = self.joined.get();
        let channel = joined.and_then(|joined| joined.ipc.channel(request.service.as_str()));
        let channel = channel.ok_or("the service has no channel that could be pinged")?;
        channel.ping().await.map_err(|error| chain(&error))?;
        Ok("its channel answers".to_owned())
    }
}
