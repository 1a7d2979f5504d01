//! The one error over all families.

use std::fmt;

use super::{
    Classified, ConfigError, DatabaseError, ErrorClass, IdeError, IpcError, MigrationError,
    ProcessError, SecurityError,
};
use crate::ServiceId;

/// One service's part in an operation over many that failed.
#[derive(Debug)]
pub struct ServiceFailure {
    /// The service.
    pub service: ServiceId,
    /// What went wrong with it.
    pub error: SupervisorError,
}

impl fmt::Display for ServiceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.service, super::chain(&self.error))
    }
}

/// Any error of this project, or one of the host's carried through it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// Starting, watching or stopping a process failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Reading or writing stored state failed.
    #[error(transparent)]
    Database(DatabaseError),
    /// A channel failed.
    #[error(transparent)]
    Ipc(#[from] IpcError),
    /// Input from outside was refused.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// Bringing the schema up to date failed.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// A configuration value was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No service has this id.
    #[error("there is no service {service}")]
    UnknownService {
        /// The id asked for.
        service: ServiceId,
    },
    /// A service of this id is registered already.
    #[error("service {service} is registered already")]
    AlreadyRegistered {
        /// The id.
        service: ServiceId,
    },
    /// One more service than allowed would be up; nothing was registered or started.
    #[error(
        "service {service} refused: {limit} services may be up at once (max_concurrent_services)"
    )]
    TooManyServices {
        /// The service that was refused.
        service: ServiceId,
        /// The limit in force.
        limit: usize,
    },
    /// The supervisor is shutting down or has shut down.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    /// An operation over many services failed for some of them; all failures are here.
    #[error("{operation} failed for {} of {attempted} services: {}", failures.len(), join(failures))]
    Partial {
        /// What was done.
        operation: String,
        /// How many services it was for.
        attempted: usize,
        /// Every failure.
        failures: Vec<ServiceFailure>,
    },
    /// An error of the embedding application.
    #[error(transparent)]
    Host(HostError),
}

/// An error of the embedding application, carried through ours with its text and its cause.
#[derive(Debug)]
pub struct HostError(Box<dyn IdeError>);

impl HostError {
    /// Gives the application's error.
    #[must_use]
    pub fn get(&self) -> &dyn IdeError {
        &*self.0
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for HostError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

fn join(failures: &[ServiceFailure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl SupervisorError {
    /// Carries an error of the embedding application.
    pub fn host(error: impl IdeError) -> Self {
        Self::Host(HostError(Box::new(error)))
    }
}

impl From<DatabaseError> for SupervisorError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Migration(error) => Self::Migration(error),
            error => Self::Database(error),
        }
    }
}

impl Classified for SupervisorError {
    fn code(&self) -> &'static str {
        match self {
            Self::Process(error) => error.code(),
            Self::Database(error) => error.code(),
            Self::Ipc(error) => error.code(),
            Self::Security(error) => error.code(),
            Self::Migration(error) => error.code(),
            Self::Config(error) => error.code(),
            Self::UnknownService { .. } => "unknown_service",
            Self::AlreadyRegistered { .. } => "already_registered",
            Self::TooManyServices { .. } => "too_many_services",
            Self::ShuttingDown => "shutting_down",
            Self::Partial { .. } => "partial_failure",
            Self::Host(error) => error.0.code(),
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::Process(error) => error.class(),
            Self::Database(error) => error.class(),
            Self::Ipc(error) => error.class(),
            Self::Security(error) => error.class(),
            Self::Migration(error) => error.class(),
            Self::Config(error) => error.class(),
            Self::UnknownService { .. }
            | Self::AlreadyRegistered { .. }
            | Self::TooManyServices { .. }
            | Self::ShuttingDown => ErrorClass::Permanent,
            Self::Partial { failures, .. } => {
                if failures.iter().all(|failure| failure.error.class().retryable()) {
                    ErrorClass::Transient
                } else {
                    ErrorClass::Permanent
                }
            }
            Self::Host(error) => error.0.class(),
        }
    }
}
