//! The error families, how each is classified, and what a front end is shown of them.
//!
//! Every error has a stable [`code`](Classified::code), a [`class`](Classified::class) that alone
//! decides whether a retry makes sense, keeps its cause as `source()`, and names its subject. No
//! error text carries an environment value, a payload or anything else that may be secret.

mod config;
mod database;
mod ipc;
mod process;
mod security;
mod supervisor;

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use config::ConfigError;
pub use database::{DatabaseError, MigrationError};
pub use ipc::IpcError;
pub use process::{ProcessError, SpawnError, SpawnErrorKind};
pub use security::SecurityError;
pub use supervisor::{HostError, ServiceFailure, SupervisorError};

/// The cause of an error, boxed so that core does not know the library it came from.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Says what a caller can do about an error; retry logic looks at nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The same call may succeed later without anybody changing anything.
    Transient,
    /// The same call fails again until somebody changes the input or the system.
    Permanent,
    /// Stored data is damaged; recovery has a ladder for it.
    Corrupt,
    /// The two sides have different versions.
    Incompatible,
    /// An invariant of this project is broken; please report it.
    Bug,
}

impl ErrorClass {
    /// Tells whether repeating the call unchanged may help.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(self, Self::Transient)
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Corrupt => "corrupt",
            Self::Incompatible => "incompatible",
            Self::Bug => "bug",
        })
    }
}

/// Gives an error its stable code and its class.
pub trait Classified: std::error::Error {
    /// Names the kind of error for programs: lower-case words with underscores, never changed once released.
    fn code(&self) -> &'static str;

    /// Says what a caller can do about it.
    fn class(&self) -> ErrorClass;
}

/// The host's extension point: an error of the application that embeds the supervisor.
///
/// A host enum holds ours with one `#[from] SupervisorError`; ours carries the host's in
/// [`SupervisorError::Host`], so that an error raised in a host callback keeps its type on the way out.
///
/// ```
/// use supervisor_core::error::{Classified, ErrorClass, IdeError, SupervisorError};
///
/// #[derive(Debug, thiserror::Error)]
/// enum EditorError {
///     #[error("the workspace is read-only")]
///     ReadOnly,
///     #[error(transparent)]
///     Supervisor(#[from] SupervisorError),
/// }
///
/// impl Classified for EditorError {
///     fn code(&self) -> &'static str {
///         match self { Self::ReadOnly => "read_only", Self::Supervisor(e) => e.code() }
///     }
///     fn class(&self) -> ErrorClass {
///         match self { Self::ReadOnly => ErrorClass::Permanent, Self::Supervisor(e) => e.class() }
///     }
/// }
/// impl IdeError for EditorError {}
///
/// let ours = SupervisorError::host(EditorError::ReadOnly);
/// assert_eq!(ours.code(), "read_only");
/// ```
pub trait IdeError: Classified + Send + Sync + 'static {}

impl IdeError for SupervisorError {}

/// What a front end is shown of an error: stable code, public text, whether to retry, and an id that finds it in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// The stable code.
    pub code: String,
    /// One sentence for people, the causes joined in; holds no secret.
    pub message: String,
    /// Whether repeating the call unchanged may help.
    pub retryable: bool,
    /// The same id stands in the log line that has the details.
    pub correlation_id: Uuid,
}

impl ErrorReport {
    /// Describes `error`; the caller supplies the id because core has no randomness.
    #[must_use]
    pub fn of(error: &(impl Classified + ?Sized), correlation_id: Uuid) -> Self {
        Self {
            code: error.code().to_owned(),
            message: chain(error),
            retryable: error.class().retryable(),
            correlation_id,
        }
    }
}

/// Joins an error and its causes with colons, each said once.
#[must_use]
pub fn chain<E: std::error::Error + ?Sized>(error: &E) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}
