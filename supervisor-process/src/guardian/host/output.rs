//! What the guardian keeps of services' output, asked for by the host.

use std::collections::HashMap;
use std::sync::PoisonError;

use supervisor_core::ServiceId;
use supervisor_core::config::ServiceSpec;
use supervisor_core::status::{DroppedOutput, LogLine};

use super::super::protocol::{Capture, Reply, Request};
use super::GuardianSpawner;
use super::asking::Answer;
use crate::capture::{DropWatch, read_tail};

impl GuardianSpawner {
    /// Gives the last `limit` captured lines of a service, oldest first.
    ///
    /// # Errors
    /// What the system said about the files.
    pub fn logs(&self, service: &ServiceId, limit: usize) -> std::io::Result<Vec<LogLine>> {
        let directory = self.log_dir.join(service.as_str());
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.get(service).copied().unwrap_or_default().max(1);
        let names = (0..files).map(|n| match n {
            0 => directory.join("output.log"),
            n => directory.join(format!("output.log.{n}")),
        });
        read_tail(&names.collect::<Vec<_>>(), limit)
    }

    /// Gives what of each service's output was not kept, as far as anything was not; nothing while there is no guardian.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn dropped_output(&self) -> HashMap<ServiceId, DroppedOutput> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(link) = known else { return HashMap::new() };
        match link.ask(&Request::Dropped).await {
            Ok(Answer { reply: Reply::Dropped(services), .. }) => services.into_iter().collect(),
            _ => HashMap::new(),
        }
    }

    /// Sets who is told when output of a run begins to be dropped.
    pub(crate) const fn drops(&self) -> &DropWatch {
        &self.drops
    }

    pub(super) fn capture(&self, service: &ServiceId, spec: &ServiceSpec) -> Capture {
        let secret = |name: &String| {
            spec.environment.get(name).cloned().or_else(|| std::env::var(name).ok())
        };
        Capture {
            directory: self.log_dir.join(service.as_str()).into_os_string().into_encoded_bytes(),
            max_bytes: spec.capture.max_bytes.bytes(),
            files: spec.capture.files,
            max_line: spec.capture.max_line.bytes(),
            max_rate: spec.capture.max_rate.map(supervisor_core::text::ByteSize::bytes),
            secrets: spec
                .secret_environment
                .iter()
                .filter_map(secret)
                .map(String::into_bytes)
                .collect(),
        }
    }
}
