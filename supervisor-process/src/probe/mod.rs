//! Running one check of a service's health, within its time and leaving nothing behind.

mod exec;
mod http;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use supervisor_core::config::ProbeKind;
use supervisor_core::ports::{ProbeOutcome, ProbeRequest, ProbeRunner};
use tokio::net::TcpStream;

use crate::os::Entry;

/// Longest detail a probe reports, in characters.
const DETAIL_MAX: usize = 200;

/// Answers the ping of a service's channel.
#[async_trait]
pub trait ChannelPing: Send + Sync + std::fmt::Debug {
    /// Pings the service's channel.
    ///
    /// # Errors
    /// Why there was no answer, for people.
    ///
    /// # Cancel safety
    /// Safe; called under the probe's timeout.
    async fn ping(&self, request: &ProbeRequest) -> Result<String, String>;
}

/// Runs process, TCP, HTTP and exec probes; channel pings if it was given a way.
#[derive(Debug, Default, Clone)]
pub struct SystemProbes {
    ping: Option<Arc<dyn ChannelPing>>,
}

impl SystemProbes {
    /// Makes a runner without channel pings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how a service's channel is pinged.
    #[must_use]
    pub fn with_ping(mut self, ping: Arc<dyn ChannelPing>) -> Self {
        self.ping = Some(ping);
        self
    }

    async fn check(&self, request: &ProbeRequest) -> Result<String, String> {
        let target = request.probe.target.as_deref().unwrap_or_default();
        match request.probe.kind {
            ProbeKind::Process => check_process(request),
            ProbeKind::Tcp => {
                let connected = TcpStream::connect(target).await;
                connected
                    .map(|_| format!("{target} accepts connections"))
                    .map_err(|error| format!("{target}: {error}"))
            }
            ProbeKind::Http => http::check(target).await,
            ProbeKind::Exec => exec::check(request).await,
            ProbeKind::Ipc => match &self.ping {
                Some(ping) => ping.ping(request).await,
                None => Err("the service has no channel that could be pinged".to_owned()),
            },
            ProbeKind::Heartbeat => Err("a heartbeat is reported, not asked for".to_owned()),
        }
    }
}

#[async_trait]
impl ProbeRunner for SystemProbes {
    async fn run(&self, request: ProbeRequest) -> ProbeOutcome {
        let began = Instant::now();
        let checked = tokio::time::timeout(request.timeout, self.check(&request)).await;
        let result =
            checked.unwrap_or_else(|_| Err(format!("no answer within {:?}", request.timeout)));
        let (passed, detail) = match result {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        let detail = detail.chars().filter(|c| !c.is_control()).take(DETAIL_MAX).collect();
        ProbeOutcome { passed, detail, latency: began.elapsed() }
    }
}

fn check_process(request: &ProbeRequest) -> Result<String, String> {
    match Entry::read(request.identity.pid) {
        Some(entry) if entry.identity() != request.identity => {
            Err("its pid is another process's by now".to_owned())
        }
        Some(entry) if !entry.is_alive() => Err("it has ended".to_owned()),
        Some(entry) if matches!(entry.state, 'T' | 't') => {
            Err("it is suspended (state T)".to_owned())
        }
        Some(entry) => Ok(format!("alive (state {})", entry.state)),
        None => Err("it is gone".to_owned()),
    }
}
