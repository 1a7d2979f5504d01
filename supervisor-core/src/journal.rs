//! The ordered record of transitions, and its tamper-evident sibling for sensitive operations.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::state::{Phase, ServiceState};
use crate::{Incarnation, Sequence, ServiceId};

/// One change of a service's state, on its way to storage: the new state and the row that explains it.
///
/// **Invariant:** the two are stored together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The state after the change.
    pub state: ServiceState,
    /// The phase before it.
    pub from: Phase,
    /// What happened, a short stable word such as `exited` or `backoff_over`.
    pub cause: String,
}

/// One stored transition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Its place in the order.
    pub sequence: Sequence,
    /// When it was stored.
    pub at: DateTime<Utc>,
    /// The service.
    pub service: ServiceId,
    /// The run it belongs to.
    pub incarnation: Incarnation,
    /// The phase before.
    pub from: Phase,
    /// The phase after.
    pub to: Phase,
    /// What happened.
    pub cause: String,
    /// Why, for people.
    pub reason: String,
}

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// The supervisor by itself.
    Supervisor,
    /// Code of the embedding application.
    Host,
    /// A command on the control socket.
    Operator,
    /// A web page.
    Page,
}

/// What kind of sensitive operation an audit row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditAction {
    /// A service changed its phase.
    ServiceState,
    /// A checkpoint, savepoint or backup was made, verified, loaded, quarantined or removed.
    Checkpoint,
    /// Something was recovered or decided about leftovers of a crash.
    Recovery,
    /// A service was registered or removed.
    Registration,
    /// The configuration changed.
    Configuration,
    /// Somebody asked for something and was refused.
    Refusal,
    /// The system shut down.
    Shutdown,
    /// The audit trail itself was anchored, sealed or pruned.
    Audit,
}

/// One sensitive operation, on its way to the audit trail; redacted before it is hashed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Who did it.
    pub actor: Actor,
    /// What kind of operation it is.
    pub action: AuditAction,
    /// What it was done to: a service id, a checkpoint id.
    pub subject: String,
    /// What happened, for people; holds no secret.
    pub detail: String,
}

/// One stored audit row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its place in the order.
    pub sequence: Sequence,
    /// When it was stored.
    pub at: DateTime<Utc>,
    /// The operation.
    #[serde(flatten)]
    pub record: AuditRecord,
    /// Hash over this row and the hash before it, in hexadecimal.
    pub hash: String,
}

/// What a verification of the audit trail found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditVerification {
    /// Whether every row and every anchor fits.
    pub intact: bool,
    /// Rows checked.
    pub rows: u64,
    /// The last row checked.
    pub head: Sequence,
    /// The first row that does not fit, if one.
    pub first_bad: Option<Sequence>,
    /// What was found, for people.
    pub detail: String,
}
