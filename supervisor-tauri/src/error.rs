//! What a page is told when a command is refused or fails.

use serde::{Serialize, Serializer};
use supervisor_core::error::{Classified, ErrorClass, ErrorReport, SecurityError, SupervisorError};
use uuid::Uuid;

/// Why the plugin itself, or the supervisor behind it, did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// No supervisor exists yet. Calling `init_supervisor` first helps.
    #[error("there is no supervisor yet: call init_supervisor first")]
    NotInitialised,
    /// The application gave the plugin neither a supervisor nor a way to make one. A retry does not help.
    #[error(
        "the application configured no supervisor: give the plugin's Builder a control or a factory"
    )]
    NotConfigured,
    /// This system cannot run child processes. A retry does not help.
    #[error("supervising processes is not supported on this system")]
    Unsupported,
    /// Too many commands of pages are under way. A retry helps once some have answered.
    #[error("{limit} commands are under way already; try again")]
    Busy {
        /// The limit in force.
        limit: usize,
    },
    /// An argument or an action was refused. A retry does not help.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The supervisor refused or failed; its class says whether a retry helps.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
}

impl Classified for PluginError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotInitialised => "not_initialised",
            Self::NotConfigured => "not_configured",
            Self::Unsupported => "unsupported",
            Self::Busy { .. } => "busy",
            Self::Security(error) => error.code(),
            Self::Supervisor(error) => error.code(),
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotInitialised | Self::NotConfigured | Self::Unsupported => ErrorClass::Permanent,
            Self::Busy { .. } => ErrorClass::Transient,
            Self::Security(error) => error.class(),
            Self::Supervisor(error) => error.class(),
        }
    }
}

/// A failed command as a page gets it: `{code, message, retryable, correlation_id}`.
///
/// **Invariant:** making one writes the log line that its correlation id finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError(ErrorReport);

impl CommandError {
    /// Gives what the page is told.
    #[must_use]
    pub const fn report(&self) -> &ErrorReport {
        &self.0
    }

    fn logged(error: &PluginError) -> Self {
        let report = ErrorReport::of(error, Uuid::now_v7());
        tracing::warn!(
            code = report.code,
            class = %error.class(),
            correlation_id = %report.correlation_id,
            error = ?error,
            "a page's command failed: {}", report.message
        );
        Self(report)
    }
}

impl<E: Into<PluginError>> From<E> for CommandError {
    fn from(error: E) -> Self {
        Self::logged(&error.into())
    }
}

impl Serialize for CommandError {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_failed_command_becomes_an_object_of_four_fields() {
        let json =
            serde_json::to_value(CommandError::from(PluginError::Busy { limit: 3 })).unwrap();
        let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["code", "correlation_id", "message", "retryable"]);
        assert_eq!(json["code"], "busy");
        assert_eq!(json["retryable"], true);
    }

    #[test]
    fn only_being_busy_is_worth_repeating_unchanged() {
        for (error, retryable) in [
            (PluginError::NotInitialised, false),
            (PluginError::NotConfigured, false),
            (PluginError::Unsupported, false),
            (PluginError::Busy { limit: 1 }, true),
            (SupervisorError::ShuttingDown.into(), false),
        ] {
            assert_eq!(error.class().retryable(), retryable, "{error}");
        }
    }

    #[test]
    fn the_log_line_of_a_failure_is_found_by_its_correlation_id() {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let error = tracing::subscriber::with_default(subscriber, || {
            CommandError::from(PluginError::NotInitialised)
        });
        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(log.contains(&error.report().correlation_id.to_string()), "{log}");
        assert!(log.contains("not_initialised"), "{log}");
    }

    #[test]
    fn two_failures_have_two_correlation_ids() {
        let one = CommandError::from(PluginError::NotInitialised);
        let other = CommandError::from(PluginError::NotInitialised);
        assert_ne!(one.report().correlation_id, other.report().correlation_id);
    }
}
