//! What is said on the control socket: one version byte each way, then length-prefixed JSON.
//!
//! The client opens with the highest version it speaks; the server answers with the one in use, or with
//! [`REFUSED`] and a reason as one more frame. After that every frame is a big-endian `u32` length and that
//! many bytes of JSON. A request carries a number; every answer to it repeats the number.

use serde::{Deserialize, Serialize};
use supervisor_core::checkpoint::CheckpointSummary;
use supervisor_core::error::ErrorReport;
use supervisor_core::event::SupervisorEvent;
use supervisor_core::journal::{AuditEntry, AuditVerification};
use supervisor_core::message::ChannelStatus;
use supervisor_core::ports::{CheckpointSelector, RestoreSummary};
use supervisor_core::status::{LogLine, StatusReport};
use supervisor_core::{CheckpointId, Sequence, ServiceId};
use supervisor_persist::BackupProgress;

use crate::storage::{StorageAnswer, StorageCall};

/// The version this code speaks.
pub const PROTOCOL_VERSION: u8 = 1;
/// The server's answer to a client it does not serve; a frame with an [`ErrorReport`] follows.
pub const REFUSED: u8 = 0;
/// Largest request, in bytes. A larger one ends the connection before anything is allocated for it.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Largest answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Repeated by every answer.
    pub id: u64,
    /// What is asked.
    #[serde(flatten)]
    pub call: Call,
}

/// What a client can ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// The state of everything.
    Status,
    /// Start a service.
    Start {
        /// Which.
        service: ServiceId,
    },
    /// Stop a service; answered when its set is empty.
    Stop {
        /// Which.
        service: ServiceId,
    },
    /// Restart a service.
    Restart {
        /// Which.
        service: ServiceId,
    },
    /// Stop everything and end; answered when nothing is left.
    Down,
    /// Read the configuration file again and change only what changed.
    Reload,
    /// The last captured lines of a service.
    Logs {
        /// Which.
        service: ServiceId,
        /// How many, at most 10,000.
        limit: usize,
    },
    /// Stored events.
    Events {
        /// Those after this one; the newest `limit` when absent.
        after: Option<Sequence>,
        /// How many, at most 10,000.
        limit: usize,
    },
    /// Events from now on, until the client leaves.
    Follow,
    /// Take a checkpoint.
    CheckpointCreate,
    /// The newest checkpoints.
    CheckpointList {
        /// How many, at most 10,000.
        limit: usize,
    },
    /// One checkpoint, loaded and verified.
    CheckpointShow {
        /// Which.
        which: CheckpointSelector,
    },
    /// Check one checkpoint in both of its places.
    CheckpointVerify {
        /// Which.
        checkpoint: CheckpointId,
    },
    /// Audit rows.
    AuditList {
        /// Those after this one; the newest `limit` when absent.
        after: Option<Sequence>,
        /// How many, at most 10,000.
        limit: usize,
    },
    /// Check the whole audit chain.
    AuditVerify,
    /// The health of every channel.
    Channels,
    /// Savepoints, backups, dead letters; long ones answer with [`Body::Progress`] first.
    Storage {
        /// What of them.
        storage: StorageCall,
    },
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's number.
    pub id: u64,
    /// What came of it.
    #[serde(flatten)]
    pub body: Body,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "body", rename_all = "snake_case")]
pub enum Body {
    /// It was done.
    Done,
    /// It failed.
    Failed(ErrorReport),
    /// The state of everything.
    Status(Box<StatusReport>),
    /// Captured lines.
    Logs(Vec<LogLine>),
    /// Stored events.
    Events(Vec<SupervisorEvent>),
    /// One live event.
    Event(Box<SupervisorEvent>),
    /// The client was too slow; so many live events are missing here.
    Missed(u64),
    /// A checkpoint was taken.
    CheckpointCreated(CheckpointId),
    /// Stored checkpoints.
    Checkpoints(Vec<CheckpointSummary>),
    /// One checkpoint.
    Checkpoint(Box<RestoreSummary>),
    /// One checkpoint's health.
    CheckpointVerified(CheckpointSummary),
    /// Audit rows.
    Audit(Vec<AuditEntry>),
    /// What the check of the audit chain found.
    AuditVerified(AuditVerification),
    /// Channels.
    Channels(Vec<ChannelStatus>),
    /// What a reload changed.
    Reloaded(ReloadReport),
    /// What came of a question about stored state.
    Storage(Box<StorageAnswer>),
    /// How far a long one is; the answer follows.
    Progress(BackupProgress),
}

/// What a reload changed, by service id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// New services.
    pub added: Vec<ServiceId>,
    /// Services that are gone.
    pub removed: Vec<ServiceId>,
    /// Services that were restarted because their configuration changed.
    pub changed: Vec<ServiceId>,
    /// Services left alone.
    pub unchanged: Vec<ServiceId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_survives_being_sent() {
        let service = ServiceId::new("a").unwrap();
        let checkpoint = CheckpointId(uuid::Uuid::nil());
        let calls = [
            Call::Status,
            Call::Start { service: service.clone() },
            Call::Stop { service: service.clone() },
            Call::Restart { service: service.clone() },
            Call::Down,
            Call::Reload,
            Call::Logs { service, limit: 1 },
            Call::Events { after: None, limit: 1 },
            Call::Follow,
            Call::CheckpointCreate,
            Call::CheckpointList { limit: 1 },
            Call::CheckpointShow { which: CheckpointSelector::Latest },
            Call::CheckpointShow { which: CheckpointSelector::Id(checkpoint) },
            Call::CheckpointVerify { checkpoint },
            Call::AuditList { after: Some(Sequence(1)), limit: 1 },
            Call::AuditVerify,
            Call::Channels,
            Call::Storage { storage: StorageCall::BackupVerify { name: Some("b".into()) } },
        ];
        for call in calls {
            let request = Request { id: 7, call };
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request, "{text}");
        }
    }

    #[test]
    fn requests_and_answers_survive_being_written_and_read() {
        let request =
            Request { id: 7, call: Call::Logs { service: ServiceId::new("a").unwrap(), limit: 5 } };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, r#"{"id":7,"call":"logs","service":"a","limit":5}"#);
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        let answer = Answer { id: 7, body: Body::Missed(3) };
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer);
    }
}
